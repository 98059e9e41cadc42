"""Before the first step: what a later stage would fail on is refused, and what does nothing is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from joint_batch_cases import JOINT_BATCH_CASES, build_joint_batch_case
from reid_zoo.data.records import PersonDataset, PersonRecord
from reid_zoo.errors import ConfigurationError, RecipeError
from reid_zoo.training import build_model, list_recipes, load_recipe
from reid_zoo.training.arguments import ReIDTrainingArguments
from reid_zoo.training.preparation import check_precision, check_stages, settings_without_effect
from small_runs import SMALL_SIZES

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")
METHODS = {case.model_type: case for case in reversed(JOINT_BATCH_CASES) if case.fields.get("backbone") != "rn50"}
LORA = "optimization.lora={rank: 2}"


def records(split="train"):
    people = [person for person in range(3) for _ in range(2)]
    found = [PersonRecord(Path(f"{i}.png"), i, ("a person",), person_id=person) for i, person in enumerate(people)]
    return PersonDataset(found, name="people", split=split, root=Path())


def prompts_and_images(*overrides):
    """A small CLIP-ReID and its recipe."""
    resnet = any("rn50" in override for override in overrides)
    towers = [] if resnet else [f"model.vision_config={{{SMALL_SIZES}, patch_size: 8}}"]
    name = "clip_reid-tiny-rn50" if resnet else "clip_reid-tiny"
    recipe = load_recipe(name, [*towers, f"model.text_config={{{SMALL_SIZES}}}", "image_size=[32, 16]", *overrides])
    return build_model(recipe, records())[0], recipe


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["preset=tiny-rn50", "optimization.cached_gradients=2"], "cached_gradients cannot be used with CLIPResNet"),
        (
            ["preset=tiny-rn50", "optimization.gradient_checkpointing=true"],
            "optimization.gradient_checkpointing is true",
        ),
        (
            [
                "optimization.parameter_groups=[{name: a, pattern: nowhere, learning_rate: 1}, {name: b, learning_rate: 1}]"
            ],
            "parameter group 'a' .* matches no parameter",
        ),
        (["optimization.parameter_groups=[{name: a, pattern: bias, learning_rate: 1}]"], "no parameter group takes"),
        (["stage_one.parameter_groups=[{name: a, pattern: nowhere, learning_rate: 1}]"], "no parameter group takes"),
        (["optimization.lora={patterns: [nowhere]}"], "no linear layer .* has a name with nowhere"),
        (["stage_one.lora={rank: 2}"], "no linear layer that is trained in the towers"),
    ],
)
def test_mistakes_of_both_stages_are_found_before_the_first(overrides, message):
    model, recipe = prompts_and_images(*overrides)
    with pytest.raises((RecipeError, ConfigurationError), match=message) as caught:
        check_stages(model, recipe)
    assert "\n" not in str(caught.value)


def test_the_model_is_left_as_it_is():
    model, recipe = prompts_and_images(LORA, "optimization.cached_gradients=2")
    before = {name: (value, value.clone(), value.requires_grad) for name, value in model.named_parameters()}
    state = torch.get_rng_state()
    check_stages(model, recipe)
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(model.named_parameters()).keys() == before.keys()
    for name, value in model.named_parameters():
        same, values, trained = before[name]
        assert value is same
        assert torch.equal(value, values)
        assert value.requires_grad == trained
    assert model.training_stage == 2


def test_half_precision_needs_an_accelerator(tmp_path):
    surroundings = ReIDTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    for name, section in (("clip_reid-tiny", "stage_one"), ("irra-tiny", "optimization")):
        recipe = load_recipe(name, [f"{section}.fp16=true"])
        with pytest.raises(RecipeError, match=rf"{section}\.fp16 is true, but needs an accelerator"):
            check_precision(recipe, surroundings)
    check_precision(load_recipe("irra-tiny", ["optimization.bf16=true"]), surroundings)


PUBLISHED = [name for name in list_recipes() if "tiny" not in name and "linear-probe" not in name]


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_published_parameter_groups_can_be_used_with_adapters(method, lora, tmp_path):
    """Adapters leave no bias in a group of its own where all biases are in the towers."""
    model, _ = build_joint_batch_case(METHODS[method], tmp_path)
    if method == "clip_reid":
        model.set_training_stage(2)
    for name in PUBLISHED:
        if name.startswith(f"{method}-"):
            recipe = load_recipe(name, [LORA] if lora else [])
            check_stages(model, replace(recipe, stage_one=None) if model.config.num_training_stages < 2 else recipe)


def lines(name, *overrides, validation=None):
    return settings_without_effect(load_recipe(name, overrides), records(), validation)


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_of_the_package_have_no_setting_without_effect(name):
    assert lines(name, validation=records("val")) == []


@pytest.mark.parametrize(
    ("name", "overrides", "line"),
    [
        (
            "irra-tiny",
            ["every_epochs=1", "patience=2"],
            "people has no val split to evaluate on: recipe fields evaluation.every_epochs, evaluation.patience have no "
            "effect, the last model is kept.",
        ),
        (
            "irra-tiny",
            ["images_per_identity=2"],
            "recipe field sampler.images_per_identity has no effect with sampler.kind random.",
        ),
        (
            "clip_reid-tiny",
            ["optimization.drop_last=false"],
            "recipe field optimization.drop_last has no effect with sampler.kind identity, whose batches are all complete.",
        ),
        (
            "clip_reid-tiny",
            ["stage_one.cache_images=true"],
            "recipe field stage_one.cache_images has no effect: every image is read once.",
        ),
        (
            "clip_reid-tiny",
            ["caption_cleaning=both", "vocabulary_size=3000"],
            "recipe fields processor.caption_cleaning, processor.vocabulary_size have no effect: clip_reid is trained without "
            "captions.",
        ),
        (
            "clip_reid-tiny",
            ["word_dropout=0.1"],
            "recipe field caption_augmentation has no effect: clip_reid is trained without captions.",
        ),
        (
            "irra-cuhk-pedes",
            ["vocabulary_size=3000", "every_epochs=0", "select_best=false"],
            "recipe field processor.vocabulary_size has no effect: the tokenizer comes with the model.",
        ),
    ],
)
def test_what_has_no_effect_is_said(name, overrides, line):
    assert lines(name, *overrides) == [line]


def test_a_metric_without_selection_has_no_effect():
    assert lines("irra-tiny", "metric=mAP", validation=records("val")) == [
        "recipe field evaluation.metric has no effect without select_best or patience."
    ]
    assert lines("irra-tiny", "metric=mAP", "every_epochs=1", "patience=1", validation=records("val")) == []

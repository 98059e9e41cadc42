"""Every value of a recipe is checked when it is read: one line that names the field, its value and what is allowed."""

from __future__ import annotations

import dataclasses
import math
import typing

import pytest

from reid_zoo.data.transforms import CaptionAugmentation, ImageAugmentation
from reid_zoo.errors import ConfigurationError, RecipeError
from reid_zoo.training.optimization import LearningRateSchedule, ParameterGroup
from reid_zoo.training.parameter_efficient import LowRankSettings
from reid_zoo.training.recipe import (
    EvaluationSettings,
    LoggingSettings,
    ModelSettings,
    OptimizationSettings,
    ProcessorSettings,
    Recipe,
    SamplerSettings,
    load_recipe,
)

# Settings class → what has to be given.
SETTINGS: dict[type, dict] = {
    Recipe: {"name": "n", "description": "d", "method": "cfine"},
    ModelSettings: {},
    ProcessorSettings: {},
    ImageAugmentation: {},
    CaptionAugmentation: {},
    SamplerSettings: {},
    OptimizationSettings: {},
    ParameterGroup: {"name": "n", "learning_rate": 1.0},
    LearningRateSchedule: {},
    LowRankSettings: {},
    EvaluationSettings: {},
    LoggingSettings: {},
}


def parts(hint):
    """The types that a hint is made of, itself included."""
    yield hint
    for argument in typing.get_args(hint):
        yield from parts(argument)


def fields_with(*types):
    return [
        (kind, name)
        for kind in SETTINGS
        for name, hint in typing.get_type_hints(kind).items()
        if any(part in types for part in parts(hint))
    ]


def is_sequence(kind, name):
    return any(typing.get_origin(part) is tuple for part in parts(typing.get_type_hints(kind)[name]))


def filled(kind, name, value):
    """As many values as the field wants, all of them this one."""
    length = len(next((item.default for item in dataclasses.fields(kind) if item.name == name), None) or (0, 0, 0))
    return (value,) * (2 if name == "image_size" else length)


def build(kind, name, value):
    return kind(**{**SETTINGS[kind], name: value})


def test_all_settings_of_a_recipe_are_looked_at():
    found, waiting = set(), [Recipe]
    while waiting:
        kind = waiting.pop()
        found.add(kind)
        hints = typing.get_type_hints(kind).values()
        waiting += [part for hint in hints for part in parts(hint) if dataclasses.is_dataclass(part)]
    assert found == set(SETTINGS)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, "1", True])
@pytest.mark.parametrize(("kind", "name"), fields_with(int, float))
def test_no_numeric_field_takes_what_is_no_number_infinite_or_negative(kind, name, value):
    given = filled(kind, name, value) if is_sequence(kind, name) else value
    with pytest.raises((RecipeError, ConfigurationError), match=rf"{name}(\[0\])? is .*{value}.*, but must") as caught:
        build(kind, name, given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "name"), fields_with(int))
def test_numbers_that_count_are_whole(kind, name):
    with pytest.raises((RecipeError, ConfigurationError), match="must be of type int"):
        build(kind, name, filled(kind, name, 2.5) if is_sequence(kind, name) else 2.5)


@pytest.mark.parametrize(("kind", "name"), fields_with(str, bool, dict))
def test_other_fields_have_their_type(kind, name):
    with pytest.raises((RecipeError, ConfigurationError), match=f"{name} is 3, but must be"):
        build(kind, name, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_epochs=.inf", "optimization.num_epochs is inf, but must be above 0 and finite"),
        ("num_epochs=nan", "optimization.num_epochs is nan, but must be above 0"),
        ("num_epochs=0", "optimization.num_epochs is 0, but must be above 0"),
        ("stage_one={num_epochs: -1}", "stage_one.num_epochs is -1, but must be above 0"),
        ("gradient_accumulation_steps=0", "optimization.gradient_accumulation_steps is 0, but must be at least 1"),
        ("betas=[0.9]", "optimization.betas is [0.9], but must be two numbers"),
        ("betas=[2.0, 0.9]", "optimization.betas[0] is 2.0, but must be at least 0 and below 1"),
        ("evaluation.batch_size=0", "evaluation.batch_size is 0, but must be at least 1"),
        ("save_every_epochs=0", "evaluation.save_every_epochs is 0, but must be at least 1"),
        ("logging_steps=0", "optimization.logging_steps is 0, but must be at least 1"),
        ("seed=99999999999", "seed is 99999999999, but must lie between 0 and 4294967295"),
        ("image_mean=[0.5, 0.5]", "processor.image_mean is [0.5, 0.5], but must be three numbers: red, green, blue"),
        ("image_std=[0.5, 0, 0.5]", "processor.image_std[1] is 0, but must be above 0 and at most 1"),
        ("image_size=[48]", "processor.image_size is [48], but must be [height, width]"),
        ("optimization.schedule.warmup_epochs=-3", "optimization.schedule.warmup_epochs is -3, but must be at least 0"),
        ("optimization.lora={alpha: -3}", "optimization.lora.alpha is -3, but must be above 0"),
        ("optimization.lora={dropout: 1.0}", "optimization.lora.dropout is 1.0, but must be at least 0 and below 1"),
        (
            "optimization.lora={patterns: [fc, '(']}",
            "optimization.lora.patterns[1] is '(', but must be a regular expression (missing )",
        ),
        (
            "parameter_groups=[{name: a, learning_rate: 1}, {name: b, pattern: '*', learning_rate: 1}]",
            "optimization.parameter_groups[1].pattern is '*', but must be a regular expression (nothing to repeat",
        ),
        (
            "parameter_groups=[{name: a, learning_rate: -1}]",
            "optimization.parameter_groups[0].learning_rate is -1, but must be at least 0",
        ),
        (
            "parameter_groups=[{name: a, pattern: x, learning_rate: 1}, {name: a, learning_rate: 1}]",
            "parameter_groups holds two groups called 'a', but every name must be its own",
        ),
        ("parameter_groups=[]", "parameter_groups is empty, but must hold at least one group"),
        ("optimization={bf16: true, fp16: true}", "bf16 and fp16 are both true, but only one of them may be"),
        ("erase_ratio=[0.3, .inf]", "augmentation.erase_ratio[1] is inf, but must be above 0 and finite"),
        ("caption_cleaning=some", "processor.caption_cleaning is 'some', but must be one of 'none', 'eval', 'both'"),
        ("optimization.lora={rank: 2, rank: 3}", "the value is not valid YAML: 'rank' stands twice in one mapping"),
    ],
)
def test_a_bad_value_is_named_with_its_place_and_what_is_allowed(override, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe("cfine-tiny", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_at_the_edge_are_allowed():
    recipe = load_recipe(
        "cfine-tiny",
        ["seed=4294967295", "num_epochs=0.1", "eps=0", "num_workers=0", "betas=[0, 0.999]", "crop_padding=0"],
    )
    assert recipe.optimization.betas == (0, 0.999)
    assert dataclasses.replace(recipe, seed=0).seed == 0
    with pytest.raises(RecipeError, match="seed is -1"):
        dataclasses.replace(recipe, seed=-1)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: m\xfcde\n")
    with pytest.raises(RecipeError, match=r"cannot read recipe .*mine\.yaml, which must be a file in UTF-8") as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_key_that_stands_twice_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: m\ndescription: d\nmethod: cfine\noptimization: {eps: 1, eps: 2}\n")
    with pytest.raises(RecipeError, match="'eps' stands twice in one mapping"):
        load_recipe(path)
    path.write_text(
        "name: m\ndescription: d\nmethod: cfine\n"
        "stage_one: &one {num_epochs: 1, batch_size: 8}\noptimization: {<<: *one, num_epochs: 2}\n"
    )
    recipe = load_recipe(path)  # what YAML merges may be changed
    assert (recipe.optimization.num_epochs, recipe.optimization.batch_size) == (2, 8)

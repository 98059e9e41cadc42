"""Every small recipe of the package trains, and what it leaves loads again; shrunken here, full size in docs/measurements.md."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import BertConfig

from reid_zoo import ReIDModel, ReIDProcessor
from reid_zoo.data import load_dataset
from reid_zoo.encoding import PersonEncoder
from reid_zoo.errors import RecipeError
from reid_zoo.evaluation import evaluate_model
from reid_zoo.models.processor_defaults import CLIP_PIXELS
from reid_zoo.models.registry import METHODS, get_method
from reid_zoo.training import build_model, list_recipes, load_recipe, train
from reid_zoo.training.image_evaluation import evaluate_images
from small_runs import SMALL_SIZES, SMALL_TOWERS
from tiny_models import draw_people

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")  # a dozen captions make a small vocabulary

ALL_TINY = [name for name in list_recipes() if "-tiny" in name]
TINY = [name for name in ALL_TINY if get_method(load_recipe(name).method).model_class.supports_text]
IMAGES_ONLY = [name for name in ALL_TINY if name not in TINY]
SMALL = [
    *SMALL_TOWERS,
    "image_size=[48, 32]",
    "optimization.num_epochs=2",
    "optimization.batch_size=4",
    "optimization.logging_steps=1",
]
FROZEN = ["model.config={training: zero_shot}"]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Three people to train on (6 images, 12 captions), one to validate, two to test."""
    return draw_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def records(people):
    return load_dataset("cuhk-pedes", people, "train")


@pytest.mark.parametrize("name", TINY)
def test_it_trains_and_loads_again(people, tmp_path, name):
    lines: list[str] = []
    summary = train(
        load_recipe(name, SMALL), data_root=people, output_dir=tmp_path / "m", progress=False, log=lines.append
    )
    assert summary.steps == 6
    assert len([line for line in lines if "loss" in line]) == 6
    model, processor = ReIDModel.from_pretrained(tmp_path / "m"), ReIDProcessor.from_pretrained(tmp_path / "m")
    assert model.config.model_type == load_recipe(name).method
    validation = load_dataset("cuhk-pedes", people, "val")
    again = evaluate_model(PersonEncoder(model, processor), validation, progress=False).as_dict()
    assert again == pytest.approx(summary.metrics)


@pytest.mark.parametrize("name", TINY)
def test_the_preset_of_the_recipe_reaches_the_model(records, name):
    recipe = load_recipe(name)
    model, processor = build_model(recipe, records)
    assert model.config.vision_config.position_initializer_range == 0.5
    # 49 × 128 draws: the sample deviation is within 4 % of the true one
    assert model.vision_tower.embeddings.position_embedding.std().item() == pytest.approx(0.5, rel=0.04)
    assert processor.image_size == (96, 32) == tuple(model.config.vision_config.image_size)
    for field, value in recipe.model.config.items():
        assert getattr(model.config, field) == value


@pytest.mark.parametrize(
    ("name", "overrides"), [*((name, []) for name in TINY), ("dual_encoder-tiny", ["preset=tiny-bert"])]
)
def test_the_tokenizer_is_the_one_of_the_text_tower(records, name, overrides):
    model, processor = build_model(load_recipe(name, overrides), records)
    reads_wordpieces = isinstance(model.config.text_config, BertConfig)
    assert reads_wordpieces == (name == "cfine-tiny" or bool(overrides))
    ids = processor(text="A woman wears a red coat.")["input_ids"][0]
    vocabulary = model.config.text_config.vocab_size
    assert len(processor.tokenizer) == vocabulary
    assert processor.max_text_length == model.config.max_text_length
    if reads_wordpieces:
        assert processor.tokenizer.convert_ids_to_tokens(ids[:2].tolist()) == ["[CLS]", "a"]
        assert model.config.text_config.pad_token_id == processor.padding_id
    else:
        assert ids[0] == vocabulary - 2
        assert ids.max() == vocabulary - 1
        has_word_mask = "<|mask|>" in processor.tokenizer.get_vocab()
        assert has_word_mask == (model.config.model_type in ("irra", "vfe_tps"))
        assert not has_word_mask or model.config.mask_token_id == vocabulary - 3


def test_bert_is_trained_with_word_pieces(people, tmp_path):
    recipe = load_recipe("dual_encoder-tiny", [*SMALL, "preset=tiny-bert"])
    summary = train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False)
    assert summary.steps == 6
    model = ReIDModel.from_pretrained(tmp_path / "m")
    assert model.config.text_encoder == "bert"
    assert model.text_tower.config.hidden_size == 16


def test_only_the_probes_of_a_linear_probe_change(people, records, tmp_path):
    recipe = load_recipe("dual_encoder-tiny", [*SMALL, "model.config={training: linear_probe, loss_terms: [itc]}"])
    torch.manual_seed(recipe.seed)
    before = build_model(recipe, records)[0].dual_encoder.state_dict()
    train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False)
    after = ReIDModel.from_pretrained(tmp_path / "m").state_dict()
    probes = {f"{name}_probe.{part}" for name in ("image", "text") for part in ("weight", "bias")}
    assert {name for name in after if not torch.equal(after[name], before[name])} == probes


def test_a_recipe_that_trains_nothing_is_refused(records):
    with pytest.raises(RecipeError, match="dual_encoder has nothing to train"):
        build_model(load_recipe("dual_encoder-tiny", FROZEN), records)


def test_every_method_has_a_small_recipe():
    assert {name.removesuffix("-tiny") for name in ALL_TINY if name.endswith("-tiny")} == set(METHODS)


@pytest.mark.parametrize("name", IMAGES_ONLY)
def test_a_method_for_images_alone_trains_on_the_same_data(people, tmp_path, name):
    recipe = load_recipe(
        name,
        [
            f"model.text_config={{{SMALL_SIZES}}}",
            "optimization.num_epochs=1",
            "optimization.batch_size=4",
            "stage_one.num_epochs=1",
            "evaluation.split=test",
        ],
    )
    summary = train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False)
    assert (summary.steps, summary.stage_one_steps) == (1, 1)
    model, processor = ReIDModel.from_pretrained(tmp_path / "m"), ReIDProcessor.from_pretrained(tmp_path / "m")
    assert processor.image_size == (96, 32) == tuple(model.config.vision_config.image_size)
    test = load_dataset("cuhk-pedes", people, "test")
    again = evaluate_images(PersonEncoder(model, processor), test, progress=False).as_dict()
    assert again == pytest.approx(summary.metrics)


def test_the_stored_recipe_is_complete(people, tmp_path):
    recipe = load_recipe("mgcc-tiny", SMALL)
    assert recipe.processor.image_mean is None
    train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False)
    (tmp_path / "recipe.yaml").write_text((tmp_path / "m" / "recipe.yaml").read_text())
    stored = load_recipe(tmp_path / "recipe.yaml")
    assert stored.processor.image_mean == (0.5, 0.5, 0.5)  # MGCC spec, section 8
    assert (stored.processor.interpolation, stored.processor.caption_cleaning) == ("bicubic", "eval")
    assert stored.processor.truncation_keeps_sep is True
    assert None not in dataclasses.asdict(stored.processor).values()


def test_what_a_recipe_says_of_the_processor_goes_first(records):
    overrides = ["image_mean=[0.1, 0.2, 0.3]", "interpolation=bicubic", "caption_cleaning=both", "image_size=[48, 32]"]
    _, processor = build_model(load_recipe("irra-tiny", overrides), records)
    assert list(processor.image_processor.image_mean) == [0.1, 0.2, 0.3]
    assert processor.image_processor.image_std == CLIP_PIXELS.std
    assert processor.image_processor.resample == Image.Resampling.BICUBIC
    assert processor.caption_cleaning == "both"


def test_numbers_of_people_and_words_that_are_too_small_are_refused(records):
    three_people = ["model.config={num_classes: 2}"]
    with pytest.raises(RecipeError, match=r"model\.config\.num_classes is 2, but must be at least 3 for cuhk-pedes"):
        build_model(load_recipe("irra-tiny", three_people), records)
    model, _ = build_model(load_recipe("irra-tiny", ["model.config={num_classes: 4}"]), records)
    assert model.config.num_classes == 4
    for name, smallest in (("irra-tiny", 515), ("mgcc-tiny", 514), ("cfine-tiny", 85)):
        with pytest.raises(RecipeError, match=rf"processor\.vocabulary_size is 3, but must be at least {smallest}"):
            build_model(load_recipe(name, ["vocabulary_size=3"]), records)


def test_workers_change_nothing(people, tmp_path):
    """Order and augmentation of an item do not depend on who prepares it."""
    weights = []
    for workers in (0, 2):
        output = tmp_path / str(workers)
        recipe = load_recipe("dual_encoder-tiny", [*SMALL, f"num_workers={workers}"])
        train(recipe, data_root=people, output_dir=output, progress=False)
        weights.append(load_file(output / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_incomplete_batch_is_used_if_the_recipe_says_so(people, tmp_path):
    recipe = load_recipe("dual_encoder-tiny", [*SMALL, "optimization.batch_size=5", "drop_last=false"])
    summary = train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False)
    assert summary.steps == 2 * 3  # 12 pairs: 5, 5 and 2


def test_captions_may_be_drawn_by_identity(people, tmp_path):
    overrides = [*SMALL, "sampler.kind=identity", "sampler.images_per_identity=2"]
    lines: list[str] = []
    recipe = load_recipe("irra-tiny", overrides)
    summary = train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False, log=lines.append)
    # 3 people with 2 groups of 2 pairs each: two or three batches of two people per pass
    assert 4 <= summary.steps <= 6
    assert summary.epochs == 2

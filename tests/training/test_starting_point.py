"""Fine-tuning: a recipe that starts from a trained model takes what fits, says what it did not, and refuses the rest."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file

from reid_zoo import ReIDModel, ReIDProcessor
from reid_zoo.clip_tokenizer import clip_tokenizer
from reid_zoo.data import load_dataset
from reid_zoo.errors import CheckpointError, RecipeError
from reid_zoo.models.encoders.position_grid import resample_position_grid
from reid_zoo.models.registry import get_method
from reid_zoo.training import build_model, load_recipe, train
from small_runs import SMALL_SIZES, interrupted_at
from tiny_models import draw_people

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")  # a dozen captions make a small vocabulary

_VISION = f"model.vision_config={{{SMALL_SIZES}, patch_size: 8}}"
_TEXT = f"model.text_config={{{SMALL_SIZES}, max_position_embeddings: 64}}"
SHORT = ["optimization.num_epochs=1", "optimization.batch_size=4"]
SMALL = [_VISION, _TEXT, "image_size=[48, 32]", *SHORT]
CLIP_TEXT = ["vfe_tps", "mgcc", "dual_encoder"]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Three people to train on (6 images, 12 captions), one to validate, two to test."""
    return draw_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Five other people to train on."""
    root = draw_people(tmp_path_factory.mktemp("others"), 8, seed=5)
    return load_dataset("cuhk-pedes", root, "train")


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    """A folder per model type; made when asked for."""
    folders = {}

    def folder(method: str):
        if method not in folders:
            place = tmp_path_factory.mktemp(method) / "model"
            train(load_recipe(f"{method}-tiny", SMALL), data_root=people, output_dir=place, progress=False)
            folders[method] = place
        return folders[method]

    return folder


def start(method: str, source, *overrides: str):
    """The small recipe of a method without tower sizes of its own, and where it starts."""
    plain = ["model.vision_config={}", "model.text_config={}", "model.preset=tiny", "image_size=null", *SHORT]
    return load_recipe(f"{method}-tiny", [*plain, f"model.start_from={source}", *overrides])


def tower_weights(model, names=("vision_model.", "text_model.")):
    prefix = f"{model.base_model_prefix}."
    weights = {name.removeprefix(prefix): value for name, value in model.state_dict().items()}
    return {name: value for name, value in weights.items() if name.startswith(names)}


@pytest.mark.parametrize("method", ["cfine", "irra", "vfe_tps", "mgcc", "dual_encoder", "clip_reid"])
def test_the_same_method_goes_on_with_every_weight_but_those_of_the_identities(trained, others, method):
    source = trained(method)
    lines: list[str] = []
    model, processor = build_model(start(method, source), others, lines.append)
    before, after = load_file(source / "model.safetensors"), model.state_dict()
    changed = {name for name, value in after.items() if name in before and not torch.equal(value, before[name])}
    assert not changed - {name for name in changed if after[name].shape != before[name].shape}
    assert all(5 in after[name].shape for name in changed)  # per identity: there are other ones now
    assert len(lines) == 1
    assert lines[0].startswith(f"started from {source}; ")
    assert processor.image_size == (48, 32)
    if processor.tokenizer is not None:
        assert processor.tokenizer.get_vocab() == ReIDProcessor.from_pretrained(source).tokenizer.get_vocab()


@pytest.mark.parametrize("method", CLIP_TEXT)
def test_another_method_takes_the_towers_and_the_words(trained, others, method):
    source = trained("irra")
    lines: list[str] = []
    model, processor = build_model(start(method, source), others, lines.append)
    given, taken = tower_weights(ReIDModel.from_pretrained(source)), tower_weights(model)
    assert given.keys() == taken.keys()
    assert all(torch.equal(taken[name], given[name]) for name in given)
    assert processor.tokenizer.get_vocab() == ReIDProcessor.from_pretrained(source).tokenizer.get_vocab()
    left = {
        "vfe_tps": "newly initialised: masked_image_modeling.",
        "mgcc": "newly initialised: fusion, text_projection.",  # MGCC's projection has a layer norm and a bias
        "dual_encoder": "every weight was taken.",
    }
    assert lines == [f"started from {source}; {left[method]}"]


def test_a_method_for_images_takes_the_image_tower_alone(trained, others):
    source = trained("irra")
    lines: list[str] = []
    model, processor = build_model(start("clip_reid", source), others, lines.append)
    given = tower_weights(ReIDModel.from_pretrained(source), ("vision_model.",))
    taken = tower_weights(model, ("vision_model.",))
    assert all(torch.equal(taken[name], given[name]) for name in given)
    assert processor.tokenizer is None
    assert "text_model" in lines[0]


def test_what_the_recipe_says_of_size_and_pixels_goes_first_and_the_grid_follows(trained, others):
    source = trained("irra")
    recipe = start("irra", source, "image_size=[64, 32]", "processor.image_mean=[0.1, 0.2, 0.3]")
    model, processor = build_model(recipe, others)
    assert processor.image_size == (64, 32) == tuple(model.config.vision_config.image_size)
    assert processor.image_processor.image_mean == (0.1, 0.2, 0.3)
    inherited = ReIDProcessor.from_pretrained(source).image_processor
    assert processor.image_processor.image_std == inherited.image_std
    expected = ReIDModel.from_pretrained(source)
    expected.resize_image_grid((64, 32))
    given, taken = tower_weights(expected), tower_weights(model)
    assert all(torch.equal(taken[name], given[name]) for name in given)


@pytest.mark.parametrize("stride", [4, 16])
def test_patches_may_overlap_or_leave_gaps(trained, others, stride):
    source = trained("clip_reid")
    model, _ = build_model(start("clip_reid", source, f"model.vision_config={{patch_stride: {stride}}}"), others)
    rows, columns = (48 - 8) // stride + 1, (32 - 8) // stride + 1
    given = tower_weights(ReIDModel.from_pretrained(source))["vision_model.embeddings.position_embedding"]
    taken = tower_weights(model)["vision_model.embeddings.position_embedding"]
    expected = resample_position_grid(given, (6, 4), (rows, columns), align_corners=False)
    assert torch.equal(taken, expected)


def test_a_model_saved_for_inference_gives_no_heads(trained, others, tmp_path):
    source = trained("irra")
    ReIDModel.from_pretrained(source).save_pretrained(tmp_path / "bare")
    ReIDProcessor.from_pretrained(source).save_pretrained(tmp_path / "bare")
    lines: list[str] = []
    build_model(start("irra", tmp_path / "bare"), others, lines.append)
    assert lines[0].endswith("newly initialised: identity_loss, implicit_relation_reasoning.")


def test_prompts_get_the_text_tower_where_the_words_are_those_of_clip(others, tmp_path):
    """CLIP-ReID reads no sentences, but learns prompts with CLIP's text tower."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = get_method("irra").config_class.from_preset(
        "tiny",
        vision_config={**sizes, "image_size": [48, 32]},
        text_config={**sizes, "vocab_size": 49408, "max_position_embeddings": 77},
    )
    source = get_method("irra").model_class(config)
    source.save_pretrained(tmp_path)
    ReIDProcessor.build(clip_tokenizer(mask_token=True), image_size=(48, 32)).save_pretrained(tmp_path)
    lines: list[str] = []
    model, _ = build_model(start("clip_reid", tmp_path), others, lines.append)
    given = tower_weights(source, ("text_model.",))
    for name, value in tower_weights(model, ("text_model.",)).items():
        assert torch.equal(value, given[name])
    assert torch.equal(model.text_projection.weight, source.text_projection.weight)
    fixed_words = given["text_model.token_embedding.weight"][[49406, 320, 1125, 539, 320]]
    assert torch.equal(model.prompt_learner.token_prefix[0], fixed_words)
    assert lines[0].endswith(
        "newly initialised: bottleneck, bottleneck_proj, classifier, classifier_proj, prompt_learner."
    )


def test_a_field_that_has_no_weights_may_change(trained, others):
    model, _ = build_model(start("irra", trained("irra"), "model.vision_config={attention_dropout: 0.3}"), others)
    assert model.config.vision_config.attention_dropout == 0.3


def test_a_run_trains_from_there_is_complete_on_disk_and_goes_on_without_it(trained, people, tmp_path):
    source = shutil.copytree(trained("irra"), tmp_path / "source")
    recipe = start("vfe_tps", source, "optimization.num_epochs=2", "evaluation.save_every_epochs=1")
    summary = train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False)
    stored = load_recipe(tmp_path / "m" / "recipe.yaml")
    assert stored.model.start_from == str(source)
    assert stored.processor.image_size == (48, 32)
    last = load_file(tmp_path / "m" / "model.safetensors")
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "m" / name).unlink()
    (tmp_path / "m" / f"checkpoint-{summary.steps}" / "model.safetensors").unlink()  # as if killed in the second epoch
    shutil.rmtree(source)
    with pytest.warns(UserWarning, match="is passed over"):
        again = train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False)
    assert again.resumed_from == tmp_path / "m" / f"checkpoint-{summary.steps // 2}"
    resumed = load_file(tmp_path / "m" / "model.safetensors")
    assert all(torch.equal(last[name], resumed[name]) for name in last)


def interrupt(monkeypatch, recipe, people, output, step):
    with interrupted_at(monkeypatch, step):
        train(recipe, data_root=people, output_dir=output, progress=False)


@pytest.mark.parametrize(
    ("method", "overrides", "step"),
    [
        ("clip_reid", ["stage_one.ema_decay=0.5"], 3),  # four steps of the first stage, two of the second
        ("clip_reid", ["stage_one.ema_decay=0.5"], 5),
        ("clip_reid", ["stage_one.ema_decay=0.5"], 6),
        ("dual_encoder", ["optimization.lora={rank: 2}"], 5),
    ],
)
def test_the_starting_point_is_needed_once(trained, people, tmp_path, monkeypatch, method, overrides, step):
    source = shutil.copytree(trained(method), tmp_path / "source")
    more = [*overrides, "evaluation.save_every_steps=1", "optimization.num_epochs=2"]
    more += ["stage_one.num_epochs=2", "stage_one.batch_size=4"] if method == "clip_reid" else []
    recipe = start(method, source, *more)
    straight = train(recipe, data_root=people, output_dir=tmp_path / "straight", progress=False)
    assert (straight.stage_one_steps, straight.steps) == ((4, 2) if method == "clip_reid" else (None, 6))
    interrupt(monkeypatch, recipe, people, tmp_path / "m", step)
    shutil.rmtree(source)
    lines: list[str] = []
    train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False, log=lines.append)
    assert not any("started from" in line for line in lines)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "m"))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_other_people_do_not_fit_what_a_run_stored(trained, people, others, tmp_path):
    recipe = start("irra", trained("irra"), "evaluation.save_every_epochs=1")
    train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False)
    (tmp_path / "m" / "training_records.json").unlink()  # as in a run of an older version
    with pytest.raises(RecipeError, match="was trained with num_classes 3, but the training records make it 5"):
        train(recipe, data_root=others.root, output_dir=tmp_path / "m", progress=False)


def test_towers_that_the_recipe_names_are_not_loaded_and_that_is_said(trained, others):
    lines: list[str] = []
    towers = ["model.image_tower=/nowhere/image", "model.text_tower=/nowhere/text"]
    build_model(start("cfine", trained("cfine"), *towers), others, lines.append)
    assert "not from the recipe's image_tower and text_tower" in lines[0]


@pytest.mark.parametrize(
    ("method", "source", "overrides", "message"),
    [
        ("irra", "cfine", [], "whose text_config is a BertConfig, but irra needs a"),
        ("irra", "clip_reid", [], "reads no sentences"),
        ("irra", "mgcc", [], "has no mask token, which irra needs"),
        ("irra", "irra", ["model.vision_config={hidden_size: 32}"], "leave the sizes in model.vision_config out"),
        ("irra", "irra", ["model.text_config={num_hidden_layers: 2}"], "leave the sizes in model.text_config out"),
        ("irra", "irra", ["model.vision_config={hiden_size: 32}"], "hidden_size"),
    ],
)
def test_what_does_not_fit_is_refused(trained, others, method, source, overrides, message):
    with pytest.raises((RecipeError, ValueError), match=message):
        build_model(start(method, trained(source), *overrides), others)


def test_a_folder_without_a_model_is_named(others, tmp_path):
    with pytest.raises(CheckpointError, match="nothing-here"):
        build_model(start("irra", tmp_path / "nothing-here"), others)
    with pytest.raises(CheckpointError, match="there is no such folder"):
        build_model(start("irra", "runs/nothing-here"), others)

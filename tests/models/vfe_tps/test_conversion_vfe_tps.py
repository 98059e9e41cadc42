"""Reading official VFE-TPS checkpoints in every wrapping, the towers of IRRA, and refusing everything else."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reid_zoo import ReIDModel
from reid_zoo.conversion import convert_official_checkpoint, recognise_method
from reid_zoo.errors import CheckpointError, ConfigurationError
from reid_zoo.models.vfe_tps.modeling_vfe_tps import VFETPSForTraining
from tiny_clip_models import same_weights

torch.set_num_threads(1)
CASES = Path(__file__).parents[2] / "golden" / "cases"
CASE = CASES / "vfe_tps" / "case_a"
IMAGE_SIZE = [96, 32]  # 12 × 4 patches: not the released grid, so it must be given
SIZE = {"image_size": IMAGE_SIZE, "mask_patch_size": 16}
JOINT = ("gToken2id.weight", "gToken2id.bias")  # an option of the release that its default does not use


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    """As released by default: image classifier, masked images reconstructed from themselves."""
    assert json.loads((CASE / "config.json").read_text())["image_size"] == IMAGE_SIZE
    state = load_file(CASE / "checkpoint.safetensors")
    return {key: value for key, value in state.items() if key not in JOINT}


def without(state: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


def converted(content, **fields):
    return convert_official_checkpoint("vfe_tps", content, return_report=True, **{**SIZE, **fields})


@pytest.mark.parametrize("kind", ["wrapped", "wrapped_with_prefix", "bare", "safetensors", "dictionary"])
def test_every_wrapping_gives_the_same_model(official, tmp_path, kind):
    reference, _ = converted(official)
    prefixed = {f"module.{key}": value for key, value in official.items()}
    file = tmp_path / "best.pth"
    if kind == "wrapped":  # the release's own file
        torch.save({"model": official, "optimizer": {"state": {}}, "scheduler": {}, "num_epoch": 60, "epoch": 51}, file)
    elif kind == "wrapped_with_prefix":
        torch.save({"model": prefixed, "epoch": 51}, file)
    elif kind == "bare":
        torch.save(prefixed, file)
    elif kind == "safetensors":
        file = tmp_path / "best.safetensors"
        save_file(official, file)
    model, report = converted(official if kind == "dictionary" else file)
    assert type(model) is VFETPSForTraining
    assert same_weights(reference, model)
    assert not model.training
    assert report.newly_initialised == []
    assert report.num_converted == len(official)
    if kind == "wrapped":
        assert report.left_out.keys() == {"optimizer", "scheduler", "num_epoch", "epoch"}
    assert report.lines()[0] == f"vfe_tps: {len(official)} official tensors converted"


def test_sizes_and_the_releases_terms_are_inferred(official):
    config = converted(official)[0].config
    assert (config.projection_dim, config.num_classes, config.cross_modal_num_layers) == (64, 6, 2)
    assert (config.text_config.vocab_size, config.text_config.max_position_embeddings) == (96, 20)
    assert config.vision_config.patch_size == 8
    assert (config.loss_terms, config.mim_guidance) == (["matching", "gi2id", "mim"], "image")


def test_a_checkpoint_of_the_papers_terms(official):
    """Without a classifier it cannot have been trained as released: the paper's form is taken."""
    model, report = converted(without(official, "classifier."))
    assert (model.config.loss_terms, model.config.mim_guidance) == (["matching", "gvfc", "mim"], "text")
    assert report.left_out == {}
    assert report.newly_initialised == []


def test_the_joint_classifier_is_recognised(official):
    whole = load_file(CASE / "checkpoint.safetensors")
    model, _ = converted(whole)
    assert model.config.loss_terms == ["matching", "gi2id", "g2id", "mim"]
    assert torch.equal(model.joint_identity_loss.classifier.weight, whole["gToken2id.weight"])


def test_what_shapes_do_not_tell_is_asked_for_by_name(official):
    with pytest.raises(
        CheckpointError, match=r"does not tell its image size \(it has 48 patches of 8 pixels\)"
    ) as caught:
        convert_official_checkpoint("vfe_tps", official)
    assert "image_size=[height, width]" in str(caught.value)
    with pytest.raises(ConfigurationError, match="mask_patch_size is 20"):
        converted(official, mask_patch_size=20)


def test_overlapping_patches_need_their_stride():
    folder = next(path for path in CASES.glob("irra/*") if (path / "config.json").is_file())
    towers = {
        key: value for key, value in load_file(folder / "checkpoint.safetensors").items() if key.startswith("base_")
    }
    rows, columns = (96 - 8) // 4 + 1, (32 - 8) // 4 + 1
    towers["base_model.visual.positional_embedding"] = torch.zeros(1 + rows * columns, 64)
    with pytest.raises(CheckpointError, match="stride_size if patches overlap"):
        convert_official_checkpoint("vfe_tps", towers)
    model = convert_official_checkpoint("vfe_tps", towers, image_size=[96, 32], stride_size=4)
    assert model.config.vision_config.grid_size == (rows, columns)


def test_half_precision_becomes_float32_and_is_reported(official):
    half = {
        key: value.half() if value.ndim > 1 and "embedding" not in key else value for key, value in official.items()
    }
    model, report = converted(half)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert set(report.upcast) == {key for key, value in half.items() if value.dtype == torch.float16}
    assert any("half precision" in line for line in report.lines())


def test_leftovers_of_clip_are_left_out_and_named(official):
    leftovers = {
        "base_model.logit_scale": torch.tensor(4.6),
        "base_model.input_resolution": torch.tensor(224),
        "base_model.context_length": torch.tensor(77),
        "base_model.vocab_size": torch.tensor(49408),
    }
    model, report = converted(official | leftovers)
    assert same_weights(model, converted(official)[0])
    assert report.left_out.keys() == leftovers.keys()


@pytest.mark.parametrize(
    ("fields", "prefixes", "reason"),
    [
        ({"loss_terms": ["matching", "gvfc", "mim"]}, ("classifier.",), "no identity loss"),
        (
            {"loss_terms": ["matching", "gi2id"]},
            ("mask_token", "decoder.", "image_ln_", "cross_"),
            "no masked image modelling",
        ),
        ({"mim_guidance": "none"}, ("image_ln_", "cross_"), "no cross-modal encoder"),
        ({"mask_mode": "zero_pixels"}, ("mask_token",), "no mask token"),
    ],
)
def test_what_the_configuration_has_no_use_for_is_left_out_and_named(official, fields, prefixes, reason):
    _, report = converted(official, **fields)
    assert report.left_out.keys() == {key for key in official if key.startswith(prefixes)}
    assert all(reason in why for why in report.left_out.values())
    assert report.newly_initialised == []
    assert report.num_converted == len(official) - len(report.left_out)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("base_model.visual.ln_post.weight", "vision_model.post_layernorm.weight"),
        ("base_model.transformer.resblocks.1.mlp.c_proj.bias", "layers.1.mlp.fc2.bias"),
        # what sizes are read from
        ("base_model.visual.conv1.weight", "patch_embedding.weight"),
        ("base_model.token_embedding.weight", "token_embedding.weight"),
        ("base_model.text_projection", "base_model.text_projection"),
    ],
)
def test_a_missing_key_is_named(official, missing, named):
    with pytest.raises(CheckpointError, match=f"lacks .*{re.escape(named)}"):
        converted({key: value for key, value in official.items() if key != missing})


@pytest.mark.parametrize("unexpected", ["adapter.weight", "decoder.1.weight", "base_model.visual.adapter.weight"])
def test_an_unexpected_key_is_named(official, unexpected):
    with pytest.raises(CheckpointError, match=unexpected.removeprefix("base_model.visual.")):
        converted(official | {unexpected: torch.zeros(2)})


def test_a_field_that_contradicts_the_weights(official):
    with pytest.raises(CheckpointError, match=r"position_embedding has shape \(49, 64\)"):
        converted(official, image_size=[128, 32])
    with pytest.raises(ConfigurationError, match="did you mean 'mim_guidance'"):
        converted(official, mim_guidnce="text")


def test_vfe_tps_is_recognised(official):
    assert recognise_method(official) == "vfe_tps"
    assert recognise_method({"model": {f"module.{key}": value for key, value in official.items()}}) == "vfe_tps"


def test_a_checkpoint_of_irra_is_recognised_and_its_towers_are_welcome(official):
    """IRRA's own heads tell it apart; towers alone are those of the whole family, in both directions."""
    irra = load_file(CASES / "irra" / "case_a" / "checkpoint.safetensors")
    with pytest.raises(CheckpointError, match=r"official vfe_tps checkpoint, but looks like an? irra checkpoint"):
        converted(irra)
    with pytest.raises(CheckpointError, match="official irra checkpoint, but looks like a vfe_tps checkpoint"):
        convert_official_checkpoint("irra", official, image_size=IMAGE_SIZE)
    for state in (irra, official):
        towers = {key: value for key, value in state.items() if key.startswith("base_model.")}
        ours, report = converted(towers)
        assert ours.config.loss_terms == ["matching", "gvfc"]
        assert (report.newly_initialised, report.left_out) == ([], {})
        theirs = convert_official_checkpoint("irra", towers, image_size=IMAGE_SIZE)
        assert same_weights(ours.vfe_tps, theirs.irra)


@pytest.mark.parametrize(
    ("keys", "described"),
    [
        (["language_model.textExtractor.pooler.dense.bias"], "looks like a cfine checkpoint"),
        (["visual.conv1.weight", "token_embedding.weight"], "looks like a dual_encoder checkpoint"),  # CLIP itself
        (["conv1.weight", "fc.weight"], "does not look like one"),
        ([], "does not look like one"),
    ],
)
def test_a_checkpoint_of_something_else(keys, described, tmp_path):
    torch.save({"model": {key: torch.zeros(2, 2) for key in keys}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=rf"other\.pth should be an official vfe_tps checkpoint, but {described}"):
        converted(tmp_path / "other.pth")


class _Executes:
    def __reduce__(self):
        return exec, ("raise SystemExit('code in the checkpoint was executed')",)


def test_a_pickle_that_would_execute_code_is_refused(official, tmp_path):
    torch.save({"model": official, "scheduler": _Executes()}, tmp_path / "evil.pth")
    (tmp_path / "evil.pkl.pth").write_bytes(pickle.dumps({"model": _Executes()}))
    for file in ("evil.pth", "evil.pkl.pth"):
        with pytest.raises(CheckpointError, match=f"{file} cannot be read"):
            converted(tmp_path / file)


@torch.no_grad()
def test_a_converted_model_can_be_saved_and_loaded(official, tmp_path):
    model, _ = converted(official)
    model.save_pretrained(tmp_path)
    assert same_weights(model.vfe_tps, ReIDModel.from_pretrained(tmp_path))

"""Reading official IRRA checkpoints in every wrapping, and refusing everything else."""

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
from reid_zoo.models.irra.modeling_irra import IRRAForTraining
from tiny_clip_models import same_weights

torch.set_num_threads(1)
CASE = Path(__file__).parents[2] / "golden" / "cases" / "irra" / "case_a"
IMAGE_SIZE = [96, 32]  # 12 × 4 patches: not the released grid, so it must be given
SIZE = {"image_size": IMAGE_SIZE}


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    assert json.loads((CASE / "config.json").read_text())["image_size"] == IMAGE_SIZE
    return load_file(CASE / "checkpoint.safetensors")


def converted(content, **fields):
    return convert_official_checkpoint("irra", content, return_report=True, **{**SIZE, **fields})


@pytest.mark.parametrize("kind", ["wrapped", "wrapped_with_prefix", "bare", "safetensors", "dictionary"])
def test_every_wrapping_gives_the_same_model(official, tmp_path, kind):
    reference, _ = converted(official)
    prefixed = {f"module.{key}": value for key, value in official.items()}
    file = tmp_path / "best.pth"
    if kind == "wrapped":  # the release's own file
        torch.save({"model": official, "optimizer": {"state": {}}, "epoch": 60, "iteration": 9}, file)
    elif kind == "wrapped_with_prefix":
        torch.save({"model": prefixed, "epoch": 60}, file)
    elif kind == "bare":
        torch.save(prefixed, file)
    elif kind == "safetensors":
        file = tmp_path / "best.safetensors"
        save_file(official, file)
    model, report = converted(official if kind == "dictionary" else file)
    assert type(model) is IRRAForTraining
    assert same_weights(reference, model)
    assert not model.training
    assert report.newly_initialised == []
    assert report.num_converted == len(official)
    if kind == "wrapped":
        assert report.left_out.keys() == {"optimizer", "epoch", "iteration"}
    assert report.lines()[0] == f"irra: {len(official)} official tensors converted"


def test_sizes_are_inferred(official):
    config = converted(official)[0].config
    assert (config.projection_dim, config.num_classes, config.cross_modal_num_layers) == (128, 8, 1)
    assert (config.text_config.vocab_size, config.text_config.max_position_embeddings) == (90, 24)
    assert (config.vision_config.patch_size, config.vision_config.patch_stride) == (8, None)
    assert (config.vision_config.hidden_size, config.vision_config.num_hidden_layers) == (64, 1)
    assert config.loss_terms == ["sdm", "id", "mlm"]
    assert config.mask_token_id == 87


def test_what_shapes_do_not_tell_is_asked_for_by_name(official):
    with pytest.raises(
        CheckpointError, match=r"does not tell its image size \(it has 48 patches of 8 pixels\)"
    ) as caught:
        convert_official_checkpoint("irra", official)
    assert "image_size=[height, width]" in str(caught.value)


def test_the_released_grid_needs_no_image_size(official):
    state = dict(official)
    positions = torch.randn(1 + 24 * 8, 64, generator=torch.Generator().manual_seed(0))
    state["base_model.visual.positional_embedding"] = positions
    model = convert_official_checkpoint("irra", state)
    assert model.config.vision_config.image_size == [24 * 8, 8 * 8]
    assert torch.equal(model.irra.vision_model.embeddings.position_embedding, positions)


def test_half_precision_becomes_float32_and_is_reported(official):
    """The release stores attention, MLP and projections in half precision, norms and embeddings in single."""
    half = {
        key: value.half() if key.endswith(("proj_weight", "classifier.weight")) else value
        for key, value in official.items()
    }
    model, report = converted(half)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert set(report.upcast) == {key for key, value in half.items() if value.dtype == torch.float16}
    assert any("half precision" in line for line in report.lines())
    assert converted(official)[1].upcast == []


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
    assert "temperature" in report.left_out["base_model.logit_scale"]
    assert sum(line.startswith("left out: base_model.") for line in report.lines()) == len(leftovers)
    assert report.num_converted == len(official)


def test_heads_that_no_loss_uses_are_left_out_and_named(official):
    model, report = converted(official, loss_terms=["sdm"])
    heads = {key for key in official if not key.startswith("base_model.")}
    assert report.left_out.keys() == heads
    assert report.left_out["classifier.weight"] == "the configuration has no identity loss"
    assert report.left_out["mlm_head.fc.bias"] == "the configuration has no masked language modelling"
    assert not [key for key in model.state_dict() if not key.startswith("irra.")]


def test_towers_alone_are_enough_and_new_heads_are_named(official):
    towers = {key: value for key, value in official.items() if key.startswith("base_model.")}
    model, report = converted(towers)
    assert model.config.loss_terms == ["sdm"]
    assert report.newly_initialised == []
    with_heads, report = converted(towers, loss_terms=["sdm", "id"], num_classes=5)
    assert report.newly_initialised == ["identity_loss.classifier.bias", "identity_loss.classifier.weight"]
    assert with_heads.identity_loss.classifier.weight.std() > 0
    assert same_weights(model.irra, with_heads.irra)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("base_model.visual.ln_post.weight", "vision_model.post_layernorm.weight"),
        ("base_model.transformer.resblocks.0.mlp.c_proj.bias", "layers.0.mlp.fc2.bias"),
        # what sizes are read from
        ("base_model.visual.conv1.weight", "patch_embedding.weight"),
        ("base_model.token_embedding.weight", "token_embedding.weight"),
        ("base_model.text_projection", "base_model.text_projection"),
        ("base_model.visual.proj", "base_model.visual.proj"),
    ],
)
def test_a_missing_key_is_named(official, missing, named):
    with pytest.raises(CheckpointError, match=f"lacks .*{re.escape(named)}"):
        converted({key: value for key, value in official.items() if key != missing})


@pytest.mark.parametrize(
    "unexpected",
    ["adapter.weight", "mlm_head.bias", "base_model.visual.adapter.weight", "base_model.transformer.adapter"],
)
def test_an_unexpected_key_is_named(official, unexpected):
    with pytest.raises(CheckpointError, match=unexpected.removeprefix("base_model.").removeprefix("visual.")):
        converted(official | {unexpected: torch.zeros(2)})


def test_an_incomplete_head_is_named_as_new(official):
    _, report = converted({key: value for key, value in official.items() if key != "mlm_head.ln.bias"})
    assert report.newly_initialised == ["implicit_relation_reasoning.head.layer_norm.bias"]


def test_a_field_that_contradicts_the_weights(official):
    with pytest.raises(CheckpointError, match=r"position_embedding has shape \(49, 64\)"):
        converted(official, image_size=[128, 32])
    with pytest.raises(CheckpointError, match=r"classifier\.(weight|bias) has shape \(8,"):
        converted(official, num_classes=9)
    with pytest.raises(ConfigurationError, match="did you mean 'mask_probability'"):
        converted(official, mask_probabilty=0.1)


def test_irra_is_recognised(official):
    assert recognise_method(official) == "irra"
    assert recognise_method({"model": {f"module.{key}": value for key, value in official.items()}}) == "irra"


@pytest.mark.parametrize(
    ("keys", "described"),
    [
        (["mask_token", "base_model.visual.conv1.weight"], "looks like a vfe_tps checkpoint"),
        (["language_model.textExtractor.pooler.dense.bias"], "looks like a cfine checkpoint"),
        (["visual.conv1.weight", "token_embedding.weight"], "looks like a dual_encoder checkpoint"),  # CLIP itself
        (["conv1.weight", "fc.weight"], "does not look like one"),
        ([], "does not look like one"),
    ],
)
def test_a_checkpoint_of_something_else(keys, described, tmp_path):
    torch.save({"model": {key: torch.zeros(2, 2) for key in keys}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=rf"other\.pth should be an official irra checkpoint, but {described}"):
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
    again = ReIDModel.from_pretrained(tmp_path)
    assert same_weights(model.irra, again)


OPTIONS = """\
img_size: !!python/tuple
- 96
- 32
loss_names: sdm+id+mlm
stride_size: 8
temperature: 0.05
"""


def test_options_beside_the_checkpoint_are_read(official, tmp_path):
    save_file(official, tmp_path / "best.safetensors")
    (tmp_path / "configs.yaml").write_text(OPTIONS)
    model = convert_official_checkpoint("irra", tmp_path / "best.safetensors")
    assert model.config.vision_config.image_size == IMAGE_SIZE
    assert model.config.vision_config.stride == 8
    assert model.config.temperature == 0.05
    given = convert_official_checkpoint("irra", tmp_path / "best.safetensors", temperature=0.03)
    assert given.config.temperature == 0.03, "what is given goes first"


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system ['true']", "img_size: [96", "just words"], ids=["code", "cut", "words"]
)
def test_options_that_cannot_be_read_are_named(official, tmp_path, text):
    save_file(official, tmp_path / "best.safetensors")
    (tmp_path / "configs.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"configs.yaml, the options of best.safetensors"):
        convert_official_checkpoint("irra", tmp_path / "best.safetensors")

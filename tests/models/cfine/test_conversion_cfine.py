"""Reading official CFine checkpoints in every wrapping, and refusing everything else."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reid_zoo.conversion import convert_official_checkpoint, recognise_method
from reid_zoo.errors import CheckpointError, ConfigurationError

torch.set_num_threads(1)
CASES = Path(__file__).parents[2] / "golden" / "cases" / "cfine"
HEADS = {"vision_num_attention_heads": 1, "text_num_attention_heads": 4, "gld_num_attention_heads": 1}
FIELDS = {**HEADS, "max_text_length": 24, "image_token_ratio": 0.25, "num_positive_patches": 2}


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    """case_a's checkpoint: CLIP tower, one decoder block; `W` beside the `module.` keys."""
    config = json.loads((CASES / "case_a" / "config.json").read_text())
    assert [config[name] for name in HEADS] == list(HEADS.values())
    return load_file(CASES / "case_a" / "checkpoint.safetensors")


def network(official: dict) -> dict:
    return {key.removeprefix("module."): value for key, value in official.items() if key != "W"}


def converted(content, **fields):
    return convert_official_checkpoint("cfine", content, return_report=True, **{**FIELDS, **fields})


def same_weights(model, other) -> bool:
    state = other.state_dict()
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["wrapped", "bare", "bare_with_prefix", "safetensors", "dictionary"])
def test_every_wrapping_gives_the_same_model(official, tmp_path, kind):
    reference, _ = converted(official)
    prefixed = {key: value for key, value in official.items() if key != "W"}
    file = tmp_path / "best_model.pth.tar"
    if kind == "wrapped":  # the release's own file
        torch.save({"network": prefixed, "W": torch.nn.Parameter(official["W"]), "epoch": 40, "best_acc": 0.7}, file)
    elif kind == "bare":
        torch.save(network(official) | {"W": official["W"]}, file)
    elif kind == "bare_with_prefix":
        torch.save(official, file)
    elif kind == "safetensors":
        file = tmp_path / "model.safetensors"
        save_file(official, file)
    model, report = converted(official if kind == "dictionary" else file)
    assert same_weights(reference, model)
    assert not model.training
    assert report.newly_initialised == []
    if kind == "wrapped":
        assert {"epoch", "best_acc"} <= set(report.left_out)
    assert report.num_converted + sum("pooler" in key for key in report.left_out) == len(official)
    assert "cfine" in report.lines()[0]
    assert sum(line.startswith("left out") for line in report.lines()) == len(report.left_out)


def test_half_precision_becomes_float32_and_is_reported(official):
    model, report = converted({key: value.half() for key, value in official.items()})
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}
    assert report.upcast
    assert any("half precision" in line for line in report.lines())
    assert converted(official)[1].upcast == []


def test_without_a_classifier_it_is_newly_initialised(official):
    model, report = converted({"network": network(official)}, num_classes=7)
    assert report.newly_initialised == ["cmpc_loss.weight"]
    assert model.config.num_classes == 7
    assert any("newly initialised: cmpc_loss.weight" in line for line in report.lines())


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("language_model.textExtractor.encoder.layer.0.output.dense.weight", "layer.0.output.dense.weight"),
        ("image_model.clip_model.ln_post.weight", "vision_model.post_layernorm.weight"),
        ("block.layers.0.ln_2.bias", "layers.0.mlp_layer_norm.bias"),
        ("bottleneck_text.running_var", "text_bottleneck.running_var"),
        # what sizes are read from
        ("language_model.textExtractor.embeddings.word_embeddings.weight", "word_embeddings.weight"),
        ("image_model.clip_model.conv1.weight", "patch_embedding.weight"),
        ("block.layers.0.mlp.c_fc.weight", "block.layers.0.mlp.c_fc.weight"),
    ],
)
def test_a_missing_key_is_named(official, missing, named):
    state = network(official)
    state.pop(missing)
    with pytest.raises(CheckpointError, match=f"lacks weights.*{re.escape(named)}"):
        converted(state)


@pytest.mark.parametrize(
    "unexpected",
    [
        "image_model.clip_model.transformer.resblocks.0.adapter.weight",
        "prompt_learner.ctx",
        "block.layers.0.gate.weight",
        "language_model.textExtractor.encoder.layer.0.gate.weight",
    ],
)
def test_an_unexpected_key_is_named(official, unexpected):
    with pytest.raises(CheckpointError, match=unexpected.split(".")[-2]):
        converted(network(official) | {unexpected: torch.zeros(2)})


@pytest.mark.parametrize(
    ("keys", "recognised"),
    [
        (["base_model.visual.conv1.weight", "classifier.weight"], None),  # towers of IRRA or VFE-TPS
        (["image_encoder.conv1.weight", "prompt_learner.cls_ctx", "text_encoder.ln_final.weight"], "clip_reid"),
        (["visual.conv1.weight", "token_embedding.weight"], "dual_encoder"),  # CLIP itself
        ([], None),
    ],
)
def test_a_checkpoint_of_something_else(keys, recognised, tmp_path):
    content = {"model": {key: torch.zeros(2, 2) for key in keys}}
    torch.save(content, tmp_path / "other.pth")
    assert recognise_method(content) == recognised
    with pytest.raises(CheckpointError, match=r"other\.pth should be an official cfine checkpoint") as caught:
        converted(tmp_path / "other.pth")
    assert all(key in str(caught.value) for key in keys[:3])


def test_a_cfine_checkpoint_is_recognised(official):
    assert recognise_method(official) == "cfine"
    assert recognise_method({"network": official}) == "cfine"


class _Executes:
    def __reduce__(self):
        return exec, ("raise SystemExit('code in the checkpoint was executed')",)


def test_a_pickle_that_would_execute_code_is_refused(tmp_path):
    torch.save({"network": {"a": torch.zeros(1)}, "epoch": _Executes()}, tmp_path / "evil.pth")
    (tmp_path / "evil.pkl.pth").write_bytes(pickle.dumps({"a": _Executes()}))
    for file in ("evil.pth", "evil.pkl.pth"):
        with pytest.raises(CheckpointError, match=f"{file} cannot be read"):
            converted(tmp_path / file)


def test_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth is not a file"):
        converted(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for file in ("text.pth", "text.safetensors", "list.pth"):
        with pytest.raises(CheckpointError, match=file) as caught:
            converted(tmp_path / file)
        assert "\n" not in str(caught.value)


def test_unknown_method_and_field(official):
    with pytest.raises(ConfigurationError, match="did you mean 'cfine'"):
        convert_official_checkpoint("cfin", official)
    with pytest.raises(ConfigurationError, match="did you mean 'similarity'"):
        converted(official, similarty="sum")


def test_a_field_that_contradicts_the_weights(official):
    with pytest.raises(CheckpointError, match=r"position_embedding has shape \(17, 64\)"):
        converted(official, image_size=[64, 64])
    with pytest.raises(CheckpointError, match="has no place for"):
        converted(official, vision_config={"num_hidden_layers": 1})


def test_heads_that_the_width_does_not_tell_must_be_given(official):
    for name in ("text_num_attention_heads", "gld_num_attention_heads"):
        fields = {key: value for key, value in FIELDS.items() if key != name}
        with pytest.raises(CheckpointError, match=name):
            convert_official_checkpoint("cfine", official, **fields)


def self_attention_variant(official: dict) -> dict:
    """The release's block without cross-attention has `ln_1`/`attn` for its self-attention, and no `ln_0`/`self_attn`."""
    return {key: value for key, value in official.items() if ".ln_0." not in key and ".self_attn." not in key}


def test_self_attention_variant(official):
    model, _ = converted(self_attention_variant(official))
    assert model.config.gld_attention_type == "self"
    layer = model.cfine.global_local_decoder.layers[0]
    assert torch.equal(layer.self_attn.in_proj.weight, official["module.block.layers.0.attn.in_proj_weight"])
    assert torch.equal(layer.self_attn_layer_norm.weight, official["module.block.layers.0.ln_1.weight"])
    assert layer.cross_attn is None


def two_blocks(official: dict, change: float) -> dict:
    copies = {
        key.replace("block.layers.0.", "block.layers.1."): value + change
        for key, value in official.items()
        if "block.layers.0." in key
    }
    return official | copies


def test_tied_and_independent_decoder_blocks(official):
    tied, report = converted(two_blocks(official, 0.0))
    assert tied.config.gld_num_layers == 2
    assert len(tied.cfine.global_local_decoder.layers) == 1
    assert sum("identical copy" in reason for reason in report.left_out.values()) > 0

    free, report = converted(two_blocks(official, 0.5), gld_tie_layers=False)
    assert len(free.cfine.global_local_decoder.layers) == 2
    first, second = (layer.mlp.fc1.weight for layer in free.cfine.global_local_decoder.layers)
    torch.testing.assert_close(second, first + 0.5)
    assert not any("block.layers" in key for key in report.left_out)


def test_blocks_that_differ_are_not_taken_for_copies(official):
    with pytest.raises(CheckpointError, match="gld_tie_layers"):
        converted(two_blocks(official, 0.5))


def test_without_bottleneck(official):
    state = {key: value for key, value in official.items() if "bottleneck" not in key}
    assert not converted(state)[0].config.use_bottleneck


def test_a_converted_model_can_be_saved_and_loaded(official, tmp_path):
    from reid_zoo import ReIDModel

    model, _ = converted(official)
    model.save_pretrained(tmp_path)
    again = ReIDModel.from_pretrained(tmp_path)
    assert same_weights(model.cfine, again)

"""Reading MGCC's official checkpoints in every form they come in, and refusing everything else."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reid_zoo.conversion import convert_official_checkpoint, recognise_method
from reid_zoo.errors import CheckpointError, ConfigurationError

torch.set_num_threads(1)
CASES = Path(__file__).parents[2] / "golden" / "cases"
COPY, ORIGINAL = "ImageExtract.cnn.", "ImageExtract.clip_model.vision_model."
ID_LOSS = "id_loss."


def fields_of(case: str) -> dict:
    """What the case's shapes do not tell."""
    config = json.loads((CASES / "mgcc" / case / "config.json").read_text())
    names = ("image_size", "max_words", "softmax_temperature")
    heads = {f"{tower}_num_attention_heads": config[f"{tower}_heads"] for tower in ("vision", "text")}
    return {name: config[name] for name in names} | heads


@pytest.fixture(scope="module")
def complete() -> dict[str, torch.Tensor]:
    """case_a: everything the release saves, with copies and parts that it never uses."""
    return load_file(CASES / "mgcc" / "case_a" / "checkpoint.safetensors")


@pytest.fixture(scope="module")
def with_identities() -> dict[str, torch.Tensor]:
    """case_b: what is used only, with the identity classifier below `id_loss.`."""
    return load_file(CASES / "mgcc" / "case_b" / "checkpoint.safetensors")


def converted(content, case: str = "case_a", **fields):
    return convert_official_checkpoint("mgcc", content, return_report=True, **{**fields_of(case), **fields})


def same_weights(one, other) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


def save_folder(folder: Path, state: dict[str, torch.Tensor], **numbers) -> Path:
    """The release's folder: pickles without suffixes."""
    folder.mkdir()
    torch.save({key: value for key, value in state.items() if not key.startswith(ID_LOSS)}, folder / "best_model")
    classifier = {key.removeprefix(ID_LOSS): value for key, value in state.items() if key.startswith(ID_LOSS)}
    if classifier:
        torch.save(classifier, folder / "id_loss")
    for name, number in numbers.items():
        torch.save(number, folder / name)
    return folder


# ---------------------------------------------------------------- forms


@pytest.mark.parametrize("scalar", [np.float32, np.float64, float])
def test_the_releases_folder_of_four_files(with_identities, tmp_path, scalar):
    folder = save_folder(tmp_path / "breakpoint", with_identities, current_epoch=41, test_best=scalar(0.625))
    assert sorted(file.name for file in folder.iterdir()) == ["best_model", "current_epoch", "id_loss", "test_best"]
    model, report = converted(folder, "case_b")
    reference, _ = converted(with_identities, "case_b")
    assert same_weights(model, reference)
    assert (model.config.use_id_loss, model.config.num_classes) == (True, 6)
    assert report.left_out == {
        "current_epoch": "the epoch it was saved in: 41",
        "test_best": "its R@1 on the test split: 0.625",
    }
    assert report.newly_initialised == []
    assert report.num_converted == len(with_identities)
    assert not model.training


def test_a_folder_without_the_optional_files(complete, tmp_path):
    model, report = converted(save_folder(tmp_path / "breakpoint", complete))
    assert not model.config.use_id_loss
    assert not any(name in report.left_out for name in ("current_epoch", "test_best"))


@pytest.mark.parametrize("kind", ["bare file", "wrapped", "module prefix", "safetensors", "dictionary"])
def test_every_wrapping_gives_the_same_model(complete, tmp_path, kind):
    reference, expected = converted(complete)
    content: Path | dict = tmp_path / "best_model"
    if kind == "bare file":
        torch.save(complete, content)
    elif kind == "wrapped":
        torch.save({"state_dict": complete, "epoch": 3}, content)
    elif kind == "module prefix":
        torch.save({f"module.{key}": value for key, value in complete.items()}, content)
    elif kind == "safetensors":
        content = tmp_path / "model.safetensors"
        save_file(complete, content)
    else:
        content = complete
    model, report = converted(content)
    assert same_weights(model, reference)
    assert report.num_converted == expected.num_converted
    assert ("epoch" in report.left_out) == (kind == "wrapped")


def test_the_report_accounts_for_every_key(complete):
    model, report = converted(complete)
    assert report.num_converted + len(report.left_out) == len(complete)
    for key, reason in report.left_out.items():
        if key.endswith("position_ids"):
            assert reason == "a constant buffer"
        elif key.startswith(COPY):
            assert reason == f"the same tensor as {key.replace(COPY, ORIGINAL)}"
        elif key.startswith("ImageExtract.clip_model.text_model."):
            assert reason == "a second text tower that is never used"
        else:
            assert key in (
                "ImageExtract.clip_model.visual_projection.weight",
                "ImageExtract.clip_model.text_projection.weight",
            )
            assert reason == "CLIP's projection is not used"
    assert len(report.lines()) == 1 + len(report.left_out)
    # every other official number is somewhere in the model
    kept = sum(value.numel() for key, value in complete.items() if key not in report.left_out)
    assert kept == sum(parameter.numel() for parameter in model.parameters())


def test_half_precision_becomes_float32_and_is_reported(complete):
    half = {key: value.half() if value.is_floating_point() else value for key, value in complete.items()}
    model, report = converted(half)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert set(report.upcast) == {key for key, value in complete.items() if value.is_floating_point()}
    assert any("half precision" in line for line in report.lines())
    assert converted(complete)[1].upcast == []


# ---------------------------------------------------------------- the tower that is stored twice


def test_the_copy_alone_is_enough(complete):
    reference, _ = converted(complete)
    state = {key: value for key, value in complete.items() if not key.startswith(ORIGINAL)}
    model, report = converted(state)
    assert same_weights(model, reference)
    assert not any(key.startswith(COPY) and not key.endswith("position_ids") for key in report.left_out)


@pytest.mark.parametrize("name", ["embeddings.class_embedding", "encoder.layers.0.mlp.fc2.bias"])
def test_a_copy_that_differs_is_refused(complete, name):
    state = dict(complete)
    state[COPY + name] = state[COPY + name] + 1e-3
    with pytest.raises(CheckpointError, match=re.escape(f"{COPY}{name} differs from {ORIGINAL}{name}")):
        converted(state)


# ---------------------------------------------------------------- what shapes tell, and what they do not


def test_sizes_and_switches_come_from_the_checkpoint(complete):
    config = converted(complete)[0].config
    assert (config.num_image_tokens, config.num_text_tokens, config.num_patches) == (5, 3, 16)
    assert (config.hidden_size, config.text_config.hidden_size, config.max_text_length) == (128, 64, 20)
    assert config.similarities == ["it", "pw", "pt", "iw"]
    without = {"global_mat_weight", "word_logit_weight"}
    config = converted({key: value for key, value in complete.items() if key not in without})[0].config
    assert config.similarities == ["pw", "pt"]


def test_matrices_for_everything_mean_no_selection(complete):
    patches = ("patch_logit_weight", "patch_mat_weight", "patch_mat_weight2")
    words = ("word_logit_weight", "word_mat_weight", "word_mat_weight2")
    state = complete | {name: torch.eye(16) for name in patches} | {name: torch.eye(19) for name in words}
    config = converted(state)[0].config
    assert not config.token_selection
    assert (config.num_image_tokens, config.num_text_tokens) == (16, 19)
    chosen = converted(state, token_selection=True, max_words=19)[0].config
    assert chosen.token_selection
    assert (chosen.num_image_tokens, chosen.num_text_tokens) == (16, 19)


@pytest.mark.parametrize("aggregation", ["max_max", "max_mean", "mean_mean", "mean_max"])
def test_a_parameter_free_aggregation_must_be_told(complete, aggregation):
    local = {"local_mat_weight", "patch_mat_weight", "word_mat_weight", "word_mat_weight2", "patch_mat_weight2"}
    without = {key: value for key, value in complete.items() if key not in local}
    assert not converted(without)[0].config.use_pw
    model, report = converted(without, aggregation=aggregation)
    assert model.config.use_pw
    other, full_report = converted(
        complete, aggregation=aggregation
    )  # trained with attention: its matrices are left out
    assert same_weights(model, other)
    assert local == set(full_report.left_out) - set(report.left_out)


def test_counts_without_matrices_are_asked_for_by_name(complete):
    sized = {"patch", "word"}
    bare = {key: value for key, value in complete.items() if key.partition("_")[0] not in sized}
    bare.pop("local_mat_weight")
    assert converted(bare)[0].config.similarities == ["it"]
    for given, missing in (({}, "num_selected_patches"), ({"num_selected_patches": 5}, "num_selected_words")):
        with pytest.raises(CheckpointError, match=f"does not tell {missing}.*--set {missing}=N"):
            converted(bare, aggregation="max_max", **given)
    config = converted(bare, aggregation="max_max", num_selected_patches=5, rho_text=0.25)[0].config
    assert (config.num_image_tokens, config.num_text_tokens) == (5, 2)


def test_without_learnable_fusion_the_matrices_are_left_out(complete):
    model, report = converted(complete, learnable_fusion=False)
    assert [name for name, _ in model.mgcc.fusion.named_parameters()] == ["logit_scale"]
    assert report.left_out["global_mat_weight"] == "the configuration has no learnable fusion"
    assert model.config.num_image_tokens == 5


def test_matrices_of_different_sizes_are_refused(complete):
    with pytest.raises(CheckpointError, match=r"patch_mat_weight.*different sizes: \[4, 5\]"):
        converted(complete | {"patch_mat_weight": torch.eye(4)})


def test_an_image_that_is_not_square_must_be_told(with_identities):
    with pytest.raises(CheckpointError, match="image_size"):
        converted(with_identities, "case_b", image_size=None)
    with pytest.raises(CheckpointError, match="position_embedding has shape"):
        converted(with_identities, "case_b", image_size=[56, 32])


def test_an_identity_classifier_can_be_left_or_added(with_identities, complete):
    model, report = converted(with_identities, "case_b", use_id_loss=False)
    assert model.identity_loss is None
    assert report.left_out[f"{ID_LOSS}classifier.block.weight"] == "the configuration has no identity loss"
    _, report = converted(complete, use_id_loss=True, num_classes=9)
    assert report.newly_initialised == ["identity_loss.classifier.bias", "identity_loss.classifier.weight"]


# ---------------------------------------------------------------- refused


def test_checkpoints_of_other_methods_are_named_both_ways(complete, tmp_path):
    assert (
        recognise_method(complete) == recognise_method({f"module.{key}": complete[key] for key in complete}) == "mgcc"
    )
    for other in ("cfine", "irra"):
        theirs = load_file(CASES / other / "case_a" / "checkpoint.safetensors")
        with pytest.raises(CheckpointError, match=f"official mgcc checkpoint, but looks like a {other} checkpoint"):
            converted(theirs)
        with pytest.raises(CheckpointError, match=f"official {other} checkpoint, but looks like a mgcc checkpoint"):
            convert_official_checkpoint(other, complete)
    clip = {
        key.removeprefix("ImageExtract.clip_model."): value for key, value in complete.items() if "clip_model" in key
    }
    with pytest.raises(CheckpointError, match="should be an official mgcc checkpoint, but"):
        converted(clip)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("TextExtract.fc.1.weight", "text_projection.linear.weight"),
        ("ImageExtract.clip_model.logit_scale", "fusion.logit_scale"),
        ("patch_mat_weight2", "fusion.second_patch_matrix"),
        (f"{ORIGINAL}post_layernorm.bias", "vision_model.post_layernorm.bias"),
        ("TextExtract.textExtractor.final_layer_norm.weight", "text_model.final_layernorm.weight"),
        # what sizes are read from
        (f"{ORIGINAL}embeddings.patch_embedding.weight", "patch_embedding.weight"),
        ("TextExtract.textExtractor.embeddings.token_embedding.weight", "token_embedding.weight"),
        ("TextExtract.textExtractor.encoder.layers.0.self_attn.k_proj.weight", "layers.0.self_attn.k_proj.weight"),
    ],
)
def test_a_missing_key_is_named(complete, missing, named):
    state = {key: value for key, value in complete.items() if key != missing}
    with pytest.raises(CheckpointError, match=re.escape(named)) as caught:
        converted(state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("unexpected", "named"),
    [
        ("third_mat_weight", "third_mat_weight"),
        ("TextExtract.fc.2.weight", "TextExtract.fc.2.weight"),
        ("TextExtract.textExtractor.encoder.layers.0.gate.weight", "encoder.layers.0.gate.weight"),
        (f"{ORIGINAL}encoder.layers.0.adapter.weight", "encoder.layers.0.adapter.weight"),
        ("ImageExtract.clip_model.adapter.weight", "ImageExtract.clip_model.adapter.weight"),
        ("id_loss.bottleneck.weight", "id_loss.bottleneck.weight"),
    ],
)
def test_an_unexpected_key_is_named(with_identities, unexpected, named):
    with pytest.raises(CheckpointError, match=re.escape(f"unexpected key {named!r}")):
        converted(with_identities | {unexpected: torch.zeros(2)}, "case_b")


class _Executes:
    def __reduce__(self):
        return exec, ("raise SystemExit('code in the checkpoint was executed')",)


@pytest.mark.parametrize("name", ["best_model", "id_loss", "current_epoch", "test_best"])
def test_nothing_in_a_file_is_executed(with_identities, tmp_path, name):
    folder = save_folder(tmp_path / "breakpoint", with_identities, current_epoch=1, test_best=np.float32(0.5))
    for write in (
        lambda file: torch.save({"a": _Executes()}, file),
        lambda file: file.write_bytes(pickle.dumps(_Executes(), protocol=2)),
    ):
        write(folder / name)
        with pytest.raises(CheckpointError, match=name):
            converted(folder, "case_b")


@pytest.mark.parametrize("content", [torch.zeros(3), "fifty", [1, 2], np.float32([1, 2])])
def test_a_number_file_that_holds_no_number(complete, tmp_path, content):
    folder = save_folder(tmp_path / "breakpoint", complete, test_best=content)
    with pytest.raises(CheckpointError, match="test_best should hold one number") as caught:
        converted(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_the_network(tmp_path):
    torch.save(3, tmp_path / "current_epoch")
    with pytest.raises(CheckpointError, match="has no file 'best_model'"):
        converted(tmp_path)
    with pytest.raises(CheckpointError, match="none is not a file"):
        converted(tmp_path / "none")


def test_unknown_fields_get_a_suggestion(complete):
    with pytest.raises(ConfigurationError, match="did you mean 'softmax_temperature'"):
        converted(complete, softmax_temprature=0.1)

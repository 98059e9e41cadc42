"""Reading MGCC's official checkpoint: the folder `breakpoint/` with its four files, or the network alone."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoint_files import read_checkpoint, unwrap
from ...errors import CheckpointError, ConfigurationError
from ..conversion_report import ConversionReport, naming_missing_weights
from ..encoders.position_grid import square_grid
from ..encoders.text_tower_weights import convert_transformers_clip_text, infer_clip_text_sizes
from ..encoders.tower_weights import convert_transformers_clip_vision, infer_vision_sizes, rename
from .configuration_mgcc import MGCCConfig

__all__ = ["SIGNATURE", "convert_checkpoint", "convert_state_dict", "infer_config", "read_official"]

SIGNATURE = re.compile(r"(module\.)?TextExtract\.(textExtractor|fc)\..*")
"""A key that only MGCC's checkpoints have."""

_IMAGE = "ImageExtract.clip_model."
_VISION = _IMAGE + "vision_model."
_VISION_ALIAS = "ImageExtract.cnn."
_TEXT = "TextExtract.textExtractor."
_ID_LOSS = "id_loss."
_UNUSED = {
    _IMAGE + "text_model.": "a second text tower that is never used",
    _IMAGE + "visual_projection.": "CLIP's projection is not used",
    _IMAGE + "text_projection.": "CLIP's projection is not used",
}
_HEAD_WIDTH = 64

# Official name → ours; the axis the square matrix belongs to.
_MATRICES = {
    "global_mat_weight": "global_matrix",  # M_g
    "local_mat_weight": "local_matrix",  # M_l
    "word_logit_weight": "image_word_matrix",  # U1
    "patch_logit_weight": "patch_text_matrix",  # U2
    "patch_mat_weight": "patch_matrix",  # U3
    "word_mat_weight": "word_matrix",  # U4
    "word_mat_weight2": "second_word_matrix",  # U5
    "patch_mat_weight2": "second_patch_matrix",  # U6
}
_PATCH_SIZED = ("patch_logit_weight", "patch_mat_weight", "patch_mat_weight2")
_WORD_SIZED = ("word_logit_weight", "word_mat_weight", "word_mat_weight2")

NETWORK_FILE, ID_LOSS_FILE = "best_model", "id_loss"
NUMBER_FILES = {"current_epoch": "the epoch it was saved in", "test_best": "its R@1 on the test split"}


def read_official(path: Path) -> dict[str, Any]:
    """Read what the release saves; nothing in it is executed.

    Args:
        path: The folder `breakpoint/`, which holds `best_model`, with the identity loss also `id_loss`, and usually the
            numbers `current_epoch` and `test_best`. Or one file with the network's state dictionary.

    Returns:
        The network's tensors; those of the identity classifier below `id_loss.`; the numbers under their files' names.

    Raises:
        CheckpointError: If a file cannot be read, or the folder lacks `best_model`.
    """
    if not path.is_dir():
        return read_checkpoint(path)
    if not (path / NETWORK_FILE).is_file():
        raise CheckpointError(
            f"{path} has no file {NETWORK_FILE!r}; give MGCC's folder 'breakpoint', or the file itself."
        )
    content, beside = unwrap(read_checkpoint(path / NETWORK_FILE))
    found: dict[str, Any] = {**beside, **content}
    if (path / ID_LOSS_FILE).is_file():
        classifier, _ = unwrap(read_checkpoint(path / ID_LOSS_FILE))
        found |= {_ID_LOSS + key: value for key, value in classifier.items()}
    for name in NUMBER_FILES:
        if (path / name).is_file():
            found[name] = _read_number(path / name)
    return found


def _read_number(file: Path) -> float | int:
    """A Python or NumPy number saved by `torch.save`."""
    import numpy as np

    # What a pickled NumPy scalar consists of; its reconstruction executes nothing. NumPy 2 moved the function.
    core: Any = np._core if hasattr(np, "_core") else np.core
    allowed: list[Any] = [np.dtype, type(np.dtype("float32")), type(np.dtype("float64"))]
    allowed += [(core.multiarray.scalar, f"numpy.{name}.multiarray.scalar") for name in ("core", "_core")]
    try:
        with torch.serialization.safe_globals(allowed):
            value = torch.load(file, map_location="cpu", weights_only=True)
        return int(value) if isinstance(value, int) else float(value)
    except (OSError, RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file} should hold one number: {reason}") from error


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _vision_prefix(state: Mapping[str, Tensor]) -> str:
    """Where the image tower is: under its own name, or, if only that was kept, under its alias."""
    return _VISION if any(key.startswith(_VISION) for key in state) else _VISION_ALIAS


def _reason_to_leave_out(key: str, state: Mapping[str, Tensor], config: MGCCConfig) -> str | None:
    """Why an official key is not needed; `None` if it is."""
    if key.endswith(".position_ids"):
        return "a constant buffer"
    for prefix, reason in _UNUSED.items():
        if key.startswith(prefix):
            return reason
    if key.startswith(_VISION_ALIAS) and _vision_prefix(state) != _VISION_ALIAS:
        return f"the same tensor as {_VISION}{key.removeprefix(_VISION_ALIAS)}"
    if key in _MATRICES and not config.learnable_fusion:
        return "the configuration has no learnable fusion"
    needed = {
        "global_mat_weight": config.use_it,
        "word_logit_weight": config.use_iw,
        "patch_logit_weight": config.use_pt,
    }
    if key in _MATRICES and not needed.get(key, config.uses_local_matrix):
        return "the configuration does without it"
    if key.startswith(_ID_LOSS) and not config.use_id_loss:
        return "the configuration has no identity loss"
    return None


def convert_state_dict(
    state: Mapping[str, Tensor], report: ConversionReport, *, config: MGCCConfig
) -> dict[str, Tensor]:
    """Official keys (without `module.`) → keys of [`MGCCForTraining`].

    Every rule is linear, so a dictionary of official gradients converts as well.

    Args:
        state: The network's tensors, and those of the identity classifier below `id_loss.` if there is one.
        report: Gets the keys that were left out, and why.
        config: Says which parts exist.

    Raises:
        CheckpointError: For a key that MGCC does not have.
    """
    kept: dict[str, Tensor] = {}
    for key, value in state.items():
        reason = _reason_to_leave_out(key, state, config)
        if reason is None:
            kept[key] = value
        else:
            report.leave_out(key, reason)
    vision = _vision_prefix(state)
    converted: dict[str, Tensor] = {}
    for prefix, tower in (
        ("mgcc.vision_model.", convert_transformers_clip_vision(_part(kept, vision))),
        ("mgcc.text_model.", convert_transformers_clip_text(_part(kept, _TEXT))),
    ):
        converted |= {prefix + key: value for key, value in tower.items()}
    rest = {key: value for key, value in kept.items() if not key.startswith((vision, _TEXT))}
    return converted | rename(
        rest,
        {
            r"TextExtract\.fc\.0\.(weight|bias)": r"mgcc.text_projection.layer_norm.\1",
            r"TextExtract\.fc\.1\.weight": "mgcc.text_projection.linear.weight",
            re.escape(_IMAGE) + r"logit_scale": "mgcc.fusion.logit_scale",
            r"id_loss\.classifier\.block\.(weight|bias)": r"identity_loss.classifier.\1",
            **{official: f"mgcc.fusion.{ours}" for official, ours in _MATRICES.items()},
        },
        "MGCC checkpoint",
    )


def _check_aliases(state: Mapping[str, Tensor]) -> None:
    """Raise `CheckpointError` unless the image tower's second copy is one."""
    for key, value in state.items():
        if not key.startswith(_VISION_ALIAS):
            continue
        original = state.get(_VISION + key.removeprefix(_VISION_ALIAS))
        if original is not None and not torch.equal(value, original):
            raise CheckpointError(
                f"{key} differs from {_VISION}{key.removeprefix(_VISION_ALIAS)}, of which it should be a copy; the "
                "checkpoint is damaged."
            )


def _infer_counts(state: Mapping[str, Tensor], num_patches: int, num_words: int) -> dict[str, Any]:
    """Token counts and whether tokens are selected at all, from the sizes of the fusion matrices."""
    fields: dict[str, Any] = {}
    for field, names in (("num_selected_patches", _PATCH_SIZED), ("num_selected_words", _WORD_SIZED)):
        sizes = {state[name].shape[0] for name in names if name in state}
        if len(sizes) > 1:
            raise CheckpointError(f"the matrices {', '.join(names)} have different sizes: {sorted(sizes)}.")
        if sizes:
            fields[field] = sizes.pop()
    everything = {"num_selected_patches": num_patches, "num_selected_words": num_words}
    if fields and all(everything[name] == count for name, count in fields.items()):
        fields["token_selection"] = False
    return fields


def infer_config(state: Mapping[str, Tensor], **overrides: Any) -> MGCCConfig:
    """Configuration of a checkpoint: sizes from shapes, similarities from what is there, the rest from the release.

    Args:
        state: Official tensors without `module.`, those of the identity classifier below `id_loss.`.
        overrides: Fields that shapes do not tell (τ, `text_word_alignment`, ...) or that differ from the defaults. Beside
            fields of [`MGCCConfig`]: `image_size` `[height, width]`, `vision_num_attention_heads`,
            `text_num_attention_heads`. A parameter-free `aggregation` leaves no trace in a checkpoint: give it, and
            the patch-word similarity is taken to exist.

    Raises:
        CheckpointError: If a size can neither be inferred nor was given; it is named.
    """
    overrides = dict(overrides)
    vision = infer_vision_sizes(convert_transformers_clip_vision(_part(state, _vision_prefix(state))))
    text = infer_clip_text_sizes(convert_transformers_clip_text(_part(state, _TEXT)))
    num_positions = vision.pop("num_positions")
    image_size = overrides.pop("image_size", None)
    if image_size is None:
        try:
            rows, columns = square_grid(num_positions)
        except ConfigurationError as error:
            raise CheckpointError(str(error)) from error
        image_size = [rows * vision["patch_size"], columns * vision["patch_size"]]
    vision["image_size"] = list(image_size)
    for fields, name in ((vision, "vision"), (text, "text")):
        usual = max(fields["hidden_size"] // _HEAD_WIDTH, 1)
        fields["num_attention_heads"] = int(overrides.pop(f"{name}_num_attention_heads", usual))
    inferred: dict[str, Any] = {
        "vision_config": {**vision, **overrides.pop("vision_config", {})},
        "text_config": {**text, **overrides.pop("text_config", {})},
        "use_it": "global_mat_weight" in state,
        "use_iw": "word_logit_weight" in state,
        "use_pt": "patch_logit_weight" in state,
        "use_pw": "local_mat_weight" in state or overrides.get("aggregation", "attention") != "attention",
    }
    length = overrides.get("max_text_length") or text["max_position_embeddings"]
    inferred |= _infer_counts(state, num_positions - 1, length - 1)
    fields = inferred | overrides
    selects = fields.get("token_selection", True)
    for count, ratio, needed in (
        ("num_selected_patches", "rho_image", fields["use_pw"] or fields["use_pt"]),
        ("num_selected_words", "rho_text", fields["use_pw"] or fields["use_iw"]),
    ):
        if selects and needed and count not in fields and ratio not in fields:
            raise CheckpointError(
                f"the checkpoint does not tell {count} (it has no fusion matrices of that size): give it with --set "
                f"{count}=N, or {ratio}."
            )
    classifier = state.get(_ID_LOSS + "classifier.block.weight")
    if classifier is not None:
        fields = {"use_id_loss": True, "num_classes": classifier.shape[0], **fields}
    return MGCCConfig(**fields)


def convert_checkpoint(
    content: Mapping[str, Any], **overrides: Any
) -> tuple[MGCCConfig, dict[str, Tensor], ConversionReport]:
    """An official checkpoint as `read_official` returns it → configuration, weights of [`MGCCForTraining`], report.

    Args:
        content: Its dictionary, wrapped or bare, with or without `module.`, in any floating-point precision.
        overrides: See `infer_config`.
    """
    state, beside = unwrap(content)
    report = ConversionReport(method="mgcc")
    for key, value in beside.items():
        what = f"{NUMBER_FILES[key]}: {value}" if key in NUMBER_FILES else "not part of the network"
        report.leave_out(key, what)
    state = report.to_float32(state)
    with naming_missing_weights():
        config = infer_config(state, **overrides)
    _check_aliases(state)
    converted = convert_state_dict(state, report, config=config)
    report.count_converted(state)
    return config, converted, report

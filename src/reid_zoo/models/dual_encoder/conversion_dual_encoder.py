"""Reading the plain baselines' checkpoints: a CLIP as published, or towers fine-tuned with the code of the IRRA family."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...checkpoint_files import unwrap
from ...errors import CheckpointError, ConfigurationError
from ..clip_dual_encoder_conversion import (
    BASE,
    FAMILY_SIGNATURE,
    convert_towers,
    describe_towers,
    infer_tower_fields,
    leftover_reason,
    part,
)
from ..conversion_report import ConversionReport, naming_missing_weights
from ..encoders.position_grid import resample_position_grid, square_grid
from ..encoders.text_tower_weights import convert_openai_clip_text, convert_transformers_clip_text, is_clip_text_key
from ..encoders.tower_loading import OPENAI_MARKS
from ..encoders.tower_weights import (
    convert_openai_clip_vision,
    convert_transformers_clip_vision,
    infer_vision_sizes,
    rename,
)
from .configuration_dual_encoder import DualEncoderConfig
from .modeling_dual_encoder import DualEncoderPreTrainedModel

__all__ = ["FAMILY_SIGNATURE", "SIGNATURE", "convert_checkpoint"]

SIGNATURE = re.compile(r"(module\.)?(visual\.(conv1\.weight|class_embedding|proj)|vision_model\.embeddings\..*)")
"""A key that only a bare CLIP has: OpenAI CLIP and OpenCLIP, or transformers."""

_MODEL = "dual_encoder."
_CLASSIFIER = "classifier."
_CUSTOM_TEXT = "text."  # OpenCLIP's prefix where the text tower is an object of its own
_POSITIONS = "embeddings.position_embedding"
_HEAD_WIDTH = 64
_WIDEST_WITH_USUAL_HEADS = 1024  # ViT-L; from ViT-H on heads are wider than 64


@dataclass(frozen=True, slots=True)
class _CLIP:
    """A converted CLIP: towers under the names of our own, projections `(D, width)`."""

    vision: dict[str, Tensor]
    text: dict[str, Tensor]
    visual_projection: Tensor
    text_projection: Tensor


def _read_openai(state: Mapping[str, Tensor], report: ConversionReport) -> _CLIP:
    """OpenAI CLIP or OpenCLIP: `visual.*`, and the text tower at the top or below `text.`."""
    kept: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix(_CUSTOM_TEXT)
        reason = "a constant buffer" if name == "attn_mask" else leftover_reason(key)
        if reason is None:
            kept[name] = value
        else:
            report.leave_out(key, reason)
    if any(key.startswith("visual.layer1.") for key in kept):
        raise CheckpointError(
            "the checkpoint is a CLIP whose image tower is a ResNet; a dual encoder takes one with a vision transformer."
        )
    visual = part(kept, "visual.")
    text = {key: value for key, value in kept.items() if is_clip_text_key(key)}
    unknown = [key for key in kept if not key.startswith("visual.") and key not in text]
    if unknown:
        raise CheckpointError(f"CLIP checkpoint: unexpected key {unknown[0]!r}.")
    for key, tower in (("proj", visual), ("text_projection", text)):
        if key not in tower:
            raise CheckpointError(f"the checkpoint is no whole CLIP: it lacks {'visual.' * (tower is visual)}{key}.")
    visual_projection, text_projection = visual.pop("proj"), text.pop("text_projection")
    return _CLIP(
        convert_openai_clip_vision(visual),
        convert_openai_clip_text(text),
        visual_projection.T.contiguous(),
        text_projection.T.contiguous(),
    )


def _read_transformers(state: Mapping[str, Tensor], report: ConversionReport) -> _CLIP:
    """`CLIPModel` of transformers: `vision_model.*`, `text_model.*` and the two projections."""
    kept: dict[str, Tensor] = {}
    for key, value in state.items():
        reason = "a constant buffer" if key.endswith(".position_ids") else leftover_reason(key)
        if reason is None:
            kept[key] = value
        else:
            report.leave_out(key, reason)
    vision, text = part(kept, "vision_model."), part(kept, "text_model.")
    projections = {key: kept[key] for key in ("visual_projection.weight", "text_projection.weight") if key in kept}
    if len(projections) < 2 or not text:
        raise CheckpointError(
            "the checkpoint is no whole CLIP of transformers: it lacks text_model.*, visual_projection.weight or "
            "text_projection.weight."
        )
    unknown = [key for key in kept if not key.startswith(("vision_model.", "text_model.")) and key not in projections]
    if unknown:
        raise CheckpointError(f"CLIP checkpoint: unexpected key {unknown[0]!r}.")
    return _CLIP(convert_transformers_clip_vision(vision), convert_transformers_clip_text(text), *projections.values())


def _activation(state: Mapping[str, Tensor], beside: Mapping[str, Any], overrides: dict[str, Any]) -> str | None:
    """What the weights tell about the activation of both towers, or what was given for it."""
    if "hidden_act" in overrides:
        return str(overrides.pop("hidden_act"))
    projection = state.get("visual.proj")
    is_half = projection is not None and projection.dtype == torch.float16
    if is_half or (OPENAI_MARKS & (set(state) | set(beside))):
        return "quick_gelu"  # only OpenAI publishes bare state dictionaries in half precision
    if all("hidden_act" in overrides.get(name, {}) for name in ("vision_config", "text_config")):
        return None
    raise CheckpointError(
        "the checkpoint does not tell its activation: give hidden_act=quick_gelu (OpenAI's weights and OpenCLIP's "
        "'-quickgelu' models) or hidden_act=gelu (other OpenCLIP models)."
    )


def _check_heads(tower: str, width: int, overrides: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` if the width of a tower does not tell its number of heads, and nothing else does."""
    given = f"{tower}_num_attention_heads" in overrides or "num_attention_heads" in overrides.get(f"{tower}_config", {})
    if not given and (width % _HEAD_WIDTH or (tower == "vision" and width > _WIDEST_WITH_USUAL_HEADS)):
        raise CheckpointError(
            f"the checkpoint does not tell its number of attention heads (the {tower} tower is {width} wide): give "
            f"{tower}_num_attention_heads=N."
        )


def _convert_clip(
    state: Mapping[str, Tensor], activation: str | None, report: ConversionReport, overrides: dict[str, Any]
) -> tuple[DualEncoderConfig, dict[str, Tensor]]:
    """A CLIP as published; its square position grid is resampled to the image size that is asked for."""
    is_openai = any(key.startswith("visual.") for key in state)
    clip = (_read_openai if is_openai else _read_transformers)(state, report)
    sizes = infer_vision_sizes(clip.vision)
    patch, num_positions, width = sizes["patch_size"], sizes["num_positions"], sizes["hidden_size"]
    _check_heads("vision", width, overrides)
    _check_heads("text", clip.text_projection.shape[1], overrides)
    try:
        source_grid = square_grid(num_positions)
    except ConfigurationError as error:
        raise CheckpointError(f"the checkpoint is no CLIP as published: {error}") from error
    own_size = [edge * patch for edge in source_grid]
    fields = {
        "training": "zero_shot",
        "projection_dim": len(clip.visual_projection),
        **describe_towers(clip.vision, clip.text, list(overrides.pop("image_size", own_size)), overrides),
    }
    for tower in ("vision_config", "text_config"):
        if activation is not None:
            fields[tower].setdefault("hidden_act", activation)
    config = DualEncoderConfig(**(fields | overrides))
    clip.vision[_POSITIONS] = resample_position_grid(
        clip.vision[_POSITIONS],
        source_grid,
        config.vision_config.grid_size,
        align_corners=DualEncoderPreTrainedModel.position_grid_align_corners,
    )
    converted = {
        f"{_MODEL}visual_projection.weight": clip.visual_projection,
        f"{_MODEL}text_projection.weight": clip.text_projection,
    }
    for name, tower_weights in (("vision_model", clip.vision), ("text_model", clip.text)):
        converted |= {f"{_MODEL}{name}.{key}": value for key, value in tower_weights.items()}
    return config, converted


def _new_probes(config: DualEncoderConfig) -> dict[str, Tensor]:
    """A linear probe that has not been trained: the identity."""
    width = config.projection_dim
    return {
        f"{_MODEL}{name}_probe.{parameter}": torch.eye(width) if parameter == "weight" else torch.zeros(width)
        for name in ("image", "text")
        for parameter in ("weight", "bias")
        if config.has_probes
    }


def _convert_family(
    state: Mapping[str, Tensor], report: ConversionReport, overrides: dict[str, Any]
) -> tuple[DualEncoderConfig, dict[str, Tensor]]:
    """`base_model.*`, and the identity classifier if there is one; its position grid is copied as it is."""
    fields = infer_tower_fields(state, overrides)
    fields["loss_terms"] = ["sdm", "id"] if _CLASSIFIER + "weight" in state else ["sdm"]
    config = DualEncoderConfig(**(fields | overrides))
    kept: dict[str, Tensor] = {}
    for key, value in state.items():
        reason = leftover_reason(key)
        if reason is None and key.startswith(_CLASSIFIER) and "id" not in config.loss_terms:
            reason = "the configuration has no identity loss"
        if reason is None:
            kept[key] = value
        else:
            report.leave_out(key, reason)
    heads = {key: value for key, value in kept.items() if not key.startswith(BASE)}
    rules = {r"classifier\.(weight|bias)": r"identity_loss.classifier.\1"}
    return config, convert_towers(kept, _MODEL) | rename(heads, rules, "checkpoint of CLIP's towers")


def convert_checkpoint(
    content: Mapping[str, Any], **overrides: Any
) -> tuple[DualEncoderConfig, dict[str, Tensor], ConversionReport]:
    """A checkpoint as read from its file → configuration, weights of [`DualEncoderForTraining`], report.

    Two kinds are read: towers fine-tuned with the code of the IRRA family (`base_model.*`), and CLIP as published, which
    becomes the zero-shot baseline: the state dictionary of OpenAI CLIP, OpenCLIP or transformers' `CLIPModel`.

    Args:
        content: The file's dictionary, wrapped or bare, with or without `module.`, in any floating-point precision.
        overrides: Fields that shapes do not tell or that differ from the defaults. Beside fields of
            [`DualEncoderConfig`]: `image_size` `[height, width]`, to which the position grid of a CLIP is resampled (its
            own square by default); `stride_size`; `vision_num_attention_heads`, `text_num_attention_heads`; for a CLIP
            `hidden_act`, `"quick_gelu"` or `"gelu"`, of both towers.

    Raises:
        CheckpointError: For a key that no such checkpoint has, or if something that the weights do not tell must be given;
            it is named.
    """
    state, beside = unwrap(content)
    overrides = dict(overrides)
    report = ConversionReport(method="dual_encoder")
    for key in beside:
        report.leave_out(key, "not part of the network")
    is_family = any(key.startswith(BASE) for key in state)
    activation = None if is_family else _activation(state, beside, overrides)
    state = report.to_float32(state)
    with naming_missing_weights():
        if is_family:
            config, converted = _convert_family(state, report, overrides)
        else:
            config, converted = _convert_clip(state, activation, report, overrides)
    report.count_converted(state)
    return config, converted | _new_probes(config), report

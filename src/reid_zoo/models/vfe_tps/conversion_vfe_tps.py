"""Reading VFE-TPS's official checkpoint (`best.pth`: `model`, beside the optimiser's state and counters)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..clip_dual_encoder_conversion import (
    BASE,
    FAMILY_SIGNATURE,
    convert_cross_modal_branch,
    convert_towers,
    infer_branch_layers,
    infer_tower_fields,
    leftover_reason,
    official_options,
)
from ..conversion_report import ConversionReport, naming_missing_weights
from ..encoders.tower_weights import rename
from .configuration_vfe_tps import VFETPSConfig

__all__ = [
    "FAMILY_SIGNATURE",
    "SIGNATURE",
    "convert_checkpoint",
    "convert_state_dict",
    "infer_config",
    "official_options",
]

SIGNATURE = re.compile(r"(module\.)?(mask_token|gToken2id\..*|image_ln_(pre_[ti]|post)\..*|decoder\.0\..*)")
"""A key that only VFE-TPS's checkpoints have."""

_IDENTITY = "classifier."
_JOINT_IDENTITY = "gToken2id."
_MASKED_IMAGE_MODELING = "masked_image_modeling."
_RELEASED_BRANCH = "cross_modal_transformer_image"


def _reason_to_leave_out(key: str, terms: tuple[str, ...], guidance: str, mask_mode: str) -> str | None:
    reason = leftover_reason(key)
    if reason is not None or key.startswith(BASE):
        return reason
    if key.startswith(_IDENTITY):
        return None if "id" in terms or "gi2id" in terms else "the configuration has no identity loss"
    if key.startswith(_JOINT_IDENTITY):
        return None if "g2id" in terms else "the configuration has no identity loss on joined features"
    if "mim" not in terms:
        return "the configuration has no masked image modelling"
    if key == "mask_token" and (mask_mode != "token" or guidance == "mae"):
        return "the configuration has no mask token in the image tower"
    if key.startswith(("image_ln_", "cross_attention_image.", "cross_modal_transformer_image.")) and guidance not in (
        "text",
        "image",
    ):
        return f"mim_guidance={guidance!r} has no cross-modal encoder"
    return None


def convert_state_dict(
    state: Mapping[str, Tensor],
    report: ConversionReport,
    *,
    loss_terms: tuple[str, ...] = ("matching", "gi2id", "mim"),
    mim_guidance: str = "text",
    mask_mode: str = "token",
) -> dict[str, Tensor]:
    """Official keys (without `module.`) → keys of [`VFETPSForTraining`].

    Every rule is linear, so a dictionary of official gradients converts as well.

    Args:
        state: The network's tensors.
        report: Gets the keys that were left out, and why.
        loss_terms: The configuration's; heads that no term uses are left out.
        mim_guidance: The configuration's.
        mask_mode: The configuration's.

    Raises:
        CheckpointError: For a key that VFE-TPS does not have.
    """
    kept: dict[str, Tensor] = {}
    for key, value in state.items():
        reason = _reason_to_leave_out(key, loss_terms, mim_guidance, mask_mode)
        if reason is None:
            kept[key] = value
        else:
            report.leave_out(key, reason)
    converted = convert_towers(kept, "vfe_tps.")
    heads = {
        key: value
        for key, value in kept.items()
        if key == "mask_token" or key.startswith((_IDENTITY, _JOINT_IDENTITY, "decoder."))
    }
    renamed = rename(
        heads,
        {
            r"classifier\.(weight|bias)": r"identity_loss.classifier.\1",
            r"gToken2id\.(weight|bias)": r"joint_identity_loss.classifier.\1",
            r"mask_token": _MASKED_IMAGE_MODELING + "mask_token",
            r"decoder\.0\.(weight|bias)": _MASKED_IMAGE_MODELING + r"decoder.projection.\1",
        },
        "VFE-TPS checkpoint",
    )
    token = _MASKED_IMAGE_MODELING + "mask_token"
    if token in renamed:
        renamed[token] = renamed[token].flatten()  # (1, 1, W)
    converted |= renamed
    branch = {key: value for key, value in kept.items() if key not in heads and not key.startswith(BASE)}
    converted |= convert_cross_modal_branch(
        branch,
        _MASKED_IMAGE_MODELING + "encoder.",
        attention="cross_attention_image",
        blocks=_RELEASED_BRANCH,
        query_norm="image_ln_pre_i",
        memory_norm="image_ln_pre_t",
        post="image_ln_post",
    )
    return converted


def infer_config(state: Mapping[str, Tensor], **overrides: Any) -> VFETPSConfig:
    """Configuration of a checkpoint: sizes and loss terms from its tensors, the rest from the defaults.

    A checkpoint with a classifier was trained with the release's `gi2id` in place of IS-GVFC, and with masked images
    reconstructed from themselves. Whether one without a classifier was guided by the text is not in its weights: the
    paper's form is taken.

    Args:
        state: Official tensors without `module.`.
        overrides: Fields that shapes do not tell or that differ from the defaults. Beside fields of [`VFETPSConfig`]:
            `image_size` `[height, width]`, `stride_size`, `vision_num_attention_heads`, `text_num_attention_heads`.

    Raises:
        CheckpointError: If a size can neither be inferred nor was given; it is named.
    """
    overrides = dict(overrides)
    fields = infer_tower_fields(state, overrides)
    if "gToken2id.weight" in state:
        fields["num_classes"] = state["gToken2id.weight"].shape[0]
    if "classifier.weight" in state:
        fields["loss_terms"] = ["matching", "gi2id"]
        fields["mim_guidance"] = "image"
    else:
        fields["loss_terms"] = ["matching", "gvfc"]
    if "gToken2id.weight" in state:
        fields["loss_terms"].append("g2id")
    if "decoder.0.weight" in state:
        fields["loss_terms"].append("mim")
        fields["cross_modal_num_layers"] = infer_branch_layers(state, _RELEASED_BRANCH)
    return VFETPSConfig(**(fields | overrides))


def convert_checkpoint(
    content: Mapping[str, Any], **overrides: Any
) -> tuple[VFETPSConfig, dict[str, Tensor], ConversionReport]:
    """An official checkpoint as read from its file → configuration, weights of [`VFETPSForTraining`], report.

    Args:
        content: The file's dictionary, wrapped or bare, with or without `module.`, in any floating-point precision.
        overrides: See `infer_config`.
    """
    report = ConversionReport(method="vfe_tps")
    state = report.read_network(content)
    with naming_missing_weights():
        config = infer_config(state, **overrides)
    converted = convert_state_dict(
        state,
        report,
        loss_terms=tuple(config.loss_terms),
        mim_guidance=config.mim_guidance,
        mask_mode=config.mask_mode,
    )
    report.count_converted(state)
    return config, converted, report

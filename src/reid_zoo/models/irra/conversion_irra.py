"""Reading IRRA's official checkpoint (`best.pth`: `model`, beside the optimiser's state and counters)."""

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
from .configuration_irra import IRRAConfig

__all__ = [
    "FAMILY_SIGNATURE",
    "SIGNATURE",
    "convert_checkpoint",
    "convert_state_dict",
    "infer_config",
    "official_options",
]

SIGNATURE = re.compile(r"(module\.)?mlm_head\..*")
"""A key that only IRRA's checkpoints have."""

_CLASSIFIER = "classifier."
_REASONING = "implicit_relation_reasoning."


def convert_state_dict(
    state: Mapping[str, Tensor], report: ConversionReport, *, loss_terms: tuple[str, ...] = ("sdm", "id", "mlm")
) -> dict[str, Tensor]:
    """Official keys (without `module.`) → keys of [`IRRAForTraining`].

    Every rule is linear, so a dictionary of official gradients converts as well.

    Args:
        state: The network's tensors.
        report: Gets the keys that were left out, and why.
        loss_terms: The configuration's; heads that no term uses are left out.

    Raises:
        CheckpointError: For a key that IRRA does not have.
    """
    kept: dict[str, Tensor] = {}
    for key, value in state.items():
        reason = leftover_reason(key)
        if reason is None and key.startswith(_CLASSIFIER) and "id" not in loss_terms:
            reason = "the configuration has no identity loss"
        if reason is None and not key.startswith((BASE, _CLASSIFIER)) and "mlm" not in loss_terms:
            reason = "the configuration has no masked language modelling"
        if reason is None:
            kept[key] = value
        else:
            report.leave_out(key, reason)
    converted = convert_towers(kept, "irra.")
    heads = {key: value for key, value in kept.items() if key.startswith((_CLASSIFIER, "mlm_head."))}
    converted |= rename(
        heads,
        {
            r"classifier\.(weight|bias)": r"identity_loss.classifier.\1",
            r"mlm_head\.dense\.(weight|bias)": _REASONING + r"head.dense.\1",
            r"mlm_head\.ln\.(weight|bias)": _REASONING + r"head.layer_norm.\1",
            r"mlm_head\.fc\.(weight|bias)": _REASONING + r"head.output.\1",
        },
        "IRRA checkpoint",
    )
    branch = {key: value for key, value in kept.items() if key not in heads and not key.startswith(BASE)}
    converted |= convert_cross_modal_branch(
        branch,
        _REASONING + "encoder.",
        attention="cross_attn",
        blocks="cross_modal_transformer",
        query_norm="ln_pre_t",
        memory_norm="ln_pre_i",
        post="ln_post",
    )
    return converted


def infer_config(state: Mapping[str, Tensor], **overrides: Any) -> IRRAConfig:
    """Configuration of a checkpoint: sizes and loss terms from its tensors, the rest from the release's defaults.

    Args:
        state: Official tensors without `module.`.
        overrides: Fields that shapes do not tell or that differ from the defaults. Beside fields of [`IRRAConfig`]:
            `image_size` `[height, width]`, `stride_size`, `vision_num_attention_heads`, `text_num_attention_heads`.

    Raises:
        CheckpointError: If a size can neither be inferred nor was given; it is named.
    """
    overrides = dict(overrides)
    fields = infer_tower_fields(state, overrides)
    fields["loss_terms"] = ["sdm"]
    if "classifier.weight" in state:
        fields["loss_terms"].append("id")
    if "mlm_head.fc.weight" in state:
        fields["loss_terms"].append("mlm")
        fields["cross_modal_num_layers"] = infer_branch_layers(state, "cross_modal_transformer")
    return IRRAConfig(**(fields | overrides))


def convert_checkpoint(
    content: Mapping[str, Any], **overrides: Any
) -> tuple[IRRAConfig, dict[str, Tensor], ConversionReport]:
    """An official checkpoint as read from its file → configuration, weights of [`IRRAForTraining`], report.

    Args:
        content: The file's dictionary, wrapped or bare, with or without `module.`, in any floating-point precision.
        overrides: See `infer_config`.
    """
    report = ConversionReport(method="irra")
    state = report.read_network(content)
    with naming_missing_weights():
        config = infer_config(state, **overrides)
    converted = convert_state_dict(state, report, loss_terms=tuple(config.loss_terms))
    report.count_converted(state)
    return config, converted, report

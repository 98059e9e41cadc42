"""Reading CFine's official checkpoint (`best_model.pth.tar`: `network` with `module.` prefixes, and the classifier `W`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...checkpoint_files import unwrap
from ...errors import CheckpointError
from ..conversion_report import ConversionReport, naming_missing_weights
from ..encoders.position_grid import square_grid
from ..encoders.tower_weights import (
    convert_imagenet_vision,
    convert_openai_clip_vision,
    infer_vision_sizes,
    rename,
)
from .configuration_cfine import CFineConfig

__all__ = ["SIGNATURE", "convert_checkpoint", "convert_state_dict", "infer_config"]

SIGNATURE = re.compile(r"(module\.)?language_model\.textExtractor\..*")
"""A key that only CFine's checkpoints have."""

_CLIP = "image_model.clip_model."
_IMAGENET = "image_model.transformer."
_TEXT = "language_model.textExtractor."


def _tower(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _add(target: dict[str, Tensor], prefix: str, part: Mapping[str, Tensor]) -> None:
    target.update({prefix + key: value for key, value in part.items()})


def convert_state_dict(
    state: Mapping[str, Tensor], report: ConversionReport, *, tie_layers: bool = True
) -> dict[str, Tensor]:
    """Official keys (without `module.`) and `W` → keys of [`CFineForTraining`].

    Every rule is linear, so a dictionary of official gradients converts as well.

    Args:
        state: The network's tensors, and `W` `(D, C)` if there is one.
        report: Gets the keys that were left out, and why.
        tie_layers: The release stores M identical copies of one decoder block; keep the first.

    Raises:
        CheckpointError: For a key that CFine does not have.
    """
    converted: dict[str, Tensor] = {}
    decoder: dict[str, Tensor] = {}
    for key in state:
        if re.fullmatch(re.escape(_TEXT) + r"pooler\.dense\.(weight|bias)", key):
            report.leave_out(key, "BERT's pooler: its output is not used")
        elif key == _TEXT + "embeddings.position_ids":
            report.leave_out(key, "a constant buffer")
        elif key.startswith("block.layers."):
            if tie_layers and not key.startswith("block.layers.0."):
                report.leave_out(key, "an identical copy of decoder block 0")
            else:
                decoder[key.removeprefix("block.")] = state[key]
    _add(converted, "cfine.vision_model.", convert_openai_clip_vision(_tower(state, _CLIP), drop_projection=False))
    _add(converted, "cfine.vision_model.", convert_imagenet_vision(_tower(state, _IMAGENET)))
    text = {key: value for key, value in _tower(state, _TEXT).items() if _TEXT + key not in report.left_out}
    _add(converted, "cfine.text_model.", text)
    has_cross_attention = any(".ln_0." in key for key in decoder)
    layer = r"layers\.(\d+)\."
    attention = {
        "self_attn": ("ln_0", "self_attn") if has_cross_attention else ("ln_1", "attn"),
        "cross_attn": ("ln_1", "attn") if has_cross_attention else None,
    }
    rules = {
        layer + r"ln_2\.(weight|bias)": r"layers.\1.mlp_layer_norm.\2",
        layer + r"mlp\.c_fc\.(weight|bias)": r"layers.\1.mlp.fc1.\2",
        layer + r"mlp\.c_proj\.(weight|bias)": r"layers.\1.mlp.fc2.\2",
    }
    for ours, theirs in attention.items():
        if theirs is not None:
            norm, block = theirs
            rules[layer + norm + r"\.(weight|bias)"] = rf"layers.\1.{ours}_layer_norm.\2"
            rules[layer + block + r"\.in_proj_(weight|bias)"] = rf"layers.\1.{ours}.in_proj.\2"
            rules[layer + block + r"\.out_proj\.(weight|bias)"] = rf"layers.\1.{ours}.out_proj.\2"
    _add(converted, "cfine.global_local_decoder.", rename(decoder, rules, "CFine decoder"))
    rest = {
        key: value
        for key, value in state.items()
        if not key.startswith((_CLIP, _IMAGENET, _TEXT, "block.")) and key not in report.left_out
    }
    others = {
        r"bottleneck_(image|text)\.(\w+)": r"cfine.\1_bottleneck.\2",
        r"W": "cmpc_loss.weight",
    }
    converted.update(rename(rest, others, "CFine checkpoint"))
    return converted


def _check_copies(state: Mapping[str, Tensor]) -> None:
    """Raise `CheckpointError` unless all decoder blocks are copies of the first, as in the release."""
    for key, value in state.items():
        first = re.sub(r"^block\.layers\.\d+\.", "block.layers.0.", key)
        if first != key and not (first in state and torch.equal(value, state[first])):
            raise CheckpointError(
                f"{key} differs from {first}: these decoder blocks are independent; convert with gld_tie_layers=false."
            )


def infer_config(state: Mapping[str, Tensor], **overrides: Any) -> CFineConfig:
    """Configuration of a checkpoint: sizes from shapes, the rest from the release's defaults.

    Args:
        state: Official tensors without `module.`, `W` included if there is one.
        overrides: Fields that shapes do not tell or that differ from the defaults. Beside fields of [`CFineConfig`]:
            `image_size` `[height, width]`, `vision_num_attention_heads`, `text_num_attention_heads`.

    Raises:
        CheckpointError: If a size can neither be inferred nor was given; it is named.
    """
    is_clip = any(key.startswith(_CLIP) for key in state)
    vision_state = (
        convert_openai_clip_vision(_tower(state, _CLIP))
        if is_clip
        else convert_imagenet_vision(_tower(state, _IMAGENET))
    )
    sizes = infer_vision_sizes(vision_state)
    width = sizes["hidden_size"]
    num_positions = sizes.pop("num_positions")

    def heads(name: str, usual: int | None) -> int:
        if name in overrides:
            return int(overrides.pop(name))
        if usual is None:
            raise CheckpointError(
                f"the checkpoint does not tell {name} (its width is {width}, not 768): give it with --set {name}=N."
            )
        return usual

    full_size = 12 if width == 768 else None
    vision: dict[str, Any] = dict(sizes)
    vision["num_attention_heads"] = heads("vision_num_attention_heads", max(width // 64, 1) if is_clip else full_size)
    vision["hidden_act"] = "quick_gelu" if is_clip else "gelu"
    vision["layer_norm_eps"] = 1e-5 if is_clip else 1e-6
    vision["hidden_dropout_prob"] = 0.0 if is_clip else 0.1
    image_size = overrides.pop("image_size", None)
    if image_size is None:
        rows, columns = square_grid(num_positions)
        image_size = [rows * sizes["patch_size"], columns * sizes["patch_size"]]
    vision["image_size"] = list(image_size)
    vision.update(overrides.pop("vision_config", {}))

    bert_layers = {key.split("layer.")[1].split(".")[0] for key in state if key.startswith(_TEXT + "encoder.layer.")}
    text: dict[str, Any] = {
        "vocab_size": state[_TEXT + "embeddings.word_embeddings.weight"].shape[0],
        "max_position_embeddings": state[_TEXT + "embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": state[_TEXT + "embeddings.token_type_embeddings.weight"].shape[0],
        "hidden_size": state[_TEXT + "embeddings.word_embeddings.weight"].shape[1],
        "intermediate_size": state[_TEXT + "encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": len(bert_layers),
        "num_attention_heads": heads("text_num_attention_heads", full_size),
    }
    text.update(overrides.pop("text_config", {}))

    fields: dict[str, Any] = {
        "gld_num_attention_heads": overrides.pop("gld_num_attention_heads", None)
        or heads("gld_num_attention_heads", full_size)
    }
    decoder_layers = {key.split(".")[2] for key in state if key.startswith("block.layers.")}
    if decoder_layers:
        fields["gld_num_layers"] = len(decoder_layers)
        fields["gld_intermediate_size"] = state["block.layers.0.mlp.c_fc.weight"].shape[0]
        fields["gld_attention_type"] = "cross" if "block.layers.0.ln_0.weight" in state else "self"
    if "W" in state:
        fields["num_classes"] = state["W"].shape[1]
    fields["use_bottleneck"] = "bottleneck_image.weight" in state
    return CFineConfig(vision_config=vision, text_config=text, **(fields | overrides))


def convert_checkpoint(
    content: Mapping[str, Any], **overrides: Any
) -> tuple[CFineConfig, dict[str, Tensor], ConversionReport]:
    """An official checkpoint as read from its file → configuration, weights of [`CFineForTraining`], report.

    Args:
        content: The file's dictionary, wrapped or bare, with or without `module.`, in any floating-point precision.
        overrides: See `infer_config`.
    """
    state, beside = unwrap(content)
    classifier = beside.pop("W", None)
    if isinstance(classifier, Tensor):
        state["W"] = classifier.detach()
    report = ConversionReport(method="cfine")
    for key in beside:
        report.leave_out(key, "not part of the network")
    state = report.to_float32(state)
    with naming_missing_weights():
        config = infer_config(state, **overrides)
    if config.gld_tie_layers:
        _check_copies(state)
    converted = convert_state_dict(state, report, tie_layers=config.gld_tie_layers)
    report.count_converted(state)
    return config, converted, report

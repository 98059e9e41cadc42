"""Filling CLIP's text tower and both projections from published checkpoints: OpenAI CLIP, OpenCLIP, transformers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPModel

from ...checkpoint_files import read_checkpoint, unwrap
from ...errors import CheckpointError
from ..configuration_base import check_fields
from .clip_text_transformer import CLIPTextTransformer
from .configuration_clip_text_transformer import ReIDCLIPTextConfig
from .text_tower_weights import (
    convert_openai_clip_text,
    convert_transformers_clip_text,
    infer_clip_text_sizes,
    is_clip_text_key,
)
from .tower_loading import (
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    OPENAI_MARKS,
    look_up,
    read_json,
    read_with_transformers,
    refuse_missing_path,
)

__all__ = ["CLIPTextTower", "load_clip_text_tower"]

_HEAD_WIDTH = 64
_CUSTOM_TEXT = "text."  # OpenCLIP's prefix where the text tower is an object of its own


@dataclass(frozen=True, slots=True)
class CLIPTextTower:
    """What a CLIP checkpoint holds beside its image tower.

    Attributes:
        config: Configuration of the text tower.
        state: Its weights in float32, under the names of [`CLIPTextTransformer`].
        text_projection: `(D, text width)`.
        visual_projection: `(D, vision width)`; `None` for a ResNet, whose pooling projects.
    """

    config: ReIDCLIPTextConfig
    state: dict[str, Tensor]
    text_projection: Tensor
    visual_projection: Tensor | None


def load_clip_text_tower(source: str | os.PathLike[str], **overrides: Any) -> CLIPTextTower:
    """Read the text tower and the two projections of a CLIP.

    Args:
        source: Folder or Hub id of transformers (`CLIPModel`) or open_clip, or a file with the keys of OpenAI CLIP or
            OpenCLIP. Nothing in it is executed.
        overrides: Fields of [`ReIDCLIPTextConfig`] that the source does not tell, or that are to differ from it.

    Raises:
        CheckpointError: If nothing is there, it is no whole CLIP, or something that the weights do not tell must be
            given.
        ConfigurationError: For an unknown field.
    """
    check_fields("text_config", ReIDCLIPTextConfig, overrides)
    name = os.fspath(source)
    if not os.path.isfile(name):
        refuse_missing_path(name)
        config_file = look_up(name, "config.json")
        if config_file is not None and read_json(config_file).get("model_type") == "clip":
            return _from_transformers(name, overrides)
        for candidate in OPEN_CLIP_WEIGHTS:
            weights = look_up(name, candidate)
            if weights is not None:
                look_up(name, OPEN_CLIP_CONFIG)  # from the Hub: put it beside the weights
                return _from_file(weights, overrides)
        raise CheckpointError(f"{name} holds no CLIP of transformers or open_clip.")
    beside = Path(name).parent / "config.json"
    if beside.is_file() and read_json(beside).get("model_type") == "clip":
        return _from_transformers(str(beside.parent), overrides)
    return _from_file(Path(name), overrides)


def _from_transformers(name: str, overrides: Mapping[str, Any]) -> CLIPTextTower:
    state, config = read_with_transformers(CLIPModel, name)
    text = config.text_config
    prefix = "text_model."
    converted = convert_transformers_clip_text(
        {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    )
    fields = {
        "num_attention_heads": text.num_attention_heads,
        "hidden_act": text.hidden_act,
        "layer_norm_eps": text.layer_norm_eps,
        "attention_dropout": text.attention_dropout,
    }
    projections = state["text_projection.weight"], state["visual_projection.weight"]
    return _assemble(name, converted, {**fields, **overrides}, *projections)


def _from_file(file: Path, overrides: Mapping[str, Any]) -> CLIPTextTower:
    content = read_checkpoint(file)
    state, _ = unwrap(content)
    text = {
        key.removeprefix(_CUSTOM_TEXT): value
        for key, value in state.items()
        if is_clip_text_key(key.removeprefix(_CUSTOM_TEXT))
    }
    text_projection, visual_projection = text.pop("text_projection", None), state.get("visual.proj")
    has_projection = visual_projection is not None or "visual.attnpool.c_proj.weight" in state
    if text_projection is None or not has_projection or not text:
        raise CheckpointError(
            f"{file} is no whole CLIP: it lacks its text tower, text_projection or visual.proj (OpenAI CLIP or OpenCLIP)."
        )
    fields: dict[str, Any] = {}
    config_file = file.parent / OPEN_CLIP_CONFIG
    if config_file.is_file():
        model = read_json(config_file).get("model_cfg", {})
        fields["hidden_act"] = "quick_gelu" if model.get("quick_gelu") else "gelu"
        if "heads" in model.get("text_cfg", {}):
            fields["num_attention_heads"] = model["text_cfg"]["heads"]
    elif set(content) & OPENAI_MARKS or text_projection.dtype == torch.float16:
        fields["hidden_act"] = "quick_gelu"  # only OpenAI publishes bare state dictionaries in half precision
    return _assemble(
        str(file),
        convert_openai_clip_text(text),
        {**fields, **overrides},
        text_projection.T.contiguous(),
        None if visual_projection is None else visual_projection.T.contiguous(),
    )


def _assemble(
    name: str,
    state: dict[str, Tensor],
    fields: dict[str, Any],
    text_projection: Tensor,
    visual_projection: Tensor | None,
) -> CLIPTextTower:
    sizes = infer_clip_text_sizes(state)
    if "hidden_act" not in fields:
        raise CheckpointError(
            f"{name} does not tell its activation: give text_config={{'hidden_act': 'quick_gelu'}} (OpenAI's weights "
            "and OpenCLIP's '-quickgelu' models) or 'gelu' (other OpenCLIP models)."
        )
    fields.setdefault("num_attention_heads", max(1, sizes["hidden_size"] // _HEAD_WIDTH))
    config = ReIDCLIPTextConfig(**{**sizes, **fields})
    with torch.device("meta"):
        wanted = {key: value.shape for key, value in CLIPTextTransformer(config).state_dict().items()}
    wrong = sorted(key for key in wanted.keys() | state.keys() if key not in wanted or key not in state)
    if wrong:
        raise CheckpointError(f"{name} is no complete CLIP text tower: {', '.join(wrong[:5])} missing or unexpected.")
    for key, shape in wanted.items():
        if state[key].shape != shape:
            raise CheckpointError(
                f"{name}: {key} has shape {tuple(state[key].shape)}, but its configuration wants {tuple(shape)}."
            )
    return CLIPTextTower(
        config,
        {key: value.float() for key, value in state.items()},
        text_projection.float(),
        None if visual_projection is None else visual_projection.float(),
    )

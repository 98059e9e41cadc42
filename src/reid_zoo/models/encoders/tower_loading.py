"""Filling the towers from published checkpoints: CLIP, OpenCLIP and ImageNet ViT for images, BERT for sentences.

Formats of transformers are read by transformers itself, which knows every old naming and sharding. All others are
recognised by their keys. What a checkpoint's shapes do not tell (heads, activation, epsilon) comes from the
configuration beside it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, CLIPVisionModel, PreTrainedConfig, ViTModel
from transformers.utils import cached_file

from ...checkpoint_files import read_checkpoint, unwrap
from ...errors import CheckpointError, ConfigurationError
from ..configuration_base import check_fields
from .configuration_vision_transformer import ReIDVisionConfig
from .position_grid import resample_position_grid, square_grid
from .tower_weights import (
    convert_imagenet_jax_vision,
    convert_openai_clip_vision,
    convert_timm_vision,
    convert_transformers_clip_vision,
    convert_transformers_vit,
    infer_vision_sizes,
)
from .vision_transformer import VisionTransformer

__all__ = [
    "OPENAI_MARKS",
    "OPEN_CLIP_CONFIG",
    "OPEN_CLIP_WEIGHTS",
    "ImageTower",
    "TextTower",
    "load_image_tower",
    "load_text_tower",
    "look_up",
    "read_json",
    "read_with_transformers",
    "refuse_missing_path",
]

_CLIP_TYPES = ("clip", "clip_vision_model")
_POSITIONS = "embeddings.position_embedding"
# OpenAI's released state dictionaries carry these numbers beside the weights; no other CLIP checkpoint does.
OPENAI_MARKS = frozenset({"input_resolution", "context_length", "vocab_size"})
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_USUAL_HEAD_WIDTH = 64
_WIDEST_WITH_USUAL_HEADS = 1024  # ViT-L; from ViT-H on heads are wider than 64


@dataclass(frozen=True, slots=True)
class ImageTower:
    """Weights of the image tower, and the configuration they belong to."""

    config: ReIDVisionConfig
    state: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class TextTower:
    """Weights of the text tower, and the configuration they belong to."""

    config: BertConfig
    state: dict[str, Tensor]


@dataclass(slots=True)
class _Found:
    """A converted tower and what its source says about itself."""

    state: dict[str, Tensor]
    fields: dict[str, Any]
    """Fields of `ReIDVisionConfig` that shapes do not tell, as far as the source knows them."""
    source_size: tuple[int, int] | None = None
    """`(height, width)` in pixels, if the source says it."""


def load_image_tower(
    source: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int] | list[int] | None = None,
    align_corners: bool = True,
    **overrides: Any,
) -> ImageTower:
    """Read an image tower.

    Args:
        source: One of

            - a folder or Hub id of transformers: `CLIPModel`, `CLIPVisionModel` (with or without projection), `ViTModel`;
            - a folder or Hub id of open_clip (`open_clip_config.json` and its weights) or of timm;
            - a file with the keys of OpenAI CLIP or OpenCLIP (`visual.*`) or of a timm vision transformer, in any
              floating-point precision, also in a TorchScript archive, of which nothing is executed;
            - the original JAX release of an ImageNet ViT (`.npz`).
        image_size: `(height, width)` in pixels; the position grid is resampled to it. By default the source's own.
        align_corners: How the position grid is resampled, see [`resample_position_grid`].
        overrides: Fields of [`ReIDVisionConfig`] that the source does not tell, or that are to differ from it, such as
            `hidden_act="gelu"` or `num_attention_heads=16` for a bare OpenCLIP file.

    Returns:
        Configuration, and all weights in float32 under the names of [`VisionTransformer`].

    Raises:
        CheckpointError: If nothing is there, the format is unknown, weights are missing, or something that the weights
            do not tell must be given.
        ConfigurationError: For an unknown field, or an `image_size` that holds no patch.
    """
    check_fields("vision_config", ReIDVisionConfig, overrides)
    name = os.fspath(source)
    found = _find_image_tower(name)
    if _POSITIONS not in found.state or not any(key.startswith("layers.") for key in found.state):
        raise CheckpointError(
            f"{name} has no position embedding or no blocks: it is not a complete vision transformer."
        )
    try:
        sizes = infer_vision_sizes(found.state)
    except KeyError as error:
        raise CheckpointError(f"{name} lacks weights of the image tower: {error.args[0]}.") from error
    num_positions = sizes.pop("num_positions")
    patch = sizes["patch_size"]
    fields = {**sizes, **found.fields, **overrides}
    if "num_attention_heads" not in fields:
        fields["num_attention_heads"] = _usual_heads(name, sizes["hidden_size"])
    if "hidden_act" not in fields:
        raise CheckpointError(
            f"{name} does not tell its activation: give vision_config={{'hidden_act': 'quick_gelu'}} (OpenAI's weights "
            "and OpenCLIP's '-quickgelu' models) or 'gelu' (other OpenCLIP models)."
        )
    wanted_size = image_size if image_size is not None else found.source_size
    if wanted_size is None:
        rows, columns = square_grid(num_positions)
        wanted_size = (rows * patch, columns * patch)
    config = ReIDVisionConfig(**fields, image_size=wanted_size if isinstance(wanted_size, int) else list(wanted_size))
    if found.source_size is not None:
        source_grid = found.source_size[0] // patch, found.source_size[1] // patch
    elif num_positions == config.num_tokens:
        source_grid = config.grid_size if _is_not_square(num_positions) else square_grid(num_positions)
    else:
        source_grid = square_grid(num_positions)
    state = {key: value.float() for key, value in found.state.items()}
    state[_POSITIONS] = resample_position_grid(
        state[_POSITIONS], source_grid, config.grid_size, align_corners=align_corners
    )
    _check_complete(name, config, state)
    return ImageTower(config, state)


def load_text_tower(source: str | os.PathLike[str], **overrides: Any) -> TextTower:
    """Read a BERT text tower.

    Args:
        source: Folder or Hub id of transformers: `BertModel`, or a BERT with a head on top, which is left out.
        overrides: Fields of `BertConfig` that are to differ, such as `hidden_dropout_prob=0.0`.

    Returns:
        Configuration, and all weights in float32 under the names of `BertModel` without pooler.

    Raises:
        CheckpointError: If nothing is there, it is no BERT, or weights are missing.
        ConfigurationError: For an unknown field.
    """
    check_fields("text_config", BertConfig, overrides)
    name = os.fspath(source)
    if os.path.isfile(name):
        raise CheckpointError(f"{name} is a file; give the folder of a BERT, with its config.json, or its Hub id.")
    refuse_missing_path(name)
    config_file = look_up(name, "config.json")
    model_type = None if config_file is None else read_json(config_file).get("model_type")
    if model_type != "bert":
        described = f"a {model_type!r} model" if model_type else "no config.json of a transformers model"
        raise CheckpointError(f"{name} holds {described}; the text tower must be a BERT of transformers.")
    state, config = read_with_transformers(BertModel, name, add_pooling_layer=False, **overrides)
    assert isinstance(config, BertConfig)
    return TextTower(config, state)


def _find_image_tower(name: str) -> _Found:
    if os.path.isfile(name):
        return _from_file(Path(name))
    refuse_missing_path(name)
    config_file = look_up(name, "config.json")
    config = read_json(config_file) if config_file is not None else {}
    model_type = config.get("model_type")
    if model_type in _CLIP_TYPES or model_type == "vit":
        return _from_transformers(name, is_clip=model_type in _CLIP_TYPES)
    candidates = OPEN_CLIP_WEIGHTS if model_type is not None else OPEN_CLIP_WEIGHTS + _WEIGHTS
    for candidate in candidates:
        weights = look_up(name, candidate)
        if weights is not None:
            look_up(name, OPEN_CLIP_CONFIG)  # from the Hub: put it beside the weights
            return _from_file(weights)
    if model_type is not None:
        raise CheckpointError(f"{name} holds a {model_type!r} model; the image tower must be a CLIP or a ViT.")
    raise CheckpointError(
        f"{name} holds no image tower: there is neither the config.json of a transformers CLIP or ViT nor weights of "
        "open_clip or timm in it."
    )


def _from_transformers(name: str, *, is_clip: bool) -> _Found:
    state, config = (
        read_with_transformers(CLIPVisionModel, name)
        if is_clip
        else read_with_transformers(ViTModel, name, add_pooling_layer=False)
    )
    size = config.image_size
    fields = {
        "num_attention_heads": config.num_attention_heads,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "attention_dropout": config.attention_dropout if is_clip else config.attention_probs_dropout_prob,
        "hidden_dropout_prob": 0.0 if is_clip else config.hidden_dropout_prob,
    }
    if is_clip:
        bare = {key.removeprefix("vision_model."): value for key, value in state.items()}
        converted = convert_transformers_clip_vision(bare)
    else:
        converted = convert_transformers_vit(state)
    return _Found(converted, fields, (size, size) if isinstance(size, int) else tuple(size))


def _from_file(file: Path) -> _Found:
    if file.suffix == ".npz":
        return _from_jax(file)
    beside = file.parent / "config.json"
    if file.name in _WEIGHTS and beside.is_file() and "model_type" in read_json(beside):
        return _find_image_tower(str(file.parent))
    content = read_checkpoint(file)
    state, _ = unwrap(content)
    visual = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    if any(key.startswith("transformer.resblocks.") for key in visual):
        return _from_clip(file, content, visual)
    if any(key.startswith("blocks.") for key in state) and "pos_embed" in state:
        is_clip = "norm_pre.weight" in state
        fields: dict[str, Any] = {"layer_norm_eps": 1e-5 if is_clip else 1e-6}
        if not is_clip:
            fields["hidden_act"] = "gelu"
        return _Found(convert_timm_vision(state), fields)
    some = ", ".join(list(state)[:3]) or "no tensors"
    if visual:
        raise CheckpointError(f"{file} holds a CLIP whose image tower is not a plain vision transformer ({some}, ...).")
    raise CheckpointError(
        f"{file} is no image tower that is known here (it holds {some}, ...): expected OpenAI CLIP or OpenCLIP "
        "(visual.*), a timm vision transformer, a JAX .npz, or a folder of transformers."
    )


def _from_clip(file: Path, content: Mapping[str, Any], visual: dict[str, Tensor]) -> _Found:
    """OpenAI CLIP or OpenCLIP, with whatever `open_clip_config.json` beside the file tells."""
    config_file = file.parent / OPEN_CLIP_CONFIG
    fields: dict[str, Any] = {"layer_norm_eps": 1e-5}
    size = None
    if config_file.is_file():
        model = read_json(config_file).get("model_cfg", {})
        vision = model.get("vision_cfg", {})
        if vision.get("act_kwargs"):
            raise CheckpointError(f"{config_file}: vision_cfg.act_kwargs (an approximate GELU) is not supported.")
        width = visual["class_embedding"].numel() if "class_embedding" in visual else 0
        fields["hidden_act"] = "quick_gelu" if model.get("quick_gelu") else "gelu"
        fields["num_attention_heads"] = max(1, width // vision.get("head_width", _USUAL_HEAD_WIDTH))
        fields["layer_norm_eps"] = (vision.get("norm_kwargs") or {}).get("eps", 1e-5)
        edge = vision.get("image_size", 224)
        size = (edge, edge) if isinstance(edge, int) else (int(edge[0]), int(edge[1]))
    elif set(content) & OPENAI_MARKS or visual.get("proj", torch.empty(0)).dtype == torch.float16:
        fields["hidden_act"] = "quick_gelu"  # only OpenAI publishes bare state dictionaries in half precision
    return _Found(convert_openai_clip_vision(visual), fields, size)


def _from_jax(file: Path) -> _Found:
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{file} cannot be read as an .npz archive: {' '.join(str(error).split())}") from error
    try:
        state = convert_imagenet_jax_vision(arrays)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    fields: dict[str, Any] = {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "hidden_dropout_prob": 0.1}
    query = arrays.get("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel")
    if query is not None and query.ndim == 3:  # (D, heads, D / heads)
        fields["num_attention_heads"] = int(query.shape[1])
    return _Found(state, fields)


def read_with_transformers(model_class: Any, name: str, **kwargs: Any) -> tuple[dict[str, Tensor], PreTrainedConfig]:
    """State dictionary and configuration of a model of transformers; every weight must come from the checkpoint."""
    try:
        with _quiet_transformers():
            model, report = model_class.from_pretrained(name, dtype=torch.float32, output_loading_info=True, **kwargs)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"cannot read a tower from {name!r}: {reason}") from error
    missing = sorted(str(key) for key in report["missing_keys"])
    if missing:
        raise CheckpointError(f"{name} lacks weights of the tower: {', '.join(missing[:5])} ({len(missing)} in all).")
    return dict(model.state_dict()), model.config


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hold back transformers' report about left-out heads, which is expected here; missing weights are checked."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_complete(name: str, config: ReIDVisionConfig, state: Mapping[str, Tensor]) -> None:
    with torch.device("meta"):
        wanted = VisionTransformer(config).state_dict()
    missing = sorted(set(wanted) - set(state))
    if missing:
        raise CheckpointError(
            f"{name} lacks weights of the image tower: {', '.join(missing[:5])} ({len(missing)} in all)."
        )
    unexpected = sorted(set(state) - set(wanted))
    if unexpected:
        raise CheckpointError(f"{name} has weights that the image tower has no place for: {', '.join(unexpected[:5])}.")
    for key, value in wanted.items():
        if value.shape != state[key].shape:
            raise CheckpointError(
                f"{name}: {key} has shape {tuple(state[key].shape)}, but its configuration wants {tuple(value.shape)}."
            )


def _usual_heads(name: str, width: int) -> int:
    if width % _USUAL_HEAD_WIDTH == 0 and width <= _WIDEST_WITH_USUAL_HEADS:
        return width // _USUAL_HEAD_WIDTH
    raise CheckpointError(
        f"{name} does not tell its number of attention heads (its width is {width}): give "
        "vision_config={'num_attention_heads': N}."
    )


def _is_not_square(num_positions: int) -> bool:
    try:
        square_grid(num_positions)
    except ConfigurationError:
        return True
    return False


def refuse_missing_path(name: str) -> None:
    """Tell a mistyped path from a Hub id, before the Hub is asked."""
    if not os.path.exists(name) and not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name):
        raise CheckpointError(f"{name} does not exist.")
    if not os.path.exists(name) and Path(name).suffix in (".npz", ".pt", ".pth", ".bin", ".safetensors"):
        raise CheckpointError(f"{name} does not exist.")


def look_up(name: str, file: str) -> Path | None:
    """A file of a folder or a Hub repository, `None` if it has no such file."""
    if os.path.isdir(name):
        path = Path(name) / file
        return path if path.is_file() else None
    try:
        found = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{name!r} is neither a folder nor a model that can be had from the Hub: {reason}"
        ) from error
    return None if found is None else Path(found)


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object that a file holds; `CheckpointError` if it holds none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} should hold a JSON object.")
    return content

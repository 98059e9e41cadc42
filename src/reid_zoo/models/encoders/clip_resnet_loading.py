"""Filling CLIP's ResNet from published weights: OpenAI CLIP and OpenCLIP."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoint_files import read_checkpoint, unwrap
from ...errors import CheckpointError
from ..configuration_base import check_fields
from .clip_resnet import CLIPResNet
from .configuration_clip_resnet import ReIDCLIPResNetConfig
from .position_grid import resample_position_grid, square_grid
from .tower_loading import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, look_up, refuse_missing_path
from .tower_weights import rename

__all__ = ["ResNetTower", "convert_clip_resnet", "infer_clip_resnet_sizes", "load_clip_resnet"]

_POSITIONS = "attention_pooling.position_embedding"
_PREFIX = "visual."


@dataclass(frozen=True, slots=True)
class ResNetTower:
    """Weights of a ResNet tower in float32, the configuration they belong to, and the width E of their pooling."""

    config: ReIDCLIPResNetConfig
    state: dict[str, Tensor]
    output_size: int


def convert_clip_resnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI CLIP or OpenCLIP ResNet (prefix `visual.` removed) → [`CLIPResNet`].

    Rules are linear: applied to gradients they give gradients.

    Raises:
        CheckpointError: For a key that is not part of such a tower.
    """
    norm = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
    return rename(
        state,
        {
            r"attnpool\.positional_embedding": _POSITIONS,
            r"attnpool\.([qkvc]_proj)\.(weight|bias)": r"attention_pooling.\1.\2",
            r"(conv[123]\.weight)": r"trunk.\1",
            r"(bn[123])\." + norm: r"trunk.\1.\2",
            r"(layer[1-4]\.\d+\.conv[123]\.weight)": r"trunk.\1",
            r"(layer[1-4]\.\d+\.bn[123])\." + norm: r"trunk.\1.\2",
            r"(layer[1-4]\.\d+\.downsample\.0\.weight)": r"trunk.\1",
            r"(layer[1-4]\.\d+\.downsample\.1)\." + norm: r"trunk.\1.\2",
        },
        "CLIP ResNet",
    )


def infer_clip_resnet_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of a converted tower, as far as its shapes tell (the number of heads and the grid they do not).

    Returns:
        Fields of [`ReIDCLIPResNetConfig`]; `num_positions`, the rows of the position embedding; `output_size`.

    Raises:
        CheckpointError: If a weight that a size is read from is missing; it is named.
    """
    for key in ("trunk.conv3.weight", _POSITIONS, "attention_pooling.c_proj.weight"):
        if key not in state:
            raise CheckpointError(f"the CLIP ResNet lacks {key}.")
    blocks = {
        (int(match[1]), int(match[2])) for key in state if (match := re.match(r"trunk\.layer([1-4])\.(\d+)\.", key))
    }
    return {
        "stem_width": state["trunk.conv3.weight"].shape[0],
        "layers": [sum(stage == wanted for stage, _ in blocks) for wanted in (1, 2, 3, 4)],
        "num_positions": state[_POSITIONS].shape[0],
        "output_size": state["attention_pooling.c_proj.weight"].shape[0],
    }


def load_clip_resnet(
    source: str | os.PathLike[str], *, image_size: int | tuple[int, int] | list[int] | None = None, **overrides: Any
) -> ResNetTower:
    """Read a ResNet tower.

    Args:
        source: Folder or Hub id of open_clip, or a file with the keys of OpenAI CLIP or OpenCLIP (`visual.*`), in any
            floating-point precision. Nothing in it is executed.
        image_size: `(height, width)` in pixels; the position grid is resampled to it (bilinear, half-pixel centres).
            By default the source's own square.
        overrides: Further fields of [`ReIDCLIPResNetConfig`], such as `last_stride=2`.

    Raises:
        CheckpointError: If nothing is there, or it is no complete CLIP ResNet.
        ConfigurationError: For an unknown field, or an `image_size` that does not hold whole cells.
    """
    check_fields("vision_config", ReIDCLIPResNetConfig, overrides)
    name = os.fspath(source)
    file = _find_file(name)
    state, _ = unwrap(read_checkpoint(file))
    visual = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    if not any(key.startswith("attnpool.") for key in visual):
        raise CheckpointError(
            f"{file} holds no CLIP ResNet (visual.attnpool.*); for a vision transformer set backbone."
        )
    converted = {
        key: value.float() if value.is_floating_point() else value for key, value in convert_clip_resnet(visual).items()
    }
    sizes = infer_clip_resnet_sizes(converted)
    output_size = sizes.pop("output_size")
    source_grid = square_grid(sizes.pop("num_positions"))
    size = image_size if image_size is not None else (source_grid[0] * 32, source_grid[1] * 32)
    config = ReIDCLIPResNetConfig(**sizes, **overrides, image_size=size if isinstance(size, int) else list(size))
    converted[_POSITIONS] = resample_position_grid(
        converted[_POSITIONS], source_grid, config.grid_size, align_corners=False
    )
    with torch.device("meta"):
        wanted = {key: value.shape for key, value in CLIPResNet(config, output_size).state_dict().items()}
    for key, value in wanted.items():
        # Files of the first OpenAI releases carry no counters of batches.
        if key.endswith("num_batches_tracked"):
            converted.setdefault(key, torch.tensor(0))
        if key not in converted or converted[key].shape != value:
            raise CheckpointError(f"{file} is no complete CLIP ResNet: {key} is missing or of another shape.")
    return ResNetTower(config, converted, output_size)


def _find_file(name: str) -> Path:
    if os.path.isfile(name):
        return Path(name)
    refuse_missing_path(name)
    for candidate in OPEN_CLIP_WEIGHTS:
        weights = look_up(name, candidate)
        if weights is not None:
            look_up(name, OPEN_CLIP_CONFIG)  # from the Hub: put it beside the weights
            return weights
    raise CheckpointError(f"{name} holds no weights of open_clip ({', '.join(OPEN_CLIP_WEIGHTS)}).")

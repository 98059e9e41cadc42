"""Reading other people's checkpoint files safely."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError
from .torchscript_archive import is_torchscript_archive, read_torchscript_archive

__all__ = ["read_checkpoint", "strip_prefix", "unwrap"]

_WRAPPERS = ("network", "state_dict", "model", "model_state_dict")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a `.safetensors` or PyTorch checkpoint, also a TorchScript archive, without executing anything in it.

    Args:
        path: The file.

    Returns:
        What the file holds: tensors by name, for PyTorch files possibly nested dictionaries and numbers too.

    Raises:
        CheckpointError: If the file is missing, not a checkpoint, or would need arbitrary code to be read.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"{file} is not a file; give the official checkpoint file.")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        if is_torchscript_archive(file):
            return dict(read_torchscript_archive(file))
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # readers raise many types for damaged files; all mean the same to the user
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not a dictionary of tensors.")
    return dict(content)


def unwrap(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Separate a checkpoint into its network's state dictionary and whatever stands beside it.

    The network may be wrapped (`network`, `state_dict`, `model`, ...) and its keys may carry the `module.` prefix of a
    data-parallel wrapper.
    """
    for name in _WRAPPERS:
        inner = content.get(name)
        if isinstance(inner, Mapping) and any(isinstance(value, Tensor) for value in inner.values()):
            return strip_prefix(inner), {key: value for key, value in content.items() if key != name}
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    return strip_prefix(tensors), {key: value for key, value in content.items() if key not in tensors}


def strip_prefix(state: Mapping[str, Tensor], prefix: str = "module.") -> dict[str, Tensor]:
    """Remove `prefix` from the keys that have it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if isinstance(value, Tensor)}

"""Reading golden cases and comparing with them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

# Relative to each tensor's largest value, in float32: the authors' own code in float32 differs from its float64 run by up
# to 4e-6, and a correct implementation by about 1e-5 (the method specs).
TOLERANCE = 2e-5


KEPT = Path(__file__).parent / "cases"


def expects_cases(root: Path, folder: str) -> bool:
    """Whether a root has to have cases in `folder`: the kept ones all do, another root may be about some methods only."""
    return root == KEPT or (root / folder).is_dir()


def side_file(root: Path, name: str) -> Path:
    """A file of the root, or, where the root has only cases, the one kept with the tests."""
    return root / name if (root / name).is_file() else KEPT / name


def find_cases(root: Path, folder: str, method: str | None = None) -> list[Path]:
    """Cases below `root/folder`; of those whose configuration names a method, only the ones of `method` (`folder`)."""
    files = sorted((root / folder).glob("*/config.json"))
    method = method or folder
    return [file.parent for file in files if json.loads(file.read_text()).get("method", method) == method]


@dataclass
class GoldenCase:
    """One case; remembers which expected tensors were compared, so that none is passed over."""

    folder: Path
    config: dict[str, Any] = field(init=False)
    checkpoint: dict[str, Tensor] = field(init=False)
    inputs: dict[str, Tensor] = field(init=False)
    expected: dict[str, Tensor] = field(init=False)
    compared: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.config = json.loads((self.folder / "config.json").read_text())
        for name in ("checkpoint", "inputs", "expected"):
            setattr(self, name, load_file(self.folder / f"{name}.safetensors"))

    def compare(self, key: str, actual: Tensor) -> None:
        expected = self.expected[key]
        assert_close(key, actual, expected)
        self.compared.add(key)

    def assert_everything_compared(self) -> None:
        files = {path.name for path in self.folder.iterdir()}
        assert files == {"config.json", "checkpoint.safetensors", "inputs.safetensors", "expected.safetensors"}
        left = sorted(set(self.expected) - self.compared)
        assert not left, f"{self.folder}: expected tensors that no test compared: {left}"


def assert_close(key: str, actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert tuple(actual.shape) == tuple(expected.shape), f"{key}: {tuple(actual.shape)} != {tuple(expected.shape)}"
    if not expected.is_floating_point():
        assert torch.equal(actual.to(expected.dtype), expected), f"{key}: not exactly equal"
        return
    scale = expected.abs().max().clamp(min=1e-30)
    error = ((actual.double() - expected.double()).abs().max() / scale).item()
    assert error <= tolerance, f"{key}: relative error {error:.2e}"

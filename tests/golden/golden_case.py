"""Reading golden cases and comparing with them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

# Relative to each tensor's largest value, in float32: the authors' own code in float32 differs from its float64 run by up
# to 4e-6, and a correct implementation by about 1e-5 (the method specs).
TOLERANCE = 2e-5
# Where a case's notes state how far the authors' float32 run was from their float64 one: two correct float32 runs of a
# case, which sum in different orders, were seen to differ from float64 by 6e-6 and 4.5e-5 (CFine with permuted weights).
NOISE_MULTIPLE = 8
# What a case allows beside a share of the largest value (an absolute error, a share of each element) counts up to this
# share of the largest value: an absolute error alone would let zeros pass for a small gradient.
STATED_CEILING = 1e-3
# Half-precision re-ranking: the last bit of a distance decides now and then how a weight is rounded, which changes the
# result by up to 3e-3 (evaluation spec, section 8). Few entries may do so: without the roundings most of them do.
HALF_PRECISION_ERROR = 3e-3
HALF_PRECISION_SHARE = 0.02
# A key's bias shifts all scores of a query alike, so its gradient is zero in exact arithmetic; the query's is its scale.
KEY_BIASES = {".key.bias": ".query.bias", ".k_proj.bias": ".q_proj.bias"}

KEPT = Path(__file__).parent / "cases"


def expects_cases(root: Path, folder: str) -> bool:
    """Whether a root has to have cases in `folder`: the kept ones all do, another root may be about some methods only."""
    return root == KEPT or (root / folder).is_dir()


def side_files(root: Path, name: str) -> list[Path]:
    """The file of that name that is kept with the tests, and the root's own if it is another root and has one."""
    return [KEPT / name, *([root / name] if root != KEPT and (root / name).is_file() else [])]


def find_cases(root: Path, folder: str, method: str | None = None) -> list[Path]:
    """Cases below `root/folder`; of those whose configuration names a method, only the ones of `method` (`folder`)."""
    files = sorted((root / folder).glob("*/config.json"))
    method = method or folder
    return [file.parent for file in files if json.loads(file.read_text()).get("method", method) == method]


@dataclass(frozen=True)
class Tolerance:
    """Error that is allowed in an element: the larger of two bounds.

    Attributes:
        of_largest: As a share of the tensor's largest absolute value.
        absolute: Part of the second bound, absolute + relative * |expected element|, which counts up to
            `STATED_CEILING` of the tensor's largest value.
        relative: See there.
    """

    of_largest: float = TOLERANCE
    absolute: float = 0.0
    relative: float = 0.0

    def bound(self, expected: Tensor) -> Tensor:
        """Largest allowed error of every element, in float64."""
        size = expected.double().abs()
        largest = size.max().clamp(min=1e-30)
        stated = (self.absolute + self.relative * size).clamp(max=STATED_CEILING * largest)
        return torch.maximum(stated, self.of_largest * largest)


DEFAULT = Tolerance()


def stated_tolerances(config: dict[str, Any]) -> tuple[Tolerance, Tolerance]:
    """Tolerances of outputs and of gradients that a case's configuration states, `TOLERANCE` where it states none.

    Read are: `tolerance`, `{"atol": ..., "rtol": ...}` (MGCC); `float32_noise`, name of a tensor → difference between
    the authors' float32 and float64 runs as a share of its largest value (CFine); in the notes, `suggested_tolerance`
    (CLIP-ReID).
    """
    given = config.get("tolerance", {})
    assert set(given) <= {"atol", "rtol"}, f"unknown tolerance {given}"
    noise = max(config.get("float32_noise", {}).values(), default=0.0)
    of_largest = max(TOLERANCE, NOISE_MULTIPLE * noise)
    outputs = Tolerance(of_largest, given.get("atol", 0.0), given.get("rtol", 0.0))
    gradients = outputs
    prose = config.get("notes", {}).get("suggested_tolerance", "")
    if found := re.search(r"atol (\S+) \+ rtol (\S+) for outputs", prose):
        outputs = Tolerance(of_largest, float(found[1]), float(found[2]))
    if found := re.search(r"rtol (\S+) of the tensor maximum [^;]*gradients", prose):
        gradients = Tolerance(max(of_largest, float(found[1])))
    return outputs, gradients


@dataclass
class GoldenCase:
    """One case; remembers which expected tensors were compared, so that none is passed over.

    Attributes:
        folder: Where it lies.
        gradient_tolerance: Share of the largest value that the method's spec allows for gradients (keys `grad...`).
    """

    folder: Path
    gradient_tolerance: float = TOLERANCE
    config: dict[str, Any] = field(init=False)
    checkpoint: dict[str, Tensor] = field(init=False)
    inputs: dict[str, Tensor] = field(init=False)
    expected: dict[str, Tensor] = field(init=False)
    compared: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.config = json.loads((self.folder / "config.json").read_text())
        for name in ("checkpoint", "inputs", "expected"):
            setattr(self, name, load_file(self.folder / f"{name}.safetensors"))

    def tolerance(self, key: str) -> Tolerance:
        """The one of an expected tensor; kept cases were seen to agree better than they ask for, and have to."""
        if KEPT in self.folder.parents:
            return DEFAULT
        outputs, gradients = stated_tolerances(self.config)
        if not key.startswith("grad"):
            return outputs
        return replace(gradients, of_largest=max(gradients.of_largest, self.gradient_tolerance))

    def compare(self, key: str, actual: Tensor) -> None:
        expected = self.expected[key]
        if key.endswith("_half"):
            assert_half_precision_close(key, actual, expected)
        else:
            assert_close(key, actual, expected, self.tolerance(key))
        self.compared.add(key)

    def compare_gradient(self, key: str, gradients: dict[str, Tensor]) -> None:
        """Compare `grad....<official key>`; `gradients` are ours under the official keys."""
        name = key.partition(".")[2].removeprefix("module.")
        ending = next((ending for ending in KEY_BIASES if name.endswith(ending)), None)
        if ending is None:
            self.compare(key, gradients[name])
            return
        assert gradients[name].shape == self.expected[key].shape, key
        scale = gradients[name.removesuffix(ending) + KEY_BIASES[ending]].abs().max()
        error = (gradients[name].double() - self.expected[key].double()).abs().max() / scale
        assert error <= self.tolerance(key).of_largest, f"{key}: {error:.2e} of the queries' bias"
        self.compared.add(key)

    def assert_everything_compared(self) -> None:
        files = {path.name for path in self.folder.iterdir()}
        assert files == {"config.json", "checkpoint.safetensors", "inputs.safetensors", "expected.safetensors"}
        left = sorted(set(self.expected) - self.compared)
        assert not left, f"{self.folder}: expected tensors that no test compared: {left}"


def assert_close(key: str, actual: Tensor, expected: Tensor, tolerance: Tolerance = DEFAULT) -> None:
    assert tuple(actual.shape) == tuple(expected.shape), f"{key}: {tuple(actual.shape)} != {tuple(expected.shape)}"
    if not expected.is_floating_point():
        assert torch.equal(actual.to(expected.dtype), expected), f"{key}: not exactly equal"
        return
    error = (actual.double() - expected.double()).abs()
    excess = (error / tolerance.bound(expected)).max().item()
    assert excess <= 1, f"{key}: error {error.max():.2e} is {excess:.2f} times what is allowed by {tolerance}"


def assert_half_precision_close(key: str, actual: Tensor, expected: Tensor) -> None:
    """Compare the result of half-precision re-ranking: few entries may be rounded otherwise."""
    assert tuple(actual.shape) == tuple(expected.shape), f"{key}: {tuple(actual.shape)} != {tuple(expected.shape)}"
    error = (actual.double() - expected.double()).abs()
    assert error.max() <= HALF_PRECISION_ERROR, f"{key}: error {error.max():.2e}"
    share = (error > 1e-5).double().mean().item()
    assert share <= HALF_PRECISION_SHARE, f"{key}: {share:.1%} of the entries are rounded otherwise"

"""The comparison behind all golden harnesses: what it lets pass, and that it refuses a wrong tensor under any tolerance."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from golden_case import HALF_PRECISION_ERROR, KEPT, TOLERANCE, GoldenCase, Tolerance, assert_half_precision_close

VALUES = torch.tensor([0.2, -0.1, 0.0, 0.003])
PROSE = (
    "atol 1e-5 + rtol 1e-4 for outputs and losses; rtol 1e-3 of the tensor maximum is generous for gradients; "
    "learning rates relative 1e-6"
)
# What a configuration states, and the share of the largest value, 0.2, by which this one may be wrong: in an output and
# in a gradient.
STATED: dict[str, tuple[dict[str, Any], float, float]] = {
    "nothing": ({}, TOLERANCE, TOLERANCE),
    "tolerance": ({"tolerance": {"atol": 2e-5, "rtol": 1e-4}}, 2e-4, 2e-4),
    "float32_noise": ({"float32_noise": {"grad.module.x": 9e-6, "train.y": 2e-6}}, 7.2e-5, 7.2e-5),
    "little float32_noise": ({"float32_noise": {"train.y": 2.4e-6}}, TOLERANCE, TOLERANCE),
    "suggested_tolerance": ({"notes": {"suggested_tolerance": PROSE}}, 1.5e-4, 1e-3),
}


def case_with(folder: Path, config: dict[str, Any], expected: dict[str, Tensor], **options: float) -> GoldenCase:
    (folder / "config.json").write_text(json.dumps(config))
    for name, tensors in {"checkpoint": {}, "inputs": {}, "expected": expected}.items():
        save_file({key: value.clone() for key, value in tensors.items()}, folder / f"{name}.safetensors")
    return GoldenCase(folder, **options)


def moved(share: float) -> Tensor:
    """The values with the largest one wrong by that share of it."""
    result = VALUES.double()
    result[0] *= 1 + share
    return result


def assert_limit(case: GoldenCase, key: str, share: float) -> None:
    for sign in (1, -1):
        case.compare(key, moved(0.99 * sign * share))
        with pytest.raises(AssertionError, match=key):
            case.compare(key, moved(1.01 * sign * share))


@pytest.mark.parametrize("name", STATED)
def test_errors_up_to_the_stated_tolerance_pass_and_larger_ones_do_not(name: str, tmp_path: Path) -> None:
    config, for_output, for_gradient = STATED[name]
    case = case_with(tmp_path, config, {"eval.x": VALUES, "grad.x": VALUES})
    assert_limit(case, "eval.x", for_output)
    assert_limit(case, "grad.x", for_gradient)


def test_a_spec_may_allow_more_for_gradients_only(tmp_path: Path) -> None:
    keys = ("eval.x", "grad.x", "grad_as_released.x")
    case = case_with(tmp_path, {}, dict.fromkeys(keys, VALUES), gradient_tolerance=1e-4)
    for key, share in zip(keys, (TOLERANCE, 1e-4, 1e-4), strict=True):
        assert_limit(case, key, share)


@pytest.mark.parametrize("method", ["cfine", "clip_reid", "mgcc", "vfe_tps"])
def test_kept_cases_are_held_to_the_tolerance_that_the_documentation_names(method: str) -> None:
    case = GoldenCase(KEPT / method / "case_a", gradient_tolerance=1e-4)
    assert {case.tolerance(key) for key in ("eval.x", "grad.x")} == {Tolerance(of_largest=TOLERANCE)}


@pytest.mark.parametrize("name", STATED)
@pytest.mark.parametrize("key", ["eval.x", "grad.x"])
def test_a_wrong_tensor_is_refused_whatever_is_stated(name: str, key: str, tmp_path: Path) -> None:
    small = 1e-5 * VALUES  # below the absolute tolerances: zeros must not pass for it
    case = case_with(tmp_path, STATED[name][0], {key: small}, gradient_tolerance=1e-4)
    not_a_number = small.clone()
    not_a_number[1] = torch.nan
    for wrong in (torch.zeros(4), small * 1.002, small.flip(0), -small, not_a_number, small[:3], small[None]):
        with pytest.raises(AssertionError, match=key):
            case.compare(key, wrong)


def test_integers_are_exact(tmp_path: Path) -> None:
    case = case_with(tmp_path, {"tolerance": {"atol": 2.0, "rtol": 1.0}}, {"indices": torch.tensor([3, 1, 2])})
    case.compare("indices", torch.tensor([3, 1, 2]))
    with pytest.raises(AssertionError, match="indices"):
        case.compare("indices", torch.tensor([3, 2, 1]))


def test_an_unknown_tolerance_is_not_passed_over(tmp_path: Path) -> None:
    case = case_with(tmp_path, {"tolerance": {"ulp": 4}}, {"eval.x": VALUES})
    with pytest.raises(AssertionError, match="ulp"):
        case.compare("eval.x", VALUES)


@pytest.mark.parametrize(("key", "query"), [("attn.key.bias", "attn.query.bias"), ("k_proj.bias", "q_proj.bias")])
def test_gradient_of_a_keys_bias_is_zero_on_the_scale_of_the_queries(key: str, query: str, tmp_path: Path) -> None:
    key, query = f"block.{key}", f"block.{query}"
    case = case_with(tmp_path, {}, {f"grad.module.{key}": 1e-9 * VALUES, f"grad.{query}": VALUES})
    case.compare_gradient(f"grad.module.{key}", {key: -2e-9 * VALUES, query: VALUES})
    case.compare_gradient(f"grad.{query}", {query: VALUES})
    case.assert_everything_compared()
    for wrong in (1e-4 * VALUES, torch.full((4,), torch.nan), torch.zeros(3)):
        with pytest.raises(AssertionError):
            case.compare_gradient(f"grad.module.{key}", {key: wrong, query: VALUES})


def test_half_precision_may_round_few_entries_otherwise() -> None:
    expected = torch.linspace(0, 1, 1000)
    few, many, far = expected.clone(), expected.clone(), expected.clone()
    few[:10] += 5e-4
    many[:100] += 5e-4
    far[0] += 1.1 * HALF_PRECISION_ERROR
    assert_half_precision_close("few", few, expected)
    for name, wrong in {"many": many, "far": far, "nan": expected / 0, "shape": expected[:5]}.items():
        with pytest.raises(AssertionError, match=name):
            assert_half_precision_close(name, wrong, expected)


def test_what_no_test_compared_and_unknown_files_are_failures(tmp_path: Path) -> None:
    case = case_with(tmp_path, {}, {"eval.x": VALUES, "eval.y": VALUES})
    case.compare("eval.x", VALUES)
    with pytest.raises(AssertionError, match=r"no test compared: \['eval\.y'\]"):
        case.assert_everything_compared()
    case.compare("eval.y", VALUES)
    case.assert_everything_compared()
    (tmp_path / "more.json").write_text("{}")
    with pytest.raises(AssertionError):
        case.assert_everything_compared()

"""Diversity against a loop written from the definition; the authors' numbers are in `tests/golden`."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import DiversityLoss

torch.set_num_threads(1)


def cosine(a: list, b: list) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 4), count=st.integers(2, 4), seed=st.integers(0, 1000), form=st.sampled_from(["gram", "paper"])
)
def test_equals_a_loop_over_the_definition(batch, count, seed, form):
    parts = torch.randn(batch, count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    total = 0.0
    for sample in parts.tolist():
        cosines = [cosine(sample[a], sample[b]) for a in range(count) for b in range(count) if a != b]
        total += sum(cosines) if form == "paper" else math.sqrt(sum(c * c for c in cosines)) / count**2
    assert DiversityLoss(form)(parts).item() == pytest.approx(total / batch, rel=1e-9, abs=1e-12)


def test_opposite_parts_are_penalised_by_the_release_and_rewarded_by_the_paper():
    parts = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    assert DiversityLoss("gram")(parts).item() == pytest.approx(math.sqrt(2) / 4)
    assert DiversityLoss("paper")(parts).item() == pytest.approx(-2)


@pytest.mark.parametrize("form", ["gram", "paper"])
def test_a_single_part_has_nothing_to_differ_from(form):
    assert DiversityLoss(form)(torch.randn(3, 1, 4)).item() == 0


@pytest.mark.parametrize("form", ["gram", "paper"])
def test_orthogonal_parts_have_finite_gradients(form):
    parts = torch.eye(3)[None].requires_grad_()
    DiversityLoss(form)(parts).backward()
    assert parts.grad.isfinite().all()


def test_unknown_form_is_refused():
    with pytest.raises(ConfigurationError, match=r"DiversityLoss\.form"):
        DiversityLoss("papr")

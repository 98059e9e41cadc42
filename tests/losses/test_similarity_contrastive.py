"""The contrastive loss on a similarity matrix against a loop over its definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import SimilarityContrastiveLoss

torch.set_num_threads(1)


def cross_entropy(rows: list[list[float]]) -> float:
    """Mean over the rows of -log softmax of the diagonal."""
    total = 0.0
    for own, row in enumerate(rows):
        largest = max(row)
        total -= row[own] - largest - math.log(sum(math.exp(score - largest) for score in row))
    return total / len(rows)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 7), seed=st.integers(0, 1000), scale=st.sampled_from([0.1, 5.0, 100.0]))
def test_equals_a_loop_over_the_definition(size, seed, scale):
    similarity = scale * torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = cross_entropy(similarity.tolist()), cross_entropy(similarity.T.tolist())
    loss = SimilarityContrastiveLoss()
    for found, wanted in zip(loss.directions(similarity), expected, strict=True):
        assert found.item() == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    assert loss(similarity).item() == pytest.approx(sum(expected) / 2, rel=1e-12, abs=1e-12)
    assert SimilarityContrastiveLoss("sum")(similarity).item() == pytest.approx(sum(expected), rel=1e-12, abs=1e-12)


def test_directions_are_not_confused():
    """Every image finds its sentence, but the first sentence finds the wrong image."""
    similarity = torch.tensor([[20.0, 0.0], [40.0, 60.0]])
    image_to_text, text_to_image = SimilarityContrastiveLoss().directions(similarity)
    assert image_to_text < 1e-6
    assert text_to_image == pytest.approx(10, abs=1e-3)


def test_there_is_no_further_temperature_and_large_scores_do_not_overflow():
    similarity = torch.tensor([[1000.0, -1000.0], [-1000.0, 1000.0]], requires_grad=True)
    loss = SimilarityContrastiveLoss()(similarity)
    loss.backward()
    assert loss.item() == 0
    assert similarity.grad.isfinite().all()
    assert SimilarityContrastiveLoss()(torch.zeros(5, 5)).item() == pytest.approx(math.log(5), rel=1e-6)


def test_gradients():
    similarity = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SimilarityContrastiveLoss(), (similarity,))


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ConfigurationError, match="reduction"):
        SimilarityContrastiveLoss("max")

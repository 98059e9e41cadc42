"""Batch-hard triplets against a loop over the definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import BatchHardTripletLoss

torch.set_num_threads(1)


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=7),
    seed=st.integers(0, 100),
    margin=st.sampled_from([None, 0.0, 0.3, 5.0]),
    normalize=st.booleans(),
)
def test_equals_a_loop_over_the_definition(labels, seed, margin, normalize):
    features = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    loss = BatchHardTripletLoss(margin, normalize=normalize)(features, torch.tensor(labels)).item()
    points = features / features.norm(dim=1, keepdim=True) if normalize else features
    values = []
    for i, label in enumerate(labels):
        distance = [(points[i] - point).norm().item() for point in points]
        negatives = [d for d, other in zip(distance, labels, strict=True) if other != label]
        if negatives:
            gap = max(d for d, other in zip(distance, labels, strict=True) if other == label) - min(negatives)
            values.append(math.log1p(math.exp(gap)) if margin is None else max(0.0, margin + gap))
    expected = sum(values) / len(values) if values else 0.0
    assert loss == pytest.approx(expected, rel=1e-6, abs=2e-6)  # a distance of 0 is kept at 1e-6


def test_gradients_are_finite_where_samples_coincide():
    features = torch.ones(4, 3, requires_grad=True)
    BatchHardTripletLoss()(features, torch.tensor([0, 0, 1, 1])).backward()
    assert features.grad.isfinite().all()


def test_a_negative_margin_is_refused():
    with pytest.raises(ConfigurationError, match=r"margin is -0.1"):
        BatchHardTripletLoss(-0.1)

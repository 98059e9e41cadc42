from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.losses import SupervisedContrastiveLoss


def plain(images, texts, labels) -> tuple[float, float]:
    """The definition, pair by pair."""
    count = len(labels)

    def direction(score) -> float:
        total = 0.0
        for i in range(count):
            denominator = math.log(sum(math.exp(score(i, k)) for k in range(count)))
            positives = [j for j in range(count) if labels[j] == labels[i]]
            total += sum(score(i, j) - denominator for j in positives) / len(positives)
        return -total / count

    return (
        direction(lambda i, j: float(images[i] @ texts[j])),
        direction(lambda i, j: float(texts[i] @ images[j])),
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=7), st.integers(0, 2**31))
def test_equals_the_definition_for_unequal_numbers_per_identity(labels, seed):
    generator = torch.Generator().manual_seed(seed)
    images, texts = (torch.randn(len(labels), 5, generator=generator, dtype=torch.float64) for _ in range(2))
    loss = SupervisedContrastiveLoss()
    found = loss.directions(images, texts, torch.tensor(labels))
    assert [float(value) for value in found] == pytest.approx(plain(images, texts, labels), rel=1e-9, abs=1e-12)
    assert float(loss(images, texts, torch.tensor(labels))) == pytest.approx(sum(map(float, found)))


def test_features_are_neither_normalised_nor_scaled():
    images, texts, labels = torch.eye(3), torch.eye(3), torch.arange(3)
    loss = SupervisedContrastiveLoss()
    assert float(loss(4 * images, texts, labels)) < 0.2 * float(loss(images, texts, labels))

"""Similarity distribution matching against a loop written from the definition, and its options."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import SDMLoss
from reid_zoo.losses.distribution_matching import matching_distribution, row_divergence

torch.set_num_threads(1)


def features(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def divergence(rows: list[list[float]], targets: list[list[float]], epsilon: float) -> float:
    """Mean over the rows of KL(softmax ‖ target), number by number."""
    total = 0.0
    for scores, target in zip(rows, targets, strict=True):
        largest = max(scores)
        normaliser = sum(math.exp(score - largest) for score in scores)
        for score, q in zip(scores, target, strict=True):
            log_p = score - largest - math.log(normaliser)
            total += math.exp(log_p) * (log_p - math.log(q + epsilon))
    return total / len(rows)


def cosines_over(one: torch.Tensor, other: torch.Tensor, temperature: float) -> list[list[float]]:
    return [[(torch.dot(a, b) / (a.norm() * b.norm()) / temperature).item() for b in other] for a in one]


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.02, 0.5]),
    epsilon=st.sampled_from([1e-8, 1e-3]),
)
def test_equals_a_loop_over_the_definition(labels, seed, temperature, epsilon):
    images, texts = features(len(labels), seed)
    loss = SDMLoss(temperature, epsilon)(images, texts, torch.tensor(labels))
    targets = [[(a == b) / labels.count(a) for b in labels] for a in labels]
    expected = divergence(cosines_over(texts, images, temperature), targets, epsilon)
    expected += divergence(cosines_over(images, texts, temperature), targets, epsilon)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_length_of_features_does_not_matter_and_modalities_are_alike():
    images, texts = features(6)
    labels = torch.tensor([0, 1, 2, 0, 1, 3])
    loss = SDMLoss()(images, texts, labels)
    torch.testing.assert_close(SDMLoss()(7 * images, 0.1 * texts, labels), loss)
    torch.testing.assert_close(SDMLoss()(texts, images, labels), loss)


def test_perfectly_separated_pairs_cost_almost_nothing():
    unit = torch.eye(4)
    assert SDMLoss()(unit, unit, torch.arange(4)).item() == pytest.approx(0.0, abs=1e-5)
    assert SDMLoss()(unit, unit.flip(0), torch.arange(4)).item() > 10


def test_the_extra_mean_divides_by_the_batch():
    images, texts = features(6)
    labels = torch.tensor([0, 1, 2, 0, 1, 3])
    once, twice = (SDMLoss(extra_batch_mean=extra)(images, texts, labels) for extra in (False, True))
    torch.testing.assert_close(twice * 6, once)


def test_soft_labels_prefer_the_same_image_of_a_person():
    labels, image_ids = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 2])
    images, texts = features(4)
    loss = SDMLoss(soft_label_factor=0.3)(images, texts, labels, image_ids)
    weights = torch.tensor([[1, 1, 0.3, 0], [1, 1, 0.3, 0], [0.3, 0.3, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    targets = (weights / weights.sum(dim=1)[None, :]).tolist()  # column j over the sum of row j, as released
    expected = divergence(cosines_over(texts, images, 0.02), targets, 1e-8)
    expected += divergence(cosines_over(images, texts, 0.02), targets, 1e-8)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    plain = SDMLoss()(images, texts, labels)
    torch.testing.assert_close(SDMLoss(soft_label_factor=1.0)(images, texts, labels, image_ids), plain)
    with pytest.raises(ConfigurationError, match="needs image_ids"):
        SDMLoss(soft_label_factor=0.3)(images, texts, labels)


@pytest.mark.parametrize("name", ["temperature", "epsilon"])
def test_a_bad_constant_is_named(name):
    with pytest.raises(ConfigurationError, match=rf"SDMLoss\.{name} is 0"):
        SDMLoss(**{name: 0})


def test_divergence_is_zero_only_at_the_target():
    targets = matching_distribution(torch.tensor([0, 1, 0]), torch.tensor([0, 1, 0]), torch.float64)
    assert targets.tolist() == [[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]]
    at_target = row_divergence(targets.clamp(min=1e-30).log(), targets)
    assert at_target.item() == pytest.approx(0.0, abs=1e-6)
    assert row_divergence(torch.zeros(3, 3, dtype=torch.float64), targets) > 1

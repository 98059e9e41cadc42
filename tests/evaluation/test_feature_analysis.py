"""The silhouette of features equals its definition, and says what a user would expect of clear cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import ConfigurationError, EvaluationError
from reid_zoo.evaluation.feature_analysis import silhouette_coefficient, silhouette_samples

torch.set_num_threads(1)


def drawn(seed: int, count: int, identities: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, identities, (count,), generator=generator)
    labels[:2] = torch.tensor([0, 1])  # at least two
    return torch.randn(count, 5, generator=generator), 7 * labels - 3


def by_definition(features: torch.Tensor, labels: torch.Tensor, metric: str) -> list[float]:
    """One sample after the other, from the words of the definition."""
    points = features.double().numpy()
    if metric == "cosine":
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
        distances = 1 - points @ points.T
    else:
        distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    found = []
    for index, label in enumerate(labels.tolist()):
        mates = [j for j, other in enumerate(labels.tolist()) if other == label and j != index]
        if not mates:
            found.append(0.0)
            continue
        a = distances[index, mates].mean()
        others = {other for other in labels.tolist() if other != label}
        b = min(distances[index, (labels == other).numpy()].mean() for other in others)
        found.append((b - a) / max(a, b))
    return found


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(3, 25), identities=st.integers(2, 6))
def test_equals_the_definition(metric, seed, count, identities):
    features, labels = drawn(seed, count, identities)
    samples = silhouette_samples(features, labels, metric=metric)
    assert samples.tolist() == pytest.approx(by_definition(features, labels, metric), abs=1e-9)  # both in float64
    mean = silhouette_coefficient(features, labels, metric=metric)
    assert mean == pytest.approx(samples.mean().item())


def test_tight_and_distant_groups_are_near_one_and_swapped_labels_near_minus_one():
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(4).repeat_interleave(5, dim=0)
    features, labels = centres + 0.001 * torch.randn(20, 4, generator=generator), torch.arange(4).repeat_interleave(5)
    assert silhouette_coefficient(features, labels) > 0.99
    wrong = labels.roll(1)  # one sample of every group carries the label of its neighbours
    # its mates by label are all far, those it stands among near but for one of five: about 1/5 - 1
    assert silhouette_samples(features, wrong)[::5].tolist() == pytest.approx([-0.8] * 4, abs=0.01)
    assert abs(silhouette_coefficient(torch.randn(200, 8, generator=generator), torch.arange(200) % 4)) < 0.05


def test_length_counts_for_euclid_and_not_for_the_cosine():
    features, labels = drawn(3, 12, 3)
    scaled = features * torch.linspace(0.5, 3, 12)[:, None]
    cosine = silhouette_coefficient(features, labels, metric="cosine")
    assert silhouette_coefficient(scaled, labels, metric="cosine") == pytest.approx(
        cosine, abs=1e-7
    )  # scaled in float32
    assert abs(silhouette_coefficient(scaled, labels) - silhouette_coefficient(features, labels)) > 1e-3


def test_equal_points_and_lonely_samples_give_no_nan():
    assert silhouette_samples(torch.ones(4, 3), torch.tensor([0, 0, 1, 1])).tolist() == [0, 0, 0, 0]
    assert silhouette_samples(torch.randn(3, 2), torch.tensor([0, 1, 2])).tolist() == [0, 0, 0]


def test_half_precision_features_are_taken():
    features, labels = drawn(5, 10, 2)
    assert silhouette_coefficient(features.half(), labels) == pytest.approx(
        silhouette_coefficient(features, labels), abs=0.01
    )


def test_bad_arguments_are_explained():
    with pytest.raises(EvaluationError, match="at least two identities, got 1"):
        silhouette_coefficient(torch.randn(4, 2), torch.zeros(4))
    with pytest.raises(ConfigurationError, match="metric"):
        silhouette_coefficient(torch.randn(4, 2), torch.tensor([0, 0, 1, 1]), metric="manhattan")

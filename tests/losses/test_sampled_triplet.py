"""The release's triplets on match probabilities: its draws and its value."""

from __future__ import annotations

import pytest
import torch

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import SampledTripletLoss

torch.set_num_threads(1)
LABELS = torch.tensor([0, 1, 0, 2])


def features() -> torch.Tensor:
    return torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))


def test_equals_the_definition_for_given_draws():
    images, texts = features()
    positives = torch.tensor([[0, 2], [1, 1], [2, 0], [3, 3]])
    negatives = torch.tensor([[1, 3], [0, 2], [1, 1], [0, 1]])
    cosines = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=2)
    probabilities = (cosines / 0.02).softmax(dim=1)
    expected = sum(
        max(0.0, 1 + (probabilities[i, negatives[i, n]] - probabilities[i, positives[i, n]]).item())
        for i in range(4)
        for n in range(2)
    )
    loss = SampledTripletLoss()(images, texts, LABELS, positives, negatives)
    assert loss.item() == pytest.approx(expected / 8, rel=1e-5)


def test_draws_are_of_the_right_identity():
    images, texts = features()
    torch.manual_seed(0)
    probabilities = (torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=2) / 0.5).softmax(dim=1)
    for _ in range(50):
        positives, negatives = SampledTripletLoss().sample(probabilities, LABELS)
        assert positives.shape == negatives.shape == (4, 4)
        assert (LABELS[positives] == LABELS[:, None]).all()
        assert (LABELS[negatives] != LABELS[:, None]).all()
    assert SampledTripletLoss()(images, texts, LABELS).isfinite()


def test_confusable_negatives_are_drawn_more_often():
    torch.manual_seed(0)
    probabilities = torch.tensor([[0.1, 0.8, 0.1]] * 3)
    draws = torch.cat([SampledTripletLoss().sample(probabilities, torch.arange(3))[1][0] for _ in range(500)])
    assert (draws == 1).float().mean().item() == pytest.approx(8 / 9, abs=0.04)  # over four standard deviations


def test_a_bad_temperature_is_named():
    with pytest.raises(ConfigurationError, match="temperature is 0"):
        SampledTripletLoss(0)

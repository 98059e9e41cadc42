"""IS-GVFC: the three ways to build its set of features."""

from __future__ import annotations

import pytest
import torch

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import FeatureCalibrationLoss
from reid_zoo.losses.distribution_matching import matching_distribution, row_divergence

torch.set_num_threads(1)
LABELS = torch.tensor([0, 1, 0, 2, 1, 3])


def features(seed: int = 0, count: int = 6) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


def over_a_set(members: torch.Tensor, labels: torch.Tensor, temperature: float = 0.02) -> torch.Tensor:
    unit = members / members.norm(dim=1, keepdim=True)
    return row_divergence(unit @ unit.T / temperature, matching_distribution(labels, labels, unit.dtype))


def test_batch_takes_everything():
    torch.testing.assert_close(FeatureCalibrationLoss("batch")(features(), LABELS), over_a_set(features(), LABELS))


def test_a_sample_is_drawn_without_replacement_and_differs_between_steps():
    loss = FeatureCalibrationLoss("sample", num_samples=3, temperature=1.0)
    torch.manual_seed(0)
    points = features().double()  # so that the order of a set does not show
    values = {round(loss(points, LABELS).item(), 6) for _ in range(40)}
    possible = {
        round(over_a_set(points[[i, j, k]], LABELS[[i, j, k]], 1.0).item(), 6)
        for i in range(6)
        for j in range(i)
        for k in range(j)
    }
    assert len(values) > 5
    assert values <= possible


def test_given_indices_replace_the_draw():
    chosen = torch.tensor([4, 0, 2])
    loss = FeatureCalibrationLoss("sample", num_samples=3)(features(), LABELS, chosen)
    torch.testing.assert_close(loss, over_a_set(features()[chosen], LABELS[chosen]))


def test_a_batch_smaller_than_the_sample_is_taken_whole():
    loss = FeatureCalibrationLoss("sample", num_samples=20)(features(), LABELS)
    torch.testing.assert_close(loss, over_a_set(features(), LABELS), rtol=1e-4, atol=1e-5)  # another order of rows


def test_history_adds_the_features_of_the_same_people_until_it_is_reset():
    loss = FeatureCalibrationLoss("history")
    first = loss(features(0), LABELS)
    torch.testing.assert_close(first, over_a_set(features(0), LABELS))  # nothing stored yet
    old = features(1, 3)
    loss.remember(old, torch.tensor([1, 9, 0]))
    # identities 0 and 1 occur twice in the batch, so their stored feature is appended twice, in batch order; 9 never
    members = torch.cat([features(0), old[[2, 0, 2, 0]]])
    labels = torch.cat([LABELS, torch.tensor([0, 1, 0, 1])])
    torch.testing.assert_close(loss(features(0), LABELS), over_a_set(members, labels))
    loss.reset_history()
    torch.testing.assert_close(loss(features(0), LABELS), first)


def test_stored_features_carry_no_gradient_and_the_batch_does():
    loss = FeatureCalibrationLoss("history")
    old, new = features(1).requires_grad_(), features(0).requires_grad_()
    loss.remember(old, LABELS)
    loss(new, LABELS).backward()
    assert old.grad is None
    assert new.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mode": "epoch"}, "mode is 'epoch'"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ConfigurationError, match=named):
        FeatureCalibrationLoss(**options)

"""Divergence of paired features over the feature axis."""

from __future__ import annotations

import pytest
import torch

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import FeatureDistributionLoss

torch.set_num_threads(1)


def test_equals_the_definition_and_vanishes_for_equal_directions():
    images, texts = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total = 0.0
    for image, text in zip(images, texts, strict=True):
        a, c = (image / image.norm() / 0.5).softmax(dim=0), (text / text.norm() / 0.5).softmax(dim=0)
        total += ((a * (a / c).log()).sum() + (c * (c / a).log()).sum()).item()
    assert FeatureDistributionLoss(0.5)(images, texts).item() == pytest.approx(0.1 * total / 3, rel=1e-9)
    assert FeatureDistributionLoss(0.5, weight=1.0)(images, texts).item() == pytest.approx(total / 3, rel=1e-9)
    assert FeatureDistributionLoss()(images, 3 * images).item() == pytest.approx(0.0, abs=1e-12)


def test_a_bad_temperature_is_named():
    with pytest.raises(ConfigurationError, match="temperature is 0"):
        FeatureDistributionLoss(0)

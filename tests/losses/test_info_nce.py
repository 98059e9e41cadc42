"""InfoNCE: every image and its own sentence."""

from __future__ import annotations

import pytest
import torch

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import InfoNCELoss

torch.set_num_threads(1)


def test_equals_the_definition():
    images, texts = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = 0.0
    for a, b in ((images, texts), (texts, images)):
        for i in range(4):
            scores = torch.stack([torch.cosine_similarity(a[i], b[j], dim=0) / 0.1 for j in range(4)])
            expected -= (scores[i] - scores.exp().sum().log()).item() / 8
    assert InfoNCELoss(0.1)(images, texts).item() == pytest.approx(expected, rel=1e-9)


def test_lengths_do_not_matter_but_order_does():
    images, texts = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    loss = InfoNCELoss()(images, texts)
    torch.testing.assert_close(InfoNCELoss()(3 * images, texts / 2), loss)
    assert InfoNCELoss()(images, images) < 1e-4 < InfoNCELoss()(images, images.roll(1, 0))


def test_a_bad_temperature_is_named():
    with pytest.raises(ConfigurationError, match=r"InfoNCELoss\.temperature is -1"):
        InfoNCELoss(-1)

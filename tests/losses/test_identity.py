"""Identity classification of one or several features of a sample."""

from __future__ import annotations

import pytest
import torch

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import IdentityLoss

torch.set_num_threads(1)
LABELS = torch.tensor([0, 2, 1])


def features(seed: int) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))


def build(**options) -> IdentityLoss:
    torch.manual_seed(0)
    return IdentityLoss(4, 3, **options)


def test_several_features_share_the_classifier_and_their_losses_are_averaged():
    loss = build()
    image, text = features(1), features(2)
    assert [name for name, _ in loss.named_parameters()] == ["classifier.weight", "classifier.bias"]
    torch.testing.assert_close(loss((image, text), LABELS), (loss(image, LABELS) + loss(text, LABELS)) / 2)
    expected = -loss.logits(image).log_softmax(dim=1)[torch.arange(3), LABELS].mean()
    torch.testing.assert_close(loss(image, LABELS), expected)


def test_features_are_not_normalised():
    loss = build()
    assert abs(loss(features(1), LABELS) - loss(3 * features(1), LABELS)) > 1e-3


def test_smoothing_spreads_the_target():
    plain, smooth = build(), build(label_smoothing=0.3)
    log_p = plain.logits(features(1)).log_softmax(dim=1)
    expected = 0.7 * plain(features(1), LABELS) - 0.3 * log_p.mean()
    torch.testing.assert_close(smooth(features(1), LABELS), expected)
    with pytest.raises(ConfigurationError, match=r"label_smoothing is 1"):
        build(label_smoothing=1)


def test_accuracy_counts_correct_identities():
    loss = build(bias=False)
    with torch.no_grad():
        loss.classifier.weight.copy_(torch.eye(3, 4))
    assert loss.accuracy(torch.eye(3, 4), torch.tensor([0, 1, 1])).item() == pytest.approx(2 / 3)

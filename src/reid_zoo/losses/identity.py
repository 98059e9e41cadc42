"""Classification of features by identity."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigurationError
from ..precision import in_full_precision

__all__ = ["IdentityLoss"]


class IdentityLoss(nn.Module):
    """A linear classifier over the training identities, and the cross-entropy of what it says.

    Features are not normalised. Several features of a sample (of both modalities, say) share the classifier; their
    losses are averaged.

    Args:
        feature_size: Width D of a feature.
        num_classes: Training identities K.
        bias: Whether the classifier has a bias.
        label_smoothing: Share of the target spread evenly over all identities (default 0).

    References:
        VFE-TPS spec section 3.4; IRRA spec section 1.
    """

    def __init__(self, feature_size: int, num_classes: int, *, bias: bool = True, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ConfigurationError(
                f"IdentityLoss.label_smoothing is {label_smoothing}, but must be at least 0 and below 1."
            )
        self.classifier = nn.Linear(feature_size, num_classes, bias=bias)
        self.label_smoothing = label_smoothing

    def logits(self, features: Tensor) -> Tensor:
        """`(B, D)` features → `(B, K)` logits."""
        weight, bias = self.classifier.weight.to(features.dtype), self.classifier.bias
        return functional.linear(features, weight, None if bias is None else bias.to(features.dtype))

    @torch.no_grad()
    def accuracy(self, features: Tensor, labels: Tensor) -> Tensor:
        """Share of `(B, D)` features whose most likely identity is their own, `(B,)`."""
        return (self.logits(features).argmax(dim=1) == labels).float().mean()

    @in_full_precision
    def forward(self, features: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """Mean cross-entropy.

        Args:
            features: `(B, D)`, or a tuple of several such.
            labels: `(B,)` identities, 0…K-1.

        Returns:
            Scalar.
        """
        parts = (features,) if isinstance(features, Tensor) else features
        losses = [
            functional.cross_entropy(self.logits(part), labels, label_smoothing=self.label_smoothing) for part in parts
        ]
        return sum(losses[1:], start=losses[0]) / len(losses)

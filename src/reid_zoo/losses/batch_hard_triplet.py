"""Triplet loss with the hardest positive and negative of the batch (Hermans et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigurationError
from ..precision import in_full_precision

__all__ = ["BatchHardTripletLoss"]

_SQUARE_FLOOR = 1e-12


class BatchHardTripletLoss(nn.Module):
    r"""Every sample must be closer to its farthest positive than to its nearest negative.

    .. math:: L = \mathrm{mean}_i \max(0, \alpha + \max_{y_j = y_i} d_{ij} - \min_{y_j \ne y_i} d_{ij})

    with Euclidean distances d. A sample alone of its identity is its own positive (distance 0). Samples without any
    negative do not count; a batch of one identity has loss 0.

    Args:
        margin: α (default 0.3); `None`: the soft margin, log(1 + exp(d⁺ - d⁻)).
        normalize: Whether features are brought to unit length first (default no).

    References:
        VFE-TPS spec section 3.6 (normalised); CLIP-ReID spec section 6 (not normalised).
    """

    def __init__(self, margin: float | None = 0.3, *, normalize: bool = False) -> None:
        super().__init__()
        if margin is not None and margin < 0:
            raise ConfigurationError(f"BatchHardTripletLoss.margin is {margin}, but cannot be negative.")
        self.margin = margin
        self.normalize = normalize

    def mine(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Distances to the farthest positive and the nearest negative.

        Args:
            features: `(B, D)`.
            labels: `(B,)` identities.

        Returns:
            Two `(B,)` tensors; the second is infinite for a sample without negatives.
        """
        if self.normalize:
            features = functional.normalize(features, dim=1)
        squares = features.square().sum(dim=1)
        squared = squares[:, None] + squares[None, :] - 2 * features @ features.T
        distances = squared.clamp(min=_SQUARE_FLOOR).sqrt()
        same = labels[:, None] == labels[None, :]
        farthest = distances.masked_fill(~same, float("-inf")).amax(dim=1)
        return farthest, distances.masked_fill(same, float("inf")).amin(dim=1)

    @in_full_precision
    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Loss of `(B, D)` features with `(B,)` identities; a scalar."""
        positive, negative = self.mine(features, labels)
        counts = torch.isfinite(negative)
        difference = (positive - negative)[counts]
        if not len(difference):
            return features.sum() * 0.0
        if self.margin is None:
            return functional.softplus(difference).mean()
        return (difference + self.margin).clamp(min=0).mean()

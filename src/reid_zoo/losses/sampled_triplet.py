"""Cross-modal triplet loss on match probabilities with sampled positives and negatives (VFE-TPS's release)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigurationError
from ..precision import in_full_precision

__all__ = ["SampledTripletLoss"]

_FLOOR = 1e-15


class SampledTripletLoss(nn.Module):
    r"""Each image's probability of a sampled negative sentence must stay below that of a sampled positive one.

    With S the row softmax of image-text cosines over τ, positives are drawn in proportion to (1 - S)·y and negatives in
    proportion to S·(1 - y), B of each per row, with replacement:

    .. math:: L = \mathrm{mean}_{i,n} \max(0, 1 + S_{i, neg(i,n)} - S_{i, pos(i,n)})

    Args:
        temperature: τ (default 0.02).
        margin: Default 1.

    References:
        VFE-TPS spec section 3.6, the release's `global`; not in the paper.
    """

    def __init__(self, temperature: float = 0.02, margin: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigurationError(f"SampledTripletLoss.temperature is {temperature}, but must be positive.")
        self.temperature = temperature
        self.margin = margin

    @torch.no_grad()
    def sample(self, probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Draw columns for every row: two `(B, B)` index tensors, positives and negatives."""
        matches = (labels[:, None] == labels[None, :]).to(probabilities.dtype)
        positives = (1 - probabilities) * matches + _FLOOR
        negatives = probabilities * (1 - matches) + _FLOOR
        count = len(labels)
        return (
            torch.multinomial(positives, count, replacement=True),
            torch.multinomial(negatives, count, replacement=True),
        )

    @in_full_precision
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        labels: Tensor,
        positive_indices: Tensor | None = None,
        negative_indices: Tensor | None = None,
    ) -> Tensor:
        """Loss of a batch.

        Args:
            image_features: `(B, D)`, of any length.
            text_features: `(B, D)`, row i belongs to image i.
            labels: `(B,)` identities.
            positive_indices: `(B, N)` columns in place of drawn ones.
            negative_indices: `(B, N)`, likewise; both or neither.

        Returns:
            Scalar.
        """
        images, texts = functional.normalize(image_features, dim=1), functional.normalize(text_features, dim=1)
        probabilities = (images @ texts.T / self.temperature).softmax(dim=1)
        if positive_indices is None or negative_indices is None:
            positive_indices, negative_indices = self.sample(probabilities, labels)
        positive, negative = probabilities.gather(1, positive_indices), probabilities.gather(1, negative_indices)
        return (self.margin + negative - positive).clamp(min=0).mean()

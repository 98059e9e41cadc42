"""Contrastive loss on a batch's similarity matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..precision import in_full_precision
from ..validation import check_choice

__all__ = ["SimilarityContrastiveLoss"]


class SimilarityContrastiveLoss(nn.Module):
    r"""Every image must find its own sentence among the batch, and every sentence its own image.

    .. math:: L_{i2t} = -\frac1B \sum_i \log \frac{\exp S_{ii}}{\sum_j \exp S_{ij}}, \qquad L_{t2i} = \text{the same of } S^T

    The similarities are taken as they are, with whatever scale they have. Other pairs of the same identity count as
    negatives.

    Args:
        reduction: `"mean"` (default, MGCC's release) or `"sum"` (MGCC paper, Eq. 15) of the two directions.

    References:
        MGCC paper, Eqs. 13-15; MGCC spec section 6.1.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        check_choice("SimilarityContrastiveLoss", "reduction", reduction, ("mean", "sum"))
        self.reduction = reduction

    @in_full_precision
    def directions(self, similarity: Tensor) -> tuple[Tensor, Tensor]:
        """Image-to-text and text-to-image loss (Eqs. 13-14) of a `(B, B)` image × text matrix; two scalars."""
        own = torch.arange(len(similarity), device=similarity.device)
        return functional.cross_entropy(similarity, own), functional.cross_entropy(similarity.T, own)

    def reduce(self, image_to_text: Tensor, text_to_image: Tensor) -> Tensor:
        """Eq. 15 of the two directions."""
        total = image_to_text + text_to_image
        return total / 2 if self.reduction == "mean" else total

    @in_full_precision
    def forward(self, similarity: Tensor) -> Tensor:
        """Loss of both directions.

        Args:
            similarity: `(B, B)` image × text; the diagonal holds the matching pairs.

        Returns:
            Scalar.
        """
        return self.reduce(*self.directions(similarity))

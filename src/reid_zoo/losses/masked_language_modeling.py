"""Prediction of masked words."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..precision import in_full_precision

__all__ = ["MaskedLanguageModelingLoss"]


class MaskedLanguageModelingLoss(nn.Module):
    """Mean cross-entropy over all masked positions of the batch.

    Args:
        ignored_label: Label of the positions that are not predicted (default 0, the padding id).

    References:
        IRRA spec section 2.
    """

    def __init__(self, ignored_label: int = 0) -> None:
        super().__init__()
        self.ignored_label = ignored_label

    @in_full_precision
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            logits: `(B, L, V)`.
            labels: `(B, L)` original ids at the positions to predict.

        Returns:
            Scalar; 0 (with a gradient of 0) if there is nothing to predict.
        """
        return self.reduce(*self.totals(logits, labels))

    @in_full_precision
    def totals(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What parts of a batch add up to: the sum of the cross-entropies and the number of masked positions."""
        flat, targets = logits.flatten(0, -2), labels.flatten()
        total = functional.cross_entropy(flat, targets, ignore_index=self.ignored_label, reduction="sum")
        return total, (targets != self.ignored_label).sum()

    def reduce(self, total: Tensor, count: Tensor) -> Tensor:
        """Mean of what `totals` or `correct` give."""
        return total / count.clamp(min=1)

    @torch.no_grad()
    def correct(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Number of masked positions whose most likely id is the original one, and number of masked positions."""
        masked = labels != self.ignored_label
        return ((logits.argmax(dim=-1) == labels) & masked).sum(), masked.sum()

    def accuracy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Share of the masked positions whose most likely id is the original one; 0 if there are none."""
        return self.reduce(*self.correct(logits, labels))

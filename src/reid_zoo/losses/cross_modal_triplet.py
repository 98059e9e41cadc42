"""Bi-directional triplet ranking on a batch's similarity matrix, with hard negatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..precision import in_full_precision
from ..validation import check_choice

__all__ = ["CrossModalTripletLoss"]


class CrossModalTripletLoss(nn.Module):
    r"""Each image must be closer to its own sentence than to the hardest sentence of another person, and the other way round.

    .. math:: L = \sum_i [\alpha - s_{ii} + \max_{j: y_j \ne y_i} s_{ij}]_+ + \text{the same on } s^\top

    Args:
        margin: α (default 0.2).
        mining: `"violating"` (default, CFine's release): an anchor counts only if its hardest negative strictly beats
            its positive; a direction without any such anchor falls back to one placeholder triplet (the last sample
            and the first sample of another identity). `"hardest"`: the paper's Eq. 12, every anchor through the hinge.
        reduction: `"sum"` (default) or `"mean"` over the triplets of a direction.

    An anchor whose batch holds no other identity contributes nothing, so a batch of one identity has loss 0.

    References:
        CFine spec section 9.4; CFine paper, Eq. 12.
    """

    def __init__(self, margin: float = 0.2, mining: str = "violating", reduction: str = "sum") -> None:
        super().__init__()
        check_choice("CrossModalTripletLoss", "mining", mining, ("violating", "hardest"))
        check_choice("CrossModalTripletLoss", "reduction", reduction, ("sum", "mean"))
        self.margin = margin
        self.mining = mining
        self.reduction = reduction

    @torch.no_grad()
    def mine(self, similarity: Tensor, labels: Tensor) -> Tensor:
        """Triplets of one direction.

        Args:
            similarity: `(B, B)`, anchors in rows; the positive of anchor i is column i.
            labels: `(B,)` identities.

        Returns:
            `(T, 3)` int64 rows (anchor, positive, negative); the negative is the lowest index among equal scores.
        """
        different = labels[:, None] != labels[None, :]
        anchors = torch.arange(len(labels), device=similarity.device)
        candidates = similarity.masked_fill(~different, float("-inf"))
        hardest = candidates.max(dim=1).values
        negatives = (candidates == hardest[:, None]).to(torch.uint8).argmax(dim=1)  # argmax of ones: the first one
        chosen = different.any(dim=1)
        if self.mining == "violating":
            violating = chosen & (hardest > similarity.diagonal())
            if not violating.any() and chosen[-1]:
                placeholder = torch.tensor([len(labels) - 1], device=similarity.device)
                return torch.stack([placeholder, placeholder, different[-1].to(torch.uint8).argmax()[None]], dim=1)
            chosen = violating
        return torch.stack([anchors, anchors, negatives], dim=1)[chosen]

    def _one_direction(self, similarity: Tensor, triplets: Tensor) -> Tensor:
        anchor, positive, negative = triplets.unbind(dim=1)
        terms = (self.margin - similarity[anchor, positive] + similarity[anchor, negative]).clamp(min=0)
        if self.reduction == "mean" and len(terms):
            return terms.mean()
        return terms.sum()

    @in_full_precision
    def forward(self, similarity: Tensor, labels: Tensor) -> Tensor:
        """Loss of both directions.

        Args:
            similarity: `(B, B)` image × text; the diagonal holds the matching pairs.
            labels: `(B,)` identities.

        Returns:
            Scalar.
        """
        image_to_text = self._one_direction(similarity, self.mine(similarity, labels))
        text_to_image = self._one_direction(similarity.T, self.mine(similarity.T, labels))
        return image_to_text + text_to_image

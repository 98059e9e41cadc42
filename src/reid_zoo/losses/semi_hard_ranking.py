"""Bi-directional triplet ranking with semi-hard negatives drawn at random (MGCC's release)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ConfigurationError
from ..precision import in_full_precision

__all__ = ["SemiHardRankingLoss"]

_NORM_EPSILON = 1e-8


class SemiHardRankingLoss(nn.Module):
    r"""Each image must be closer to its own sentence than to a semi-hard sentence of another person, and the other way round.

    With cosines C, the candidates of anchor i are the j of other identities with 0 < C_ij - C_ii + α < α: inside the
    margin, but not closer than the positive. One of them is drawn.

    .. math:: L = \sum_i [\alpha - C_{ii} + C_{i,neg(i)}]_+ + \text{the same on } C^T

    An anchor without candidates contributes nothing. If no anchor of a direction has one, the last anchor is used with its
    first negative (as in the release), unless its batch holds no other identity.

    Args:
        margin: α (default 0.2).

    References:
        MGCC spec section 6.3; not in the paper.
    """

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        if not margin > 0:
            raise ConfigurationError(f"SemiHardRankingLoss.margin is {margin}, but must be positive.")
        self.margin = margin

    @torch.no_grad()
    def mine(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """Triplets of one direction.

        Args:
            cosines: `(B, B)`, anchors in rows; the positive of anchor i is column i.
            labels: `(B,)` identities.

        Returns:
            `(T, 3)` int64 rows (anchor, positive, negative), one for every anchor that has a candidate.
        """
        different = labels[:, None] != labels[None, :]
        violation = cosines - cosines.diagonal()[:, None] + self.margin
        candidates = different & (violation > 0) & (violation < self.margin)
        anchors = candidates.any(dim=1).nonzero().flatten()
        if len(anchors):
            negatives = torch.multinomial(candidates[anchors].float(), 1).flatten()
        else:
            anchors = torch.arange(len(labels), device=labels.device)[-1:][different[-1:].any(dim=1)]
            negatives = different[anchors].to(torch.uint8).argmax(dim=1)  # argmax of ones: the first one
        return torch.stack([anchors, anchors, negatives], dim=1)

    def _one_direction(self, cosines: Tensor, triplets: Tensor) -> Tensor:
        anchor, positive, negative = triplets.unbind(dim=1)
        return (self.margin - cosines[anchor, positive] + cosines[anchor, negative]).clamp(min=0).sum()

    @in_full_precision
    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        labels: Tensor,
        image_triplets: Tensor | None = None,
        text_triplets: Tensor | None = None,
    ) -> Tensor:
        """Loss of both directions.

        Args:
            image_features: `(B, D)`, of any length.
            text_features: `(B, D)`, row i belongs to image i.
            labels: `(B,)` identities.
            image_triplets: `(T, 3)` rows (anchor, positive, negative) with images as anchors, in place of mined ones.
            text_triplets: `(T, 3)`, likewise with sentences as anchors.

        Returns:
            Scalar.
        """
        images, texts = (
            states / (states.norm(dim=1, keepdim=True) + _NORM_EPSILON) for states in (image_features, text_features)
        )
        cosines = images @ texts.T
        if image_triplets is None:
            image_triplets = self.mine(cosines, labels)
        if text_triplets is None:
            text_triplets = self.mine(cosines.T, labels)
        return self._one_direction(cosines, image_triplets) + self._one_direction(cosines.T, text_triplets)

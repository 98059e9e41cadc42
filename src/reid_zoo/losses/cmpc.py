"""Cross-modal projection classification (Zhang and Lu, ECCV 2018), as CFine and others use it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..precision import in_full_precision

__all__ = ["CMPCLoss"]


class CMPCLoss(nn.Module):
    r"""Classifies each feature, projected on its partner of the other modality, into the training identities.

    .. math::
        L = \mathrm{CE}((v_i \cdot \hat t_i)\, \hat t_i\, \bar\Theta, y_i)
          + \mathrm{CE}((t_i \cdot \hat v_i)\, \hat v_i\, \bar\Theta, y_i)

    The columns of the classifier Θ are normalised; there is no bias and no scale.

    Args:
        hidden_size: Width D of the features.
        num_classes: Number of training identities C.

    References:
        CFine spec section 9.2; CFine paper, Eq. 11.
    """

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden_size, num_classes))
        nn.init.xavier_uniform_(self.weight)

    @in_full_precision
    def forward(self, image_features: Tensor, text_features: Tensor, labels: Tensor) -> Tensor:
        """Loss of one granularity.

        Args:
            image_features: `(B, D)`.
            text_features: `(B, D)`, row i belongs to image i.
            labels: `(B,)` identities, 0…C-1.

        Returns:
            Scalar; each of the two cross-entropies is averaged over the batch.
        """
        weight = self.weight.to(image_features.dtype)
        classifier = weight / weight.norm(dim=0, keepdim=True)

        def one_direction(projected: Tensor, onto: Tensor) -> Tensor:
            unit = onto / onto.norm(dim=1, keepdim=True)
            projection = (projected * unit).sum(dim=1, keepdim=True) * unit
            return functional.cross_entropy(projection @ classifier, labels)

        return one_direction(image_features, text_features) + one_direction(text_features, image_features)

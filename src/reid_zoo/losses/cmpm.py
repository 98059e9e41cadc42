"""Cross-modal projection matching (Zhang and Lu, ECCV 2018), as CFine and others use it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..precision import in_full_precision
from ..validation import check_choice

__all__ = ["CMPMLoss"]


class CMPMLoss(nn.Module):
    r"""Pulls the softmax of projections towards the distribution of matching identities, in both directions.

    .. math::
        p_{ij} = \mathrm{softmax}_j(v_i \cdot \hat t_j), \qquad
        L = \frac1B \sum_i \sum_j p_{ij} (\log p_{ij} - \log(q_{ij} + \varepsilon)) + \text{the same with } v, t \text{ swapped}

    The projected feature is *not* normalised, the one projected on is.

    Args:
        epsilon: Constant inside the logarithm of the target (default 1e-8).
        target_norm: `"l2"` (default, CFine's release): q_ij = m_ij / √n_i for the n_i samples of identity i in the
            batch; `"l1"`: 1/n_i, the definition of the CMPM paper.

    References:
        CFine spec section 9.1; CFine paper, Eq. 11.
    """

    def __init__(self, epsilon: float = 1e-8, target_norm: str = "l2") -> None:
        super().__init__()
        check_choice("CMPMLoss", "target_norm", target_norm, ("l2", "l1"))
        self.epsilon = epsilon
        self.target_norm = target_norm

    @in_full_precision
    def forward(self, image_features: Tensor, text_features: Tensor, labels: Tensor) -> Tensor:
        """Loss of one granularity.

        Args:
            image_features: `(B, D)`.
            text_features: `(B, D)`, row i belongs to image i.
            labels: `(B,)` identities.

        Returns:
            Scalar, averaged over the batch.
        """
        matches = (labels[:, None] == labels[None, :]).to(image_features.dtype)
        log_target = torch.log(
            functional.normalize(matches, p=2 if self.target_norm == "l2" else 1, dim=1) + self.epsilon
        )

        def one_direction(projected: Tensor, onto: Tensor) -> Tensor:
            log_probability = (projected @ (onto / onto.norm(dim=1, keepdim=True)).T).log_softmax(dim=1)
            return (log_probability.exp() * (log_probability - log_target)).sum(dim=1).mean()

        return one_direction(image_features, text_features) + one_direction(text_features, image_features)

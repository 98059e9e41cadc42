"""Similarity distribution matching (IRRA, Jiang and Ye, CVPR 2023), the matching loss of IRRA and VFE-TPS."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigurationError
from ..precision import in_full_precision
from .distribution_matching import matching_distribution, row_divergence

__all__ = ["SDMLoss"]


class SDMLoss(nn.Module):
    r"""Pulls the softmax of cosines over temperature towards the distribution of matching identities, both ways.

    .. math::
        Z_{ij} = \cos(t_i, v_j) / \tau, \quad Q_{ij} = y_{ij} / \textstyle\sum_k y_{ik}, \quad
        L = \mathrm{KL}(\mathrm{softmax} Z \| Q) + \mathrm{KL}(\mathrm{softmax} Z^T \| Q)

    Args:
        temperature: τ (default 0.02, fixed).
        epsilon: Constant inside the logarithm of the labels (default 1e-8).
        soft_label_factor: Weight of pairs of one identity but of different images, relative to pairs of the same image;
            `None` (default): all pairs of an identity count alike. With soft labels, column j is divided by the sum of
            row j, as the release does.
        extra_batch_mean: Divide by the batch size once more, as Eq. 7 of the VFE-TPS paper says (default: no).

    References:
        VFE-TPS spec section 3.1 (Eqs. 6-9 of the VFE-TPS paper, "CMPM"); IRRA spec section 1.
    """

    def __init__(
        self,
        temperature: float = 0.02,
        epsilon: float = 1e-8,
        soft_label_factor: float | None = None,
        extra_batch_mean: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("temperature", temperature), ("epsilon", epsilon)):
            if not value > 0:
                raise ConfigurationError(f"SDMLoss.{name} is {value}, but must be positive.")
        self.temperature = temperature
        self.epsilon = epsilon
        self.soft_label_factor = soft_label_factor
        self.extra_batch_mean = extra_batch_mean

    @in_full_precision
    def forward(
        self, image_features: Tensor, text_features: Tensor, labels: Tensor, image_ids: Tensor | None = None
    ) -> Tensor:
        """Loss of a batch.

        Args:
            image_features: `(B, D)`, of any length.
            text_features: `(B, D)`, row i belongs to image i.
            labels: `(B,)` identities.
            image_ids: `(B,)` which image a row comes from; needed for soft labels.

        Returns:
            Scalar: the two directions added, each averaged over the batch.

        Raises:
            ConfigurationError: If soft labels are on and `image_ids` are missing.
        """
        images, texts = functional.normalize(image_features, dim=1), functional.normalize(text_features, dim=1)
        logits = texts @ images.T / self.temperature  # Eq. 6
        targets = matching_distribution(labels, labels, logits.dtype)
        if self.soft_label_factor is not None:
            if image_ids is None:
                raise ConfigurationError("SDMLoss.soft_label_factor needs image_ids: the image each pair comes from.")
            same_person = (labels[:, None] == labels[None, :]).to(logits.dtype)
            same_image = (image_ids[:, None] == image_ids[None, :]).to(logits.dtype)
            weights = self.soft_label_factor * (same_person - same_image) + same_image
            targets = weights / weights.sum(dim=1)  # column j over the sum of row j
        # Eqs. 7-9
        loss = row_divergence(logits, targets, self.epsilon) + row_divergence(logits.T, targets, self.epsilon)
        return loss / len(labels) if self.extra_batch_mean else loss

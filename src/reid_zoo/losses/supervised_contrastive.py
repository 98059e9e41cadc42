"""Contrastive loss between images and sentences in which every pair of one identity is a positive."""

from __future__ import annotations

from torch import Tensor, nn

from ..precision import in_full_precision

__all__ = ["SupervisedContrastiveLoss"]


class SupervisedContrastiveLoss(nn.Module):
    r"""Every image must find the texts of its identity among the batch, and every text the images of its identity.

    With the dot products S_ij = v_i·t_j and P(i) = {j : y_j = y_i}, which holds i itself:

    .. math:: L_{i2t} = -\frac1B \sum_i \frac{1}{|P(i)|} \sum_{j \in P(i)} \log \frac{\exp S_{ij}}{\sum_k \exp S_{ik}},
        \qquad L_{t2i} = \text{the same of } S^T

    Features are taken as they are: neither normalised nor divided by a temperature. Identities may have unequal numbers of
    samples in the batch.

    References:
        CLIP-ReID paper, Eqs. 2 and 4; CLIP-ReID spec section 5.
    """

    @in_full_precision
    def directions(self, image_features: Tensor, text_features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Image-to-text and text-to-image loss.

        Args:
            image_features: `(B, D)`.
            text_features: `(B, D)`, row i belongs to image i.
            labels: `(B,)` identities.

        Returns:
            Two scalars.
        """
        similarity = image_features @ text_features.T
        positives = (labels[:, None] == labels[None, :]).to(similarity.dtype)
        targets = positives / positives.sum(dim=1, keepdim=True)

        def one_direction(scores: Tensor) -> Tensor:
            return -(targets * scores.log_softmax(dim=1)).sum(dim=1).mean()

        return one_direction(similarity), one_direction(similarity.T)

    @in_full_precision
    def forward(self, image_features: Tensor, text_features: Tensor, labels: Tensor) -> Tensor:
        """Sum of both directions; arguments as of `directions`."""
        image_to_text, text_to_image = self.directions(image_features, text_features, labels)
        return image_to_text + text_to_image

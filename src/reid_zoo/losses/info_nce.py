"""Image-text contrastive loss (InfoNCE), as CLIP is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigurationError
from ..precision import in_full_precision

__all__ = ["InfoNCELoss"]


class InfoNCELoss(nn.Module):
    r"""Every image must find its own sentence among the batch, and every sentence its own image.

    .. math:: Z_{ij} = \cos(v_i, t_j) / \tau, \qquad L = \tfrac12 (\mathrm{CE}(Z, i) + \mathrm{CE}(Z^T, i))

    Other pairs of the same identity count as negatives.

    Args:
        temperature: τ (default 0.02).

    References:
        VFE-TPS spec section 3.5.
    """

    def __init__(self, temperature: float = 0.02) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigurationError(f"InfoNCELoss.temperature is {temperature}, but must be positive.")
        self.temperature = temperature

    @in_full_precision
    def forward(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Loss of `(B, D)` features, of any length, whose rows belong together; a scalar."""
        images, texts = functional.normalize(image_features, dim=1), functional.normalize(text_features, dim=1)
        logits = images @ texts.T / self.temperature
        own = torch.arange(len(logits), device=logits.device)
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2

"""Agreement of the paired features' distributions over the feature axis (an experiment of VFE-TPS's release)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigurationError
from ..precision import in_full_precision

__all__ = ["FeatureDistributionLoss"]


class FeatureDistributionLoss(nn.Module):
    r"""Symmetric divergence of the softmax, over the feature axis, of an image's and its sentence's unit features.

    .. math:: A = \mathrm{softmax}(\hat v / \tau), \; C = \mathrm{softmax}(\hat t / \tau), \quad
        L = w \, \mathrm{mean}_i [\mathrm{KL}(A_i \| C_i) + \mathrm{KL}(C_i \| A_i)]

    Args:
        temperature: τ (default 0.02).
        weight: w (default 0.1, which the release has inside this loss).

    References:
        VFE-TPS spec section 3.9, `gtm`; not in the paper.
    """

    def __init__(self, temperature: float = 0.02, weight: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigurationError(f"FeatureDistributionLoss.temperature is {temperature}, but must be positive.")
        self.temperature = temperature
        self.weight = weight

    @in_full_precision
    def forward(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Loss of `(B, D)` features whose rows belong together; a scalar."""
        log_image, log_text = (
            (functional.normalize(features, dim=1) / self.temperature).log_softmax(dim=1)
            for features in (image_features, text_features)
        )
        divergence = ((log_image.exp() - log_text.exp()) * (log_image - log_text)).sum(dim=1)  # both directions
        return self.weight * divergence.mean()

"""Matching of words with their best patches (an experiment of VFE-TPS's release)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ConfigurationError
from ..precision import in_full_precision
from .distribution_matching import matching_distribution, row_divergence

__all__ = ["TokenAlignmentLoss"]


class TokenAlignmentLoss(nn.Module):
    r"""Text-to-image matching on the mean, over a sentence's words, of each word's best patch.

    For sentence i and image j, every word takes the maximum of cos/τ over the patches; z_ij is the sum over all
    positions divided by the number of maxima that are not zero. The loss is the divergence of the row softmax of z from
    the distribution of matching identities.

    Args:
        temperature: τ (default 0.02).
        epsilon: Constant inside the logarithm of the labels (default 1e-8).

    References:
        VFE-TPS spec section 3.9, `patch`; not in the paper.
    """

    def __init__(self, temperature: float = 0.02, epsilon: float = 1e-8) -> None:
        super().__init__()
        for name, value in (("temperature", temperature), ("epsilon", epsilon)):
            if not value > 0:
                raise ConfigurationError(f"TokenAlignmentLoss.{name} is {value}, but must be positive.")
        self.temperature = temperature
        self.epsilon = epsilon

    @in_full_precision
    def forward(self, patches: Tensor, words: Tensor, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            patches: `(B, N, D)` image tokens without the class token.
            words: `(B, L, D)` text tokens.
            input_ids: `(B, L)`; words are the positions with an id above 0, without the first position and the last
                such position (the start and the end token).
            labels: `(B,)` identities.

        Returns:
            Scalar.
        """
        return self.divergence(self.logits(patches, words, input_ids), labels)

    @in_full_precision
    def logits(self, patches: Tensor, words: Tensor, input_ids: Tensor) -> Tensor:
        """Scores z of T sentences and I images, `(T, I)`; arguments as of `forward`."""
        real = input_ids > 0
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        last = torch.where(real, positions, -1).amax(dim=1, keepdim=True)
        is_word = real & (positions > 0) & (positions != last)
        patches = functional.normalize(patches, dim=2)
        words = functional.normalize(words, dim=2) * is_word[:, :, None]
        best = torch.einsum("ild,jnd->ijln", words, patches).amax(dim=3) / self.temperature
        return best.sum(dim=2) / (best != 0).sum(dim=2).clamp(min=1)

    @in_full_precision
    def divergence(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch's `(B, B)` z and `(B,)` identities; a scalar."""
        return row_divergence(logits, matching_distribution(labels, labels, logits.dtype), self.epsilon)

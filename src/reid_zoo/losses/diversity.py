"""Keeping the granularities of one modality from saying the same thing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..precision import in_full_precision
from ..validation import check_choice

__all__ = ["DiversityLoss"]


class DiversityLoss(nn.Module):
    r"""Penalises the cosines between the parts of each sample.

    Args:
        form: `"gram"` (default, CFine's release): batch mean of ‖G‖_F / n² with G the Gram matrix of the n normalised
            parts without its diagonal; for two parts (√2/4)·|cos|, so opposite parts are penalised too. `"paper"`:
            Eq. 13, the sum over ordered pairs of *signed* cosines.

    References:
        CFine spec section 9.5; CFine paper, Eq. 13.
    """

    def __init__(self, form: str = "gram") -> None:
        super().__init__()
        check_choice("DiversityLoss", "form", form, ("gram", "paper"))
        self.form = form

    @in_full_precision
    def forward(self, parts: Tensor) -> Tensor:
        """Loss of one modality.

        Args:
            parts: `(B, n, D)`; with n < 2 the loss is 0.

        Returns:
            Scalar, averaged over the batch.
        """
        count = parts.shape[1]
        if count < 2:
            return parts.new_zeros(())
        unit = functional.normalize(parts, dim=2)
        gram = unit @ unit.transpose(1, 2)
        off_diagonal = gram.masked_fill(torch.eye(count, dtype=torch.bool, device=parts.device), 0)
        if self.form == "paper":
            return off_diagonal.sum(dim=(1, 2)).mean()
        return off_diagonal.flatten(1).norm(dim=1).mean() / count**2

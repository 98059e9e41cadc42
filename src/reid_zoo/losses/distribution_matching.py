"""Divergence of predicted from labelled similarity distributions; what the matching losses are made of."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["matching_distribution", "row_divergence"]


def matching_distribution(row_labels: Tensor, column_labels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform distribution over the columns of the row's identity: Q_ij = y_ij / Σ_k y_ik.

    Args:
        row_labels: `(R,)` identities.
        column_labels: `(C,)` identities; every row's identity must be among them.
        dtype: Of the result.

    Returns:
        `(R, C)`, rows summing to 1.
    """
    matches = (row_labels[:, None] == column_labels[None, :]).to(dtype)
    return matches / matches.sum(dim=1, keepdim=True)


def row_divergence(logits: Tensor, targets: Tensor, epsilon: float = 1e-8) -> Tensor:
    r"""Divergence of the row softmax P of `logits` from `targets`, averaged over the rows.

    .. math:: \frac1R \sum_i \sum_j P_{ij} (\log P_{ij} - \log(Q_{ij} + \varepsilon))

    The prediction comes first, and only the label side carries ε, inside its logarithm (VFE-TPS spec, section 3).

    Args:
        logits: `(R, C)`.
        targets: `(R, C)` label distribution Q.
        epsilon: ε; keeps the divergence finite where Q is 0.
    """
    log_prediction = logits.log_softmax(dim=1)
    return (log_prediction.exp() * (log_prediction - torch.log(targets + epsilon))).sum(dim=1).mean()

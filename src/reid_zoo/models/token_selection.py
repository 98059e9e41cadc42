"""Choosing the informative tokens of an image or a sentence by the class token's attention."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gather_tokens", "rank_tokens", "selection_count"]


def selection_count(num_tokens: int, ratio: float) -> int:
    """K = trunc(L·R), the product in double precision; L counts class token and padding (CFine spec, section 4)."""
    return int(num_tokens * ratio)


def rank_tokens(token_scores: Tensor, count: int) -> Tensor:
    """Positions of the `count` highest-scoring tokens, best first.

    Args:
        token_scores: `(B, L)` scores. The class token at position 0 takes part with score 0.
        count: Number of tokens to take, at most L.

    Returns:
        `(B, count)` int64 positions. Equal scores keep ascending positions (a stable sort), so the class token and
        padding, which all score exactly 0, fill a short sentence in a fixed order.
    """
    scores = token_scores.clone()
    scores[:, 0] = 0
    return scores.argsort(dim=1, descending=True, stable=True)[:, :count]


def gather_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """Rows `indices` `(B, K)` of `tokens` `(B, L, D)` → `(B, K, D)`; gradients flow to the tokens."""
    return torch.take_along_dim(tokens, indices[:, :, None], dim=1)

"""Multi-head attention with a fused in-projection, for the vision transformer and the decoders on top of it.

The kernel comes from transformers' registry (`config._attn_implementation`: sdpa by default, eager, ...). The one
attention row that token selection needs is computed on the side from the same projections, so the fast kernels stay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .activated_linear import normed_linear

__all__ = ["MultiHeadAttention", "attention_row", "eager_attention_forward", "effective_weight", "init_fused_attention"]


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention as plain matrix products: `(B, H, Lq, d)` queries → `(B, Lq, H, d)` values and `(B, H, Lq, Lk)` weights."""
    scores = query @ key.transpose(2, 3) * scaling
    if is_causal:
        attention_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = nn.functional.dropout(scores.softmax(dim=-1), p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def attention_row(query: Tensor, key: Tensor, scaling: float, key_mask: Tensor | None = None) -> Tensor:
    """Attention probabilities of a single query token, averaged over the heads.

    Args:
        query: `(B, H, 1, d)` projected query.
        key: `(B, H, L, d)` projected keys.
        scaling: Factor on the scores.
        key_mask: `(B, L)`, true where a key may be attended to; masked keys get probability exactly 0.

    Returns:
        `(B, H, L)` probabilities per head.
    """
    scores = (query @ key.transpose(2, 3)).squeeze(2) * scaling
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None, :], float("-inf"))
    return scores.softmax(dim=-1)


def effective_weight(linear: nn.Module) -> Tensor:
    """Weight of a linear layer, what low-rank adapters beside it (of the package peft) add to it included.

    Args:
        linear: `nn.Linear`, or what peft put in its place. The dropout of an adapter is left out.
    """
    weight: Any = linear.weight
    layer: Any = linear
    if not hasattr(layer, "lora_A") or layer.merged or layer.disable_adapters:
        return weight
    for name in layer.active_adapters:
        weight = weight + layer.get_delta_weight(name)
    return weight


class MultiHeadAttention(nn.Module):
    """Self- or cross-attention with biases everywhere and query, key and value projections in one matrix.

    Args:
        config: Configuration whose `_attn_implementation` chooses the kernel.
        hidden_size: Width D.
        num_heads: Number of heads H; must divide D.
        dropout: Dropout of the attention probabilities.
        is_causal: Whether a token attends only to itself and the tokens before it (self-attention without a mask).
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        hidden_size: int,
        num_heads: int,
        dropout: float = 0.0,
        *,
        is_causal: bool = False,
    ) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.config = config
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.scaling = (hidden_size // num_heads) ** -0.5
        self.dropout = dropout
        self.in_proj = nn.Linear(hidden_size, 3 * hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def _split_heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(
        self,
        hidden_states: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        norm: nn.LayerNorm | None = None,
    ) -> Tensor:
        """Attend from `hidden_states` to `memory`.

        Args:
            hidden_states: `(B, Lq, D)` queries.
            memory: `(B, Lk, D)` keys and values; `None` for self-attention.
            memory_mask: `(B, Lk)`, true where a key may be attended to.
            norm: Layer norm that `hidden_states` go through first.

        Returns:
            `(B, Lq, D)`.
        """
        if memory is None:
            projected = (
                self.in_proj(hidden_states) if norm is None else normed_linear(hidden_states, norm, self.in_proj)
            )
            query, key, value = projected.chunk(3, dim=-1)
        else:
            size = self.hidden_size
            weight, bias = effective_weight(self.in_proj), self.in_proj.bias
            hidden_states = hidden_states if norm is None else norm(hidden_states)
            query = nn.functional.linear(hidden_states, weight[:size], bias[:size])
            key, value = nn.functional.linear(memory, weight[size:], bias[size:]).chunk(2, dim=-1)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        output, _ = attention(
            self,
            self._split_heads(query),
            self._split_heads(key),
            self._split_heads(value),
            None if memory_mask is None else memory_mask[:, None, None, :].expand(-1, 1, query.shape[1], -1),
            dropout=self.dropout if self.training else 0.0,
            scaling=self.scaling,
            is_causal=self.is_causal,
        )
        return self.out_proj(output.flatten(-2))

    @torch.no_grad()
    def class_token_row(self, hidden_states: Tensor) -> Tensor:
        """Attention of the class token (position 0) to every token, averaged over the heads: `(B, L, D)` → `(B, L)`.

        Constants for the gradient, as the selection made from them is.
        """
        return self.token_row(hidden_states, hidden_states.new_zeros(len(hidden_states), dtype=torch.long))

    @torch.no_grad()
    def token_row(self, hidden_states: Tensor, positions: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Attention of one token of every sample to every token, averaged over the heads.

        Args:
            hidden_states: `(B, L, D)`.
            positions: `(B,)` the token that attends.
            key_mask: `(B, L)`, true where a token may be attended to; the others get probability exactly 0.

        Returns:
            `(B, L)` probabilities, constants for the gradient.
        """
        size = self.hidden_size
        weight, bias = effective_weight(self.in_proj), self.in_proj.bias
        batch = torch.arange(len(hidden_states), device=hidden_states.device)
        query = nn.functional.linear(hidden_states[batch, positions][:, None], weight[:size], bias[:size])
        key = nn.functional.linear(hidden_states, weight[size : 2 * size], bias[size : 2 * size])
        return attention_row(self._split_heads(query), self._split_heads(key), self.scaling, key_mask).mean(dim=1)


def init_fused_attention(attention: MultiHeadAttention) -> None:
    """Framework defaults of a fused multi-head attention: Xavier-uniform on the whole `(3D, D)` in-projection, zero biases.

    The out-projection weight is uniform in ±1/√D. Leaves already loaded weights alone.
    """
    init.xavier_uniform_(attention.in_proj.weight)
    init.zeros_(attention.in_proj.bias)
    bound = attention.hidden_size**-0.5
    init.uniform_(attention.out_proj.weight, -bound, bound)
    init.zeros_(attention.out_proj.bias)

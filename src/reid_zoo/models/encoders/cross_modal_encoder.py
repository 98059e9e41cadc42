"""Cross attention followed by transformer blocks: the training-only branch of IRRA and VFE-TPS."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers import initialization as init

from .attention import MultiHeadAttention
from .transformer_block import TransformerBlock

__all__ = ["CrossModalEncoder", "init_cross_modal_encoder", "init_linear_bias"]


class CrossModalEncoder(nn.Module):
    """Queries of one modality gather from another, then attend to each other.

    There is no residual around the cross attention: what it gathers replaces the queries.

    Args:
        config: Configuration whose `_attn_implementation` chooses the attention kernel.
        hidden_size: Width D.
        num_layers: Blocks after the cross attention.
        num_attention_heads: Heads; must divide D.

    References:
        IRRA spec section 2; VFE-TPS spec section 2.3.
    """

    def __init__(self, config: PreTrainedConfig, hidden_size: int, num_layers: int, num_attention_heads: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.query_layer_norm = nn.LayerNorm(hidden_size)
        self.memory_layer_norm = nn.LayerNorm(hidden_size)
        self.cross_attn = MultiHeadAttention(config, hidden_size, num_attention_heads)
        self.layers = nn.ModuleList(
            TransformerBlock(config, hidden_size, 4 * hidden_size, num_attention_heads) for _ in range(num_layers)
        )
        self.post_layernorm = nn.LayerNorm(hidden_size)

    def forward(self, queries: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        """Relate the queries to the memory.

        Args:
            queries: `(B, Lq, D)`.
            memory: `(B, Lk, D)` keys and values.
            memory_mask: `(B, Lk)`, true where the memory may be attended to; by default everywhere.

        Returns:
            `(B, Lq, D)`.
        """
        states = self.cross_attn(self.query_layer_norm(queries), self.memory_layer_norm(memory), memory_mask)
        for layer in self.layers:
            states = layer(states)
        return self.post_layernorm(states)


@torch.no_grad()
def init_linear_bias(linear: nn.Linear) -> None:
    """The framework's default for the bias of a linear layer: uniform in ±1/√fan_in."""
    bound = linear.in_features**-0.5
    init.uniform_(linear.bias, -bound, bound)


@torch.no_grad()
def init_cross_modal_encoder(encoder: CrossModalEncoder) -> None:
    """Initialise the attention and MLP weights of the branch (VFE-TPS spec section 2.5); leaves loaded weights alone."""
    width = encoder.hidden_size
    residual_std = width**-0.5 * (2 * max(len(encoder.layers), 1)) ** -0.5
    blocks = [layer for layer in encoder.layers if isinstance(layer, TransformerBlock)]
    for attention in [encoder.cross_attn, *(block.self_attn for block in blocks)]:
        init.normal_(attention.in_proj.weight, std=width**-0.5)
        init.normal_(attention.out_proj.weight, std=residual_std)
        init.zeros_(attention.in_proj.bias)
        init.zeros_(attention.out_proj.bias)
    for block in blocks:
        init.normal_(block.mlp.fc1.weight, std=(2 * width) ** -0.5)
        init.normal_(block.mlp.fc2.weight, std=residual_std)
        init_linear_bias(block.mlp.fc1)
        init_linear_bias(block.mlp.fc2)

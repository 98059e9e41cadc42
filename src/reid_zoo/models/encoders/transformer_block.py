"""The pre-norm residual block that CLIP's towers and the cross-modal branches on top of them are made of."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from .activated_linear import activated_linear, activation_function, normed_linear
from .attention import MultiHeadAttention

__all__ = ["TransformerBlock", "TransformerMLP"]


class TransformerMLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.activation = activation_function(activation)
        self.fc2 = nn.Linear(intermediate_size, hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
        """`(..., D)` → `(..., D)`, after `norm`; dropout after the activation and after the second layer."""
        hidden = self.fc1(hidden_states) if norm is None else normed_linear(hidden_states, norm, self.fc1)
        if self.training and self.dropout.p:
            return self.dropout(self.fc2(self.dropout(self.activation(hidden))))
        return activated_linear(hidden, self.activation, self.fc2)


class TransformerBlock(GradientCheckpointingLayer):
    """Pre-norm block: x ← x + MHA(LN(x)); x ← x + MLP(LN(x)).

    Args:
        config: Configuration whose `_attn_implementation` chooses the attention kernel.
        hidden_size: Width D.
        intermediate_size: Width of the MLP.
        num_attention_heads: Number of heads; must divide D.
        hidden_act: Activation of the MLP.
        layer_norm_eps: Epsilon of both layer norms.
        hidden_dropout_prob: Dropout inside the MLP.
        attention_dropout: Dropout of the attention probabilities.
        is_causal: Whether a token attends only to itself and the tokens before it.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        hidden_size: int,
        intermediate_size: int,
        num_attention_heads: int,
        *,
        hidden_act: str = "quick_gelu",
        layer_norm_eps: float = 1e-5,
        hidden_dropout_prob: float = 0.0,
        attention_dropout: float = 0.0,
        is_causal: bool = False,
    ) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.self_attn = MultiHeadAttention(
            config, hidden_size, num_attention_heads, attention_dropout, is_causal=is_causal
        )
        self.layer_norm2 = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.mlp = TransformerMLP(hidden_size, intermediate_size, hidden_act, hidden_dropout_prob)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(B, L, D)` → `(B, L, D)`."""
        hidden_states = hidden_states + self.self_attn(hidden_states, norm=self.layer_norm1)
        return hidden_states + self.mlp(hidden_states, norm=self.layer_norm2)

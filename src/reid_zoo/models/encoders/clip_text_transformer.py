"""CLIP's text transformer, with the end-of-text token's attention in the last block computed on the side.

Weight-compatible with CLIP (OpenAI, OpenCLIP, transformers). Unlike transformers' text tower it takes token embeddings in
place of ids (learned prompts), and says what the end-of-text token attends to without giving up fused attention kernels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from ...errors import ConfigurationError
from ...outputs import EncoderOutput
from .attention import MultiHeadAttention, init_fused_attention
from .configuration_clip_text_transformer import ReIDCLIPTextConfig
from .transformer_block import TransformerBlock

__all__ = ["CLIPTextTransformer", "CLIPTextTransformerLayer", "end_of_text_indices", "without_padding"]


def end_of_text_indices(input_ids: Tensor) -> Tensor:
    """Position of the end-of-text token of every sentence: `(B, L)` ids → `(B,)`.

    The end-of-text token has the largest id of CLIP's vocabulary, so this is the position of the row's largest id, the
    first one if there are several (transformers' tokenizer pads with the end token).
    """
    return input_ids.argmax(dim=1)


def without_padding(input_ids: Tensor) -> Tensor:
    """Sentences without the columns behind the last end of the text, which no other token sees: `(B, L)` → `(B, l)`.

    Nothing is cut while compiling or exporting, where shapes cannot depend on values.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return input_ids
    return input_ids[:, : int(end_of_text_indices(input_ids).max()) + 1]


class CLIPTextTransformerLayer(TransformerBlock):
    """Pre-norm block with causal attention: position i sees the positions up to i."""

    def __init__(self, config: ReIDCLIPTextConfig) -> None:
        super().__init__(
            config,
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            hidden_act=config.hidden_act,
            layer_norm_eps=config.layer_norm_eps,
            hidden_dropout_prob=config.hidden_dropout_prob,
            attention_dropout=config.attention_dropout,
            is_causal=True,
        )


class CLIPTextTransformer(PreTrainedModel):
    """The text tower of CLIP.

    Args:
        config: Its sizes; see [`ReIDCLIPTextConfig`].
        token_embedding: Whether it has token embeddings; without them only `inputs_embeds` can be encoded.
    """

    config_class = ReIDCLIPTextConfig
    config: ReIDCLIPTextConfig
    main_input_name = "input_ids"
    input_modalities: ClassVar[tuple[str, ...]] = ("text",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules: ClassVar[list[str]] = ["CLIPTextTransformerLayer"]

    def __init__(self, config: ReIDCLIPTextConfig, *, token_embedding: bool = True) -> None:
        super().__init__(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size) if token_embedding else None
        self.position_embedding = nn.Parameter(torch.empty(config.max_position_embeddings, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(CLIPTextTransformerLayer(config) for _ in range(config.num_hidden_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # Never as "custom code": transformers would pass over modules without parameters of their own.
        super()._initialize_weights(module, False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, CLIPTextTransformer):
            init.normal_(module.position_embedding, std=self.config.initializer_range)
        elif isinstance(module, MultiHeadAttention):
            init_fused_attention(module)
        else:
            super()._init_weights(module)

    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        output_token_scores: bool = False,
    ) -> EncoderOutput:
        """Encode sentences; no padding mask is needed, because no token sees what comes after it.

        Args:
            input_ids: `(B, L)` token ids, L ≤ `max_position_embeddings`.
            inputs_embeds: `(B, L, D)` token embeddings before positions are added, in place of `input_ids`.
            output_token_scores: Also return the end-of-text token's attention in the last block; needs `input_ids`
                (beside `inputs_embeds`, if these are given) to find that token.

        Returns:
            Tokens `(B, L, D)` after the final layer norm, without any projection; scores `(B, L)` averaged over the
            heads if asked for, exactly 0 behind the end-of-text token.

        Raises:
            ConfigurationError: If neither input is given, or the sentences are too long.
        """
        if inputs_embeds is None:
            if input_ids is None or self.token_embedding is None:
                raise ConfigurationError(
                    "CLIPTextTransformer needs input_ids or inputs_embeds; without token embeddings the latter."
                )
            inputs_embeds = self.token_embedding(input_ids)
        length = inputs_embeds.shape[1]
        if length > self.config.max_position_embeddings:
            raise ConfigurationError(
                f"the sentences have {length} tokens, but the text tower takes {self.config.max_position_embeddings}; "
                "let the processor truncate."
            )
        hidden_states = self.dropout(inputs_embeds + self.position_embedding[:length])
        for layer in self.layers[:-1]:
            hidden_states = layer(hidden_states)
        last = self.layers[-1]
        assert isinstance(last, CLIPTextTransformerLayer)
        token_scores = None
        if output_token_scores:
            if input_ids is None:
                raise ConfigurationError("output_token_scores needs input_ids, to know where a sentence ends.")
            end = end_of_text_indices(input_ids)
            sees = torch.arange(length, device=end.device) <= end[:, None]
            token_scores = last.self_attn.token_row(last.layer_norm1(hidden_states).detach(), end, sees)
        return EncoderOutput(self.final_layernorm(last(hidden_states)), token_scores)

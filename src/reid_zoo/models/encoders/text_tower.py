"""The BERT text tower, with the class token's attention in the last block computed on the side."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import BertModel

from ...outputs import EncoderOutput
from .attention import attention_row

__all__ = ["encode_with_bert"]


def encode_with_bert(
    bert: BertModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    token_type_ids: Tensor | None = None,
    *,
    output_token_scores: bool = False,
    score_before_dropout: bool = False,
) -> EncoderOutput:
    """Encode sentences with transformers' BERT, whatever its attention kernel.

    Args:
        bert: The tower; post-norm, so its last hidden states are already normalised.
        input_ids: `(B, L)` token ids.
        attention_mask: `(B, L)`, 1 on real tokens, 0 on padding.
        token_type_ids: `(B, L)` segment ids, zeros by default.
        output_token_scores: Also return the class token's attention in the last block; exactly 0 at padding.
        score_before_dropout: In training mode CFine's release reads the probabilities *after* attention dropout
            (paper-versus-official item 21), which makes the selection slightly random; true reads them before. The
            dropout drawn here is independent of the one inside the attention kernel.

    Returns:
        Tokens `(B, L, D)` and, if asked for, scores `(B, L)`.
    """
    outputs = bert(
        input_ids=input_ids,
        attention_mask=attention_mask,
        token_type_ids=token_type_ids,
        output_hidden_states=output_token_scores,
    )
    if not output_token_scores:
        return EncoderOutput(outputs.last_hidden_state)
    layer = bert.encoder.layer[-1].attention.self
    with torch.no_grad():
        states = outputs.hidden_states[-2].detach()  # the input of the last block

        def split_heads(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (layer.num_attention_heads, -1)).transpose(1, 2)

        query, key = split_heads(layer.query(states[:, :1])), split_heads(layer.key(states))
        probabilities = attention_row(query, key, layer.scaling, attention_mask.bool())
        if not score_before_dropout:
            probabilities = nn.functional.dropout(probabilities, p=layer.dropout.p, training=bert.training)
        return EncoderOutput(outputs.last_hidden_state, probabilities.mean(dim=1))

"""Reading published weights of CLIP's text tower: OpenAI CLIP and OpenCLIP, transformers CLIP.

Plain dictionaries of tensors in and out; rules are linear, as in `tower_weights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from .tower_weights import fuse_projections, rename

__all__ = ["convert_openai_clip_text", "convert_transformers_clip_text", "infer_clip_text_sizes", "is_clip_text_key"]

_TOP_LEVEL_KEYS = ("positional_embedding", "text_projection")
_PREFIXES = ("token_embedding.", "transformer.", "ln_final.")
_LAYER = r"(\d+)\."


def is_clip_text_key(key: str) -> bool:
    """Whether a key of an OpenAI CLIP or OpenCLIP state dictionary belongs to its text tower (projection included)."""
    return key in _TOP_LEVEL_KEYS or key.startswith(_PREFIXES)


def convert_openai_clip_text(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI CLIP or OpenCLIP text tower → [`CLIPTextTransformer`]; `text_projection` is not part of the tower.

    Args:
        state: Keys such as `token_embedding.weight`, `transformer.resblocks.0.attn.in_proj_weight`, `ln_final.weight`.

    Raises:
        CheckpointError: For a key that is not part of such a tower.
    """
    block = r"transformer\.resblocks\." + _LAYER
    return rename(
        state,
        {
            r"token_embedding\.weight": "token_embedding.weight",
            r"positional_embedding": "position_embedding",
            r"ln_final\.(weight|bias)": r"final_layernorm.\1",
            block + r"ln_([12])\.(weight|bias)": r"layers.\1.layer_norm\2.\3",
            block + r"attn\.in_proj_(weight|bias)": r"layers.\1.self_attn.in_proj.\2",
            block + r"attn\.out_proj\.(weight|bias)": r"layers.\1.self_attn.out_proj.\2",
            block + r"mlp\.c_fc\.(weight|bias)": r"layers.\1.mlp.fc1.\2",
            block + r"mlp\.c_proj\.(weight|bias)": r"layers.\1.mlp.fc2.\2",
        },
        "CLIP text tower",
    )


def convert_transformers_clip_text(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP of transformers, `text_model.*` (prefix removed) → [`CLIPTextTransformer`].

    Raises:
        CheckpointError: For a key that is not part of such a tower.
    """
    kept = {key: value for key, value in state.items() if key != "embeddings.position_ids"}
    block = r"encoder\.layers\." + _LAYER
    renamed = rename(
        kept,
        {
            r"embeddings\.token_embedding\.weight": "token_embedding.weight",
            r"embeddings\.position_embedding\.weight": "position_embedding",
            r"final_layer_norm\.(weight|bias)": r"final_layernorm.\1",
            block + r"layer_norm([12])\.(weight|bias)": r"layers.\1.layer_norm\2.\3",
            block + r"self_attn\.([qkv]|out)_proj\.(weight|bias)": r"layers.\1.self_attn.\2_proj.\3",
            block + r"mlp\.(fc[12])\.(weight|bias)": r"layers.\1.mlp.\2.\3",
        },
        "transformers CLIP text tower",
    )
    return fuse_projections(renamed)


def infer_clip_text_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of [`ReIDCLIPTextConfig`] that the shapes of a converted tower tell.

    Args:
        state: A converted tower.

    Returns:
        `vocab_size`, `hidden_size`, `intermediate_size`, `num_hidden_layers`, `max_position_embeddings`; the number of
        heads is in no shape.

    Raises:
        CheckpointError: If a weight that a size is read from is missing; it is named.
    """
    for key in ("token_embedding.weight", "position_embedding", "layers.0.mlp.fc1.weight"):
        if key not in state:
            raise CheckpointError(f"the CLIP text tower lacks {key}.")
    layers = {key.split(".")[1] for key in state if key.startswith("layers.")}
    vocab_size, hidden_size = state["token_embedding.weight"].shape
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": state["layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": len(layers),
        "max_position_embeddings": state["position_embedding"].shape[0],
    }

"""Sizes of the towers that the methods' `tiny` presets share."""

from __future__ import annotations

from typing import Any

__all__ = ["TINY_CLIP_TEXT", "TINY_VISION"]

# 128 × 64 pixels, 129 tokens: learns from scratch on two CPU cores.
TINY_VISION: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "patch_size": 8,
    "image_size": [128, 64],
}
"""Fields of [`ReIDVisionConfig`]."""

TINY_CLIP_TEXT: dict[str, Any] = {
    "vocab_size": 2000,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
"""Fields of [`ReIDCLIPTextConfig`]."""

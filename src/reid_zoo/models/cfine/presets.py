"""Named sizes of CFine, as plain fields of its configuration."""

from __future__ import annotations

from typing import Any

__all__ = ["CFINE_PRESETS"]

CFINE_PRESETS: dict[str, dict[str, Any]] = {
    # Learns from scratch on two CPU cores; 128 × 64 pixels, 129 tokens.
    "tiny": {
        "vision_config": {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "patch_size": 8,
            "image_size": [128, 64],
        },
        "text_config": {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
        },
        "max_text_length": 64,
        "image_token_ratio": 0.2,
        "gld_num_attention_heads": 4,
    },
    # ViT-S/16 beside a text tower of the same width.
    "small": {
        "vision_config": {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
        },
        "text_config": {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
        },
        "gld_num_attention_heads": 6,
    },
    # The paper's: CLIP ViT-B/16 at 224 × 224 and BERT-base, the defaults of every field.
    "base": {},
}
"""Preset name → fields of [`CFineConfig`] that differ from its defaults."""

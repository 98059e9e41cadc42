"""Named sizes of CFine, as plain fields of its configuration."""

from __future__ import annotations

from typing import Any

__all__ = ["CFINE_PRESETS"]

CFINE_PRESETS: dict[str, dict[str, Any]] = {
    # Learns from scratch on a few hundred people, in minutes on two CPU cores: 96 × 32 pixels, 49 tokens. Dropout is off and
    # new weights are wide for that reason; the recipe `cfine-tiny` says more.
    "tiny": {
        "vision_config": {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "patch_size": 8,
            "image_size": [96, 32],
            "initializer_range": 0.08,
            "position_initializer_range": 0.5,
        },
        "text_config": {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "initializer_range": 0.08,
        },
        "max_text_length": 56,
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

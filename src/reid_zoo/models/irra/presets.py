"""Named sizes of IRRA, as plain fields of its configuration."""

from __future__ import annotations

from typing import Any

__all__ = ["IRRA_PRESETS"]

IRRA_PRESETS: dict[str, dict[str, Any]] = {
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
            "vocab_size": 2000,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
        },
        "projection_dim": 128,
        "cross_modal_num_layers": 1,
        "cross_modal_num_attention_heads": 4,
    },
    # The paper's: CLIP ViT-B/16 at 384 × 128, the defaults of every field.
    "base": {},
}
"""Preset name → fields of [`IRRAConfig`] that differ from its defaults."""

"""Named sizes of MGCC, as plain fields of its configuration."""

from __future__ import annotations

from typing import Any

__all__ = ["MGCC_PRESETS"]

MGCC_PRESETS: dict[str, dict[str, Any]] = {
    # Learns from scratch on two CPU cores; 128 × 64 pixels, 128 patches.
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
        "rho_image": 0.2,
    },
    # The paper's, with the ratios for CUHK-PEDES: CLIP ViT-B/32 at 224 × 224, the defaults of every field.
    "base": {},
    # The paper's, with its ratios for ICFG-PEDES.
    "base-icfg": {"rho_image": 0.4, "rho_text": 0.5},
    # The paper's, with its ratios for RSTPReid.
    "base-rstp": {"rho_image": 0.5, "rho_text": 0.5},
}
"""Preset name → fields of [`MGCCConfig`] that differ from its defaults."""

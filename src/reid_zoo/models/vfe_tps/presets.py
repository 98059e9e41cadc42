"""Named sizes of VFE-TPS, as plain fields of its configuration."""

from __future__ import annotations

from typing import Any

from ..tiny_tower_fields import TINY_CLIP_TEXT, TINY_VISION

__all__ = ["VFE_TPS_PRESETS"]

VFE_TPS_PRESETS: dict[str, dict[str, Any]] = {
    # Learns from scratch on two CPU cores; 128 × 64 pixels, 129 tokens.
    "tiny": {
        "vision_config": TINY_VISION,
        "text_config": TINY_CLIP_TEXT,
        "projection_dim": 128,
        "cross_modal_num_layers": 1,
        "cross_modal_num_attention_heads": 4,
        "mask_patch_size": 16,
    },
    # The paper's: CLIP ViT-B/16 at 384 × 128, the defaults of every field.
    "base": {},
}
"""Preset name → fields of [`VFETPSConfig`] that differ from its defaults."""

"""Named sizes of CLIP-ReID, as plain fields of its configuration."""

from __future__ import annotations

from typing import Any

from ..tiny_tower_fields import TINY_CLIP_TEXT, TINY_VISION

__all__ = ["CLIP_REID_PRESETS"]

# Prompts are short.
_TINY_TEXT = {**TINY_CLIP_TEXT, "max_position_embeddings": 20}

CLIP_REID_PRESETS: dict[str, dict[str, Any]] = {
    # Learns from scratch on two CPU cores; 128 × 64 pixels, 129 tokens.
    "tiny": {
        "vision_config": TINY_VISION,
        "text_config": _TINY_TEXT,
        "projection_dim": 128,
    },
    # The same with a ResNet.
    "tiny-rn50": {
        "backbone": "rn50",
        "vision_config": {"stem_width": 8, "layers": [1, 1, 1, 1], "image_size": [128, 64]},
        "text_config": _TINY_TEXT,
        "projection_dim": 128,
    },
    # The paper's ViT-B/16 at 256 × 128, the defaults of every field.
    "base": {},
    # With overlapping patches; add sie_camera=True and num_cameras for the paper's best model.
    "base-olp": {"vision_config": {"patch_stride": 12}},
    # The paper's RN50 at 256 × 128.
    "rn50": {"backbone": "rn50"},
}
"""Preset name → fields of [`CLIPReIDConfig`] that differ from its defaults."""

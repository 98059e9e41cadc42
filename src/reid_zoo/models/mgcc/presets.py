"""Named sizes of MGCC, as plain fields of its configuration."""

from __future__ import annotations

from typing import Any

from ..tiny_tower_fields import TINY_CLIP_TEXT, TINY_VISION

__all__ = ["MGCC_PRESETS"]

MGCC_PRESETS: dict[str, dict[str, Any]] = {
    # Learns from scratch on two CPU cores; 128 × 64 pixels, 128 patches.
    "tiny": {
        "vision_config": TINY_VISION,
        "text_config": TINY_CLIP_TEXT,
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

"""Named sizes of the dual encoder, as plain fields of its configuration."""

from __future__ import annotations

from typing import Any

__all__ = ["DUAL_ENCODER_PRESETS"]

# Learns from scratch in minutes on two CPU cores: 96 × 32 pixels, 49 tokens. New weights are wide for that reason, above
# all the position grid; the recipe `dual_encoder-tiny` says more.
_TINY_VISION = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "patch_size": 8,
    "image_size": [96, 32],
    "initializer_range": 0.08,
    "position_initializer_range": 0.5,
}
_TINY_TEXT = {
    "vocab_size": 2000,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.08,
}

DUAL_ENCODER_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"vision_config": _TINY_VISION, "text_config": _TINY_TEXT, "projection_dim": 128},
    "tiny-bert": {
        "text_encoder": "bert",
        "vision_config": _TINY_VISION,
        "text_config": {**_TINY_TEXT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        "projection_dim": 128,
    },
    # CLIP ViT-B/16 at 384 × 128, the defaults of every field.
    "base": {},
    # "baseline" in Tables 1 to 3 of VFE-TPS: ImageNet ViT-B/16 and BERT-base uncased.
    "base-bert": {
        "text_encoder": "bert",
        "vision_config": {
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
            "patch_bias": True,
            "use_pre_layernorm": False,
        },
    },
}
"""Preset name → fields of [`DualEncoderConfig`] that differ from its defaults."""

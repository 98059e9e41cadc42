"""CLIP-ReID: image re-identification with learned per-identity prompts (AAAI 2023)."""

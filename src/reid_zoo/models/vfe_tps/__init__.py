"""VFE-TPS: enhancing visual representation for text-based person searching (Shen et al., 2024)."""

"""CFine: CLIP-driven fine-grained text-image person re-identification (Yan et al., IEEE TIP 2023)."""

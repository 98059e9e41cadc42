"""MGCC: multi-granularity contrastive consistency for occluded text-based person retrieval (Wu et al., AAAI 2024)."""

"""IRRA: cross-modal implicit relation reasoning and aligning for text-to-image person retrieval (CVPR 2023)."""

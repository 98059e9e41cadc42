"""The plain baselines: CLIP as it is, probed or fine-tuned, and ViT with BERT."""

"""The towers that the methods share, and how they are filled from published checkpoints."""

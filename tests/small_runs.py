"""Training runs of a few steps: overrides that shrink a recipe's towers, and an interruption at a chosen step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from reid_zoo.training import ReIDTrainer

SMALL_SIZES = "hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2"
"""Fields of either tower, as `--set` takes them."""

SMALL_TOWERS = [
    f"model.vision_config={{{SMALL_SIZES}, patch_size: 8}}",
    f"model.text_config={{{SMALL_SIZES}, max_position_embeddings: 64}}",
]
"""Overrides of a recipe that reads sentences."""


@contextmanager
def interrupted_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[None]:
    """Context in which the `step`th forward pass of a training is interrupted, which it has to pass on."""
    compute_loss, steps = ReIDTrainer.compute_loss, 0

    def interrupted(self, *arguments, **options):
        nonlocal steps
        steps += 1
        if steps == step:
            raise KeyboardInterrupt
        return compute_loss(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ReIDTrainer, "compute_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield

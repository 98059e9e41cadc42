"""A run with everything that has a state: what is killed in `test_interruption.py`. Arguments: data root, output folder."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

from reid_zoo.training import load_recipe, train
from reid_zoo.training.running import TrainingSummary

_SIZES = (
    "hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2, hidden_dropout_prob: 0.1"
)
OVERRIDES = [
    f"model.vision_config={{{_SIZES}, patch_size: 8}}",
    f"model.text_config={{{_SIZES}, max_position_embeddings: 64}}",
    "model.config={gvfc_mode: history, caption_mask_prob: 0.1}",  # remembers the epoch; draws in the forward pass
    "image_size=[48, 32]",
    "augmentation={horizontal_flip: 0.5, crop_padding: 4, erase_probability: 0.5}",
    "caption_augmentation={sentence_shuffle: 0.5, same_person_swap: 0.3}",
    "optimization.num_epochs=3",
    "optimization.batch_size=4",
    "optimization.ema_decay=0.9",
    "optimization.logging_steps=1",
    "evaluation.every_epochs=1",
    "evaluation.save_every_steps=2",  # 5 steps are an epoch
]
STEPS = 15


def train_with_everything(people: Path, output: Path, *more: str) -> TrainingSummary:
    """Train, or go on; one line per step is printed."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "a sentence of")  # few captions make a small vocabulary
    recipe = load_recipe("vfe_tps-tiny", [*OVERRIDES, *more])
    return train(recipe, data_root=people, output_dir=output, progress=False, log=lambda line: print(line, flush=True))


if __name__ == "__main__":
    train_with_everything(Path(sys.argv[1]), Path(sys.argv[2]))

"""Training arguments with the defaults that retrieval needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

__all__ = ["ReIDTrainingArguments"]


@dataclass
class ReIDTrainingArguments(TrainingArguments):
    """transformers' arguments, with other defaults.

    The collator reads columns itself (`remove_unused_columns`), the last incomplete batch is dropped because batch
    statistics and in-batch negatives need full ones, and gradients are not clipped.
    """

    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads every column itself."})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Drop the last incomplete batch."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "Gradient clipping; 0 for none."})

"""Training arguments with the defaults that retrieval needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from ..errors import ConfigurationError

__all__ = ["ReIDTrainingArguments"]

# What a recipe says instead. `ReIDTrainer` does not read these, so their defaults would tell of a run that never was.
_SAID_BY_RECIPE = frozenset(
    {"adam_beta1", "adam_beta2", "adam_epsilon", "learning_rate", "lr_scheduler_kwargs", "lr_scheduler_type"}
    | {"num_train_epochs", "optim", "optim_args", "warmup_steps", "weight_decay"}
)


@dataclass
class ReIDTrainingArguments(TrainingArguments):
    """transformers' arguments, with other defaults.

    The collator reads columns itself (`remove_unused_columns`), the last incomplete batch is dropped because batch
    statistics and in-batch negatives need full ones, and gradients are not clipped.

    With several processes, losses and batch norms see the joint batch of all of them (`gather_across_processes`): N processes
    with batches of B train as one with N·B would. Accumulating gradients does not do that: every accumulated batch has
    negatives and statistics of its own.
    """

    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator reads every column itself."})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Drop the last incomplete batch."})
    gather_across_processes: bool = field(
        default=True,
        metadata={"help": "Losses and batch norms see the joint batch of all processes; if not, each sees its own."},
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Off: a loss that is not finite stops training instead of being left out."}
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Early stopping goes on counting where an interrupted run was."}
    )
    max_grad_norm: float = field(default=0.0, metadata={"help": "Gradient clipping; 0 for none."})
    recipe: dict | str | None = field(
        default=None, metadata={"help": "The recipe's fields, which integrations (report_to) get with the arguments."}
    )

    def __post_init__(self) -> None:
        """As in transformers.

        Raises:
            ConfigurationError: If a precision is asked for that is not to be had.
        """
        if self.fp16 and self.bf16:
            raise ConfigurationError("fp16 and bf16 exclude each other; set one of them to false.")
        if self.fp16 and (self.use_cpu or not torch.accelerator.is_available()):
            raise ConfigurationError("fp16 needs an accelerator, and there is none; set fp16 to false, or use bf16.")
        super().__post_init__()

    def to_dict(self) -> dict[str, Any]:
        """As in transformers; with a recipe, without the optimiser's fields that the recipe replaces."""
        values: dict[str, Any] = super().to_dict()
        return values if self.recipe is None else {k: v for k, v in values.items() if k not in _SAID_BY_RECIPE}

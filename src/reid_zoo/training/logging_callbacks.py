"""What a training run shows: one bar, and short lines with the loss terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback

from ..errors import MissingPackageError, RecipeError
from ..validation import unknown_name_message
from .optimization import WITHOUT_DECAY

__all__ = [
    "GroupLearningRates",
    "LogLines",
    "ProgressBar",
    "accumulation_note",
    "check_report_to",
    "wandb_run_of_its_own",
]

_RATE = "learning_rate_"


def check_report_to(names: Sequence[str]) -> None:
    """Refuse integrations that do not exist, or whose package is not installed.

    Args:
        names: As in transformers' `report_to`: `tensorboard`, `wandb`, ...

    Raises:
        RecipeError: For an unknown name.
        MissingPackageError: If the package is missing.
    """
    from transformers.integrations import integration_utils

    known = integration_utils.INTEGRATION_TO_CALLBACK
    for name in names:
        if name not in known:
            raise RecipeError(unknown_name_message("integration in logging.report_to", name, known))
        available = getattr(integration_utils, f"is_{name}_available", None)
        if available is not None and not available():
            raise MissingPackageError(
                f"logging.report_to names {name}, whose package is not installed; install it with: pip install {name}"
            )


@contextmanager
def wandb_run_of_its_own(names: Sequence[str]) -> Iterator[None]:
    """A W&B run that is begun inside ends there, as failed after an error.

    transformers leaves it open and goes on in it, so a second training (CLIP-ReID's second stage, or another call in the same
    process) would count its steps from 1 again in the same curves. A run that the caller opened stays open.

    Args:
        names: As in `check_report_to`; without `wandb` nothing is done.
    """
    if "wandb" not in names:
        yield
        return
    import wandb

    if wandb.run is not None:
        yield
        return
    try:
        yield
    except BaseException:
        if wandb.run is not None:
            wandb.finish(exit_code=1)
        raise
    if wandb.run is not None:
        wandb.finish()


def accumulation_note(batch_size: int, steps: int) -> str:
    """What accumulating gradients does to the negatives in a batch, in one line.

    Args:
        batch_size: Samples that a loss compares with each other.
        steps: Batches per optimiser step.
    """
    return (
        f"gradient accumulation: {steps} batches of {batch_size} make one optimiser step, but a loss compares the {batch_size} "
        f"samples of one batch only ({batch_size - 1} others each, not {steps * batch_size - 1}); for the loss of all "
        f"{steps * batch_size}, set batch_size={steps * batch_size} and cached_gradients={batch_size}."
    )


class GroupLearningRates(TrainerCallback):
    """Notes the learning rate that every parameter group had in the last step.

    Attributes:
        rates: `learning_rate_<group>` → rate. Empty where there is only one rate, which is logged anyway; the part of a group
            without weight decay has the rate of the other.
    """

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: torch.optim.Optimizer | None = None, **kwargs: Any
    ) -> None:
        """Called after the optimiser's step and before that of the schedule."""
        if optimizer is None:
            return
        names = [str(group.get("name", index)) for index, group in enumerate(optimizer.param_groups)]
        rates = {
            _RATE + name.removesuffix(WITHOUT_DECAY): float(group["lr"])
            for name, group in zip(names, optimizer.param_groups, strict=True)
        }
        self.rates = rates if len(rates) > 1 else {}


class LogLines(TrainerCallback):
    """Calls `write` with one line per log step: a table whose every cell says what it is, with equally wide columns.

    Args:
        write: Takes a line; `None`: nothing is written.
    """

    def __init__(self, write: Callable[[str], None] | None) -> None:
        self.write = write

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say what accumulating gradients does to the negatives."""
        if self.write is not None and state.is_world_process_zero and args.gradient_accumulation_steps > 1:
            processes = args.world_size if getattr(args, "gather_across_processes", True) else 1
            together = args.per_device_train_batch_size * processes
            self.write(accumulation_note(together, args.gradient_accumulation_steps))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Format the loss, its terms, the gradient norm and the learning rates, or the retrieval metrics."""
        if self.write is None or not logs or not state.is_world_process_zero:
            return
        epoch = f"epoch {float(logs.get('epoch', 0)):5.2f}"
        if "loss" in logs:
            width = len(str(state.max_steps))
            cells = [f"{epoch} step {state.global_step:{width}d}/{state.max_steps}", f"loss {float(logs['loss']):7.3f}"]
            for name, value in logs.items():
                if name.startswith("loss_") and name.count("_") == 1:
                    cells.append(f"{name.removeprefix('loss_')} {float(value):7.3f}")
            if "grad_norm" in logs:
                cells.append(f"grad norm {float(logs['grad_norm']):8.2f}")
            rates = {name.removeprefix(_RATE): value for name, value in logs.items() if name.startswith(_RATE)}
            if not rates:
                cells.append(f"lr {float(logs.get('learning_rate', 0)):.1e}")
            cells += [f"lr {name} {float(value):.1e}" for name, value in rates.items()]
            self.write(" | ".join(cells))
        elif any(name.endswith("_R1") for name in logs):
            values = [f"{name.partition('_')[2]} {float(logs[name]):6.2f}" for name in logs if name.startswith("eval_")]
            self.write(" | ".join([f"{epoch} validation", *values]))


class ProgressBar(TrainerCallback):
    """A bar over the optimiser steps, on stderr."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar where the run starts."""
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step on."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

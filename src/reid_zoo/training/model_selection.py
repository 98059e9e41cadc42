"""When a run is saved, which checkpoint is kept, and when it is stopped early."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from ..errors import RecipeError
from .recipe import EvaluationSettings

__all__ = [
    "CheckpointSchedule",
    "FlatteringSelectionWarning",
    "check_selection",
    "selection_callbacks",
    "stopped_early_at",
]


class FlatteringSelectionWarning(UserWarning):
    """The model is selected by the images that its results are reported on."""


class CheckpointSchedule(TrainerCallback):
    """Saves every so many steps, after the last one, and whenever an evaluation was the best so far.

    Args:
        every_steps: Optimiser steps between two checkpoints.
        save_best: Whether the best evaluation gets a checkpoint, wherever it falls.
    """

    def __init__(self, every_steps: int, *, save_best: bool) -> None:
        self.every_steps = every_steps
        self.save_best = save_best

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """In place of the Trainer's own schedule, which has to be that of the evaluations."""
        control.should_save = state.global_step % self.every_steps == 0 or state.global_step >= state.max_steps

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """`state.best_metric` is still that of the evaluations before."""
        if not self.save_best or not metrics:
            return
        value = metrics.get(f"eval_{args.metric_for_best_model}")
        if value is not None and (state.best_metric is None or value > state.best_metric):
            control.should_save = True


def check_selection(evaluation: EvaluationSettings) -> None:
    """Refuse settings that contradict each other; warn of a selection on the test split.

    Args:
        evaluation: Settings of a recipe.

    Raises:
        RecipeError: If there is no evaluation to select or to stop by.
    """
    for name, wanted in (("select_best", evaluation.select_best), ("patience", evaluation.patience > 0)):
        if wanted and evaluation.every_epochs <= 0:
            raise RecipeError(f"recipe field evaluation.{name} needs evaluation.every_epochs to be at least 1.")
    if evaluation.split == "test" and evaluation.selects:
        warnings.warn(
            "evaluation.split is test: the model is selected by the images its results are reported on. That reproduces what "
            f"some releases do, but flatters {evaluation.metric}; select on val for figures of your own.",
            FlatteringSelectionWarning,
            stacklevel=2,
        )


def selection_callbacks(evaluation: EvaluationSettings, steps_per_epoch: int, evaluates: bool) -> list[TrainerCallback]:
    """What a run needs to save, select and stop as its recipe says.

    The training arguments must have `save_strategy="steps"`, and with `evaluates` and a selection
    `metric_for_best_model=evaluation.metric`.

    Args:
        evaluation: Settings of the recipe.
        steps_per_epoch: Optimiser steps of an epoch.
        evaluates: Whether there is a split to evaluate on.
    """
    every = evaluation.save_every_steps or max(1, evaluation.save_every_epochs * steps_per_epoch)
    callbacks: list[TrainerCallback] = [CheckpointSchedule(every, save_best=evaluates and evaluation.select_best)]
    if evaluates and evaluation.patience > 0:
        callbacks.append(EarlyStoppingCallback(evaluation.patience))
    return callbacks


def stopped_early_at(checkpoint: Path | None) -> int | None:
    """The optimiser step of a checkpoint at which patience had run out; `None` if training was to go on from there.

    Args:
        checkpoint: A complete `checkpoint-N` folder, or none.
    """
    if checkpoint is None:
        return None
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    stopping = (state.get("stateful_callbacks") or {}).get("EarlyStoppingCallback")
    if stopping is None:
        return None
    evaluations = stopping["attributes"]["early_stopping_patience_counter"]
    return state["global_step"] if evaluations >= stopping["args"]["early_stopping_patience"] else None

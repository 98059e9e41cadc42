"""What a training run shows: one bar, and short lines with the loss terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

__all__ = ["LogLines", "ProgressBar"]


class LogLines(TrainerCallback):
    """Calls `write` with one short line per log step.

    Args:
        write: Takes a line; `None`: nothing is written.
    """

    def __init__(self, write: Callable[[str], None] | None) -> None:
        self.write = write

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Format the loss, its terms and the learning rate, or the retrieval metrics."""
        if self.write is None or not logs or not state.is_world_process_zero:
            return
        if "loss" in logs:
            names = [name for name in logs if name.startswith("loss_") and name.count("_") == 1]
            terms = " ".join(f"{name.removeprefix('loss_')} {float(logs[name]):.2f}" for name in names)
            rate = float(logs.get("learning_rate", 0))
            self.write(
                f"epoch {float(logs.get('epoch', 0)):.1f} step {state.global_step}/{state.max_steps} "
                f"loss {float(logs['loss']):.2f} ({terms}) lr {rate:.1e}"
            )
        elif any(name.endswith("_R1") for name in logs):
            values = " ".join(
                f"{name.partition('_')[2]} {float(logs[name]):.2f}" for name in logs if name.startswith("eval_")
            )
            self.write(f"epoch {float(logs.get('epoch', 0)):.1f} validation: {values}")


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

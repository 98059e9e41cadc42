"""When training cannot go on: a loss that is no number, weights that are none any more, or memory that is used up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from ..errors import ReIDZooError, TrainingError
from .checkpointing import last_complete_checkpoint
from .parameter_efficient import has_adapters

__all__ = ["FiniteLoss", "check_weights", "explained_memory_errors", "memory_advice", "sample_names"]

_NAMED_SAMPLES = 8


class FiniteLoss(TrainerCallback):
    """Stops training before the optimiser takes a step on a loss that is not finite.

    Looks at the losses of all accumulated batches once per step, after their backward passes have been queued, so that an
    accelerator is waited for only once.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[tuple[str, ...], Tensor, Callable[[], Sequence[str]]]] = []

    def remember(self, loss: Tensor, terms: Mapping[str, Tensor], samples: Callable[[], Sequence[str]]) -> None:
        """Note the losses of a batch.

        Args:
            loss: The total.
            terms: Its terms.
            samples: Gives the names of the samples of the batch; only called for a loss that is not finite, because it may
                have to wait for the accelerator.
        """
        names = (*terms, "total")
        values = torch.stack([value.detach().float() for value in (*terms.values(), loss)])
        self._seen.append((names, values, samples))

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **kwargs: Any
    ) -> None:
        """Check what was noted since the last step.

        Raises:
            TrainingError: Naming the terms, the batch and the last good checkpoint.
        """
        seen, self._seen = self._seen, []
        for names, values, samples in seen:
            if bool(torch.isfinite(values).all()):
                continue
            found = zip(names, values.tolist(), torch.isfinite(values).tolist(), strict=True)
            wrong = {name: value for name, value, finite in found if not finite}
            if len(wrong) > 1:
                wrong.pop("total", None)  # it follows from its terms
            terms = ", ".join(f"{name!r} is {value}" for name, value in wrong.items())
            raise TrainingError(
                f"training stopped in step {state.global_step + 1}: the loss term {terms} for the batch of "
                f"{_enumerate(samples())}; look at these samples or lower the learning rate. {_last_good(args.output_dir, model)}"
            )


def check_weights(model: nn.Module, step: int, output_dir: str) -> None:
    """Refuse weights that are not finite, before they are saved.

    Args:
        model: Its parameters are looked at.
        step: Optimiser steps done, for the message.
        output_dir: Folder of the run, for the message.

    Raises:
        TrainingError: Naming the first such parameter.
    """
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not bool(torch.isfinite(value).all()):
                raise TrainingError(
                    f"training stopped after step {step}: the weights {name!r} are not finite any more, and are not saved; "
                    f"lower the learning rate or set max_grad_norm. {_last_good(output_dir, model)}"
                )


def sample_names(dataset: Any, indices: Sequence[int]) -> list[str]:
    """What samples are called: the paths of their images if the data set has `items` with records, else their numbers."""
    items = getattr(dataset, "items", None)
    names = []
    for index in indices:
        name = f"sample {index}"
        if isinstance(items, Sequence) and index < len(items):
            record = getattr(items[index], "record", items[index])
            name = str(getattr(record, "image_path", name))
        names.append(name)
    return names


@contextmanager
def explained_memory_errors(advice: str) -> Iterator[None]:
    """Context in which running out of memory says which setting to lower.

    Args:
        advice: What to say, in one line.

    Raises:
        TrainingError: In place of the allocator's error.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, ReIDZooError):
            raise
        # The processor's allocator and some libraries on accelerators have no error class of their own.
        told = any(words in str(error) for words in ("can't allocate memory", "out of memory"))
        if not (told or isinstance(error, torch.OutOfMemoryError | MemoryError)):
            raise
        raise TrainingError(advice) from error


def memory_advice(batch_size: int, options: Any, section: str = "optimization") -> str:
    """One line: what to lower in training, as far as it is not low already.

    Args:
        batch_size: Samples per process and step.
        options: Settings with `cached_gradients` and `gradient_checkpointing`.
        section: Where a recipe has them.
    """
    advice = []
    chunk = getattr(options, "cached_gradients", 0)
    if not chunk:
        advice.append(f"set {section}.cached_gradients={max(1, batch_size // 4)} (the same loss in less memory)")
    elif chunk > 1:
        advice.append(f"lower {section}.cached_gradients (it is {chunk}; the loss stays the same)")
    if not getattr(options, "gradient_checkpointing", False):
        advice.append(f"set {section}.gradient_checkpointing=true (the same loss, slower)")
    if advice:
        advice[-1] += ", and the run goes on from its last checkpoint"
    if batch_size > 1:
        advice.append(
            f"lower {section}.batch_size, and raise {section}.gradient_accumulation_steps in return (fewer in-batch "
            "negatives: a new run, in another output folder)"
        )
    return f"out of memory with a batch of {batch_size}: {'; or '.join(advice) or 'take smaller images or a smaller model'}."


def _last_good(output_dir: str, model: nn.Module | None) -> str:
    """What is left of the run, and how to begin another one with it: it does not itself go on with another learning rate."""
    checkpoint = last_complete_checkpoint(output_dir)
    if checkpoint is None:
        return "There is no checkpoint of this run yet."
    told = f"The last good checkpoint is {checkpoint}."
    if model is not None and has_adapters(model):  # they are merged into the weights only in the end
        return f"{told} With other settings, start anew in another output folder or with --no-resume."
    return f"{told} With other settings, begin with its weights in another output folder: --set model.start_from={checkpoint}."


def _enumerate(samples: Sequence[str]) -> str:
    if not samples:
        return "unknown samples"
    rest = len(samples) - _NAMED_SAMPLES
    return ", ".join(samples[:_NAMED_SAMPLES]) + (f" and {rest} more" if rest > 0 else "")

"""Optimisers, parameter groups and learning-rate schedules, as plain settings."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from ..errors import RecipeError
from ..validation import OneOf, RegularExpression, Within, check_choice, check_settings

__all__ = [
    "OPTIMIZERS",
    "LearningRateSchedule",
    "ParameterGroup",
    "build_optimizer",
    "group_parameters",
    "learning_rate_factor",
]

WITHOUT_DECAY = " (no decay)"  # ends the name of that part of a group
_SCHEDULES = (
    "multistep",
    "cosine",
    "epoch_cosine",
    "epoch_cosine_over_all",
    "epoch_linear",
    "epoch_exponential",
    "epoch_poly",
)
_FUSED_DEVICES = {"cpu", "cuda", "xpu", "mps"}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: Shown in logs.
        pattern: Regular expression, searched in the parameter's name; the first group that matches takes it.
        learning_rate: Base rate.
        weight_decay: L2 factor (coupled with `adam`, decoupled with `adamw`).
        decay_vectors: Whether biases and norms decay too (CFine's release decays all of them).
        optional: Whether it may match nothing, because a switch of the model takes away what it is for (a head whose loss
            is off). A group that matches nothing otherwise is taken for a mistake in its pattern.
    """

    name: str
    pattern: Annotated[str, RegularExpression()] = ""
    learning_rate: Annotated[float, Within(0)]
    weight_decay: Annotated[float, Within(0)] = 0.0
    decay_vectors: bool = True
    optional: bool = False

    def __post_init__(self) -> None:
        check_settings(self, f"parameter group {self.name!r}: ", RecipeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRateSchedule:
    """Factor on every base rate over time.

    Attributes:
        kind: `"cosine"`: per step, linear warm-up, then half a cosine down to `final_factor`. All others are constant
            inside an epoch and share a linear warm-up from `warmup_factor`, counted in epochs. `"multistep"`: milestones
            (CFine spec, section 11). With r the share of the epochs behind the warm-up that are over (VFE-TPS spec,
            section 6): `"epoch_cosine"`: half a cosine from 1 to 0; `"epoch_linear"`: 1 - r; `"epoch_exponential"`:
            power^r; `"epoch_poly"`: power^(1-r), the release's formula, which rises. `"epoch_cosine_over_all"`: half a
            cosine over all epochs, those of the warm-up included (CLIP-ReID spec, section 8.1).
        warmup_epochs: Length of the warm-up, fractions allowed for `"cosine"`.
        warmup_factor: Factor at the very start of a warm-up in epochs.
        milestones: Epochs (0-based) from which on `gamma` multiplies the rate once more.
        gamma: Factor of each milestone.
        final_factor: f; a curve c of these kinds (not `"multistep"`) becomes f + (1 - f)·c.
        power: Base of `"epoch_exponential"` and `"epoch_poly"`.
        first_epoch: Number that the formulas in epochs give the first epoch: 0, or 1 as in CLIP-ReID's release.
    """

    kind: Annotated[str, OneOf(*_SCHEDULES)] = "cosine"
    warmup_epochs: Annotated[float, Within(0)] = 0.0
    warmup_factor: Annotated[float, Within(0, 1)] = 0.01
    milestones: tuple[Annotated[int, Within(0)], ...] = ()
    gamma: Annotated[float, Within(0)] = 0.1
    final_factor: Annotated[float, Within(0, 1)] = 0.0
    power: Annotated[float, Within(0, open_low=True)] = 0.9
    first_epoch: Annotated[int, OneOf(0, 1)] = 0

    def __post_init__(self) -> None:
        check_settings(self, "recipe field optimization.schedule.", RecipeError)


def learning_rate_factor(
    schedule: LearningRateSchedule, steps_per_epoch: int, num_epochs: float, epoch_ends: Sequence[int] = ()
) -> Callable[[int], float]:
    """The factor as a function of the optimiser step (0-based).

    Args:
        schedule: Settings.
        steps_per_epoch: Optimiser steps of an epoch.
        num_epochs: Length of the training.
        epoch_ends: Steps after which each epoch is over, where they are not equally long.
    """

    def epoch_of(step: int) -> int:
        over = bisect_right(epoch_ends, step) if epoch_ends else step // steps_per_epoch
        return over + schedule.first_epoch

    def epoch_warmup(epoch: int) -> float:
        if epoch < schedule.warmup_epochs:
            return schedule.warmup_factor + (1 - schedule.warmup_factor) * epoch / schedule.warmup_epochs
        return 1.0

    def multistep(step: int) -> float:
        epoch = epoch_of(step)
        return epoch_warmup(epoch) * schedule.gamma ** sum(milestone <= epoch for milestone in schedule.milestones)

    def epoch_curve(step: int) -> float:
        epoch = epoch_of(step)
        if epoch < schedule.warmup_epochs:
            return epoch_warmup(epoch)
        over = (epoch - schedule.warmup_epochs) / max(1.0, num_epochs - schedule.warmup_epochs)
        curve = {
            "epoch_cosine": 0.5 * (1 + math.cos(math.pi * over)),
            "epoch_cosine_over_all": 0.5 * (1 + math.cos(math.pi * min(1.0, epoch / num_epochs))),
            "epoch_linear": 1 - over,
            "epoch_exponential": schedule.power**over,
            "epoch_poly": schedule.power ** (1 - over),
        }[schedule.kind]
        return schedule.final_factor + (1 - schedule.final_factor) * curve

    def cosine(step: int) -> float:
        warmup_steps = schedule.warmup_epochs * steps_per_epoch
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        remaining = max(1.0, num_epochs * steps_per_epoch - warmup_steps)
        progress = min(1.0, (step - warmup_steps) / remaining)
        return schedule.final_factor + (1 - schedule.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))

    return {"multistep": multistep, "cosine": cosine}.get(schedule.kind, epoch_curve)


def group_parameters(model: nn.Module, groups: tuple[ParameterGroup, ...]) -> list[dict]:
    """Assign every trainable parameter to the first group whose pattern matches.

    Raises:
        RecipeError: If a parameter matches no group, or a group that is not optional matches none.
    """
    members: dict[tuple[str, bool], list[nn.Parameter]] = {}
    compiled = [re.compile(group.pattern) for group in groups]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        index = next((i for i, pattern in enumerate(compiled) if pattern.search(name)), None)
        if index is None:
            raise RecipeError(f"no parameter group takes {name!r}; end the list with a group without a pattern.")
        group = groups[index]
        decays = group.decay_vectors or parameter.ndim > 1
        members.setdefault((group.name, decays), []).append(parameter)
    options = []
    for group in groups:
        if not group.optional and not any(name == group.name for name, _ in members):
            raise RecipeError(f"parameter group {group.name!r} (pattern {group.pattern!r}) matches no parameter.")
        for decays in (True, False):
            if (group.name, decays) in members:
                options.append(
                    {
                        "params": members[group.name, decays],
                        "name": group.name if decays else group.name + WITHOUT_DECAY,
                        "lr": group.learning_rate,
                        "weight_decay": group.weight_decay if decays else 0.0,
                    }
                )
    return options


def build_optimizer(
    model: nn.Module, kind: str, groups: tuple[ParameterGroup, ...], betas: tuple[float, float], eps: float
) -> torch.optim.Optimizer:
    """The optimiser over the groups.

    Args:
        model: Its trainable parameters are optimised.
        kind: `"adam"` (L2-coupled decay) or `"adamw"`.
        groups: Parameter groups.
        betas: Decay rates of the moments.
        eps: Added to the denominator.
    """
    check_choice("optimization", "optimizer", kind, OPTIMIZERS)
    members = group_parameters(model, groups)
    devices = {parameter.device.type for group in members for parameter in group["params"]}
    # One kernel over all parameters: no temporary copies of them. `None` leaves the choice to torch.
    fused = True if devices and devices <= _FUSED_DEVICES else None
    return OPTIMIZERS[kind](members, betas=betas, eps=eps, fused=fused)

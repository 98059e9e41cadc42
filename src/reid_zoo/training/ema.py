"""Exponential moving average of the weights: what is evaluated and saved in place of the last step's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from ..errors import CheckpointError, ConfigurationError

__all__ = ["WeightAverage"]

AVERAGE_FILE = "averaged_weights.safetensors"


class WeightAverage(TrainerCallback):
    r"""Average :math:`\bar\theta` of the trained weights, updated after every optimiser step.

    .. math:: \bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta, \quad \bar\theta_0 = \theta_0

    Buffers (statistics of batch norms) and weights that are not trained are the model's own. It is kept in the weights'
    precision, on their device. When training is over, the model gets the averaged weights.

    Args:
        decay: d, between 0 and 1; 0.999 averages over about the last 1000 steps.

    Raises:
        ConfigurationError: If the decay is not between 0 and 1.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ConfigurationError(f"ema_decay is {decay}, but must be between 0 and 1 (0 switches averaging off).")
        self.decay = decay
        self.weights: dict[str, Tensor] = {}
        self.checkpoint: Path | None = None
        """Checkpoint whose average the next training starts from."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Start from the weights as they are, or from a checkpoint's average."""
        self.start(model)
        checkpoint, self.checkpoint = self.checkpoint, None
        if checkpoint is not None:
            self.load(checkpoint)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Update after an optimiser step."""
        self.update(model)

    @torch.no_grad()
    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """The averaged weights become the model's."""
        trained = _trained(model)
        for name, value in self.weights.items():
            trained[name].copy_(value)
        self.weights = {}

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        """Start from the weights as they are."""
        self.weights = {name: value.detach().clone() for name, value in _trained(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """One step of the average."""
        trained = _trained(model)
        torch._foreach_lerp_(
            list(self.weights.values()), [trained[name].detach() for name in self.weights], 1 - self.decay
        )

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Context in which the model has the averaged weights; its own are put back afterwards, bit by bit."""
        trained = _trained(model)
        with torch.no_grad():
            own = {name: trained[name].detach().clone() for name in self.weights}
            for name, value in self.weights.items():
                trained[name].copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in own.items():
                    trained[name].copy_(value)

    def save(self, folder: Path) -> None:
        """Write the average into a checkpoint."""
        save_file({name: value.contiguous() for name, value in self.weights.items()}, folder / AVERAGE_FILE)

    def load(self, folder: Path) -> None:
        """Read the average of a checkpoint.

        Raises:
            CheckpointError: If the checkpoint has none, or that of another model.
        """
        file = Path(folder) / AVERAGE_FILE
        if not file.is_file():
            raise CheckpointError(f"{folder} has no averaged weights; it was written without ema_decay.")
        found = load_file(file)
        if found.keys() != self.weights.keys():
            raise CheckpointError(f"{file} holds the averaged weights of another model.")
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(found[name])


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}

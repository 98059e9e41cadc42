"""`ReIDTrainer`: transformers' Trainer with a method's objective, parameter groups and retrieval metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from ..data.records import PersonDataset
from ..encoding import PersonEncoder
from ..errors import ConfigurationError
from ..evaluation.protocols import evaluate_model
from ..outputs import ReIDTrainingOutput
from .arguments import ReIDTrainingArguments
from .optimization import build_optimizer, learning_rate_factor
from .recipe import OptimizationSettings

__all__ = ["ReIDTrainer"]


class BeginEpoch(TrainerCallback):
    """Tells the model when an epoch begins."""

    def on_epoch_begin(
        self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **kwargs: Any
    ) -> None:
        """See [`ReIDPreTrainedModel.begin_epoch`]."""
        begin = getattr(getattr(model, "module", model), "begin_epoch", None)
        if begin is not None:
            begin()


class ReIDTrainer(Trainer):
    """Trains a model of the zoo.

    Every loss term is logged beside the loss, as its mean since the last log line. Evaluation encodes the whole gallery
    and reports retrieval metrics in per cent (`eval_R1`, `eval_mAP`, ...).

    Args:
        model: A training model (`XForTraining`).
        args: Arguments; see [`ReIDTrainingArguments`].
        optimization: Optimiser, parameter groups and schedule.
        eval_dataset: Records to evaluate on; every caption is a query.
        kwargs: As in transformers; `processing_class` must be the model's processor if there is an `eval_dataset`.
    """

    optimizer: torch.optim.Optimizer | None
    lr_scheduler: Any
    control: Any

    def __init__(
        self,
        model: nn.Module,
        args: ReIDTrainingArguments,
        *,
        optimization: OptimizationSettings,
        eval_dataset: PersonDataset | None = None,
        **kwargs: Any,
    ) -> None:
        if eval_dataset is not None and kwargs.get("processing_class") is None:
            raise ConfigurationError("ReIDTrainer needs processing_class, the model's processor, to evaluate.")
        self.optimization = optimization
        self._term_sums: dict[str, Tensor] = {}
        self._term_count = 0
        super().__init__(model=model, args=args, eval_dataset=eval_dataset, **kwargs)
        self.add_callback(BeginEpoch)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimiser with the recipe's parameter groups."""
        if self.optimizer is None:
            settings = self.optimization
            beta1, beta2 = settings.betas
            target = model if model is not None else self.model
            self.optimizer = build_optimizer(
                target, settings.optimizer, settings.parameter_groups, (beta1, beta2), settings.eps
            )
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The recipe's learning-rate schedule."""
        if self.lr_scheduler is None:
            num_epochs = self.optimization.num_epochs
            steps_per_epoch = max(1, round(num_training_steps / num_epochs))
            factor: Callable[[int], float] = learning_rate_factor(
                self.optimization.schedule, steps_per_epoch, num_epochs
            )
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.create_optimizer(), factor)
        return self.lr_scheduler

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Tensor | tuple[Tensor, ReIDTrainingOutput]:
        """The method's objective; its terms are remembered for the next log line."""
        outputs = model(**inputs)
        logged = {f"loss_{name}": value for name, value in (outputs.loss_terms or {}).items()}
        logged |= {f"accuracy_{name}": value for name, value in (outputs.accuracies or {}).items()}
        for name, value in logged.items():
            value = value.detach()
            self._term_sums[name] = self._term_sums[name] + value if name in self._term_sums else value
        self._term_count += 1
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of every loss term, and of every accuracy, since the last training log line."""
        if "loss" in logs and self._term_count:
            logs = logs | {name: (total / self._term_count).item() for name, total in self._term_sums.items()}
            self._term_sums, self._term_count = {}, 0
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: PersonDataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Retrieval metrics on the whole gallery, in per cent."""
        dataset = eval_dataset if eval_dataset is not None else self.eval_dataset
        if dataset is None:
            raise ConfigurationError("ReIDTrainer.evaluate needs an eval_dataset.")
        model = self.accelerator.unwrap_model(self.model)
        encoder = PersonEncoder(model, self.processing_class, batch_size=self.args.per_device_eval_batch_size)
        metrics = evaluate_model(encoder, dataset, batch_size=encoder.batch_size, progress=False)
        values = {f"{metric_key_prefix}_{name}": value for name, value in metrics.as_dict().items()}
        self.log(dict(values))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        return values

"""`ReIDTrainer`: transformers' Trainer with a method's objective, parameter groups and retrieval metrics."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from ..data.records import PersonDataset
from ..data.samplers import TrainingSampler
from ..distributed import JointBatchMixin, num_processes, sum_over_processes
from ..encoding import PersonEncoder
from ..errors import ConfigurationError
from ..evaluation.protocols import evaluate_model
from ..models.joint_batch_norm import convert_batch_norms
from ..models.onednn_linear import onednn_is_faster, use_onednn
from ..outputs import ReIDTrainingOutput
from .arguments import ReIDTrainingArguments
from .checkpointing import ResumableTrainer
from .ema import WeightAverage
from .failures import FiniteLoss, check_weights, explained_memory_errors, memory_advice, sample_names
from .gradient_caching import cached_gradients
from .image_evaluation import evaluate_images
from .logging_callbacks import GroupLearningRates
from .optimization import build_optimizer, learning_rate_factor
from .parameter_efficient import ADAPTER_FOLDER, add_low_rank_adapters, has_adapters, merged_state_dict, save_adapter
from .recipe import OptimizationSettings
from .sample_tracing import SAMPLE_INDICES, TracedDataset, TracingCollator
from .sharded_encoding import ShardedEncoder

__all__ = ["ReIDTrainer"]


class BeginEpoch(TrainerCallback):
    """Tells the model and the sampler when an epoch begins.

    The Trainer would tell the sampler too, but not if several processes go on in the middle of an epoch.
    """

    def __init__(self, sampler: TrainingSampler | None = None) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **kwargs: Any
    ) -> None:
        """See [`ReIDPreTrainedModel.begin_epoch`] and [`TrainingSampler`]."""
        if self.sampler is not None:
            self.sampler.set_epoch(int(state.epoch or 0))
        begin = getattr(getattr(model, "module", model), "begin_epoch", None)
        if begin is not None:
            begin()


class SavedProcessor:
    """A processor without tokenizer as the Trainer may see it: it only saves it, and would ask it for special tokens.

    Args:
        processor: The processor.
    """

    def __init__(self, processor: Any) -> None:
        self.save_pretrained = processor.save_pretrained


class ReIDTrainer(ResumableTrainer):
    """Trains a model of the zoo.

    Every loss term is logged beside the loss, as its mean since the last log line. Evaluation encodes the whole gallery
    and reports retrieval metrics in per cent (`eval_R1`, `eval_mAP`, ...).

    With several processes (`accelerate launch`, see [`reid_zoo.distributed`]), losses and batch norms see the joint batch, and
    every process encodes its share of the gallery and the queries.

    Args:
        model: A training model (`XForTraining`).
        args: Arguments; see [`ReIDTrainingArguments`].
        optimization: Optimiser, parameter groups and schedule.
        sampler: Order of the items; by default the Trainer's own shuffle.
        eval_dataset: Records to evaluate on; every caption is a query, and for a method without sentences see
            [`evaluate_images`].
        section: Where a recipe has these `optimization` settings, for errors that say which of them to change.
        kwargs: As in transformers; `processing_class` must be the model's processor if there is an `eval_dataset`.
    """

    optimizer: torch.optim.Optimizer | None
    lr_scheduler: Any
    control: Any
    train_dataset: Any
    data_collator: Any

    def __init__(
        self,
        model: nn.Module,
        args: ReIDTrainingArguments,
        *,
        optimization: OptimizationSettings,
        sampler: TrainingSampler | None = None,
        eval_dataset: PersonDataset | None = None,
        section: str = "optimization",
        **kwargs: Any,
    ) -> None:
        if eval_dataset is not None and kwargs.get("processing_class") is None:
            raise ConfigurationError("ReIDTrainer needs processing_class, the model's processor, to evaluate.")
        self.optimization = optimization
        self.sampler = sampler
        self.section = section
        self._term_sums: dict[str, Tensor] = {}
        self._term_count = 0
        if optimization.lora is not None:
            add_low_rank_adapters(model, optimization.lora)
        self.reid_processor: Any = kwargs.get("processing_class")
        if getattr(self.reid_processor, "tokenizer", self) is None:
            kwargs["processing_class"] = SavedProcessor(self.reid_processor)
        super().__init__(model=model, args=args, eval_dataset=eval_dataset, **kwargs)
        self.add_callback(BeginEpoch(sampler))
        self.finite_loss = FiniteLoss()
        self.group_rates = GroupLearningRates()
        self.weight_average = WeightAverage(optimization.ema_decay) if optimization.ema_decay else None
        if self.weight_average is not None and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ConfigurationError(
                "ema_decay needs whole weights on every process; train without FSDP and DeepSpeed."
            )
        for callback in (self.finite_loss, self.group_rates, self.weight_average):
            if callback is not None:
                self.add_callback(callback)
        if isinstance(model, JointBatchMixin):
            model.gather_across_processes = args.gather_across_processes
        elif args.gather_across_processes and args.world_size > 1:
            raise ConfigurationError(
                f"{type(model).__name__} does not gather across processes: derive it from JointBatchMixin, or train with "
                "gather_across_processes=False."
            )
        if args.gather_across_processes and args.world_size > 1:
            convert_batch_norms(model)
        if args.device.type == "cpu" and onednn_is_faster():
            use_onednn(model)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The sampler, where one was given."""
        return self.sampler if self.sampler is not None else super()._get_train_sampler(train_dataset)

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
                self.optimization.schedule,
                steps_per_epoch,
                num_epochs,
                self.sampler.epoch_ends if self.sampler is not None else (),
            )
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.create_optimizer(), factor)
        return self.lr_scheduler

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Tensor | tuple[Tensor, ReIDTrainingOutput]:
        """The method's objective; its terms are remembered for the next log line."""
        samples = inputs.pop(SAMPLE_INDICES, None)
        outputs = model(**inputs)
        self.finite_loss.remember(
            outputs.loss,
            outputs.loss_terms or {},
            lambda: [] if samples is None else sample_names(self.train_dataset, samples.tolist()),
        )
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
            means = torch.stack([total.double() for total in self._term_sums.values()]) / self._term_count
            means = sum_over_processes(means)[0] / num_processes()
            logs = logs | dict(zip(self._term_sums, means.tolist(), strict=True))
            self._term_sums, self._term_count = {}, 0
            logs = logs | self.group_rates.rates
        super().log(logs, start_time)

    def get_train_dataloader(self) -> Any:
        """Batches that say which samples they are made of, in `sample_indices`."""
        dataset, collator = self.train_dataset, self.data_collator
        self.train_dataset, self.data_collator = TracedDataset(dataset), TracingCollator(collator)
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset, self.data_collator = dataset, collator

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; see [`ResumableTrainer`], [`cached_gradients`] and the errors in `failures`."""
        settings = self.optimization
        with (
            explained_memory_errors(memory_advice(self.args.per_device_train_batch_size, settings, self.section)),
            cached_gradients(self.model, settings.cached_gradients),
        ):
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def go_on_from(self, checkpoint: Path | None) -> None:
        """See [`ResumableTrainer.go_on_from`]: the averaged weights too."""
        super().go_on_from(checkpoint)
        if self.weight_average is not None:
            self.weight_average.checkpoint = checkpoint

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Context in which the model has its averaged weights; after training it has them anyway."""
        if self.weight_average is None or not self.weight_average.weights:
            return nullcontext()
        return self.weight_average.applied(self.accelerator.unwrap_model(self.model))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the averaged weights, where they are kept; adapters are merged into the weights, and kept beside them.

        Checkpoints (`_internal_call`) hold what training goes on from: the weights of the last step, adapters of their own.
        """
        if _internal_call:
            super().save_model(output_dir, _internal_call)
            return
        model = self.accelerator.unwrap_model(self.model)
        with self.averaged_weights():
            super().save_model(output_dir)
            if has_adapters(model) and self.args.should_save:
                folder = Path(output_dir or self.args.output_dir)
                model.save_pretrained(folder, state_dict=merged_state_dict(model))
                save_adapter(model, folder / ADAPTER_FOLDER)

    def save_checkpoint_extras(self, folder: Path) -> None:
        """See [`ResumableTrainer.save_checkpoint_extras`]: the averaged weights."""
        super().save_checkpoint_extras(folder)
        if self.weight_average is not None and self.args.should_save:
            self.weight_average.save(folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        check_weights(self.accelerator.unwrap_model(self.model), self.state.global_step, self.args.output_dir)
        super()._save_checkpoint(model, trial)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.weight_average is not None:
            self.weight_average.load(Path(self.state.best_model_checkpoint))

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
        encoder_class = ShardedEncoder if num_processes() > 1 else PersonEncoder
        encoder = encoder_class(model, self.reid_processor, batch_size=self.args.per_device_eval_batch_size)
        evaluate = evaluate_model if encoder.model.supports_text else evaluate_images
        advice = f"out of memory while evaluating {encoder.batch_size} at a time: lower evaluation.batch_size."
        with self.averaged_weights(), explained_memory_errors(advice):
            metrics = evaluate(encoder, dataset, batch_size=encoder.batch_size * num_processes(), progress=False)
        values = {f"{metric_key_prefix}_{name}": value for name, value in metrics.as_dict().items()}
        self.log(dict(values))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        return values

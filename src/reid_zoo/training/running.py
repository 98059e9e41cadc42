"""Running a recipe: data, model, processor and trainer put together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, set_seed

from ..data.collators import ImageCollator, ImageTextCollator, ImageTextPairs, TrainingImages
from ..data.loading import load_dataset
from ..data.records import PersonDataset
from ..data.samplers import IdentitySampler, ItemOrder, RandomOrder, TrainingSampler
from ..errors import ConfigurationError, DatasetError, RecipeError
from ..models.registry import get_method
from ..processing import ReIDProcessor
from .arguments import ReIDTrainingArguments
from .building import build_model, rebuild_model, with_processor_settings
from .checkpointing import discard_checkpoints, last_complete_checkpoint
from .logging_callbacks import LogLines, ProgressBar, check_report_to, wandb_run_of_its_own
from .model_selection import check_selection, selection_callbacks, stopped_early_at
from .preparation import check_precision, check_stages, settings_without_effect
from .prompt_stage import (
    HandOver,
    ImageFeatures,
    cache_image_features,
    discard_stage_one,
    finish_stage_one,
    load_stage_one,
)
from .recipe import OptimizationSettings, Recipe
from .run_folder import (
    STAGE_ONE_FOLDER,
    describe_records,
    locked,
    plain_fields,
    refuse_other_recipe,
    refuse_other_records,
    what_is_kept,
    write_recipe,
    write_records,
)
from .trainer import ReIDTrainer

__all__ = ["TrainingSummary", "build_model", "train"]


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """What a training run did.

    Attributes:
        output_dir: Folder of the final model and processor.
        steps: Optimiser steps taken in all, those before an interruption included; of two stages, those of the second.
        epochs: Epochs, likewise.
        seconds: Wall-clock time of this run.
        loss: Mean training loss.
        metrics: Metrics of the final model in per cent on the split that the recipe names, `None` without that split.
        resumed_from: Checkpoint the run went on from, if it did.
        stage_one_steps: Steps of the first stage, `None` for a method with one.
    """

    output_dir: Path
    steps: int
    epochs: float
    seconds: float
    loss: float
    metrics: dict[str, float] | None = None
    resumed_from: Path | None = None
    stage_one_steps: int | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    """What both stages of a run share."""

    recipe: Recipe
    model: Any
    processor: ReIDProcessor
    world_size: int
    resume: bool
    progress: bool
    log: Callable[[str], None] | None

    def sampler(self, order: ItemOrder, settings: OptimizationSettings, *, drop_last: bool) -> TrainingSampler:
        try:
            return TrainingSampler(
                order,
                settings.num_epochs,
                settings.batch_size,
                batches_per_step=settings.gradient_accumulation_steps,
                drop_last=drop_last,
                seed=self.recipe.seed,
            )
        except ConfigurationError as error:
            raise RecipeError(str(error)) from error

    def trainer(
        self,
        output: Path,
        settings: OptimizationSettings,
        items: Any,
        sampler: TrainingSampler,
        collator: Callable,
        validation: PersonDataset | None = None,
        callback: TrainerCallback | None = None,
    ) -> ReIDTrainer:
        recipe, evaluation = self.recipe, self.recipe.evaluation
        evaluates = validation is not None and evaluation.every_epochs > 0
        selects = evaluates and evaluation.selects
        steps_per_epoch = sampler.steps_per_epoch
        eval_steps = max(1, evaluation.every_epochs * steps_per_epoch)
        arguments = _arguments(
            output,
            max_steps=sampler.num_steps,
            per_device_train_batch_size=settings.batch_size // self.world_size,
            per_device_eval_batch_size=evaluation.batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            # None: not even named, because transformers is about to give it another name
            gradient_checkpointing=True if settings.gradient_checkpointing else None,
            bf16=settings.bf16,
            fp16=settings.fp16,
            max_grad_norm=settings.max_grad_norm,
            # features are in memory: workers have nothing to read
            dataloader_num_workers=0 if isinstance(items, ImageFeatures) else settings.num_workers,
            dataloader_drop_last=sampler.drop_last,
            logging_steps=settings.logging_steps,
            save_strategy="steps",
            save_steps=eval_steps,  # asked for by transformers; selection_callbacks say when
            save_total_limit=2,
            eval_strategy="steps" if evaluates else "no",
            eval_steps=eval_steps if evaluates else None,
            load_best_model_at_end=evaluates and evaluation.select_best,
            metric_for_best_model=evaluation.metric if selects else None,
            seed=recipe.seed,
            report_to=list(recipe.logging.report_to),
            run_name=f"{recipe.name}-stage1" if settings is recipe.stage_one else recipe.name,
            recipe=plain_fields(recipe),
            disable_tqdm=True,
        )
        trainer = ReIDTrainer(
            self.model,
            arguments,
            optimization=settings,
            section="stage_one" if settings is recipe.stage_one else "optimization",
            sampler=sampler,
            train_dataset=items,
            eval_dataset=validation,
            data_collator=collator,
            processing_class=self.processor,
            callbacks=[
                LogLines(self.log),
                *selection_callbacks(evaluation, steps_per_epoch, evaluates),
                *([callback] if callback is not None else []),
            ],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        if self.progress:
            trainer.add_callback(ProgressBar)
        return trainer


def _arguments(output: Path, **options: Any) -> ReIDTrainingArguments:
    # transformers asks for use_cpu before it trains in bf16 there
    return ReIDTrainingArguments(output_dir=str(output), use_cpu=not torch.accelerator.is_available(), **options)


def train(
    recipe: Recipe,
    *,
    data_root: str | Path,
    output_dir: str | Path,
    dataset: str | None = None,
    seed: int | None = None,
    resume: bool = True,
    progress: bool = True,
    log: Callable[[str], None] | None = None,
) -> TrainingSummary:
    """Train a model as a recipe says; model and processor end up directly in `output_dir`, checkpoints below it.

    A method with two stages (CLIP-ReID) trains both: the first one's result and checkpoints are in `output_dir/stage1`. An
    interrupted run goes on from its last checkpoint, of either stage, when it is started again with the same recipe.

    Args:
        recipe: The recipe.
        data_root: Root of the data set.
        output_dir: Folder to write to.
        dataset: Data set to train on instead of the recipe's.
        seed: Seed instead of the recipe's.
        resume: Go on from the last checkpoint in `output_dir`, if there is one.
        progress: Show a progress bar.
        log: Called with one line per log step; by default nothing is printed but the bar.

    Raises:
        DatasetError: If the data set is not there, or lacks captions, identities or cameras that the method needs.
        RecipeError: If `output_dir` holds checkpoints of a run with other settings or on other data, or the set is too small
            for a batch.
        TrainingError: If another run is at work in `output_dir`, or training cannot go on.
        CheckpointError: If what the first stage learned is not what the second one was trained with.
    """
    started = time.monotonic()
    if dataset is not None:
        recipe = replace(recipe, dataset=dataset)
    if seed is not None:
        recipe = replace(recipe, seed=seed)
    output = Path(output_dir)
    check_selection(recipe.evaluation)
    check_report_to(recipe.logging.report_to)
    records = _load(recipe, data_root, "train")
    validation = _evaluation_split(recipe, data_root, records)
    surroundings = _arguments(output)
    check_precision(recipe, surroundings)
    if log is not None:
        for line in settings_without_effect(recipe, records, validation):
            log(line)
    for settings in recipe.stages.values():
        _check_batch_size(settings, surroundings.world_size)
    with locked(output, is_writer=surroundings.should_save):
        return _train(started, recipe, records, validation, surroundings, resume, progress, log)


def _train(
    started: float,
    recipe: Recipe,
    records: PersonDataset,
    validation: PersonDataset | None,
    surroundings: ReIDTrainingArguments,
    resume: bool,
    progress: bool,
    log: Callable[[str], None] | None,
) -> TrainingSummary:
    """The run, once its folder is its own; as `train`."""
    output = Path(str(surroundings.output_dir))
    described = {"training": describe_records(records)}
    if validation is not None and recipe.evaluation.selects:
        described["validation"] = describe_records(validation)
    if resume:
        refuse_other_recipe(output, recipe)  # before anything is downloaded or read
        refuse_other_records(output, described)
    set_seed(recipe.seed)
    stored = _stored_model(recipe, output) if resume else None
    if stored is not None:
        model, processor = rebuild_model(recipe, records, stored)
    else:
        model, processor = build_model(recipe, records, log)
    recipe = with_processor_settings(recipe, processor)  # what is stored is complete
    run = _Run(recipe, model, processor, surroundings.world_size, resume, progress, log)
    items, collator = _items(run, records)
    sampler = _sampler(run, items)
    check_stages(model, recipe)
    if resume:
        refuse_other_recipe(output, recipe)
    elif surroundings.should_save:
        discard_checkpoints(output)
        discard_stage_one(output / STAGE_ONE_FOLDER)
    PartialState().wait_for_everyone()  # all processes have read what one of them writes now
    if surroundings.should_save:
        write_recipe(output, recipe)
        write_records(output, described)

    hand_over, stage_one_steps = None, None
    if recipe.stage_one is not None:
        hand_over, stage_one_steps = _train_stage_one(run, recipe.stage_one, records, output / STAGE_ONE_FOLDER)
    checkpoint = last_complete_checkpoint(output) if resume else None
    set_seed(recipe.seed)
    trainer = run.trainer(output, recipe.optimization, items, sampler, collator, validation, hand_over)
    if (stopped_at := stopped_early_at(checkpoint)) is not None:
        trainer.args.max_steps = stopped_at  # the checkpoint is loaded, and no further step is taken
    metrics = None
    with wandb_run_of_its_own(recipe.logging.report_to):
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.save_model(str(output))
        if trainer.args.should_save:
            processor.save_pretrained(output)
        if validation is not None:
            found = trainer.evaluate(validation)
            metrics = {name.removeprefix("eval_"): value for name, value in found.items()}
    return TrainingSummary(
        output_dir=output,
        steps=result.global_step,
        epochs=recipe.optimization.num_epochs * result.global_step / sampler.num_steps,
        seconds=time.monotonic() - started,
        loss=result.training_loss,
        metrics=metrics,
        resumed_from=checkpoint,
        stage_one_steps=stage_one_steps,
    )


def _stored_model(recipe: Recipe, output: Path) -> Path | None:
    """Where a run that began with another model holds its own by now; `None` if it has to begin with that one again."""
    if recipe.model.start_from is None:
        return None
    kept = what_is_kept(output)
    within_stage_one = kept is not None and output / STAGE_ONE_FOLDER in (kept, kept.parent)
    # adapters are not merged within a stage, and the features of the images are needed before the trainer adds them
    has_adapters = recipe.stage_one is not None and recipe.stage_one.lora is not None
    return None if within_stage_one and has_adapters else kept


def _train_stage_one(
    run: _Run, settings: OptimizationSettings, records: PersonDataset, folder: Path
) -> tuple[HandOver, int]:
    """Learn the prompts, unless a former run did; then everything is ready for the second stage."""
    model, recipe = run.model, run.recipe
    hand_over = load_stage_one(model, folder) if run.resume else None
    if hand_over is not None:
        return hand_over, hand_over.steps
    model.set_training_stage(1)
    device = _arguments(folder).device
    features = cache_image_features(
        model.to(device),
        records,
        run.processor,
        batch_size=recipe.evaluation.batch_size,
        num_workers=settings.num_workers,
    )
    items = ImageFeatures(features, records)
    checkpoint = last_complete_checkpoint(folder) if run.resume else None
    log = run.log
    run = replace(run, log=None if log is None else lambda line: log(f"stage 1: {line}"))
    set_seed(recipe.seed)
    sampler = run.sampler(RandomOrder(len(items), recipe.seed), settings, drop_last=settings.drop_last)
    trainer = run.trainer(folder, settings, items, sampler, ImageFeatures.collate)
    with wandb_run_of_its_own(recipe.logging.report_to):
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(str(folder))
    trainer.accelerator.wait_for_everyone()
    hand_over = finish_stage_one(model, folder, result.global_step, write=trainer.args.should_save)
    model.set_training_stage(2)
    return hand_over, result.global_step


def _items(run: _Run, records: PersonDataset) -> tuple[TrainingImages, ImageCollator]:
    """The training items of the method, and what makes a batch of them."""
    recipe, settings, inputs = run.recipe, run.recipe.optimization, signature(run.model.forward).parameters
    image_ids = "image_ids" in inputs
    if get_method(recipe.method).model_class.supports_text:
        pairs = ImageTextPairs(
            records,
            run.processor,
            recipe.augmentation,
            recipe.caption_augmentation,
            cache_images=settings.cache_images,
        )
        return pairs, ImageTextCollator(run.processor, image_ids=image_ids)
    config = run.model.config
    labels = [
        name for name, used in (("camera_ids", config.uses_camera_ids), ("view_ids", config.uses_view_ids)) if used
    ]
    images = TrainingImages(
        records, run.processor, recipe.augmentation, cache_images=settings.cache_images, labels=labels
    )
    return images, ImageCollator(image_ids=image_ids)


def _sampler(run: _Run, items: TrainingImages) -> TrainingSampler:
    recipe, settings = run.recipe, run.recipe.optimization
    if recipe.sampler.kind == "random":
        return run.sampler(RandomOrder(len(items), recipe.seed), settings, drop_last=settings.drop_last)
    count, own_batch = recipe.sampler.images_per_identity, settings.batch_size // run.world_size
    if own_batch % count or own_batch // count < 2:
        raise RecipeError(
            f"a batch of {own_batch} images per process is not made of at least 2 identities with {count} images each; change "
            "optimization.batch_size or sampler.images_per_identity."
        )
    try:
        order = IdentitySampler(items.person_label_of_items(), own_batch // count, count, recipe.seed)
    except ConfigurationError as error:
        raise RecipeError(str(error)) from error
    return run.sampler(order, settings, drop_last=True)


def _check_batch_size(settings: OptimizationSettings, world_size: int) -> None:
    if settings.batch_size % world_size:
        raise RecipeError(
            f"optimization.batch_size is {settings.batch_size}, which {world_size} processes cannot share equally."
        )
    if settings.batch_size // world_size < 2:
        raise RecipeError(
            f"recipe field optimization.batch_size is {settings.batch_size}, but must be at least 2 for every process."
        )


def _load(recipe: Recipe, data_root: str | Path, split: str) -> PersonDataset:
    captions = get_method(recipe.method).model_class.supports_text
    options = recipe.dataset_options
    return load_dataset(recipe.dataset, data_root, split, require_captions=captions, require_identities=True, **options)


def _evaluation_split(recipe: Recipe, data_root: str | Path, training: PersonDataset) -> PersonDataset | None:
    """What to evaluate on; `None` if the data set has no validation split, or is not divided at all."""
    try:
        records = _load(recipe, data_root, recipe.evaluation.split)
    except DatasetError:
        if recipe.evaluation.split != "val":
            raise
        return None  # the train split was read from the same files, so this says: there is no such split
    undivided = [record.image_path for record in records] == [record.image_path for record in training]
    return None if undivided or not len(records) else records

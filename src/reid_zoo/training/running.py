"""Running a recipe: data, model, processor and trainer put together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import PrinterCallback, ProgressCallback, set_seed
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.trainer_utils import get_last_checkpoint

from ..clip_tokenizer import clip_tokenizer
from ..data.collators import ImageTextCollator, ImageTextPairs
from ..data.loading import load_dataset
from ..data.records import PersonDataset
from ..errors import DatasetError, RecipeError
from ..models.registry import get_method
from ..processing import ReIDProcessor
from .arguments import ReIDTrainingArguments
from .logging_callbacks import LogLines, ProgressBar
from .recipe import Recipe
from .trainer import ReIDTrainer
from .vocabulary import learn_clip_tokenizer, learn_wordpiece_tokenizer

__all__ = ["TrainingSummary", "build_model", "train"]

RECIPE_FILE = "recipe.yaml"


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """What a training run did.

    Attributes:
        output_dir: Folder of the final model and processor.
        steps: Optimiser steps taken in all, those before an interruption included.
        epochs: Epochs, likewise.
        seconds: Wall-clock time of this run.
        loss: Mean training loss.
        metrics: Validation metrics of the final model in per cent, `None` without a validation split.
        resumed_from: Checkpoint the run went on from, if it did.
    """

    output_dir: Path
    steps: int
    epochs: float
    seconds: float
    loss: float
    metrics: dict[str, float] | None = None
    resumed_from: Path | None = None


def build_model(recipe: Recipe, dataset: PersonDataset) -> tuple[Any, ReIDProcessor]:
    """Model and processor of a recipe, newly initialised or from pretrained towers.

    Args:
        recipe: The recipe; its seed is not set here.
        dataset: Training records: their identities size the classifier, their captions make the vocabulary.

    Raises:
        RecipeError: If a field is missing or does not fit, or the configuration trains nothing.
    """
    method, settings = get_method(recipe.method), recipe.model
    fields = {"num_classes": len(dataset.person_ids), **settings.config}
    if len(recipe.processor.image_size) != 2:
        raise RecipeError(
            f"recipe field processor.image_size must be [height, width], not {recipe.processor.image_size}."
        )
    height, width = recipe.processor.image_size

    def build_config(**text_fields: Any) -> Any:
        towers = {
            "vision_config": {"image_size": [height, width], **settings.vision_config},
            "text_config": {**text_fields, **settings.text_config},
        }
        if settings.preset is None:
            return method.config_class(**fields, **towers)
        return method.config_class.from_preset(settings.preset, **fields, **towers)

    defaults = build_config().processor_defaults  # of a draft: the vocabulary is not known yet
    has_word_mask, uses_wordpieces = defaults.tokenizer == "clip_with_mask", defaults.tokenizer == "wordpiece"
    tokenizer: PreTrainedTokenizerBase
    if settings.image_tower is not None:
        from transformers import AutoTokenizer

        if not uses_wordpieces:
            tokenizer = clip_tokenizer(mask_token=has_word_mask)
        elif settings.text_tower is None:
            raise RecipeError("recipe field model.text_tower is missing; model.image_tower needs one beside it.")
        else:
            tokenizer = AutoTokenizer.from_pretrained(settings.text_tower)
        model = method.training_class.from_towers(
            settings.image_tower,
            settings.text_tower,
            image_size=(height, width),
            preset=settings.preset,
            vision_config=settings.vision_config,
            text_config=settings.text_config,
            **fields,
        )
    else:
        captions = [item.caption for item in dataset.captioned_images()]
        vocabulary_size = recipe.processor.vocabulary_size
        if uses_wordpieces:
            tokenizer = learn_wordpiece_tokenizer(captions, vocabulary_size)
            padding = {"pad_token_id": tokenizer.pad_token_id}
        else:
            tokenizer = learn_clip_tokenizer(captions, vocabulary_size, mask_token=has_word_mask)
            padding = {}
        model = method.training_class(build_config(vocab_size=len(tokenizer), **padding))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise RecipeError(f"recipe {recipe.name}: this configuration of {recipe.method} has nothing to train.")
    processor = ReIDProcessor.build(
        tokenizer,
        image_size=(height, width),
        image_mean=recipe.processor.image_mean,
        image_std=recipe.processor.image_std,
        interpolation=recipe.processor.interpolation,
        max_text_length=model.config.max_text_length,
        truncation_keeps_sep=recipe.processor.truncation_keeps_sep,
        clean_text=defaults.clean_text,
        pad_token_id=defaults.pad_token_id,
        caption_cleaning=recipe.processor.caption_cleaning,
    )
    return model, processor


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

    An interrupted run goes on from its last checkpoint when it is started again with the same recipe.

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
        DatasetError: If the data set is not there, or lacks captions or identities.
        RecipeError: If `output_dir` holds checkpoints of another recipe, or the set is too small for a batch.
    """
    started = time.monotonic()
    if dataset is not None:
        recipe = replace(recipe, dataset=dataset)
    if seed is not None:
        recipe = replace(recipe, seed=seed)
    output = Path(output_dir)
    records = load_dataset(recipe.dataset, data_root, "train", require_captions=True, require_identities=True)
    validation = _validation_split(recipe, data_root)
    settings, evaluation = recipe.optimization, recipe.evaluation
    if settings.batch_size < 2:
        raise RecipeError(f"recipe field optimization.batch_size is {settings.batch_size}, but must be at least 2.")

    set_seed(recipe.seed)
    model, processor = build_model(recipe, records)
    pairs = ImageTextPairs(
        records, processor, recipe.augmentation, recipe.caption_augmentation, cache_images=settings.cache_images
    )
    steps_per_epoch = len(pairs) // settings.batch_size // settings.gradient_accumulation_steps
    if steps_per_epoch < 1:
        raise RecipeError(
            f"{len(pairs)} training pairs do not fill one step of {settings.gradient_accumulation_steps} × "
            f"{settings.batch_size}; lower optimization.batch_size."
        )
    checkpoint = _checkpoint_to_resume(output, recipe) if resume else None
    output.mkdir(parents=True, exist_ok=True)
    (output / RECIPE_FILE).write_text(_to_yaml(recipe), encoding="utf-8")
    evaluates = validation is not None and evaluation.every_epochs > 0
    arguments = ReIDTrainingArguments(
        output_dir=str(output),
        num_train_epochs=settings.num_epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=evaluation.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        # None: not even named, because transformers is about to give it another name
        gradient_checkpointing=True if settings.gradient_checkpointing else None,
        bf16=settings.bf16,
        use_cpu=not torch.accelerator.is_available(),  # asked for by transformers before it trains in bf16 there
        max_grad_norm=settings.max_grad_norm,
        dataloader_num_workers=settings.num_workers,
        logging_steps=settings.logging_steps,
        save_strategy="steps",
        save_steps=max(1, evaluation.save_every_epochs * steps_per_epoch),
        save_total_limit=2,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=max(1, evaluation.every_epochs * steps_per_epoch) if evaluates else None,
        load_best_model_at_end=evaluates and evaluation.select_best,
        metric_for_best_model="R1" if evaluates and evaluation.select_best else None,
        seed=recipe.seed,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = ReIDTrainer(
        model,
        arguments,
        optimization=settings,
        train_dataset=pairs,
        eval_dataset=validation,
        data_collator=ImageTextCollator(processor, image_ids="image_ids" in signature(model.forward).parameters),
        processing_class=processor,
        callbacks=[LogLines(log)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if progress:
        trainer.add_callback(ProgressBar)
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(str(output))
    processor.save_pretrained(output)
    metrics = None
    if validation is not None:
        found = trainer.evaluate(validation)
        metrics = {name.removeprefix("eval_"): value for name, value in found.items()}
    return TrainingSummary(
        output_dir=output,
        steps=result.global_step,
        epochs=float(trainer.state.epoch or 0),
        seconds=time.monotonic() - started,
        loss=result.training_loss,
        metrics=metrics,
        resumed_from=checkpoint,
    )


def _validation_split(recipe: Recipe, data_root: str | Path) -> PersonDataset | None:
    """The validation split, if the data set has one."""
    try:
        records = load_dataset(recipe.dataset, data_root, "val", require_captions=True, require_identities=True)
    except DatasetError:
        return None  # the train split was read from the same files, so this says: there is no such split
    return records if len(records) else None


def _to_yaml(recipe: Recipe) -> str:
    values = asdict(recipe)
    return yaml.safe_dump(_plain(values), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _checkpoint_to_resume(output: Path, recipe: Recipe) -> Path | None:
    """Last complete checkpoint of the same recipe."""
    if not output.is_dir():
        return None
    last = get_last_checkpoint(str(output))
    if last is None:
        return None
    previous = output / RECIPE_FILE
    if not previous.is_file() or previous.read_text(encoding="utf-8") != _to_yaml(recipe):
        raise RecipeError(
            f"{output} holds checkpoints of a run with other settings ({previous.name} tells which); use another output "
            "folder, or start over with --no-resume."
        )
    return Path(last)

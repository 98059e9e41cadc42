"""What can be said of a run before anything is trained: what would fail later, and which settings do nothing."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import torch
from torch import nn
from transformers.utils import is_torch_bf16_gpu_available

from ..data.records import PersonDataset
from ..data.transforms import CaptionAugmentation
from ..errors import RecipeError
from ..models.registry import get_method
from .arguments import ReIDTrainingArguments
from .gradient_caching import cached_gradients
from .optimization import group_parameters
from .parameter_efficient import add_low_rank_adapters
from .recipe import ProcessorSettings, Recipe, SamplerSettings

__all__ = ["check_precision", "check_stages", "settings_without_effect"]


def check_precision(recipe: Recipe, surroundings: ReIDTrainingArguments) -> None:
    """Refuse a precision that the device does not have.

    Args:
        recipe: The recipe; every stage is looked at.
        surroundings: Arguments of a training that says nothing of its precision.

    Raises:
        RecipeError: For float16 without an accelerator, or bfloat16 on one that does not know it.
    """
    on_cpu = surroundings.device.type == "cpu"
    for section, settings in recipe.stages.items():
        if settings.fp16 and on_cpu:
            raise RecipeError(
                f"recipe field {section}.fp16 is true, but needs an accelerator, and this run has none; use bf16 or neither."
            )
        if settings.bf16 and not on_cpu and not is_torch_bf16_gpu_available():
            raise RecipeError(
                f"recipe field {section}.bf16 is true, but this accelerator cannot do it; use fp16 or neither."
            )


def check_stages(model: Any, recipe: Recipe) -> None:
    """Refuse settings that the trainer of a stage would refuse, which may be hours later.

    A copy of the model without values goes through what the trainer does with its parameters; the model is left as it is.

    Args:
        model: A training model of the zoo, in its last stage, as it is behind its construction.
        recipe: Its recipe.

    Raises:
        RecipeError: If a parameter group matches nothing, or a parameter has none, or gradient checkpointing cannot be used.
        ConfigurationError: If `cached_gradients` cannot be used, or the patterns of `lora` find no layer.
        MissingPackageError: If `lora` needs a package that is not installed.
    """
    for section, settings in recipe.stages.items():
        draft = _without_values(model)
        if section == "stage_one":
            draft.set_training_stage(1)
        if settings.lora is not None:
            with torch.random.fork_rng(devices=[]):  # their values are drawn
                add_low_rank_adapters(draft, settings.lora)
        group_parameters(draft, settings.parameter_groups)
        with cached_gradients(draft, settings.cached_gradients):
            pass
        if settings.gradient_checkpointing and not model.supports_gradient_checkpointing:
            raise RecipeError(
                f"recipe field {section}.gradient_checkpointing is true, but {recipe.method} cannot do it with these towers."
            )


def _without_values(model: nn.Module) -> Any:
    """A copy whose parameters have names and shapes, but take no memory."""
    empty: dict[int, Any] = {
        id(value): nn.Parameter(value.detach().to("meta"), requires_grad=value.requires_grad)
        for value in model.parameters()
    }
    return copy.deepcopy(model, empty)


def settings_without_effect(recipe: Recipe, training: PersonDataset, validation: PersonDataset | None) -> list[str]:
    """One line for every setting that this run does not read, though the recipe changes it.

    Args:
        recipe: As it was read, before what it leaves open is filled in.
        training: Records to train on.
        validation: Records to evaluate on, if there are any.
    """
    lines = []
    evaluation, sampler, stage_one = recipe.evaluation, recipe.sampler, recipe.stage_one
    if validation is None:
        given = [name for name in ("every_epochs", "select_best", "patience") if getattr(evaluation, name)]
        if given:
            lines.append(
                f"{training.label} has no {evaluation.split} split to evaluate on: {_named('evaluation', given)} no effect, the "
                "last model is kept."
            )
    elif evaluation.metric != _default(type(evaluation), "metric") and not evaluation.selects:
        lines.append(f"{_named('evaluation', ['metric'])} no effect without select_best or patience.")
    if sampler.kind == "random" and sampler.images_per_identity != _default(SamplerSettings, "images_per_identity"):
        lines.append(f"{_named('sampler', ['images_per_identity'])} no effect with sampler.kind random.")
    if sampler.kind == "identity" and not recipe.optimization.drop_last:
        lines.append(
            f"{_named('optimization', ['drop_last'])} no effect with sampler.kind identity, whose batches are all complete."
        )
    if stage_one is not None and stage_one.cache_images:
        lines.append(f"{_named('stage_one', ['cache_images'])} no effect: every image is read once.")
    given = _processor_fields_of_text(recipe)
    if not get_method(recipe.method).model_class.supports_text:
        reason = f"no effect: {recipe.method} is trained without captions."
        if given:
            lines.append(f"{_named('processor', given)} {reason}")
        if recipe.caption_augmentation != CaptionAugmentation():
            lines.append(f"recipe field caption_augmentation has {reason}")
    elif "vocabulary_size" in given and (recipe.model.image_tower or recipe.model.start_from):
        lines.append(f"{_named('processor', ['vocabulary_size'])} no effect: the tokenizer comes with the model.")
    return lines


def _processor_fields_of_text(recipe: Recipe) -> list[str]:
    names = ("truncation_keeps_sep", "caption_cleaning", "vocabulary_size")
    # What a run stores of itself is complete: a method without captions has these.
    nothing = {"truncation_keeps_sep": (None, False), "caption_cleaning": (None, "none")}
    default = (_default(ProcessorSettings, "vocabulary_size"),)
    return [name for name in names if getattr(recipe.processor, name) not in nothing.get(name, default)]


def _default(kind: type, name: str) -> Any:
    return next(item.default for item in fields(kind) if item.name == name)


def _named(section: str, names: list[str]) -> str:
    listed = ", ".join(f"{section}.{name}" for name in names)
    return f"recipe field {listed} has" if len(names) == 1 else f"recipe fields {listed} have"

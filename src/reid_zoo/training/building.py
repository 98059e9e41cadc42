"""What a recipe trains: configuration, model and processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_NAME

from ..clip_tokenizer import clip_tokenizer
from ..data.records import PersonDataset, PersonRecord
from ..errors import DatasetError, RecipeError
from ..models.registry import get_method
from ..processing import ReIDProcessor
from .recipe import ProcessorSettings, Recipe
from .starting_point import StartingPoint
from .vocabulary import learn_clip_tokenizer, learn_wordpiece_tokenizer

__all__ = ["build_config", "build_model", "dataset_fields", "rebuild_model", "with_processor_settings"]


def dataset_fields(recipe: Recipe, dataset: PersonDataset) -> dict[str, int]:
    """Fields of the method's configuration that follow from the training records.

    Returns:
        `num_classes`; for a method that may use the camera or the viewpoint of an image also `num_cameras` and `num_views`,
        the largest number plus one. (The benchmarks' cameras are numbered without gaps.)

    Raises:
        DatasetError: If side information is switched on, but a record lacks it.
        RecipeError: If the recipe has a smaller number of its own in `model.config`.
    """
    fields = {"num_classes": len(dataset.person_ids)}
    inputs = get_method(recipe.method).optional_inputs
    for name, field, count, switch in (
        ("camera_ids", "camera_id", "num_cameras", "sie_camera"),
        ("view_ids", "view_id", "num_views", "sie_view"),
    ):
        if name not in inputs:
            continue
        numbers = [getattr(record, field) for record in dataset]
        known = [number for number in numbers if number is not None]
        if recipe.model.config.get(switch) and len(known) < len(numbers):
            record: PersonRecord = dataset[numbers.index(None)]
            raise DatasetError(
                f"{dataset.name} ({dataset.split}): {record.image_path} has no {field}, which model.config.{switch} needs; "
                "add it to every record, or switch that off."
            )
        fields[count] = max(known, default=0) + 1
    for name, needed in fields.items():
        own = recipe.model.config.get(name, needed)
        if not isinstance(own, int) or own < needed:
            raise RecipeError(
                f"recipe field model.config.{name} is {own!r}, but must be at least {needed} for {dataset.label}; leave it out "
                "to take that."
            )
    return fields


def build_config(recipe: Recipe, fields: dict[str, Any], **text_fields: Any) -> Any:
    """The configuration of a recipe's model from scratch; with pretrained towers, the one that their sizes are filled into.

    Args:
        recipe: The recipe.
        fields: Of `dataset_fields` and `StartingPoint.config_fields`; but for whole towers, what the recipe says goes first.
        text_fields: Fields of the text tower that the recipe may change.

    Raises:
        ConfigurationError: For a field that is unknown or does not fit.
    """
    method, settings, size = get_method(recipe.method), recipe.model, recipe.processor.image_size
    vision = {} if size is None else {"image_size": list(size)}
    towers = {"vision_config": {**vision, **settings.vision_config}}
    if text := {**text_fields, **settings.text_config}:
        towers["text_config"] = text
    values = {**towers, **fields, **settings.config}
    if settings.preset is None:
        return method.config_class(**values)
    return method.config_class.from_preset(settings.preset, **values)


def _with_processor_of_method(recipe: Recipe, config: Any) -> Recipe:
    """The recipe with every field of its processor: those that it leaves open are the method's own."""
    own, given = config.processor_defaults, recipe.processor
    method = {
        "image_size": tuple(config.vision_config.image_size),
        "image_mean": own.pixels.mean,
        "image_std": own.pixels.std,
        "interpolation": own.interpolation,
        "truncation_keeps_sep": own.truncation_keeps_sep,
        "caption_cleaning": own.caption_cleaning,
    }
    chosen = {name: value if (set_ := getattr(given, name)) is None else set_ for name, value in method.items()}
    return replace(recipe, processor=ProcessorSettings(**chosen, vocabulary_size=given.vocabulary_size))


def build_model(
    recipe: Recipe, dataset: PersonDataset, log: Callable[[str], None] | None = None
) -> tuple[Any, ReIDProcessor]:
    """Model and processor of a recipe, newly initialised, from pretrained towers or from a trained model of the zoo.

    Args:
        recipe: The recipe; its seed is not set here.
        dataset: Training records: their identities size the classifier, their captions make the vocabulary.
        log: Told what a model that starts from another one did not get from it.

    Raises:
        RecipeError: If a field is missing or does not fit, or the configuration trains nothing.
        DatasetError: As `dataset_fields`.
    """
    method, settings = get_method(recipe.method), recipe.model
    fields = dataset_fields(recipe, dataset)
    draft = build_config(recipe, fields)  # the vocabulary is not known yet
    start = None if settings.start_from is None else StartingPoint.read(settings.start_from, recipe, draft)
    if start is not None:
        recipe = start.completed(recipe)
    defaults, processing = draft.processor_defaults, _with_processor_of_method(recipe, draft).processor
    assert processing.image_size is not None and processing.interpolation is not None
    assert processing.image_mean is not None and processing.image_std is not None
    height, width = processing.image_size
    tokenizer: PreTrainedTokenizerBase | None = None
    if start is not None:
        tokenizer = start.tokenizer
        model = method.training_class(build_config(recipe, {**start.config_fields(recipe), **fields}))
        new = start.give_weights(model)
        if log is not None:
            instead = "" if settings.image_tower is None else ", not from the recipe's image_tower and text_tower"
            log(f"started from {start.name}{instead}; {_listed(new)}")
    elif settings.image_tower is not None:
        tokenizer = _published_tokenizer(defaults.tokenizer, settings.text_tower)
        model = method.training_class.from_towers(
            settings.image_tower,
            settings.text_tower,
            image_size=(height, width),
            preset=settings.preset,
            vision_config=settings.vision_config,
            text_config=settings.text_config,
            **{**fields, **settings.config},
        )
    elif defaults.tokenizer is None:
        model = method.training_class(draft)
    else:
        captions = [item.caption for item in dataset.captioned_images()]
        tokenizer = _learned_tokenizer(defaults.tokenizer, captions, processing.vocabulary_size)
        padding = {"pad_token_id": tokenizer.pad_token_id} if defaults.tokenizer == "wordpiece" else {}
        model = method.training_class(build_config(recipe, fields, vocab_size=len(tokenizer), **padding))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise RecipeError(f"recipe {recipe.name}: this configuration of {recipe.method} has nothing to train.")
    if (model.config.num_training_stages > 1) != (recipe.stage_one is not None):
        does, has = ("has two stages", "says nothing of") if recipe.stage_one is None else ("has one stage", "has")
        raise RecipeError(
            f"recipe {recipe.name}: this configuration of {recipe.method} {does}, but the recipe {has} stage_one."
        )
    processor = ReIDProcessor.build(
        tokenizer,
        image_size=(height, width),
        image_mean=processing.image_mean,
        image_std=processing.image_std,
        interpolation=processing.interpolation,
        truncation_keeps_sep=bool(processing.truncation_keeps_sep),
        clean_text=defaults.clean_text,
        pad_token_id=defaults.pad_token_id,
        caption_cleaning=processing.caption_cleaning or "none",
        **({} if tokenizer is None else {"max_text_length": model.config.max_text_length}),
    )
    return model, processor


def rebuild_model(recipe: Recipe, dataset: PersonDataset, folder: Path) -> tuple[Any, ReIDProcessor]:
    """Model and processor of a run that goes on, from what it stored: nothing that it once started from is needed again.

    Args:
        recipe: The recipe of that run.
        dataset: Training records.
        folder: A complete checkpoint of the run, or its finished first stage. The weights of adapters are left to the trainer.

    Raises:
        RecipeError: If the stored model has the sizes of other training records.
        DatasetError: As `dataset_fields`.
    """
    method = get_method(recipe.method)
    config = method.config_class.from_pretrained(folder)
    for name, value in (dataset_fields(recipe, dataset) | recipe.model.config).items():
        if name in ("num_classes", "num_cameras", "num_views") and getattr(config, name) != value:
            raise RecipeError(
                f"{folder} was trained with {name} {getattr(config, name)}, but the training records make it {value}; they are "
                "not those of that run."
            )
    model = method.training_class(config)
    model.load_state_dict(load_file(folder / SAFE_WEIGHTS_NAME), strict=False)
    return model, ReIDProcessor.from_pretrained(folder)


def with_processor_settings(recipe: Recipe, processor: ReIDProcessor) -> Recipe:
    """The recipe with every field of the processor that was built for it."""
    images = processor.image_processor
    settings = replace(
        recipe.processor,
        image_size=processor.image_size,
        image_mean=tuple(images.image_mean),
        image_std=tuple(images.image_std),
        interpolation=processor.interpolation,
        truncation_keeps_sep=processor.truncation_keeps_sep,
        caption_cleaning=processor.caption_cleaning,
    )
    return replace(recipe, processor=settings)


def _listed(new: Sequence[str]) -> str:
    """The modules that hold newly initialised weights, for a log line."""
    if not new:
        return "every weight was taken."
    return f"newly initialised: {', '.join(sorted({name.partition('.')[0] for name in new}))}."


def _published_tokenizer(kind: str | None, text_tower: str | None) -> PreTrainedTokenizerBase | None:
    if kind is None:
        return None
    if kind != "wordpiece":
        return clip_tokenizer(mask_token=kind == "clip_with_mask")
    if text_tower is None:
        raise RecipeError("recipe field model.text_tower is missing; model.image_tower needs one beside it.")
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(text_tower)
    return tokenizer


def _learned_tokenizer(kind: str, captions: Sequence[str], vocabulary_size: int) -> PreTrainedTokenizerBase:
    if kind == "wordpiece":
        return learn_wordpiece_tokenizer(captions, vocabulary_size)
    return learn_clip_tokenizer(captions, vocabulary_size, mask_token=kind == "clip_with_mask")

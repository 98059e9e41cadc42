"""Recipes: everything that defines a training run, typed, validated, and kept as YAML files in the package."""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml

from ..data.caption_cleaning import CAPTION_CLEANING
from ..data.transforms import CaptionAugmentation, ImageAugmentation
from ..errors import RecipeError, ReIDZooError
from ..validation import Count, OneOf, Within, check_settings, check_values, unknown_name_message
from .optimization import OPTIMIZERS, LearningRateSchedule, ParameterGroup
from .parameter_efficient import LowRankSettings

__all__ = [
    "EvaluationSettings",
    "LoggingSettings",
    "ModelSettings",
    "OptimizationSettings",
    "ProcessorSettings",
    "Recipe",
    "SamplerSettings",
    "list_recipes",
    "load_recipe",
]

_PER_CHANNEL = "three numbers: red, green, blue"
SELECTION_METRICS = ("R1", "R5", "R10", "mAP", "mINP", "Rsum")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What is trained.

    Attributes:
        preset: Named size of the method (`tiny`, `small`, `base`) that the fields below change; by default the
            configuration's own defaults. With pretrained towers it fills the fields that these leave open.
        vision_config: Fields of the image tower; with pretrained towers, fields to change (dropout, say).
        text_config: Fields of the text tower, likewise.
        config: Further fields of the method's configuration.
        image_tower: Pretrained image tower instead: folder, file or Hub id (see `from_towers`).
        text_tower: Pretrained text tower instead, whose tokenizer is used too.
        start_from: Trained model of the zoo instead of both, of the same method or of another one with the same kinds of
            towers: folder or Hub id. Its towers, tokenizer, image size and pixel statistics are taken, and every other weight
            that has the same name and shape; the rest is newly initialised, which is said.
    """

    preset: str | None = None
    vision_config: dict[str, Any] = field(default_factory=dict)
    text_config: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    image_tower: str | None = None
    text_tower: str | None = None
    start_from: str | None = None

    def __post_init__(self) -> None:
        check_settings(self, "recipe field model.", RecipeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorSettings:
    """How images and sentences become tensors; what is not given is as the method's authors have it.

    Attributes:
        image_size: `[height, width]` in pixels; by default that of the method's configuration.
        image_mean: Mean per channel.
        image_std: Standard deviation per channel.
        interpolation: `bicubic` or `bilinear`.
        truncation_keeps_sep: See [`ReIDProcessor`].
        caption_cleaning: `none`, `eval` or `both`, see [`ReIDProcessor`].
        vocabulary_size: Largest vocabulary learned from the training captions, for a model from scratch.
    """

    image_size: Annotated[tuple[Annotated[int, Within(1)], ...] | None, Count(2, "[height, width]")] = None
    image_mean: Annotated[tuple[Annotated[float, Within(0, 1)], ...] | None, Count(3, _PER_CHANNEL)] = None
    image_std: Annotated[tuple[Annotated[float, Within(0, 1, open_low=True)], ...] | None, Count(3, _PER_CHANNEL)] = (
        None
    )
    interpolation: Annotated[str | None, OneOf("bicubic", "bilinear")] = None
    truncation_keeps_sep: bool | None = None
    caption_cleaning: Annotated[str | None, OneOf(*CAPTION_CLEANING)] = None
    vocabulary_size: Annotated[int, Within(1)] = 2000

    def __post_init__(self) -> None:
        check_settings(self, "recipe field processor.", RecipeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSettings:
    """In which order training sees its items.

    Attributes:
        kind: `random`: every item once per epoch; `identity`: batches of batch_size / images_per_identity identities with
            that many items each, see [`IdentitySampler`].
        images_per_identity: K of `identity`; not read by `random`.
    """

    kind: Annotated[str, OneOf("random", "identity")] = "random"
    images_per_identity: Annotated[int, Within(2)] = 4

    def __post_init__(self) -> None:
        check_settings(self, "recipe field sampler.", RecipeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationSettings:
    """How it is trained.

    Attributes:
        num_epochs: Passes over the items: (image, caption) pairs, or images.
        batch_size: Items per batch, those of all processes together.
        drop_last: Whether the incomplete batch at the end of a pass is left out. If not, several processes fill theirs up
            from the beginning of the pass.
        optimizer: `adam` or `adamw`.
        betas: Decay rates of the moments.
        eps: Added to the denominator.
        max_grad_norm: Gradient clipping; 0 for none.
        parameter_groups: Who learns how fast.
        schedule: Learning rate over time.
        gradient_accumulation_steps: Batches per optimiser step. Negatives stay those of one batch.
        cached_gradients: Samples that go through the towers at a time; the loss stays exactly that of the batch, see
            [`cached_gradients`]. 0 for all of them.
        gradient_checkpointing: Trade time for memory.
        bf16: Autocast to bfloat16 (losses stay in float32).
        fp16: Autocast to float16 with scaled gradients, on an accelerator only (losses stay in float32).
        ema_decay: Evaluate and save an average of the weights, see [`WeightAverage`]; 0 for none.
        lora: Train low-rank adapters in the towers instead of their weights, see [`LowRankSettings`].
        cache_images: Keep resized training images in memory.
        num_workers: Processes that load data; 0 for none.
        logging_steps: Optimiser steps between two log lines.
    """

    num_epochs: Annotated[float, Within(0, open_low=True)] = 50
    batch_size: Annotated[int, Within(2)] = 32
    drop_last: bool = True
    optimizer: Annotated[str, OneOf(*OPTIMIZERS)] = "adam"
    betas: Annotated[tuple[Annotated[float, Within(0, 1, open_high=True)], ...], Count(2, "two numbers")] = (0.9, 0.999)
    eps: Annotated[float, Within(0)] = 1e-8
    max_grad_norm: Annotated[float, Within(0)] = 0.0
    parameter_groups: tuple[ParameterGroup, ...] = (ParameterGroup(name="all", learning_rate=1e-4),)
    schedule: LearningRateSchedule = field(default_factory=LearningRateSchedule)
    gradient_accumulation_steps: Annotated[int, Within(1)] = 1
    cached_gradients: Annotated[int, Within(0)] = 0
    gradient_checkpointing: bool = False
    bf16: bool = False
    fp16: bool = False
    ema_decay: Annotated[float, Within(0, 1, open_high=True)] = 0.0
    lora: LowRankSettings | None = None
    cache_images: bool = False
    num_workers: Annotated[int, Within(0)] = 0
    logging_steps: Annotated[int, Within(1)] = 50

    def __post_init__(self) -> None:
        check_settings(self, "recipe field optimization.", RecipeError)
        names = [group.name for group in self.parameter_groups]
        if not names:
            raise RecipeError("parameter_groups is empty, but must hold at least one group.")
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise RecipeError(f"parameter_groups holds two groups called {repeated!r}, but every name must be its own.")
        if self.bf16 and self.fp16:
            raise RecipeError("bf16 and fp16 are both true, but only one of them may be.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """When the model is evaluated and which checkpoint is kept.

    Attributes:
        split: `val`, if the data set has one; or `test`, to evaluate on the images that results are reported on. With
            `select_best` this chooses the model by them, as several releases do, and flatters it.
        every_epochs: Epochs between two evaluations on that split; 0 for none but that of the final model.
        select_best: Keep the checkpoint with the best `metric` (needs the split and `every_epochs`); otherwise the last one.
        metric: What is best: `R1`, `R5`, `R10`, `mAP`, `mINP` or `Rsum`.
        patience: Stop after so many evaluations in a row that were not better than the best; 0 for never.
        save_every_epochs: Epochs between two checkpoints, from which an interrupted run resumes.
        save_every_steps: Optimiser steps between two checkpoints instead, if not 0.
        batch_size: Images or captions per step.
    """

    split: Annotated[str, OneOf("val", "test")] = "val"
    every_epochs: Annotated[int, Within(0)] = 0
    select_best: bool = False
    metric: Annotated[str, OneOf(*SELECTION_METRICS)] = "R1"
    patience: Annotated[int, Within(0)] = 0
    save_every_epochs: Annotated[int, Within(1)] = 5
    save_every_steps: Annotated[int, Within(0)] = 0
    batch_size: Annotated[int, Within(1)] = 64

    def __post_init__(self) -> None:
        check_settings(self, "recipe field evaluation.", RecipeError)

    @property
    def selects(self) -> bool:
        """Whether evaluations decide on the model: which checkpoint is kept, or when training stops."""
        return self.select_best or self.patience > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    """Where figures go beside the lines on the console.

    Attributes:
        report_to: Names of transformers' integrations: `tensorboard`, `wandb`, ... Their packages have to be installed.
    """

    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self, "recipe field logging.", RecipeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One training run.

    Attributes:
        name: Name of the recipe.
        description: What it is for, in one line.
        method: Model type.
        aims_at: Published figures it aims at, with their table; empty if there are none.
        dataset: Data set it was made for; another one can be given when training.
        dataset_options: Options of its loader, see [`load_dataset`]. A withdrawn data set needs `accept_retracted: true`,
            which no recipe of the package says for you.
        seed: Seed of initialisation, order and augmentation.
        model: What is trained.
        processor: How inputs are prepared.
        augmentation: What is done to training images.
        caption_augmentation: What is done to training captions.
        sampler: In which order training sees its items.
        stage_one: How the first stage of a method with two stages is trained (CLIP-ReID's prompts), on features of the
            images in random order; then `optimization` is the second stage.
        optimization: How it is trained.
        evaluation: When it is evaluated.
        logging: Where figures go.
    """

    name: str
    description: str
    method: str
    aims_at: str = ""
    dataset: str = "cuhk-pedes"
    dataset_options: dict[str, Any] = field(default_factory=dict)
    seed: Annotated[int, Within(0, 2**32 - 1)] = 42  # what numpy takes
    model: ModelSettings = field(default_factory=ModelSettings)
    processor: ProcessorSettings = field(default_factory=ProcessorSettings)
    augmentation: ImageAugmentation = field(default_factory=ImageAugmentation)
    caption_augmentation: CaptionAugmentation = field(default_factory=CaptionAugmentation)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    stage_one: OptimizationSettings | None = None
    optimization: OptimizationSettings = field(default_factory=OptimizationSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)

    def __post_init__(self) -> None:
        check_settings(self, "recipe field ", RecipeError)

    @property
    def stages(self) -> dict[str, OptimizationSettings]:
        """Name of the field → how that stage is trained, in the order in which they are."""
        first = {} if self.stage_one is None else {"stage_one": self.stage_one}
        return first | {"optimization": self.optimization}


def _folder() -> Any:
    return resources.files("reid_zoo.training.recipes")


def list_recipes() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe of the package, or a YAML file of one's own.

    A recipe may name another one that it `extends`: it then holds only what differs. Mappings are merged field by field,
    everything else (lists too) is replaced, and `null` takes a mapping away.

    Args:
        name: Name (see `list_recipes`; hyphens inside of the name of a data set may be left out) or path of a `.yaml` file.
        overrides: `"field=value"` strings, the value in YAML, a nested field with dots:
            `"optimization.num_epochs=3"`. A name that occurs only once may be written without its section.

    Raises:
        RecipeError: For an unknown recipe or field (the nearest name is suggested), a value of the wrong type, or recipes
            that extend each other in a circle.
    """
    values = _read_values(name, ())
    for override in overrides:
        _apply_override(values, override)
    recipe = _build(Recipe, values, "")
    assert isinstance(recipe, Recipe)
    return recipe


class _RepeatedKeyError(yaml.constructor.ConstructorError):
    """A mapping has a key twice."""


class _RecipeLoader(yaml.SafeLoader):
    """YAML's plain types, without the silent choice of the last one where a key stands twice in a mapping."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """See PyYAML; here keys are as they are written, before any are merged in."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        written: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in written:
                raise _RepeatedKeyError(None, None, f"{key.value!r} stands twice in one mapping", key.start_mark)
            written.add(key.value)
        return node


def _read_values(name: str | Path, extended_by: tuple[str, ...]) -> dict[str, Any]:
    """Fields of a recipe, those of the recipes that it extends included."""
    if str(name).endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise RecipeError(f"there is no recipe file {path}.")
        key, folder = str(path.resolve()), path.parent
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read recipe {path}, which must be a file in UTF-8: {error}.") from error
    else:
        key, folder = _packaged_name(str(name)), Path()
        text = (_folder() / f"{key}.yaml").read_text(encoding="utf-8")
    if key in extended_by:
        raise RecipeError(f"recipes extend each other in a circle: {' → '.join((*extended_by, key))}.")
    try:
        values = yaml.load(text, _RecipeLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"recipe {name} must be a mapping of fields.")
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise RecipeError(f"recipe {name}: extends must be the name of a recipe, not {parent!r}.")
    source = folder / parent if parent.endswith((".yaml", ".yml")) else parent
    inherited = _read_values(source, (*extended_by, key))
    for own in ("name", "description"):  # they are the parent's alone
        inherited.pop(own, None)
    return _merged(inherited, values)


def _packaged_name(name: str) -> str:
    names = list_recipes()
    if name in names:
        return name
    compact = {known.replace("-", ""): known for known in names}
    if (found := compact.get(name.replace("-", ""))) is not None:
        return found
    raise RecipeError(unknown_name_message("recipe", name, names))


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and value is None:
            del merged[key]
        else:
            merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _apply_override(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path.strip():
        raise RecipeError(f"--set {override!r}: write field=value, for example optimization.num_epochs=3.")
    try:
        value = yaml.load(text, _RecipeLoader)
    except yaml.YAMLError as error:
        said = f": {error.problem}" if isinstance(error, _RepeatedKeyError) else ""
        raise RecipeError(f"--set {override!r}: the value is not valid YAML{said}.") from error
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    keys = _locate(path.strip())
    target = values
    for key in keys[:-1]:
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {override!r}: {key} has no fields of its own.")
        target = inner
    target[keys[-1]] = value


def _locate(path: str) -> list[str]:
    """Sections of a field: written out with dots, or found by its name if only one section has it."""
    keys = path.split(".")
    if len(keys) > 1 or keys[0] in {item.name for item in dataclasses.fields(Recipe)}:
        return keys
    sections = [
        section.name
        for section in dataclasses.fields(Recipe)
        if dataclasses.is_dataclass(kind := _hints(Recipe)[section.name])
        and keys[0] in {item.name for item in dataclasses.fields(kind)}
    ]
    if len(sections) == 1:
        return [sections[0], keys[0]]
    if len(sections) > 1:
        raise RecipeError(
            f"--set {path}: several sections have that field; write {' or '.join(f'{s}.{path}' for s in sections)}."
        )
    known = {item.name for item in dataclasses.fields(Recipe)}
    for section in dataclasses.fields(Recipe):
        kind = _hints(Recipe)[section.name]
        if dataclasses.is_dataclass(kind):
            known |= {f"{section.name}.{item.name}" for item in dataclasses.fields(kind)} | {
                item.name for item in dataclasses.fields(kind)
            }
    raise RecipeError(f"--set {path}: {unknown_name_message('field', path, known)}")


def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _build(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    """A settings dataclass from a mapping, every value checked against its declared type."""
    if not isinstance(values, Mapping):
        raise RecipeError(f"recipe field {where.rstrip('.')} must be a mapping of fields, not {values!r}.")
    hints = _hints(kind)
    arguments = {}
    for name, value in values.items():
        if name not in hints:
            raise RecipeError(
                f"recipe: {unknown_name_message('field', where + str(name), [where + key for key in hints])}"
            )
        arguments[name] = _convert(hints[name], value, where + name)
    missing = [
        item.name
        for item in dataclasses.fields(kind)
        if item.name not in arguments
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"recipe field {where}{missing[0]} is missing.")
    check_values(
        kind, arguments, f"recipe field {where}", RecipeError
    )  # names where the class cannot: stage_one, which group
    try:
        return kind(**arguments)
    except ReIDZooError as error:
        raise RecipeError(str(error)) from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _convert(next(option for option in arguments if option is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where + ".")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise RecipeError(f"recipe field {where} must be a list, not {value!r}.")
        return tuple(_convert(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise RecipeError(f"recipe field {where} must be a mapping, not {value!r}.")
        return value
    if hint is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    accepted = (int, float) if hint is float else (hint,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise RecipeError(f"recipe field {where} must be of type {hint.__name__}, not {value!r}.")
    return value

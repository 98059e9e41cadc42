"""What a run keeps in its output folder beside model and checkpoints: its recipe, what it was trained on, and a lock.

They decide whether a run that is started again is the same one, and keep two runs out of one folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ..data.records import PersonDataset
from ..errors import RecipeError, TrainingError
from .checkpointing import last_complete_checkpoint, list_checkpoints, write_if_changed
from .prompt_stage import HAND_OVER_FILE
from .recipe import Recipe, load_recipe

__all__ = [
    "LOCK_FILE",
    "RECIPE_FILE",
    "RECORDS_FILE",
    "STAGE_ONE_FOLDER",
    "describe_records",
    "locked",
    "plain_fields",
    "refuse_other_recipe",
    "refuse_other_records",
    "what_is_kept",
    "write_recipe",
    "write_records",
]

RECIPE_FILE = "recipe.yaml"
RECORDS_FILE = "training_records.json"
LOCK_FILE = ".training.lock"
STAGE_ONE_FOLDER = "stage1"

# Processes that load images inherit the lock, and outlive a killed run for as long as they take to notice it: 5 s in torch.
_SECONDS_TO_WAIT = 10.0
_NAMED_FIELDS = 5
_NOT_SET = "not set"
_WAYS_OUT = (
    "use another output folder (there, --set model.start_from=CHECKPOINT begins with the weights of one), or start over with "
    "--no-resume"
)
# Memory, speed, names and what is written down: the objective and its optimisation are the same whatever these are.
_OF_A_STAGE = ("cached_gradients", "gradient_checkpointing", "cache_images", "num_workers", "logging_steps")
_MAY_CHANGE = frozenset(
    {"name", "description", "aims_at", "logging.report_to"}
    | {"evaluation.batch_size", "evaluation.save_every_epochs", "evaluation.save_every_steps"}
    | {f"{stage}.{field}" for stage in ("stage_one", "optimization") for field in _OF_A_STAGE}
)


@contextmanager
def locked(output: Path, *, is_writer: bool) -> Iterator[None]:
    """Context in which no other run writes to a folder. The operating system ends it when the process is killed.

    Args:
        output: Folder of the run; made if it is not there.
        is_writer: Whether this is the process that writes. Of a run's processes only that one takes the lock, but all of them
            have to enter.

    Raises:
        TrainingError: If another run is at work there; on all processes.
    """
    from accelerate.utils import broadcast_object_list
    from filelock import FileLock, Timeout

    lock, taken = FileLock(output / LOCK_FILE, timeout=_SECONDS_TO_WAIT), False
    if is_writer:
        output.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
            taken = True
        except Timeout:
            pass
    try:
        (may_write,) = broadcast_object_list([taken])
        if not may_write:
            raise TrainingError(f"another run is training in {output}; wait for its end, or use another output folder.")
        yield
    finally:
        if taken:
            lock.release()


def what_is_kept(output: Path) -> Path | None:
    """What a run that is started again goes on from: its newest complete checkpoint, or its finished first stage.

    Args:
        output: Folder of the run.

    Returns:
        A `checkpoint-N` folder of the run or of its first stage, or the folder of a first stage that is complete.
    """
    first = output / STAGE_ONE_FOLDER
    if (found := last_complete_checkpoint(output)) is not None:
        return found
    return first if (first / HAND_OVER_FILE).is_file() else last_complete_checkpoint(first)


def plain_fields(recipe: Recipe) -> dict[str, Any]:
    """The fields of a recipe as YAML can hold them."""
    fields: dict[str, Any] = _plain(asdict(recipe))
    return fields


def write_recipe(output: Path, recipe: Recipe) -> None:
    """Write a recipe with all of its fields; a file that holds it already is left alone."""
    text = yaml.safe_dump(plain_fields(recipe), sort_keys=False, allow_unicode=True)
    write_if_changed(output / RECIPE_FILE, text)


def refuse_other_recipe(output: Path, recipe: Recipe) -> None:
    """Checkpoints of a run with other settings are not gone on from.

    Fields that this version added have their defaults. Those that do not change what is learned are not compared: names,
    logging, workers, caches, when checkpoints are written, and how much goes through the model at a time. Nor are fields of
    the processor that the recipe leaves to the method.

    Args:
        output: Folder of the run.
        recipe: What is to be run.

    Raises:
        RecipeError: Naming the fields that differ, with both values.
    """
    if not _has_checkpoints(output):
        return
    file = output / RECIPE_FILE
    if not file.is_file():
        raise RecipeError(f"{output} holds checkpoints, but no {file.name} says of which run; {_WAYS_OUT}.")
    try:
        previous = load_recipe(file)
    except (RecipeError, OSError, UnicodeDecodeError) as error:
        reason = str(error).rstrip(".")
        raise RecipeError(
            f"{output} holds checkpoints of a run whose {file.name} is not read: {reason}; {_WAYS_OUT}."
        ) from error
    then, now = (dict(_leaves(plain_fields(each))) for each in (previous, recipe))
    left_open = {f"processor.{name}" for name, value in asdict(recipe.processor).items() if value is None}
    names = [name for name in {**then, **now} if name not in _MAY_CHANGE | left_open]
    other = [name for name in names if then.get(name, _NOT_SET) != now.get(name, _NOT_SET)]
    if not other:
        return
    listed = [f"{name} was {then.get(name, _NOT_SET)}, is {now.get(name, _NOT_SET)}" for name in other[:_NAMED_FIELDS]]
    if len(other) > _NAMED_FIELDS:
        listed.append(f"and {len(other) - _NAMED_FIELDS} more")
    raise RecipeError(f"{output} holds checkpoints of a run with other settings ({'; '.join(listed)}); {_WAYS_OUT}.")


def describe_records(records: PersonDataset) -> dict[str, Any]:
    """What identifies the data of a run: counts, and a digest of images, captions, identities, cameras and their order.

    Paths are relative to the folder that all images have in common, so that a data set may be moved.
    """
    paths = [record.image_path.as_posix() for record in records]
    shared = len(os.path.commonpath(paths)) if paths else 0
    total = hashlib.sha256()
    for path, record in zip(paths, records, strict=True):
        labels = [record.person_id, record.camera_id, record.view_id]
        total.update(json.dumps([path[shared:], labels, record.captions]).encode() + b"\n")
    return {
        "images": len(records),
        "captions": sum(len(record.captions) for record in records),
        "identities": len(records.person_ids),
        "sha256": total.hexdigest(),
    }


def write_records(output: Path, described: Mapping[str, Any]) -> None:
    """Write down what a run is trained on (and selected by): part → `describe_records`."""
    write_if_changed(output / RECORDS_FILE, json.dumps(described, indent=1) + "\n")


def refuse_other_records(output: Path, described: Mapping[str, Any]) -> None:
    """Checkpoints of a run on other data are not gone on from; a run of a version that wrote nothing down is.

    Args:
        output: Folder of the run.
        described: Part → `describe_records`, of what is to be run.

    Raises:
        RecipeError: If the records differ, or only their order or labels do.
    """
    file = output / RECORDS_FILE
    if not _has_checkpoints(output) or not file.is_file():
        return
    try:
        previous = json.loads(file.read_text(encoding="utf-8"))
        digests = {part: previous[part]["sha256"] for part in described if part in previous}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{file} cannot be read; {_WAYS_OUT}.") from error
    for part, digest in digests.items():
        now = described[part]
        if digest == now["sha256"]:
            continue
        counts = [
            f"{now[name]} {name} (were {previous[part].get(name)})" for name in ("images", "captions", "identities")
        ]
        same = all(previous[part].get(name) == now[name] for name in ("images", "captions", "identities"))
        what = "in another order, or with other names or labels" if same else ", ".join(counts)
        raise RecipeError(f"{output} holds checkpoints of a run on other {part} data: {what}; {_WAYS_OUT}.")


def _has_checkpoints(output: Path) -> bool:
    return any(list_checkpoints(folder) for folder in (output, output / STAGE_ONE_FOLDER))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its name, `section.field` or `section.field[index]`; lists of plain values are not taken apart."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{name}[{index}]")
    elif value is not None and value != {}:
        yield name, value

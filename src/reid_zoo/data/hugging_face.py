"""From a `PersonDataset` to a data set of the Hugging Face `datasets` library, and back.

`datasets` is an optional dependency: `pip install reid-zoo[datasets]`.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, DatasetError
from .caption_text import is_empty_caption
from .images import IMAGE_EXTENSIONS
from .records import MetadataValue, PersonDataset, PersonRecord

__all__ = ["from_hugging_face", "to_hugging_face"]

_ENDINGS = ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG", ".png"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"RIFF", ".webp"))


def to_hugging_face(dataset: PersonDataset) -> Any:
    """Turn records into a Hugging Face data set, one row per image.

    The images stay where they are; `save_to_disk` and `push_to_hub` copy them. Mind the data set's licence before.

    Args:
        dataset: The records.

    Returns:
        A `datasets.Dataset` with columns `image` (an `Image`), `captions` (list of strings), `person_id` (int64, or
        string if any is one), `camera_id` and `view_id` (int64), `image_id`, and one per field of the metadata (the
        `split` too). What a record does not have is null.

    Raises:
        ConfigurationError: If `datasets` is not installed.
        DatasetError: If a field of the metadata has the name of one of these columns, or values of several kinds.
    """
    library = _datasets()
    names = list(dict.fromkeys(name for record in dataset for name in record.metadata))
    features: dict[str, Any] = {
        "image": library.Image(),
        "image_id": library.Value("int64"),
        "captions": library.List(library.Value("string")),
        "person_id": library.Value("int64"),
        "camera_id": library.Value("int64"),
        "view_id": library.Value("int64"),
    }
    columns: dict[str, list[Any]] = {
        "image": [str(record.image_path) for record in dataset],
        "image_id": [record.image_id for record in dataset],
        "captions": [list(record.captions) for record in dataset],
        "person_id": [record.person_id for record in dataset],
        "camera_id": [record.camera_id for record in dataset],
        "view_id": [record.view_id for record in dataset],
    }
    if any(isinstance(person_id, str) for person_id in columns["person_id"]):
        features["person_id"] = library.Value("string")
        columns["person_id"] = [None if value is None else str(value) for value in columns["person_id"]]
    for name in names:
        if name in features:
            raise DatasetError(f"{dataset.label}: a field of the metadata is named {name!r}, which is a column's name.")
        columns[name] = [record.metadata.get(name) for record in dataset]
        features[name] = library.Value(_value_type(dataset, name, columns[name]))
    return library.Dataset.from_dict(columns, features=library.Features(features))


def from_hugging_face(
    dataset: Any,
    *,
    image_column: str = "image",
    caption_column: str | None = "captions",
    person_id_column: str | None = "person_id",
    camera_id_column: str | None = "camera_id",
    view_id_column: str | None = "view_id",
    image_folder: str | Path | None = None,
    name: str = "hugging-face",
    split: str = "all",
) -> PersonDataset:
    """Turn the rows of a Hugging Face data set into records.

    Args:
        dataset: A `datasets.Dataset`: one split, not a `DatasetDict`.
        image_column: Column of images (or of paths).
        caption_column: Column of sentences or of lists of sentences; `None` for images without captions. If each row has
            one sentence, rows of the same image and identity become one record.
        person_id_column: Column of identities, whole numbers or strings; `None` if nobody is known.
        camera_id_column: Column of cameras, whole numbers; `None` if none is known.
        view_id_column: Column of viewpoints, whole numbers; `None` if none is known.
        image_folder: Folder to write images to that the data set holds itself, named by their content; not needed where
            it holds paths of files that are there.
        name: Name of the result.
        split: Name of the split.

    Returns:
        The records in the order of the rows; all other columns of single values become metadata, except `image_id`.

    Raises:
        ConfigurationError: If `datasets` is not installed, or `dataset` is not one of its data sets.
        DatasetError: If a named column is not there (the default columns of captions, identities, cameras and views may
            be missing), or a row's image, captions, identity, camera or view is not usable; names row and column.
    """
    library = _datasets()
    if isinstance(dataset, library.DatasetDict):
        raise ConfigurationError(f"this data set has splits; give one of them: {', '.join(map(repr, dataset))}.")
    if not isinstance(dataset, library.Dataset):
        raise ConfigurationError(f"{type(dataset).__name__} is not a datasets.Dataset.")
    roles = _column_roles(
        dataset.column_names,
        {
            "image": image_column,
            "captions": caption_column,
            "person_id": person_id_column,
            "camera_id": camera_id_column,
            "view_id": view_id_column,
        },
    )
    if isinstance(dataset.features[image_column], library.Image):
        dataset = dataset.cast_column(image_column, library.Image(decode=False))
    folder = Path(os.path.abspath(image_folder)) if image_folder is not None else None
    caption_feature = dataset.features[roles["captions"]] if "captions" in roles else None
    merge = getattr(caption_feature, "dtype", None) == "string"
    records: list[PersonRecord] = []
    position_of: dict[tuple[Path, int | str | None], int] = {}
    for number, row in enumerate(dataset):
        record = _record(number, row, roles, folder, len(records))
        key = record.image_path, record.person_id
        if merge and key in position_of:
            first = records[position_of[key]]
            records[position_of[key]] = replace(first, captions=(*first.captions, *record.captions))
        else:
            position_of[key] = len(records)
            records.append(record)
    if not records:
        raise DatasetError("the Hugging Face data set has no rows.")
    root = folder or Path(os.path.commonpath([record.image_path.parent for record in records]))
    return PersonDataset(records, name=name, split=split, root=root)


def _datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError:
        raise ConfigurationError(
            "the bridge to Hugging Face data sets needs the package 'datasets'; install it with "
            "`pip install reid-zoo[datasets]`."
        ) from None


def _value_type(dataset: PersonDataset, name: str, values: list[MetadataValue | None]) -> str:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int, float} and float in kinds:
        return "float64"
    if len(kinds) != 1:
        raise DatasetError(f"{dataset.label}: metadata field {name!r} has values of several kinds; a column has one.")
    return {bool: "bool", int: "int64", str: "string"}[kinds.pop()]


def _column_roles(present: list[str], wanted: Mapping[str, str | None]) -> dict[str, str]:
    """Role → column; a column that carries the role's own name may be missing, a column named otherwise may not."""
    roles = {}
    for role, column in wanted.items():
        if column is None:
            continue
        if column in present:
            roles[role] = column
        elif role == "image" or column != role:
            raise DatasetError(f"the Hugging Face data set has no column {column!r}; it has {', '.join(present)}.")
    return roles


def _record(
    number: int, row: Mapping[str, Any], roles: Mapping[str, str], folder: Path | None, image_id: int
) -> PersonRecord:
    def fail(role: str, problem: str) -> DatasetError:
        return DatasetError(f"row {number}, column '{roles[role]}': {problem}.")

    image_path = _image_path(row[roles["image"]], folder, fail)
    captions = row[roles["captions"]] if "captions" in roles else None
    sentences = [captions] if isinstance(captions, str) else captions if captions is not None else []
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise fail("captions", f"is {captions!r:.60}, expected a string or a list of strings")
    for sentence in sentences:
        if is_empty_caption(sentence):
            raise fail("captions", f"{sentence!r:.60} is empty")
    person_id = row[roles["person_id"]] if "person_id" in roles else None
    if person_id is not None and (isinstance(person_id, bool) or not isinstance(person_id, int | str)):
        raise fail("person_id", f"is {person_id!r:.60}, expected a whole number or a string")
    numbers: dict[str, int | None] = {}
    for role in ("camera_id", "view_id"):
        number_or_none = row[roles[role]] if role in roles else None
        if number_or_none is not None and (isinstance(number_or_none, bool) or not isinstance(number_or_none, int)):
            raise fail(role, f"is {number_or_none!r:.60}, expected a whole number")
        numbers[role] = number_or_none
    used = {*roles.values(), "image_id"}
    metadata = {
        name: value for name, value in row.items() if name not in used and isinstance(value, str | int | float | bool)
    }
    return PersonRecord(
        image_path, image_id, tuple(sentences), person_id, numbers["camera_id"], metadata, numbers["view_id"]
    )


def _image_path(value: Any, folder: Path | None, fail: Callable[[str, str], DatasetError]) -> Path:
    path, content = (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (value, None)
    if content is not None:
        if folder is None:
            raise fail("image", "holds the image itself; give image_folder, where such images are written")
        ending = os.path.splitext(path or "")[1].lower()
        if ending not in IMAGE_EXTENSIONS:
            ending = next((known for start, known in _ENDINGS if content.startswith(start)), ".png")
        target = folder / f"{hashlib.sha256(content).hexdigest()[:32]}{ending}"
        if not target.is_file() or target.stat().st_size != len(content):
            folder.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return target
    if not isinstance(path, str) or not path:
        raise fail("image", f"is {value!r:.60}, expected an image or a path")
    if not os.path.isfile(path):
        raise fail("image", f"{path!r:.200}: no such file")
    return Path(os.path.abspath(path))

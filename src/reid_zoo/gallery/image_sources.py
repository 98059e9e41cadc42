"""What is to be indexed: images from a folder, files, PIL images or records, with their metadata as typed columns.

An image is known by its *name*: the absolute path of a file, or `memory:` and a hash of the pixels of a PIL image that
has no file. Its *version* is the file's size and modification time. A name that is in the gallery with the same
version is skipped; another version means a changed file, whose row is replaced.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.records import PersonRecord
from ..errors import GalleryError, ImageReadError
from .engines.base import ColumnType, check_column_name

if TYPE_CHECKING:
    from PIL import Image

    ImageSource = str | Path | Image.Image | PersonRecord

__all__ = ["IMAGE_COLUMN", "VERSION_COLUMN", "ImageItem", "collect_items", "image_name", "infer_columns"]

IMAGE_COLUMN = "image"
"""Column with an image's name."""

VERSION_COLUMN = "_image_version"
"""Hidden column with an image's version."""

Metadata = Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One image to index.

    Attributes:
        source: A path, or the image itself.
        metadata: Values of its columns.
    """

    source: str | Image.Image
    metadata: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The path, or what a message calls an image without one."""
        return self.source if isinstance(self.source, str) else f"image in memory ({self.source!r})"

    def name_and_version(self) -> tuple[str, str]:
        """The image's name and version, see the top of this module.

        Raises:
            ImageReadError: If there is no such file, or the image in memory cannot be read.
        """
        if not isinstance(self.source, str):
            return image_name(self.source), "memory"
        try:
            status = os.stat(self.source)
        except (OSError, ValueError) as error:
            raise ImageReadError(self.source, _reason(error)) from None
        return self.source, f"{status.st_size}-{status.st_mtime_ns}"

    def load(self) -> Image.Image:
        """The decoded RGB image.

        Raises:
            ImageReadError: If it cannot be decoded.
        """
        if isinstance(self.source, str):
            from ..data.images import load_image

            return load_image(self.source)
        try:
            return self.source.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageReadError(self.label, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def image_name(image: Image.Image) -> str:
    """The name under which a gallery knows a PIL image: `memory:` and a hash of its mode, size and pixels.

    Two images of equal pixels have one name and so are one row.

    Raises:
        ImageReadError: If a lazily opened image cannot be decoded.
    """
    try:
        pixels = image.tobytes()
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageReadError(f"image in memory ({image!r})", _reason(error)) from error
    digest = hashlib.blake2b(pixels, digest_size=16, person=b"reid_zoo")
    digest.update(f"{image.mode} {image.size}".encode())
    return f"memory:{digest.hexdigest()}"


def collect_items(images: Any, metadata: Metadata | None) -> list[ImageItem]:
    """The images of an `add` in order, each with its metadata.

    Args:
        images: A folder, a file, a PIL image, a `PersonRecord`, or an iterable of the latter three. In a list, a folder
            is an error (its images have no place in the list's order).
        metadata: `None`; a mapping of column name to one value for all or to a list with one value per image; or a
            list with one mapping per image.

    Raises:
        GalleryError: If something is none of these, or there are no images, or metadata and images differ in number.
        DatasetError: If a folder is missing or has no image.
    """
    items = [_item(source) for source in _sources(images)]
    if not items:
        raise GalleryError("there are no images to add: the list is empty")
    if metadata is None:
        return items
    return [
        ImageItem(item.source, {**item.metadata, **extra})
        for item, extra in zip(items, _rows(metadata, len(items)), strict=True)
    ]


def _sources(images: Any) -> Iterable[Any]:
    if isinstance(images, str | os.PathLike):
        path = Path(images)
        if path.is_file():
            return [path]
        from ..data.images import find_images

        return find_images(path)
    if isinstance(images, PersonRecord) or _is_image(images):
        return [images]
    if not isinstance(images, Iterable) or isinstance(images, bytes | Mapping | np.ndarray):
        raise GalleryError(
            f"cannot add {type(images).__name__}: give a folder, a file, or a list of paths, PIL images or PersonRecords"
        )
    return images


def _is_image(value: Any) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image)


def _item(source: Any) -> ImageItem:
    if isinstance(source, PersonRecord):
        columns: dict[str, Any] = dict(source.metadata)
        if source.captions:
            columns["captions"] = tuple(source.captions)
        if source.person_id is not None:
            columns["person_id"] = source.person_id
        if source.camera_id is not None:
            columns["camera_id"] = source.camera_id
        return ImageItem(os.path.abspath(source.image_path), columns)
    if isinstance(source, str | os.PathLike):
        return ImageItem(os.path.abspath(os.fspath(source)), {})
    if _is_image(source):
        return ImageItem(source, {})
    raise GalleryError(f"cannot add {source!r} ({type(source).__name__}): give a path, a PIL image or a PersonRecord")


def _rows(metadata: Metadata, count: int) -> Iterable[Mapping[str, Any]]:
    if not isinstance(metadata, Mapping):
        if len(metadata) != count:
            raise GalleryError(f"metadata: {len(metadata)} entries for {count} images; give one for each")
        for position, row in enumerate(metadata):
            if not isinstance(row, Mapping):
                raise GalleryError(f"metadata: entry {position} is {row!r}; give a mapping of column name to value")
        return metadata
    columns = {name: _per_image(name, values, count) for name, values in metadata.items()}
    return ({name: values[row] for name, values in columns.items()} for row in range(count))


def _per_image(name: str, values: Any, count: int) -> Sequence[Any]:
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, list | tuple):
        return _Constant(values)
    if len(values) != count:
        raise GalleryError(f"metadata: column '{name}' has {len(values)} values for {count} images; give one for each")
    return values


class _Constant(Sequence[Any]):
    """One value at every index."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getitem__(self, index: Any) -> Any:
        return self._value

    def __len__(self) -> int:
        return 1


def infer_columns(items: Iterable[ImageItem], existing: Mapping[str, ColumnType]) -> dict[str, ColumnType]:
    """Types of all columns that the items use, checked against the columns that exist.

    A new column has the type of its values; whole numbers and fractions together make a float column. Missing values
    (`None`, NaN) fit everywhere and make no column by themselves.

    Raises:
        GalleryError: If a name cannot be a column or a value does not fit its column; the message names the column, the
            image and the value.
    """
    found = dict(existing)
    inferred: dict[str, ColumnType] = {}
    for item in items:
        for name, value in item.metadata.items():
            if isinstance(value, np.generic):
                value = value.item()
            if value is None or (isinstance(value, float) and math.isnan(value)):
                continue
            if name not in found:
                check_column_name(name)
                if name in (IMAGE_COLUMN, VERSION_COLUMN) or name.startswith("_"):
                    raise GalleryError(f"'{name}' cannot be the name of a metadata column; rename it")
                found[name] = inferred[name] = _type_of(name, value, item)
                continue
            if name in (IMAGE_COLUMN, VERSION_COLUMN):
                raise GalleryError(f"'{name}' cannot be the name of a metadata column; rename it")
            kind = _type_of(name, value, item)
            if kind is found[name] or (kind is ColumnType.INT and found[name] is ColumnType.FLOAT):
                continue
            if kind is ColumnType.FLOAT and inferred.get(name) is ColumnType.INT:
                found[name] = inferred[name] = ColumnType.FLOAT
                continue
            raise GalleryError(
                f"column '{name}' holds {found[name]} values, but {item.label} has {value!r} ({kind}); "
                "convert the value or use another column name"
            )
    return inferred


def _type_of(name: str, value: Any, item: ImageItem) -> ColumnType:
    if isinstance(value, bool):
        return ColumnType.BOOL
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return ColumnType.INT
    if isinstance(value, float):
        return ColumnType.FLOAT
    if isinstance(value, str):
        return ColumnType.STRING
    if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return ColumnType.STRINGS
    raise GalleryError(
        f"column '{name}': {item.label} has {value!r} ({type(value).__name__}); "
        "metadata are text, 64-bit whole numbers, numbers, truth values or lists of text (write a time as ISO 8601 text)"
    )

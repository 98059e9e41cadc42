"""The directory of a gallery: made whole or not at all, with a description of its format."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from ..errors import GalleryError
from ..model_identity import ModelIdentity
from .engines.base import ColumnType, StoreSchema
from .engines.durability import fsync_path, write_durably
from .image_sources import IMAGE_COLUMN, VERSION_COLUMN

__all__ = ["DESCRIPTION_FILE", "make_directory", "read_description"]

DESCRIPTION_FILE = "gallery.json"
_FORMAT = "reid_zoo gallery"
_FORMAT_VERSION = 1


def make_directory(directory: Path, identity: ModelIdentity) -> None:
    """Makes the directory complete under another name first, so that a gallery exists whole or not at all."""
    from .engines.lance import LanceStore

    temporary = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}.tmp")
    columns = {IMAGE_COLUMN: ColumnType.STRING, VERSION_COLUMN: ColumnType.STRING}
    try:
        temporary.mkdir(parents=True)
        LanceStore.create(str(temporary), StoreSchema(identity, columns)).close()
        description = {"format": _FORMAT, "format_version": _FORMAT_VERSION, "engine": "lance"}
        write_durably(temporary / DESCRIPTION_FILE, json.dumps(description, indent=1).encode())
        if directory.exists():
            directory.rmdir()
        temporary.rename(directory)
        fsync_path(directory.parent)
    except OSError as error:
        raise GalleryError(f"{directory}: cannot be made ({error.strerror or error}); choose another path") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_description(directory: Path) -> dict[str, Any]:
    """What the gallery in a directory says about its format.

    Raises:
        GalleryError: If there is no gallery, or it is damaged, of a newer format or of another engine.
    """
    if not directory.exists():
        raise GalleryError(f"{directory}: no such gallery; make it with Gallery.create or 'reid-zoo index'")
    file = directory / DESCRIPTION_FILE
    if not file.is_file():
        raise GalleryError(
            f"{directory}: is not a gallery (no {DESCRIPTION_FILE}); make one with Gallery.create or 'reid-zoo index'"
        )
    try:
        description = json.loads(file.read_text("utf-8"))
        if description["format"] != _FORMAT:
            raise ValueError(f"format {description['format']!r}")
        version = int(description["format_version"])
        engine = description["engine"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GalleryError(f"{file}: is damaged ({error!r}); restore it, or index into a new path") from error
    if version > _FORMAT_VERSION:
        raise GalleryError(
            f"{directory}: has format version {version}, this reid_zoo reads up to {_FORMAT_VERSION}; upgrade reid-zoo"
        )
    if engine != "lance":
        raise GalleryError(f"{directory}: needs the engine '{engine}', which this reid_zoo does not have")
    return dict(description)

"""The folder an occluded set is written into: whose it is, and what of it is finished already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DatasetError
from .layout import OCCLUDED_SUFFIX, PROCESSED_FOLDER
from .manifest import JOURNAL_NAME, MANIFEST_NAME, ManifestEntry, file_hash, read_lines

__all__ = ["ImageTask", "claim_folder", "is_finished"]


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image to write.

    Attributes:
        image: The holistic image, relative to the data set's folder.
        source: The same, as a file.
        output: The image to write, relative to the data set's folder.
        split: Its split.
        occluded: Whether it gets an occluder.
        recorded: The manifest entry that is being rebuilt; `None` to draw what is pasted where.
    """

    image: str
    source: Path
    output: str
    split: str
    occluded: bool
    recorded: ManifestEntry | None = None


def claim_folder(folder: Path, header: Mapping[str, Any], *, in_place: bool) -> dict[str, ManifestEntry]:
    """Make sure that a folder is ours to write into.

    Args:
        folder: The data set's folder to write into; need not exist.
        header: Header of the manifest that is going to be written.
        in_place: Whether the folder also holds the holistic set.

    Returns:
        The images of earlier runs by output path.

    Raises:
        DatasetError: If it holds something that was not made here, or made with another header.
    """
    done: dict[str, ManifestEntry] = {}
    ours = [path for path in (folder / MANIFEST_NAME, folder / JOURNAL_NAME) if path.exists()]
    for path in ours:
        found = read_lines(path, allow_cut=path.name == JOURNAL_NAME)
        for name, value in header.items():
            if found.header.get(name) != value:
                raise DatasetError(
                    f"{folder} holds an occluded set made with other {_differing(name, value, found.header.get(name))}; "
                    "choose another output folder or remove it."
                )
        done |= {entry.output: entry for entry in found.entries}
    if ours or not folder.exists():
        return done
    if not folder.is_dir():
        raise DatasetError(f"{folder}: is a file, not a folder to write into.")
    if in_place:
        foreign = [
            folder / PROCESSED_FOLDER,
            *folder.glob(f"*{OCCLUDED_SUFFIX}"),
            *folder.glob(f"imgs/*{OCCLUDED_SUFFIX}"),
        ]
    else:
        foreign = [path for path in folder.iterdir() if not path.name.startswith(JOURNAL_NAME)]
    for path in foreign:
        if path.exists():
            raise DatasetError(f"{path} was not made by this command; choose another output folder or remove it.")
    return done


def _differing(name: str, wanted: Any, found: Any) -> str:
    """The setting that differs, in words; of a mapping the entry in it."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key in [*wanted, *found]:
            if wanted.get(key) != found.get(key):
                return _differing(f"{name}.{key}", wanted.get(key), found.get(key))
    return f"{name} ({found!r:.80}, not {wanted!r:.80})"


def is_finished(folder: Path, task: ImageTask, done: Mapping[str, ManifestEntry]) -> bool:
    """Whether an earlier run wrote this image, and it is still what that run wrote.

    Args:
        folder: The data set's folder.
        task: The image.
        done: What `claim_folder` returned.
    """
    entry = done.get(task.output)
    path = folder / task.output
    if entry is None or entry.image != task.image or not path.is_file() or file_hash(path) != entry.output_sha256:
        return False
    if task.recorded is not None:  # when rebuilding, the recorded placement counts, not how this one came about
        return (entry.instance, entry.box, entry.pixels_sha256) == (
            task.recorded.instance,
            task.recorded.box,
            task.recorded.pixels_sha256,
        )
    return (entry.instance is not None) == task.occluded

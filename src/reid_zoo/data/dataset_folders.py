"""Finding a benchmark on disk, and listing and checking its image files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from ..errors import DatasetError
from .dataset_info import DatasetInfo
from .records import PersonDataset, PersonRecord

__all__ = [
    "check_relative_path",
    "find_dataset_folder",
    "list_jpegs",
    "missing_images",
    "read_list_file",
    "refuse_missing_images",
    "refuse_without_positives",
]


def find_dataset_folder(
    info: DatasetInfo, root: str | Path, parts: Sequence[str], *, mistaken: Sequence[str] = ()
) -> Path:
    """Find the folder of a benchmark.

    Args:
        info: The benchmark.
        root: The folder that contains the data set's folder, or that folder itself.
        parts: Files and folders by which the data set's folder is known; one of them is enough to be taken for it, so
            that a half-downloaded set is reported by what it lacks.
        mistaken: Files that show where the data set is, though they are not what is needed.

    Returns:
        The folder, absolute.

    Raises:
        DatasetError: If there is no such folder; says where it looked and what for.
    """
    given = Path(root)
    container = info.folders[0]
    if not given.exists():
        raise DatasetError(f"{given}: no such folder; give the folder that contains {container}/.")
    if not given.is_dir():
        raise DatasetError(f"{given}: is a file; give the folder that contains {container}/.")
    top = Path(os.path.abspath(given))
    candidates = [*(top / folder for folder in info.folders), top]
    for candidate in candidates:
        if any((candidate / part).exists() for part in (*parts, *mistaken)):
            return candidate
    named = next((candidate for candidate in candidates[:-1] if candidate.is_dir()), None)
    if named is not None:
        raise DatasetError(
            f"{named}: holds none of {', '.join(parts)}; is the download complete? Expected {info.layout}."
        )
    looked = ", ".join(str(candidate / parts[0]) for candidate in candidates)
    wanted = "annotation file" if info.modality == "text" else "images"
    raise DatasetError(
        f"{top}: not in the layout of {info.title}: no {wanted}; looked for {looked}. "
        f"Expected <root>/{container}/ with {info.layout}."
    )


def list_jpegs(folder: Path) -> list[str]:
    """Names of the `.jpg` files directly in a folder, sorted, so that the order is the same on every machine.

    Args:
        folder: Where to look.

    Returns:
        The file names.

    Raises:
        DatasetError: If there is no such folder, it cannot be listed, or holds no `.jpg` file.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".jpg"))
    except FileNotFoundError:
        raise DatasetError(f"{folder}: no such folder; is the download complete?") from None
    except OSError as error:
        raise DatasetError(f"{folder}: cannot list this folder ({error.strerror}).") from None
    if not names:
        raise DatasetError(f"{folder}: holds no .jpg file; is the download complete?")
    return names


def read_list_file(path: Path) -> Iterator[tuple[int, str, int]]:
    """Read a text file with one image and one identity per line, separated by white space.

    Args:
        path: The file; empty lines are passed over.

    Yields:
        (1-based line, first field, identity).

    Raises:
        DatasetError: If the file is missing, is not UTF-8 text, is empty, or a line has other fields.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; is the download complete?") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not UTF-8 text (byte {error.start}).") from None
    if not text.strip():
        raise DatasetError(f"{path}: is empty; is the download complete?")
    for line, content in enumerate(text.splitlines(), 1):
        fields = content.split()
        if not fields:
            continue
        if len(fields) != 2 or not (fields[1].isascii() and fields[1].isdigit()):
            raise DatasetError(f"{path}: line {line} is {content!r:.80}, expected an image and a whole number.")
        yield line, fields[0], int(fields[1])


def check_relative_path(text: str) -> tuple[str, ...] | None:
    """Components of a relative path that stays inside its folder.

    Args:
        text: The path, with forward or backward slashes.

    Returns:
        Its components; empty if it names no file; `None` if it leaves the folder.
    """
    path = PurePosixPath(text.replace("\\", "/"))
    has_drive = len(text) > 1 and text[1] == ":" and text[0].isalpha()
    if path.is_absolute() or ".." in path.parts or has_drive or "\0" in text:
        return None
    return path.parts


def missing_images(records: Sequence[PersonRecord]) -> list[PersonRecord]:
    """The records whose image file is not there."""
    return [record for record in records if not os.path.isfile(record.image_path)]


def refuse_missing_images(dataset: PersonDataset, source: Path) -> None:
    """Look whether every image file is there.

    Args:
        dataset: The records.
        source: The file that names them, for the message.

    Raises:
        DatasetError: With the number of missing files and the first three of them.
    """
    missing = missing_images(dataset.records)
    if missing:
        first = ", ".join(os.path.relpath(record.image_path, dataset.root) for record in missing[:3])
        raise DatasetError(
            f"{dataset.root}: {len(missing)} of {len(dataset)} image files named in {source.name} are missing, "
            f"for instance {first}; is the download complete?"
        )


def refuse_without_positives(dataset: PersonDataset) -> None:
    """Look whether a gallery can answer any of its queries.

    Args:
        dataset: Records of an image-to-image test, with `query` and `gallery` in their metadata. Queries of unknown
            identity are left aside; without any other, nothing is refused.

    Raises:
        DatasetError: If no query has an image of the same identity under another camera in the gallery.
    """
    cameras: dict[object, set[object]] = {}
    queries = [record for record in dataset if record.metadata.get("split") == "query" and record.person_id is not None]
    for record in dataset:
        if record.metadata.get("split") == "gallery":
            cameras.setdefault(record.person_id, set()).add(record.camera_id)
    for query in queries:
        found = cameras.get(query.person_id, set())
        if found and (query.camera_id is None or found != {query.camera_id}):
            return
    if not queries:
        return
    raise DatasetError(
        f"{dataset.root}: no query has a match in the gallery ({len(queries)} queries): the same identity under another "
        "camera; do query and gallery belong to one data set?"
    )

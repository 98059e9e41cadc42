"""Loaders of the three text-based person retrieval benchmarks: CUHK-PEDES, ICFG-PEDES and RSTPReid.

Each is a folder with `imgs/` and one JSON array of objects, one object per image. The three differ in names only, so
one reader serves them all, driven by a `BenchmarkDescription`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ..errors import ConfigurationError, DatasetError
from .records import PersonDataset, PersonRecord

__all__ = [
    "TEXT_PERSON_BENCHMARKS",
    "BenchmarkDescription",
    "CountDifference",
    "SplitCounts",
    "load_text_person_benchmark",
    "verify_counts",
]

_SPLITS = ("train", "val", "test")
_PATH_FIELDS = ("file_path", "img_path")


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Published size of one split: identities, images (rows of the annotation file) and captions."""

    identities: int
    images: int
    captions: int


@dataclass(frozen=True, slots=True)
class BenchmarkDescription:
    """What sets one benchmark apart from the others.

    Attributes:
        name: Name for `load_dataset`.
        folder: Folder below the data root.
        annotation_files: Accepted names of the annotation file, preferred one first.
        counts: Published sizes by split; a split that does not exist is absent.
        camera_pattern: Finds the 1-based camera number in the file name, `None` where names do not tell.
        not_annotations: Files that are mistaken for the annotation file, with the reason why they are not.
    """

    name: str
    folder: str
    annotation_files: tuple[str, ...]
    counts: Mapping[str, SplitCounts]
    camera_pattern: re.Pattern[str] | None = None
    not_annotations: Mapping[str, str] = field(default_factory=dict)


TEXT_PERSON_BENCHMARKS: dict[str, BenchmarkDescription] = {
    description.name: description
    for description in (
        BenchmarkDescription(
            name="cuhk-pedes",
            folder="CUHK-PEDES",
            annotation_files=("reid_raw.json",),
            counts={
                "train": SplitCounts(11_003, 34_054, 68_126),
                "val": SplitCounts(1_000, 3_078, 6_158),
                "test": SplitCounts(1_000, 3_074, 6_156),
            },
            not_annotations={"caption_all.json": "the raw release, which has no split field"},
        ),
        BenchmarkDescription(
            name="icfg-pedes",
            folder="ICFG-PEDES",
            annotation_files=("ICFG-PEDES.json", "ICFG_PEDES.json"),
            counts={"train": SplitCounts(3_102, 34_674, 34_674), "test": SplitCounts(1_000, 19_848, 19_848)},
            camera_pattern=re.compile(r"^\d+_\d+_(\d+)_"),  # MSMT17: <id>_<index>_<camera>_<time>_<frame>_<box>
        ),
        BenchmarkDescription(
            name="rstpreid",
            folder="RSTPReid",
            annotation_files=("data_captions.json",),
            counts={
                "train": SplitCounts(3_701, 18_505, 37_010),
                "val": SplitCounts(200, 1_000, 2_000),
                "test": SplitCounts(200, 1_000, 2_000),
            },
            camera_pattern=re.compile(r"^\d+_c(\d+)_"),
        ),
    )
}
"""The benchmarks by name. Sizes: the ones a loader must find in the released files."""


@dataclass(frozen=True, slots=True)
class CountDifference:
    """One published figure that the files at hand do not reach or exceed."""

    split: str
    quantity: Literal["identities", "images", "captions"]
    expected: int
    found: int

    def __str__(self) -> str:
        return f"{self.split}: {self.found:,} {self.quantity}, published {self.expected:,}"


def load_text_person_benchmark(
    name: str,
    root: str | Path,
    split: str = "test",
    *,
    check_images: bool = True,
    order: Literal["file", "cfine"] = "file",
) -> PersonDataset:
    """Load one split of CUHK-PEDES, ICFG-PEDES or RSTPReid.

    The whole annotation file is checked, whichever split is asked for. The split comes from the record's field, never
    from its path. Captions are kept as they are. Cameras are 0-based (file names count from 1); each record's metadata
    holds its `split`.

    Args:
        name: `"cuhk-pedes"`, `"icfg-pedes"` or `"rstpreid"`.
        root: The folder that contains `CUHK-PEDES/` (`ICFG-PEDES/`, `RSTPReid/`), or that folder itself.
        split: `"train"`, `"val"`, `"test"`, or `"all"` for every record of the file.
        check_images: Look whether every image file of the split is there.
        order: `"file"`: records in file order. `"cfine"`: the order of CFine's released code, in which the records of
            an identity are adjacent (identities by first appearance) and the captions of an image are reversed; it
            matters only for the batches of a given seed and for ties.

    Returns:
        One record per object of the file.

    Raises:
        DatasetError: For a wrong layout (says what is missing and where it looked), a record with a missing field or a
            wrong type (says which one), missing image files, or a split without records.
        ConfigurationError: For an unknown benchmark, split or order.
    """
    description = _description(name)
    if split not in (*_SPLITS, "all"):
        raise ConfigurationError(f"Unknown split {split!r}; choose 'train', 'val', 'test' or 'all'.")
    if order not in ("file", "cfine"):
        raise ConfigurationError(f"Unknown order {order!r}; choose 'file' or 'cfine'.")
    base, annotation_file = _find_layout(description, Path(root))
    images = base / "imgs"
    rows = _read_rows(annotation_file, description)
    chosen = [row for row in rows if split in (row.split, "all")]
    if not chosen:
        raise DatasetError(_empty_split_message(description, annotation_file, split, rows))
    if check_images:
        _check_images(images, annotation_file, chosen)
    if order == "cfine":
        chosen = _cfine_order(chosen)
    records = [
        PersonRecord(
            image_path=images.joinpath(*row.parts),
            image_id=index,
            captions=row.captions,
            person_id=row.person_id,
            camera_id=_camera(description, row.parts[-1]),
            metadata={"split": row.split},
        )
        for index, row in enumerate(chosen)
    ]
    return PersonDataset(records, name=description.name, split=split, root=base)


def verify_counts(dataset: PersonDataset) -> list[CountDifference]:
    """Compare a loaded benchmark with its published size; people use subsets, so a difference is no error.

    Args:
        dataset: What `load_text_person_benchmark` returned; with split `"all"` every split is compared.

    Returns:
        The figures that differ; empty if all agree.

    Raises:
        ConfigurationError: If the data set is none of the benchmarks.
    """
    description = _description(dataset.name)
    differences = []
    for split in _SPLITS if dataset.split == "all" else (dataset.split,):
        records = [record for record in dataset if record.metadata.get("split", dataset.split) == split]
        published = description.counts.get(split, SplitCounts(0, 0, 0))
        found = SplitCounts(
            identities=len({record.person_id for record in records}),
            images=len(records),
            captions=sum(len(record.captions) for record in records),
        )
        quantities: tuple[Literal["identities", "images", "captions"], ...] = ("identities", "images", "captions")
        for quantity in quantities:
            expected, actual = getattr(published, quantity), getattr(found, quantity)
            if expected != actual:
                differences.append(CountDifference(split, quantity, expected, actual))
    return differences


@dataclass(frozen=True, slots=True)
class _Row:
    """One checked object of an annotation file."""

    number: int
    split: str
    parts: tuple[str, ...]
    captions: tuple[str, ...]
    person_id: int


def _description(name: str) -> BenchmarkDescription:
    try:
        return TEXT_PERSON_BENCHMARKS[name]
    except KeyError:
        raise ConfigurationError(
            f"{name!r} is not a text-based person retrieval benchmark; choose {', '.join(TEXT_PERSON_BENCHMARKS)}."
        ) from None


def _find_layout(description: BenchmarkDescription, root: Path) -> tuple[Path, Path]:
    """Return (data set's folder, annotation file), both absolute."""
    if not root.exists():
        raise DatasetError(f"{root}: no such folder; give the folder that contains {description.folder}/.")
    if not root.is_dir():
        raise DatasetError(f"{root}: is a file; give the folder that contains {description.folder}/.")
    root = Path(os.path.abspath(root))
    inner = root / description.folder
    base = inner if inner.is_dir() else root
    candidates = [base / file_name for file_name in description.annotation_files]
    for candidate in candidates:
        if candidate.is_file():
            if not (base / "imgs").is_dir():
                raise DatasetError(f"{base / 'imgs'}: no such folder; {candidate} needs its images there.")
            return base, candidate
    for other, reason in description.not_annotations.items():
        if (base / other).is_file():
            raise DatasetError(
                f"{base}: has {other} ({reason}) but not {description.annotation_files[0]}, which is needed; "
                "get the split annotation file."
            )
    looked = [str(candidate) for candidate in candidates]
    if base is root:
        looked.append(str(inner / description.annotation_files[0]))
    raise DatasetError(
        f"{root}: not in the layout of {description.folder}: no annotation file; looked for {', '.join(looked)}. "
        f"Expected <root>/{description.folder}/imgs/ and <root>/{description.folder}/{description.annotation_files[0]}."
    )


def _read_rows(annotation_file: Path, description: BenchmarkDescription) -> list[_Row]:
    try:
        objects = json.loads(annotation_file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(f"{annotation_file}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{annotation_file}: is not UTF-8 text (byte {error.start}).") from None
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{annotation_file}: is not JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "is the file complete?"
        ) from None
    except RecursionError:
        raise DatasetError(f"{annotation_file}: is nested too deeply to be an annotation file.") from None
    if not isinstance(objects, list):
        raise DatasetError(
            f"{annotation_file}: holds a JSON {type(objects).__name__}, expected an array with one object per image."
        )
    if not objects:
        raise DatasetError(f"{annotation_file}: holds no record.")
    return [_read_row(annotation_file, number, item) for number, item in enumerate(objects)]


def _read_row(annotation_file: Path, number: int, item: Any) -> _Row:
    """Check one object; `number` counts from 0, as the position in the JSON array does."""

    def fail(field_name: str, problem: str) -> DatasetError:
        return DatasetError(f"{annotation_file}: record {number}, field '{field_name}': {problem}.")

    if not isinstance(item, dict):
        raise DatasetError(f"{annotation_file}: record {number} is {item!r:.60}, expected an object.")
    for name in ("split", "captions", "id"):
        if name not in item:
            raise fail(name, "is missing")

    split = item["split"]
    if not isinstance(split, str) or split.strip().lower() not in _SPLITS:
        raise fail("split", f"is {split!r:.60}, expected 'train', 'val' or 'test'")

    person_id = item["id"]
    if not isinstance(person_id, int) or isinstance(person_id, bool):
        raise fail("id", f"is {person_id!r:.60}, expected a whole number")

    captions = item["captions"]
    if not isinstance(captions, list):
        raise fail("captions", f"is {captions!r:.60}, expected an array of strings")
    for position, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise fail("captions", f"entry {position} is {caption!r:.60}, expected a string")
        if not caption.strip():
            raise fail("captions", f"entry {position} is empty")

    path_field = next((name for name in _PATH_FIELDS if name in item), None)
    if path_field is None:
        raise fail(" or ".join(_PATH_FIELDS), "is missing")
    relative = item[path_field]
    if not isinstance(relative, str) or not relative.strip():
        raise fail(path_field, f"is {relative!r:.60}, expected a path below imgs/")
    path = PurePosixPath(relative.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", relative) or "\0" in relative:
        raise fail(path_field, f"{relative!r:.200} leaves the folder imgs/")
    if not path.parts:
        raise fail(path_field, f"is {relative!r:.60}, expected a path below imgs/")
    return _Row(number, split.strip().lower(), path.parts, tuple(captions), person_id)


def _check_images(images: Path, annotation_file: Path, rows: Sequence[_Row]) -> None:
    missing = [row for row in rows if not os.path.isfile(os.path.join(images, *row.parts))]
    if missing:
        first = ", ".join("/".join(row.parts) for row in missing[:3])
        raise DatasetError(
            f"{images}: {len(missing)} of {len(rows)} image files named in {annotation_file.name} are missing, "
            f"for instance {first} (record {missing[0].number})."
        )


def _cfine_order(rows: Sequence[_Row]) -> list[_Row]:
    by_person: dict[int, list[_Row]] = {}
    for row in rows:
        by_person.setdefault(row.person_id, []).append(row)
    return [
        _Row(row.number, row.split, row.parts, row.captions[::-1], row.person_id)
        for group in by_person.values()
        for row in group
    ]


def _camera(description: BenchmarkDescription, file_name: str) -> int | None:
    found = description.camera_pattern.match(file_name) if description.camera_pattern else None
    return int(found.group(1)) - 1 if found and int(found.group(1)) > 0 else None


def _empty_split_message(
    description: BenchmarkDescription, annotation_file: Path, split: str, rows: Sequence[_Row]
) -> str:
    sizes = ", ".join(f"{name}: {sum(row.split == name for row in rows)}" for name in _SPLITS)
    hint = "" if split in description.counts else f" {description.folder} has no {split} split; use another one."
    return f"{annotation_file}: no record of split '{split}' ({sizes}).{hint}"

"""Loaders of the text-based person retrieval benchmarks: CUHK-PEDES, ICFG-PEDES, RSTPReid and their occluded versions.

Each is a folder with `imgs/` and one JSON array of objects, one object per image. They differ in names only, so one
reader serves them all, driven by an `AnnotationLayout`. The occluded versions are read in the layout that MGCC's
occlusion generator writes: the annotations name the holistic image, whose occluded version lies in a parallel folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigurationError, DatasetError
from .annotation_arrays import iterate_json_array
from .caption_text import is_empty_caption
from .dataset_folders import check_relative_path, find_dataset_folder, refuse_missing_images
from .dataset_info import SINGLE_IMAGE_IDS, DatasetInfo, check_split, dataset_info
from .records import PersonDataset, PersonRecord, RecordStream

__all__ = [
    "ANNOTATION_LAYOUTS",
    "AnnotationLayout",
    "load_text_person_benchmark",
    "stream_text_person_benchmark",
]

_SPLITS = ("train", "val", "test")
_PATH_FIELDS = ("file_path", "img_path")


@dataclass(frozen=True, slots=True)
class AnnotationLayout:
    """What sets the files of one text-based benchmark apart from the others.

    Attributes:
        annotation_files: Accepted names of the annotation file, preferred one first.
        camera_pattern: Finds the 1-based camera number in the file name, `None` where names do not tell.
        not_annotations: Files that are mistaken for the annotation file, with the reason why they are not.
    """

    annotation_files: tuple[str, ...]
    camera_pattern: re.Pattern[str] | None = None
    not_annotations: Mapping[str, str] = field(default_factory=dict)


ANNOTATION_LAYOUTS: dict[str, AnnotationLayout] = {
    "cuhk-pedes": AnnotationLayout(
        annotation_files=("reid_raw.json",),
        not_annotations={"caption_all.json": "the raw release, which has no split field"},
    ),
    "icfg-pedes": AnnotationLayout(
        annotation_files=("ICFG-PEDES.json", "ICFG_PEDES.json"),
        camera_pattern=re.compile(r"^\d+_\d+_(\d+)_"),  # MSMT17: <id>_<index>_<camera>_<time>_<frame>_<box>
    ),
    "rstpreid": AnnotationLayout(
        annotation_files=("data_captions.json",),
        camera_pattern=re.compile(r"^\d+_c(\d+)_"),
    ),
}
"""By the name of the holistic benchmark; the occluded versions keep the files of theirs."""


def stream_text_person_benchmark(
    name: str,
    root: str | Path,
    split: str = "test",
    *,
    order: Literal["file", "cfine"] = "file",
    drop_single_image_ids: bool = False,
    icfg_test_limit: int | None = None,
    allow_repeated_paths: bool | None = None,
) -> RecordStream:
    """Open one split of a text-based benchmark for reading record by record.

    The whole annotation file is checked on the way, whichever split is asked for. The split comes from the record's
    field, never from its path. Captions are kept as they are. Cameras are 0-based (file names count from 1); each
    record's metadata holds its `split`.

    Args:
        name: `"cuhk-pedes"`, `"icfg-pedes"`, `"rstpreid"`, or one of them with `occluded-` in front.
        root: The folder that contains `CUHK-PEDES/` (`ICFG-PEDES/`, ...), or that folder itself. For an occluded set,
            the folder that the occlusion generator wrote, whatever its name.
        split: `"train"`, `"val"`, `"test"`, or `"all"` for every record of the file.
        order: `"file"`: records in file order. `"cfine"`: the order of CFine's released code, in which the records of
            an identity are adjacent (identities by first appearance) and the captions of an image are reversed; it
            matters only for the batches of a given seed and for ties. Needs the whole split in memory.
        drop_single_image_ids: CUHK-PEDES: leave out identities 1369, 4116 and 6116, which have one image each, as MGCC
            does; `person_labels` then numbers the other 11,000 as MGCC's classifier does.
        icfg_test_limit: ICFG-PEDES: keep only that many test records, from the first, as `test`; the others become
            `val`. MGCC's released preprocessing does so with 10,000, which makes its figures easier and comparable with
            no others.
        allow_repeated_paths: Whether a second record may name the same image. By default as in the released files: only
            ICFG-PEDES has such a record.

    Returns:
        The stream.

    Raises:
        DatasetError: For a wrong layout (says what is missing and where it looked) or a split that the set does not
            have; while reading, for a record with a missing field or a wrong type (says which one), or a split without
            records.
        ConfigurationError: For an unknown benchmark, split or order, or an option of another benchmark.
    """
    info = dataset_info(name)
    holistic = info.split_of or info.name
    if holistic not in ANNOTATION_LAYOUTS:
        raise ConfigurationError(
            f"{name!r} is not a text-based person retrieval benchmark; choose {', '.join(ANNOTATION_LAYOUTS)}."
        )
    if order not in ("file", "cfine"):
        raise ConfigurationError(f"Unknown order {order!r}; choose 'file' or 'cfine'.")
    if drop_single_image_ids and holistic != "cuhk-pedes":
        raise ConfigurationError(f"drop_single_image_ids is for CUHK-PEDES, not for {info.title}.")
    if icfg_test_limit is not None and holistic != "icfg-pedes":
        raise ConfigurationError(f"icfg_test_limit is for ICFG-PEDES, not for {info.title}.")
    if icfg_test_limit is not None and icfg_test_limit < 1:
        raise ConfigurationError(f"icfg_test_limit is {icfg_test_limit}, but must be at least 1.")
    if not (split == "val" and icfg_test_limit is not None):
        _check_split(info, split)
    layout = ANNOTATION_LAYOUTS[holistic]
    base, annotation_file = _find_layout(info, layout, Path(root))
    repeats = allow_repeated_paths if allow_repeated_paths is not None else info.repeated_paths > 0
    locate = _occluded_location(holistic) if info.split_of else _holistic_location

    def produce() -> Iterator[PersonRecord]:
        rows = _checked_rows(annotation_file, repeats)
        if drop_single_image_ids:
            rows = (row for row in rows if row.person_id not in SINGLE_IMAGE_IDS)
        if icfg_test_limit is not None:
            rows = _limit_test(rows, icfg_test_limit)
        rows = _of_split(rows, split, info, annotation_file)
        if order == "cfine":
            rows = _cfine_order(rows)
        for index, row in enumerate(rows):
            yield PersonRecord(
                image_path=base.joinpath(*locate(row)),
                image_id=index,
                captions=row.captions,
                person_id=row.person_id,
                camera_id=_camera(layout, row.parts[-1]),
                metadata={"split": row.split},
            )

    variant = "drop_single_image_ids" if drop_single_image_ids else ""
    variant = f"icfg_test_limit={icfg_test_limit}" if icfg_test_limit is not None else variant
    return RecordStream(info.name, split, base, annotation_file, produce, variant)


def load_text_person_benchmark(
    name: str,
    root: str | Path,
    split: str = "test",
    *,
    check_images: bool = True,
    order: Literal["file", "cfine"] = "file",
    drop_single_image_ids: bool = False,
    icfg_test_limit: int | None = None,
    allow_repeated_paths: bool | None = None,
) -> PersonDataset:
    """Load one split of a text-based benchmark.

    Args:
        name: As in `stream_text_person_benchmark`, like all arguments that are not explained here.
        root: As there.
        split: As there.
        check_images: Look whether every image file of the split is there.
        order: As there.
        drop_single_image_ids: As there.
        icfg_test_limit: As there.
        allow_repeated_paths: As there.

    Returns:
        One record per object of the file.

    Raises:
        DatasetError: As there, and for missing image files.
        ConfigurationError: As there.
    """
    stream = stream_text_person_benchmark(
        name,
        root,
        split,
        order=order,
        drop_single_image_ids=drop_single_image_ids,
        icfg_test_limit=icfg_test_limit,
        allow_repeated_paths=allow_repeated_paths,
    )
    dataset = stream.collect()
    if check_images:
        refuse_missing_images(dataset, stream.source)
    return dataset


@dataclass(frozen=True, slots=True)
class _Row:
    """One checked object of an annotation file; `parts` are the components of the path below `imgs/`."""

    number: int
    split: str
    parts: tuple[str, ...]
    captions: tuple[str, ...]
    person_id: int


def _check_split(info: DatasetInfo, split: str) -> None:
    """As `check_split`; queries and gallery are the two sides of one record here, not splits."""
    if split in ("query", "gallery"):
        raise ConfigurationError(f"{info.title} has no split {split!r}; choose 'train', 'val', 'test' or 'all'.")
    check_split(info, split)


def _find_layout(info: DatasetInfo, layout: AnnotationLayout, root: Path) -> tuple[Path, Path]:
    """Return (data set's folder, annotation file), both absolute."""
    base = find_dataset_folder(info, root, layout.annotation_files, mistaken=tuple(layout.not_annotations))
    for candidate in layout.annotation_files:
        if (base / candidate).is_file():
            if not (base / "imgs").is_dir() and not info.split_of:
                raise DatasetError(f"{base / 'imgs'}: no such folder; {base / candidate} needs its images there.")
            return base, base / candidate
    for other, reason in layout.not_annotations.items():
        if (base / other).is_file():
            raise DatasetError(
                f"{base}: has {other} ({reason}) but not {layout.annotation_files[0]}, which is needed; "
                "get the split annotation file."
            )
    raise DatasetError(f"{base / layout.annotation_files[0]}: is a folder, expected the annotation file.")


def _holistic_location(row: _Row) -> tuple[str, ...]:
    return ("imgs", *row.parts)


def _occluded_location(holistic: str) -> Callable[[_Row], tuple[str, ...]]:
    from .occlusion.layout import OCCLUDED_SUFFIX, occluded_image_path

    def locate(row: _Row) -> tuple[str, ...]:
        if any(part.endswith(OCCLUDED_SUFFIX) for part in row.parts[:-1]):  # already names the occluded image
            return ("imgs", *row.parts)
        return tuple(occluded_image_path(holistic, "/".join(("imgs", *row.parts))).split("/"))

    return locate


def _checked_rows(annotation_file: Path, allow_repeated_paths: bool) -> Iterator[_Row]:
    first_with: dict[tuple[str, ...], int] = {}
    for number, item in enumerate(iterate_json_array(annotation_file)):
        row = _read_row(annotation_file, number, item)
        first = first_with.setdefault(row.parts, number)
        if first != number and not allow_repeated_paths:
            raise DatasetError(
                f"{annotation_file}: record {number}, field '{_path_field(item)}': {'/'.join(row.parts)!r:.200} is "
                f"already in record {first}; one record per image (allow_repeated_paths=True keeps both)."
            )
        yield row


def _path_field(item: Mapping[str, Any]) -> str | None:
    return next((name for name in _PATH_FIELDS if name in item), None)


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
    if not captions:
        raise fail("captions", "is empty, expected at least one string")
    for position, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise fail("captions", f"entry {position} is {caption!r:.60}, expected a string")
        if is_empty_caption(caption):
            raise fail("captions", f"entry {position} is empty{_after_cleaning(caption)}")

    path_field = _path_field(item)
    if path_field is None:
        raise fail(" or ".join(_PATH_FIELDS), "is missing")
    relative = item[path_field]
    if not isinstance(relative, str) or not relative.strip():
        raise fail(path_field, f"is {relative!r:.60}, expected a path below imgs/")
    parts = check_relative_path(relative)
    if parts is None:
        raise fail(path_field, f"{relative!r:.200} leaves the folder imgs/")
    if not parts:
        raise fail(path_field, f"is {relative!r:.60}, expected a path below imgs/")
    return _Row(number, split.strip().lower(), parts, tuple(captions), person_id)


def _after_cleaning(caption: str) -> str:
    return f" after cleaning ({caption!r:.60} has no letter and no digit)" if caption.strip() else ""


def _limit_test(rows: Iterator[_Row], limit: int) -> Iterator[_Row]:
    tests = 0
    for row in rows:
        if row.split == "test":
            tests += 1
            yield row if tests <= limit else replace(row, split="val")
        else:
            yield row


def _of_split(rows: Iterator[_Row], split: str, info: DatasetInfo, annotation_file: Path) -> Iterator[_Row]:
    sizes = dict.fromkeys(_SPLITS, 0)
    for row in rows:
        sizes[row.split] += 1
        if split in (row.split, "all"):
            yield row
    if split != "all" and not sizes[split]:
        found = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise DatasetError(f"{annotation_file}: no record of split '{split}' ({found}).")


def _cfine_order(rows: Iterator[_Row]) -> Iterator[_Row]:
    by_person: dict[int, list[_Row]] = {}
    for row in rows:
        by_person.setdefault(row.person_id, []).append(row)
    for group in by_person.values():
        for row in group:
            yield replace(row, captions=row.captions[::-1])


def _camera(layout: AnnotationLayout, file_name: str) -> int | None:
    found = layout.camera_pattern.match(file_name) if layout.camera_pattern else None
    return int(found.group(1)) - 1 if found and int(found.group(1)) > 0 else None

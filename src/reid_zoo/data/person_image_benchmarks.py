"""Loaders of the image-to-image person benchmarks: Market-1501, MSMT17, DukeMTMC-reID and Occluded-Duke.

Layouts and rules: data set notes, section 5, and CLIP-ReID notes, section 11. Identity and camera are read from the file
name only (MSMT17: identity from the list files), never from a parent folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ConfigurationError, DatasetError
from .dataset_folders import (
    check_relative_path,
    find_dataset_folder,
    list_jpegs,
    read_list_file,
    refuse_missing_images,
    refuse_without_positives,
)
from .dataset_info import check_split, dataset_info, require_acceptance
from .records import PersonDataset, PersonRecord, RecordStream

__all__ = [
    "FileNameRule",
    "load_folder_benchmark",
    "load_msmt17",
    "parts_of_split",
    "read_file_name",
    "stream_folder_benchmark",
    "stream_msmt17",
]


@dataclass(frozen=True, slots=True)
class FileNameRule:
    """How a file name gives identity and camera.

    Attributes:
        pattern: Two groups, identity (-1 for junk) and 1-based camera, matched at the start of the name.
        example: A name of that kind, for messages.
        num_cameras: Largest camera number.
        largest_id: Largest identity, `None` if not known.
    """

    pattern: re.Pattern[str]
    example: str
    num_cameras: int
    largest_id: int | None


_RULES = {
    "market-1501": FileNameRule(re.compile(r"(-?\d+)_c(\d)"), "0002_c1s1_000451_03.jpg", 6, 1501),
    "dukemtmc-reid": FileNameRule(re.compile(r"(-?\d+)_c(\d)"), "0001_c2_f0046182.jpg", 8, None),
    "occluded-duke": FileNameRule(re.compile(r"(-?\d+)_c(\d)"), "0001_c2_f0046182.jpg", 8, None),
}
_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

_MSMT17_IMAGES = {"v1": ("train", "test"), "v2": ("mask_train_v2", "mask_test_v2")}
_MSMT17_LISTS = {
    "train": "list_train.txt",
    "val": "list_val.txt",
    "query": "list_query.txt",
    "gallery": "list_gallery.txt",
}
_MSMT17_CAMERAS = 15


def parts_of_split(split: str, parts: Sequence[str]) -> tuple[str, ...]:
    """Which parts of an image-to-image set make up a split, in reading order.

    Args:
        split: `"test"` stands for query and gallery, `"all"` for everything.
        parts: The parts that exist, in order.

    Returns:
        Names of parts.
    """
    if split == "all":
        return tuple(parts)
    return ("query", "gallery") if split == "test" else (split,)


def read_file_name(path: Path, rule: FileNameRule, title: str) -> tuple[int, int] | None:
    """Identity and 0-based camera of an image, from its file name.

    Args:
        path: The image; only its last component is read.
        rule: How.
        title: Name of the data set, for messages.

    Returns:
        (identity, camera), or `None` for junk (identity -1).

    Raises:
        DatasetError: If the name is not of that kind, or identity or camera are outside the published range.
    """
    found = rule.pattern.match(path.name)
    if found is None:
        raise DatasetError(f"{path}: is not named like an image of {title} ({rule.example}).")
    person_id, camera = int(found.group(1)), int(found.group(2))
    if person_id == -1:
        return None
    if person_id < 0 or (rule.largest_id is not None and person_id > rule.largest_id):
        raise DatasetError(f"{path}: identity {person_id} is outside 0...{rule.largest_id}; is this {title}?")
    if not 1 <= camera <= rule.num_cameras:
        raise DatasetError(f"{path}: camera {camera} is outside 1...{rule.num_cameras}; is this {title}?")
    return person_id, camera - 1


def stream_folder_benchmark(
    name: str, root: str | Path, split: str = "test", *, accept_retracted: bool = False
) -> RecordStream:
    """Open one split of Market-1501, DukeMTMC-reID or Occluded-Duke for reading record by record.

    Images are read in the order of their names. Identity -1 (junk) is skipped; identity 0 (background) stays. Identities
    are those of the file names; `person_labels` numbers those of a split from 0 in ascending order.

    Args:
        name: `"market-1501"`, `"dukemtmc-reid"` or `"occluded-duke"`.
        root: The folder that contains the data set's folder, or that folder itself.
        split: `"train"`, `"query"`, `"gallery"`, `"test"` (queries, then gallery) or `"all"`.
        accept_retracted: Must be given for the two that were withdrawn.

    Returns:
        The stream; the records' metadata holds their `split`.

    Raises:
        DatasetError: For a wrong layout or a split that the set does not have; while reading, for a missing or empty
            folder or a file name of another kind.
        ConfigurationError: For an unknown benchmark or split, or a retracted one that was not accepted.
    """
    info = dataset_info(name)
    if info.name not in _RULES:
        raise ConfigurationError(f"{name!r} is not one of {', '.join(_RULES)}.")
    require_acceptance(info, accept_retracted)
    check_split(info, split)
    base = find_dataset_folder(info, root, tuple(_FOLDERS.values()))
    rule = _RULES[info.name]

    def produce() -> Iterator[PersonRecord]:
        index = 0
        for part in parts_of_split(split, tuple(_FOLDERS)):
            folder = base / _FOLDERS[part]
            for file_name in list_jpegs(folder):
                found = read_file_name(folder / file_name, rule, info.title)
                if found is None:
                    continue
                yield PersonRecord(folder / file_name, index, (), found[0], found[1], {"split": part}, view_id=0)
                index += 1

    return RecordStream(info.name, split, base, base, produce)


def load_folder_benchmark(
    name: str, root: str | Path, split: str = "test", *, check_images: bool = True, accept_retracted: bool = False
) -> PersonDataset:
    """Load one split of Market-1501, DukeMTMC-reID or Occluded-Duke.

    Args:
        name: As in `stream_folder_benchmark`, like all arguments that are not explained here.
        root: As there.
        split: As there.
        check_images: Look whether the gallery can answer any of the queries (the files themselves were listed).
        accept_retracted: As there.

    Returns:
        The records.

    Raises:
        DatasetError: As there, and if `split` is `"test"` or `"all"` and no query has a match.
        ConfigurationError: As there.
    """
    dataset = stream_folder_benchmark(name, root, split, accept_retracted=accept_retracted).collect()
    if check_images and split in ("test", "all"):
        refuse_without_positives(dataset)
    return dataset


def stream_msmt17(
    name: str,
    root: str | Path,
    split: str = "test",
    *,
    combine_train_val: bool = True,
    version: Literal["v1", "v2"] | None = None,
) -> RecordStream:
    """Open one split of MSMT17 for reading record by record.

    Images are those of the list files, in their order. Identities are those of the lists, where train and test both
    count from 0; in `"all"` those of query and gallery are shifted by the number of training identities, so that no two
    people share one.

    Args:
        name: `"msmt17"`.
        root: The folder that contains `MSMT17/` (or `MSMT17_V1/`, `MSMT17_V2/`), or that folder itself.
        split: `"train"`, `"query"`, `"gallery"`, `"test"` (queries, then gallery) or `"all"`; `"val"` too if
            `combine_train_val` is false.
        combine_train_val: Train on the images of the train and the val list, as CLIP-ReID does and as published sizes
            are given; otherwise only on those of the train list.
        version: `"v1"` (folders `train`, `test`) or `"v2"` (`mask_train_v2`, `mask_test_v2`); by default whichever is
            there.

    Returns:
        The stream; the records' metadata holds their `split`.

    Raises:
        DatasetError: For a wrong layout, both versions in one folder, a split that the set does not have; while reading,
            for a bad line of a list file or an image path that leaves its folder or has no camera.
        ConfigurationError: For another benchmark, an unknown split or version.
    """
    info = dataset_info(name)
    if info.name != "msmt17":
        raise ConfigurationError(f"{name!r} is not msmt17.")
    if version not in (None, *_MSMT17_IMAGES):
        raise ConfigurationError(f"Unknown version {version!r}; choose 'v1' or 'v2'.")
    parts: tuple[str, ...] = ("train", "query", "gallery") if combine_train_val else tuple(_MSMT17_LISTS)
    if split != "val":
        check_split(info, split)
    elif combine_train_val:
        raise DatasetError(
            "MSMT17 has no val split of its own: its val list is part of train; pass combine_train_val=False."
        )
    base = find_dataset_folder(info, root, (*_MSMT17_LISTS.values(), *_MSMT17_IMAGES["v2"]))
    train_folder, test_folder = _MSMT17_IMAGES[_msmt17_version(base, version)]

    def produce() -> Iterator[PersonRecord]:
        index = 0
        shift = _identities_in(base, ("train", "val")) if split == "all" else 0
        for part in parts_of_split(split, parts):
            is_test = part in ("query", "gallery")
            folder = base / (test_folder if is_test else train_folder)
            for list_name in ("train", "val") if part == "train" and combine_train_val else (part,):
                for line, relative, person_id in read_list_file(base / _MSMT17_LISTS[list_name]):
                    image, camera = _msmt17_image(base / _MSMT17_LISTS[list_name], line, relative)
                    yield PersonRecord(
                        folder.joinpath(*image),
                        index,
                        (),
                        person_id + (shift if is_test else 0),
                        camera,
                        {"split": part},
                        view_id=0,
                    )
                    index += 1

    variant = "" if combine_train_val else "combine_train_val=False"
    return RecordStream(info.name, split, base, base / _MSMT17_LISTS[parts_of_split(split, parts)[0]], produce, variant)


def load_msmt17(
    name: str,
    root: str | Path,
    split: str = "test",
    *,
    check_images: bool = True,
    combine_train_val: bool = True,
    version: Literal["v1", "v2"] | None = None,
) -> PersonDataset:
    """Load one split of MSMT17.

    Args:
        name: As in `stream_msmt17`, like all arguments that are not explained here.
        root: As there.
        split: As there.
        check_images: Look whether every image file of the split is there, and whether the gallery can answer any query.
        combine_train_val: As there.
        version: As there.

    Returns:
        The records.

    Raises:
        DatasetError: As there, and for missing image files or, for `"test"` and `"all"`, if no query has a match.
        ConfigurationError: As there.
    """
    stream = stream_msmt17(name, root, split, combine_train_val=combine_train_val, version=version)
    dataset = stream.collect()
    if check_images:
        refuse_missing_images(dataset, stream.source)
        if split in ("test", "all"):
            refuse_without_positives(dataset)
    return dataset


def _msmt17_version(base: Path, version: str | None) -> str:
    present = [key for key, folders in _MSMT17_IMAGES.items() if any((base / folder).is_dir() for folder in folders)]
    if version is not None:
        return version
    if len(present) > 1:
        raise DatasetError(f"{base}: holds versions 1 and 2 of MSMT17; choose one with version='v1' or 'v2'.")
    if not present:
        raise DatasetError(f"{base}: has neither train/ and test/ nor mask_train_v2/ and mask_test_v2/.")
    return present[0]


def _identities_in(base: Path, lists: Sequence[str]) -> int:
    return 1 + max(person_id for name in lists for _, _, person_id in read_list_file(base / _MSMT17_LISTS[name]))


def _msmt17_image(list_file: Path, line: int, relative: str) -> tuple[tuple[str, ...], int]:
    """Path components and 0-based camera: the third `_`-separated field of the file name, or of the whole path."""
    image = check_relative_path(relative)
    if not image:
        raise DatasetError(f"{list_file}: line {line}: {relative!r:.200} leaves the folder of the images.")
    fields = image[-1].split("_")
    if len(fields) < 3 or not (fields[2].isascii() and fields[2].isdigit()):
        raise DatasetError(
            f"{list_file}: line {line}: {relative!r:.200} has no camera, expected a name like 0000_000_01_....jpg."
        )
    camera = int(fields[2])
    if not 1 <= camera <= _MSMT17_CAMERAS:
        raise DatasetError(f"{list_file}: line {line}: camera {camera} is outside 1...{_MSMT17_CAMERAS}.")
    return image, camera - 1

"""Loaders of the vehicle benchmarks VeRi-776 and VehicleID.

Layouts and rules: data set notes, section 5, and CLIP-ReID notes, sections 10.2 and 11.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
from .dataset_info import check_split, dataset_info
from .person_image_benchmarks import FileNameRule, parts_of_split, read_file_name
from .records import PersonDataset, PersonRecord, RecordStream

__all__ = [
    "load_vehicleid",
    "load_veri",
    "stream_vehicleid",
    "stream_veri",
    "vehicleid_trial",
    "vehicleid_trials",
]

_VERI_RULE = FileNameRule(re.compile(r"(-?\d+)_c(\d+)"), "0001_c001_00016450_0.jpg", 20, 776)
_VERI_FOLDERS = {"train": "image_train", "query": "image_query", "gallery": "image_test"}
_VERI_VIEW_FILES = ("keypoint_train.txt", "keypoint_test.txt")
_VERI_FIELDS = 42  # path, 20 pairs of coordinates, orientation
_VERI_VIEWS = 8

_VEHICLEID_TEST_SIZES = (800, 1600, 2400)


def stream_veri(
    name: str, root: str | Path, split: str = "test", *, views: Literal["auto", "require", "ignore"] = "auto"
) -> RecordStream:
    """Open one split of VeRi-776 for reading record by record.

    The viewpoint of an image is the last field of its line in `keypoint_train.txt` or, where that has none, in
    `keypoint_test.txt`, looked up by file name (the last line of a name counts). Images without an entry are skipped, as
    the CLIP-ReID implementation does.

    Args:
        name: `"veri-776"`.
        root: The folder that contains `VeRi/`, or that folder itself; the keypoint files lie in `VeRi/`.
        split: `"train"`, `"query"`, `"gallery"`, `"test"` (queries, then gallery) or `"all"`.
        views: `"auto"`: use the keypoint files if they are there; without them every image is kept and its `view_id` is
            `None`. `"require"`: they must be there. `"ignore"`: as if they were not.

    Returns:
        The stream; the records' metadata holds their `split`.

    Raises:
        DatasetError: For a wrong layout, one keypoint file without the other, none where they are required, or a bad
            line in one; while reading, for a missing or empty folder or a file name of another kind.
        ConfigurationError: For another benchmark, an unknown split or value of `views`.
    """
    info = dataset_info(name)
    if info.name != "veri-776":
        raise ConfigurationError(f"{name!r} is not veri-776.")
    if views not in ("auto", "require", "ignore"):
        raise ConfigurationError(f"Unknown views {views!r}; choose 'auto', 'require' or 'ignore'.")
    check_split(info, split)
    base = find_dataset_folder(info, root, tuple(_VERI_FOLDERS.values()))
    view_of = None if views == "ignore" else _read_views(base, required=views == "require")

    def produce() -> Iterator[PersonRecord]:
        index = 0
        for part in parts_of_split(split, tuple(_VERI_FOLDERS)):
            folder = base / _VERI_FOLDERS[part]
            for file_name in list_jpegs(folder):
                found = read_file_name(folder / file_name, _VERI_RULE, info.title)
                if found is None or (view_of is not None and file_name not in view_of):
                    continue
                view = None if view_of is None else view_of[file_name]
                yield PersonRecord(folder / file_name, index, (), found[0], found[1], {"split": part}, view_id=view)
                index += 1

    return RecordStream(info.name, split, base, base, produce)


def load_veri(
    name: str,
    root: str | Path,
    split: str = "test",
    *,
    check_images: bool = True,
    views: Literal["auto", "require", "ignore"] = "auto",
) -> PersonDataset:
    """Load one split of VeRi-776.

    Args:
        name: As in `stream_veri`, like all arguments that are not explained here.
        root: As there.
        split: As there.
        check_images: Look whether the gallery can answer any of the queries (the files themselves were listed).
        views: As there.

    Returns:
        The records.

    Raises:
        DatasetError: As there, and if `split` is `"test"` or `"all"` and no query has a match, or no image is left.
        ConfigurationError: As there.
    """
    dataset = stream_veri(name, root, split, views=views).collect()
    if not len(dataset):
        raise DatasetError(
            f"{dataset.root}: no image of split '{split}' has an entry in {' or '.join(_VERI_VIEW_FILES)}."
        )
    if check_images and split in ("test", "all"):
        refuse_without_positives(dataset)
    return dataset


def _read_views(base: Path, *, required: bool) -> Mapping[str, int] | None:
    """Viewpoint by file name; `None` if there are no keypoint files."""
    files = [base / name for name in _VERI_VIEW_FILES]
    absent = [file for file in files if not file.is_file()]
    if len(absent) == len(files) and not required:
        return None
    if absent:
        raise DatasetError(
            f"{absent[0]}: no such file; the views need both {' and '.join(_VERI_VIEW_FILES)} (views='ignore' does without)."
        )
    views: dict[str, int] = {}
    for file in reversed(files):  # the train file has precedence
        views |= _read_view_file(file)
    return views


def _read_view_file(file: Path) -> dict[str, int]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: is not UTF-8 text (byte {error.start}).") from None
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error.strerror}).") from None
    views = {}
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != _VERI_FIELDS:
            raise DatasetError(f"{file}: line {number} has {len(fields)} fields, expected {_VERI_FIELDS}.")
        if fields[-1] not in map(str, range(_VERI_VIEWS)):
            raise DatasetError(f"{file}: line {number}: view {fields[-1]!r:.20} is outside 0...{_VERI_VIEWS - 1}.")
        views[fields[0].replace("\\", "/").rsplit("/", 1)[-1]] = int(fields[-1])
    return views


def stream_vehicleid(
    name: str, root: str | Path, split: str = "test", *, test_size: int = 800, trial: int = 0, seed: int = 0
) -> RecordStream:
    """Open one split of VehicleID for reading record by record.

    VehicleID has no fixed queries: `vehicleid_trial` draws them, and `"query"`, `"gallery"`, `"test"` and `"all"` are
    those of one trial.

    Args:
        name: `"vehicleid"`.
        root: The folder that contains `VehicleID_V1.0/`, or that folder itself.
        split: `"train"`, `"query"`, `"gallery"`, `"test"` (queries, then gallery) or `"all"`.
        test_size: Vehicles in the test list: 800 (small, the only one in the CLIP-ReID paper), 1600 or 2400.
        trial: Number of the trial, from 0.
        seed: Seed of the trials.

    Returns:
        The stream; camera 0 for train and query, 1 for the gallery; the records' metadata holds their `split`.

    Raises:
        DatasetError: For a wrong layout or a split that the set does not have; while reading, for a bad line of a list.
        ConfigurationError: For another benchmark, an unknown split or test size, or a negative trial.
    """
    info = dataset_info(name)
    if info.name != "vehicleid":
        raise ConfigurationError(f"{name!r} is not vehicleid.")
    if test_size not in _VEHICLEID_TEST_SIZES:
        raise ConfigurationError(f"test_size is {test_size!r}; choose {', '.join(map(str, _VEHICLEID_TEST_SIZES))}.")
    if trial < 0:
        raise ConfigurationError(f"trial is {trial}; the first one is 0.")
    check_split(info, split)
    base = find_dataset_folder(info, root, ("train_test_split", "image"))
    lists = base / "train_test_split"
    test_list = lists / f"test_list_{test_size}.txt"
    parts = parts_of_split(split, ("train", "query", "gallery"))

    def produce() -> Iterator[PersonRecord]:
        index = 0
        if "train" in parts:
            for record in _vehicleid_records(base, lists / "train_list.txt", "train"):
                yield replace(record, image_id=index)
                index += 1
        if set(parts) & {"query", "gallery"}:
            queries, gallery = vehicleid_trial(list(_vehicleid_records(base, test_list, "test")), trial, seed=seed)
            for part, records in (("query", queries), ("gallery", gallery)):
                for record in records if part in parts else ():
                    yield replace(record, image_id=index)
                    index += 1

    source = lists / "train_list.txt" if split == "train" else test_list
    return RecordStream(info.name, split, base, source, produce, "" if test_size == 800 else f"test_size={test_size}")


def load_vehicleid(
    name: str,
    root: str | Path,
    split: str = "test",
    *,
    check_images: bool = True,
    test_size: int = 800,
    trial: int = 0,
    seed: int = 0,
) -> PersonDataset:
    """Load one split of VehicleID.

    Args:
        name: As in `stream_vehicleid`, like all arguments that are not explained here.
        root: As there.
        split: As there.
        check_images: Look whether every image file of the split is there, and whether the gallery can answer any query.
        test_size: As there.
        trial: As there.
        seed: As there.

    Returns:
        The records.

    Raises:
        DatasetError: As there, and for missing image files or, for `"test"` and `"all"`, if no query has a match.
        ConfigurationError: As there.
    """
    stream = stream_vehicleid(name, root, split, test_size=test_size, trial=trial, seed=seed)
    dataset = stream.collect()
    if check_images:
        refuse_missing_images(dataset, stream.source)
        if split in ("test", "all"):
            refuse_without_positives(dataset)
    return dataset


def vehicleid_trial(
    records: Sequence[PersonRecord], trial: int, *, seed: int = 0
) -> tuple[list[PersonRecord], list[PersonRecord]]:
    """Divide test images by the VehicleID protocol: one image per identity is the gallery, all others are queries.

    The choice depends on the seed, the trial and the image paths alone: the same on every machine and for every version
    of Python, however the records are ordered.

    Args:
        records: Test images, each with an identity.
        trial: Number of the trial, from 0.
        seed: Seed of the trials.

    Returns:
        (queries, gallery), each in the order of the image paths and numbered from 0; queries with camera 0, the gallery
        with camera 1, so that no rule about cameras removes anything.

    Raises:
        DatasetError: If there is nothing to divide: no identity has two images.
    """
    records = sorted(records, key=lambda record: record.image_path.as_posix())
    by_identity: dict[int | str | None, list[int]] = {}
    for index, record in enumerate(records):
        by_identity.setdefault(record.person_id, []).append(index)
    draw = random.Random(f"vehicleid {seed} {trial}")  # a string is hashed by SHA-512, whatever the platform
    # `random()` is the one method whose values Python promises to keep
    chosen = [indices[int(draw.random() * len(indices))] for indices in by_identity.values()]
    if len(chosen) == len(records):
        raise DatasetError(f"a trial needs an identity with two images; {len(records)} records have none.")
    in_gallery = set(chosen)
    queries = [record for index, record in enumerate(records) if index not in in_gallery]
    return (
        _numbered(queries, camera_id=0, split="query"),
        _numbered([records[index] for index in sorted(in_gallery)], camera_id=1, split="gallery"),
    )


def vehicleid_trials(
    dataset: PersonDataset, *, num_trials: int = 10, seed: int = 0
) -> Iterator[tuple[PersonDataset, PersonDataset]]:
    """The trials over which VehicleID's figures are averaged.

    Args:
        dataset: What `load_dataset("vehicleid", root, "test")` returned; any set of records with identities will do.
        num_trials: How many.
        seed: Seed of all trials; the same one gives the same divisions.

    Yields:
        (queries, gallery) of each trial; see `vehicleid_trial`.

    Raises:
        DatasetError: If no identity has two images.
        ConfigurationError: If there is no trial to make.
    """
    if num_trials < 1:
        raise ConfigurationError(f"num_trials is {num_trials}, but must be at least 1.")
    for trial in range(num_trials):
        queries, gallery = vehicleid_trial(dataset.records, trial, seed=seed)
        yield (
            PersonDataset(queries, name=dataset.name, split="query", root=dataset.root, variant=dataset.variant),
            PersonDataset(gallery, name=dataset.name, split="gallery", root=dataset.root, variant=dataset.variant),
        )


def _numbered(records: Sequence[PersonRecord], *, camera_id: int, split: str) -> list[PersonRecord]:
    return [
        replace(record, image_id=index, camera_id=camera_id, metadata={**record.metadata, "split": split})
        for index, record in enumerate(records)
    ]


def _vehicleid_records(base: Path, list_file: Path, split: str) -> Iterator[PersonRecord]:
    images = base / "image"
    for line, image, vehicle_id in read_list_file(list_file):
        parts = check_relative_path(image)
        if not parts:
            raise DatasetError(f"{list_file}: line {line}: {image!r:.200} leaves the folder image/.")
        path = images.joinpath(*parts[:-1], f"{parts[-1]}.jpg")
        yield PersonRecord(path, 0, (), vehicle_id, 0, {"split": split}, view_id=0)

"""Looking a data set over: sizes against the published ones, missing and unreadable images, people in two splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, DatasetError, ImageReadError
from .dataset_folders import missing_images, refuse_without_positives
from .dataset_info import CountDifference, SplitCounts, dataset_info, published_counts, verify_counts
from .images import load_image
from .loading import load_dataset
from .records import SPLITS, PersonDataset, PersonRecord

__all__ = ["DatasetCheck", "check_dataset"]

_DECODING_THREADS = 2
_DECODED_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """What `check_dataset` found.

    Attributes:
        label: Name of the data set, with the variant that was asked for.
        root: Its folder.
        counts: Sizes by split, for every split that has records.
        published: Published sizes by split; empty for own data and for variants without published sizes.
        differences: Published figures that the files do not have. No problem: people use subsets.
        missing: Images that are named but not there.
        repeated: Images that stand in more records than in the released files, each with the number of its records.
        shared_identities: Identities that are in two splits that must not share any, as (identity, splits).
        unreadable: (image, reason) of every image that cannot be decoded; empty if images were not read.
        num_images_read: Images that were decoded.
        others: Further problems, a line each.
        notes: What else the user should know, a line each; no problems.
    """

    label: str
    root: Path
    counts: Mapping[str, SplitCounts]
    published: Mapping[str, SplitCounts]
    differences: tuple[CountDifference, ...]
    missing: tuple[Path, ...]
    repeated: tuple[tuple[Path, int], ...]
    shared_identities: tuple[tuple[int | str, tuple[str, ...]], ...]
    unreadable: tuple[tuple[Path, str], ...]
    num_images_read: int
    others: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that is wrong, a line each; sizes that differ are not."""
        return (
            *(f"missing image: {path}" for path in self.missing),
            *(f"image in {count} records: {path}" for path, count in self.repeated),
            *(f"identity {person} is in {' and '.join(splits)}" for person, splits in self.shared_identities),
            *(f"unreadable image: {path}: {reason}" for path, reason in self.unreadable),
            *self.others,
        )

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def check_dataset(
    name: str, root: str | Path, *, read_images: bool = False, progress: bool = False, **options: Any
) -> DatasetCheck:
    """Look a whole data set over.

    Args:
        name: One of `available_datasets()`.
        root: Its folder, or the one that contains it.
        read_images: Decode every image too, which takes a while.
        progress: Show a progress bar on standard error.
        **options: Passed on to the loader, e.g. `accept_retracted=True`.

    Returns:
        What was found; problems with single images and identities do not raise.

    Raises:
        DatasetError: If the layout is wrong or a record is bad: then there is nothing to count.
        ConfigurationError: As `load_dataset`.
    """
    if "check_images" in options:
        raise ConfigurationError("check_images does not apply here: a check always looks for the images.")
    try:
        info = dataset_info(name)
    except ConfigurationError:
        info = None
    if info is not None and info.modality == "text":
        options = {"allow_repeated_paths": True, **options}
    dataset = load_dataset(name, root, "all", check_images=False, **options)
    by_split: dict[str, list[PersonRecord]] = defaultdict(list)
    for record in dataset:
        by_split[str(record.metadata.get("split", "all"))].append(record)
    counts = {
        split: SplitCounts(
            len({record.person_id for record in by_split[split]} - {None}),
            len(by_split[split]),
            sum(len(record.captions) for record in by_split[split]),
        )
        for split in (*SPLITS, "all")
        if split in by_split
    }
    missing = {record.image_path for record in missing_images(dataset.records)}
    present = [path for path in dict.fromkeys(record.image_path for record in dataset) if path not in missing]
    unreadable = _unreadable(present, progress) if read_images else []
    others: list[str] = []
    if {"query", "gallery"} <= set(by_split):
        try:
            refuse_without_positives(dataset)
        except DatasetError as error:
            others.append(str(error))
    notes: list[str] = []
    if info is not None:
        notes += [text for text in (info.retracted and f"retracted: {info.retracted}", info.note) if text]
        if not info.shared_ids:
            notes += _gaps(by_split)
    return DatasetCheck(
        label=dataset.label,
        root=dataset.root,
        counts=counts,
        published=published_counts(dataset) if info is not None else {},
        differences=tuple(verify_counts(dataset)) if info is not None else (),
        missing=tuple(sorted(missing)),
        repeated=_repeated(dataset, info.repeated_paths if info is not None else 0),
        shared_identities=_shared_identities(by_split, info is not None and not info.shared_ids),
        unreadable=tuple(unreadable),
        num_images_read=len(present) if read_images else 0,
        others=tuple(others),
        notes=tuple(notes),
    )


def _unreadable(images: Sequence[Path], progress: bool) -> list[tuple[Path, str]]:
    from tqdm.auto import tqdm

    found: list[tuple[Path, str]] = []
    bar = tqdm(total=len(images), desc="Reading images", unit="image", disable=not progress, dynamic_ncols=True)
    with bar, ThreadPoolExecutor(_DECODING_THREADS) as pool:
        for start in range(0, len(images), _DECODED_AT_ONCE):
            block = images[start : start + _DECODED_AT_ONCE]
            for image, reason in zip(block, pool.map(_reason_unreadable, block), strict=True):
                if reason is not None:
                    found.append((image, reason))
                bar.update()
    return found


def _reason_unreadable(image: Path) -> str | None:
    try:
        load_image(image)
    except ImageReadError as error:
        return error.reason
    return None


def _repeated(dataset: PersonDataset, known: int) -> tuple[tuple[Path, int], ...]:
    """Images in several records, unless there are no more of them than in the released file."""
    times = Counter(record.image_path for record in dataset)
    repeated = tuple((path, count) for path, count in times.items() if count > 1)
    return repeated if sum(count - 1 for _, count in repeated) > known else ()


def _shared_identities(
    by_split: Mapping[str, Sequence[PersonRecord]], train_and_val_share: bool
) -> tuple[tuple[int | str, tuple[str, ...]], ...]:
    part_of = {split: "test" if split in ("query", "gallery") else split for split in by_split}
    if train_and_val_share:
        part_of |= {"val": "train"}
    parts: dict[int | str, dict[str, str]] = {}
    for split, records in by_split.items():
        for record in records:
            if record.person_id is not None:
                parts.setdefault(record.person_id, {}).setdefault(part_of[split], split)
    return tuple((person, tuple(found.values())) for person, found in parts.items() if len(found) > 1)


def _gaps(by_split: Mapping[str, Sequence[PersonRecord]]) -> list[str]:
    """A note if the training identities of a set that numbers them from 0 are not 0...N-1."""
    ids = {record.person_id for split in ("train", "val") for record in by_split.get(split, ())}
    if ids == set(range(len(ids))):
        return []
    return [f"the {len(ids)} training identities are not numbered 0...{len(ids) - 1}, as those of the whole set are."]

"""The annotation files of an occluded set below `processed_data/`, in the layout that MGCC's training code reads.

Paths in them name the holistic images, as the released files do; a loader turns them into the occluded ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import ConfigurationError
from ..dataset_info import SINGLE_IMAGE_IDS

__all__ = ["SPLITS", "AnnotationRecord", "annotation_files", "assign_splits", "renumber_identity"]

SPLITS = ("train", "test", "val")
"""In the order of the released `data_message`."""

_LARGEST_FEWEST = 28  # start value of the released search for the smallest number


@dataclass(frozen=True, slots=True)
class AnnotationRecord:
    """One record of the annotation file: `path` is relative to `imgs/`, `split` as the file gives it."""

    path: str
    split: str
    person_id: int
    captions: tuple[str, ...]


def assign_splits(dataset: str, records: Sequence[AnnotationRecord], icfg_test_limit: int | None = None) -> list[str]:
    """The split of each record: its field in lower case, where anything but train and test is val.

    Args:
        dataset: Name of the data set.
        records: Records in file order.
        icfg_test_limit: ICFG-PEDES only: test records after this many become val (the released code has 10000; the
            paper evaluates all 19848). `None` keeps them all.

    Raises:
        ConfigurationError: If the limit is below 1 or given for another data set.
    """
    if icfg_test_limit is not None and (dataset != "icfg-pedes" or icfg_test_limit < 1):
        raise ConfigurationError(
            f"icfg_test_limit={icfg_test_limit!r} is for icfg-pedes, a whole number from 1; data set: {dataset}."
        )
    splits = []
    tests = 0
    for record in records:
        split = record.split.strip().lower()
        split = split if split in ("train", "test") else "val"
        if split == "test" and icfg_test_limit is not None:
            tests += 1
            split = "test" if tests <= icfg_test_limit else "val"
        splits.append(split)
    return splits


def renumber_identity(dataset: str, person_id: int, *, drop_single_image_ids: bool = True) -> int | None:
    """The identity in the written files; `None` for one that is dropped.

    CUHK-PEDES counts from 1 and becomes 0-based; its identities 1369, 4116 and 6116, which have one image each, are
    dropped and the gaps closed. The other sets keep their numbers.

    Args:
        dataset: Name of the data set.
        person_id: Identity as the annotation file gives it.
        drop_single_image_ids: CUHK-PEDES only: whether the three are dropped.
    """
    if dataset != "cuhk-pedes":
        return person_id
    if not drop_single_image_ids:
        return person_id - 1
    if person_id in SINGLE_IMAGE_IDS:
        return None
    return person_id - 1 - sum(person_id > dropped for dropped in SINGLE_IMAGE_IDS)


def annotation_files(
    dataset: str,
    records: Sequence[AnnotationRecord],
    *,
    drop_single_image_ids: bool = True,
    icfg_test_limit: int | None = None,
) -> dict[str, bytes]:
    """The content of every file below `processed_data/`.

    For each split: `<split>_json.json` (all its records in file order), `<split>_data_save_by_id.json` (identity →
    positions in the former), `<split>_save.json` (records grouped by identity in order of first appearance: one entry
    per caption for train; one per image and one per caption for test and val). `data_message` counts them.

    Args:
        dataset: `"cuhk-pedes"`, `"icfg-pedes"` or `"rstpreid"`.
        records: Records in file order.
        drop_single_image_ids: See `renumber_identity`.
        icfg_test_limit: See `assign_splits`.

    Returns:
        File name → bytes.

    Raises:
        ConfigurationError: See `assign_splits`.
    """
    splits = assign_splits(dataset, records, icfg_test_limit)
    files: dict[str, bytes] = {}
    message = ""
    for split in SPLITS:
        members = [record for record, its_split in zip(records, splits, strict=True) if its_split == split]
        listed = [
            {"img_path": f"imgs/{record.path}", "id": record.person_id, "captions": list(record.captions)}
            for record in members
        ]
        by_identity: dict[int, list[int]] = {}
        for position, record in enumerate(members):
            identity = renumber_identity(dataset, record.person_id, drop_single_image_ids=drop_single_image_ids)
            if identity is not None:
                by_identity.setdefault(identity, []).append(position)
        grouped = _grouped_lists(members, by_identity, is_train=split == "train")
        files[f"{split}_json.json"] = _encode(listed)
        files[f"{split}_data_save_by_id.json"] = _encode({str(key): value for key, value in by_identity.items()})
        files[f"{split}_save.json"] = _encode(grouped)
        message += (
            f"{split}_img_num: {sum(map(len, by_identity.values()))}, {split}_img_id_num: {len(by_identity)}, "
            f"{split}_caption_id_num: {len(set(grouped['caption_id']))}, "
            f"{split}_caption_num: {len(grouped['captions'])} \n\n"
        )
    files["data_message"] = message.encode("utf-8")
    return files


def _grouped_lists(
    members: Sequence[AnnotationRecord], by_identity: Mapping[int, Sequence[int]], *, is_train: bool
) -> dict[str, Any]:
    img_path: list[str] = []
    img_id: list[int] = []
    captions: list[str] = []
    caption_id: list[int] = []
    same_id_index: list[list[int]] = []
    most, fewest = 0, _LARGEST_FEWEST
    for identity, positions in by_identity.items():
        ranges: list[range] = []  # the captions of each image of this identity, as positions in `captions`
        for position in positions:
            record = members[position]
            count = len(record.captions)
            ranges.append(range(len(captions), len(captions) + count))
            repeats = count if is_train else 1
            img_path += [f"imgs/{record.path}"] * repeats
            img_id += [identity] * repeats
            captions += record.captions
            caption_id += [identity] * count
        of_identity = [index for numbers in ranges for index in numbers]
        for own in ranges:
            others = [index for index in of_identity if index not in own]
            if own:
                most, fewest = max(most, len(others)), min(fewest, len(others))
            if is_train:
                same_id_index += [list(others) for _ in own]
    return {
        "img_path": img_path,
        "img_id": img_id,
        "captions": captions,
        "caption_id": caption_id,
        "same_id_index": same_id_index,
        "max_same_id": most,
        "min_same_id": fewest,
    }


def _encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode("ascii")

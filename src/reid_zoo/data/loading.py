"""`load_dataset`: one name for every data set that reid_zoo reads."""

from __future__ import annotations

import difflib
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, DatasetError
from .records import PersonDataset

__all__ = ["DatasetEntry", "available_datasets", "load_dataset"]


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One name that `load_dataset` knows.

    Attributes:
        name: The name.
        summary: What it is and what its root looks like, in one line.
        loader: `module:function` below `reid_zoo.data`, called with (name, root, split, **options).
    """

    name: str
    summary: str
    loader: str


_BENCHMARK = "text_person_benchmarks:load_text_person_benchmark"
_OWN = "own_data:load_named"

_ENTRIES = (
    DatasetEntry("cuhk-pedes", "CUHK-PEDES: CUHK-PEDES/{imgs/, reid_raw.json}", _BENCHMARK),
    DatasetEntry("icfg-pedes", "ICFG-PEDES: ICFG-PEDES/{imgs/, ICFG-PEDES.json}", _BENCHMARK),
    DatasetEntry("rstpreid", "RSTPReid: RSTPReid/{imgs/, data_captions.json}", _BENCHMARK),
    DatasetEntry("folder", "your own images: a folder, optionally with one sub-folder per person", _OWN),
    DatasetEntry("jsonl", "your own records: a .jsonl file, or a folder that holds one", _OWN),
    DatasetEntry("csv", "your own records: a .csv file, or a folder that holds one", _OWN),
    DatasetEntry("own", "your own data: a .jsonl or .csv file, a folder that holds one, or a folder of images", _OWN),
)


def available_datasets() -> tuple[DatasetEntry, ...]:
    """The data sets that `load_dataset` knows, in the order of the documentation."""
    return _ENTRIES


def load_dataset(
    name: str,
    root: str | Path,
    split: str = "test",
    *,
    require_captions: bool = False,
    require_identities: bool = False,
    **options: Any,
) -> PersonDataset:
    """Load one split of a data set by name.

    Args:
        name: One of `available_datasets()`; upper case and underscores do not matter.
        root: Folder (or, for own data, file) of the data set.
        split: `"train"`, `"val"`, `"test"` or `"all"`.
        require_captions: Refuse a record without caption.
        require_identities: Refuse a record without `person_id`.
        **options: Passed on to the loader of that data set, e.g. `check_images=False`.

    Returns:
        The records of the split.

    Raises:
        ConfigurationError: For an unknown name (suggests the nearest one), split or option.
        DatasetError: If the data is not as it should be; see the loaders.
    """
    entry = _find_entry(name)
    module_name, function_name = entry.loader.split(":")
    loader = getattr(importlib.import_module(f".{module_name}", __package__), function_name)
    accepted = [
        parameter.name
        for parameter in inspect.signature(loader).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise ConfigurationError(
            f"Data set {entry.name!r} has no option {unknown[0]!r}; it has {', '.join(sorted(accepted))}."
        )
    dataset: PersonDataset = loader(entry.name, root, split, **options)
    _check_required(dataset, require_captions, require_identities)
    return dataset


def _find_entry(name: str) -> DatasetEntry:
    wanted = name.strip().lower().replace("_", "-")
    by_name = {entry.name: entry for entry in _ENTRIES}
    if wanted in by_name:
        return by_name[wanted]
    nearest = difflib.get_close_matches(wanted, by_name, n=1, cutoff=0.4)
    suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ConfigurationError(f"Unknown data set {name!r}; {suggestion}Known: {', '.join(by_name)}.")


def _check_required(dataset: PersonDataset, captions: bool, identities: bool) -> None:
    for record in dataset:
        if captions and not record.captions:
            missing = "caption", "give every record at least one"
        elif identities and record.person_id is None:
            missing = "person_id", "give every record one"
        else:
            continue
        raise DatasetError(
            f"{dataset.name} ({dataset.split}): record {record.image_id} ({record.image_path}) has no {missing[0]}, "
            f"which is needed here; {missing[1]}."
        )

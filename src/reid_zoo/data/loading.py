"""`load_dataset`: one name for every data set that reid_zoo reads."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..errors import ConfigurationError, DatasetError
from .dataset_info import BENCHMARKS, DatasetInfo
from .records import PersonDataset, RecordStream

__all__ = ["DatasetEntry", "available_datasets", "load_dataset", "stream_dataset"]


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One name that `load_dataset` knows.

    Attributes:
        name: The name.
        summary: What it is and what its root looks like, in one line.
        loader: `module:function` below `reid_zoo.data`, called with (name, root, split, **options).
        info: What is known about a benchmark; `None` for own data.
        streamer: Like `loader`, for reading record by record; `None` where the whole must be read to be checked.
    """

    name: str
    summary: str
    loader: str
    info: DatasetInfo | None = None
    streamer: str | None = None


_TEXT = ("text_person_benchmarks", "text_person_benchmark")
_FOLDERS = ("person_image_benchmarks", "folder_benchmark")
_READERS = {
    "market-1501": _FOLDERS,
    "dukemtmc-reid": _FOLDERS,
    "occluded-duke": _FOLDERS,
    "msmt17": ("person_image_benchmarks", "msmt17"),
    "veri-776": ("vehicle_benchmarks", "veri"),
    "vehicleid": ("vehicle_benchmarks", "vehicleid"),
}
_OWN = "own_data:load_named"


def _benchmark_entry(info: DatasetInfo) -> DatasetEntry:
    module, family = _READERS.get(info.name, _TEXT)
    return DatasetEntry(info.name, info.summary, f"{module}:load_{family}", info, f"{module}:stream_{family}")


_ENTRIES = (
    *(_benchmark_entry(info) for info in BENCHMARKS.values()),
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
        root: Folder (or, for own data, file) of the data set; of a benchmark, also the folder that contains it.
        split: `"train"`, `"val"`, `"test"`, `"query"`, `"gallery"` or `"all"`; `"test"` of an image-to-image set is
            queries, then gallery.
        require_captions: Refuse a record without caption.
        require_identities: Refuse a record without `person_id`.
        **options: Passed on to the loader of that data set, e.g. `check_images=False` or `accept_retracted=True`.

    Returns:
        The records of the split.

    Raises:
        ConfigurationError: For an unknown name (suggests the nearest one), split or option, or a retracted data set that
            was not accepted.
        DatasetError: If the data is not as it should be; see the loaders.
    """
    entry = _find_entry(name)
    if require_captions and entry.info is not None and entry.info.modality == "image":
        raise DatasetError(f"{entry.info.title} is an image-to-image data set without captions, which are needed here.")
    loader = _function(entry, entry.loader, options)
    dataset: PersonDataset = loader(entry.name, root, split, **options)
    _check_required(dataset, require_captions, require_identities)
    return dataset


def stream_dataset(name: str, root: str | Path, split: str = "test", **options: Any) -> RecordStream:
    """Open one split of a data set for reading record by record, without holding it in memory.

    Args:
        name: As in `load_dataset`.
        root: As there.
        split: As there.
        **options: Passed on to the reader of that data set. Files of images are not looked for.

    Returns:
        The stream. Own data is checked as a whole first, because a file of records is right or wrong as a whole.

    Raises:
        ConfigurationError: As in `load_dataset`.
        DatasetError: As there; for a bad record, when it is reached.
    """
    entry = _find_entry(name)
    if entry.streamer is None:
        dataset = load_dataset(name, root, split, **options)
        return RecordStream(dataset.name, split, dataset.root, dataset.root, lambda: iter(dataset.records))
    stream: RecordStream = _function(entry, entry.streamer, options)(entry.name, root, split, **options)
    return stream


def _function(entry: DatasetEntry, place: str, options: dict[str, Any]) -> Callable[..., Any]:
    """The function behind an entry, once it is known to take the options."""
    module_name, function_name = place.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(f".{module_name}", __package__), function_name)
    accepted = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        known = f"; it has {', '.join(sorted(accepted))}" if accepted else ""
        raise ConfigurationError(f"Data set {entry.name!r} has no option {unknown[0]!r}{known}.")
    hints = get_type_hints(function)
    for name, value in options.items():
        _check_type(entry, name, value, get_args(hints[name]) or (hints[name],))
    return function


def _check_type(entry: DatasetEntry, name: str, value: object, kinds: tuple[Any, ...]) -> None:
    """Options may come from a command line; switches and numbers are checked here, choices by the loader."""
    expected = "true or false" if bool in kinds else "a whole number" if int in kinds else ""
    if expected and type(value) not in kinds:
        raise ConfigurationError(f"Option {name} of data set {entry.name!r} is {value!r:.60}, expected {expected}.")


def _find_entry(name: str) -> DatasetEntry:
    wanted = name.strip().lower().replace("_", "-")
    by_name = {entry.name: entry for entry in _ENTRIES}
    by_name |= {alias: entry for entry in _ENTRIES if entry.info is not None for alias in entry.info.aliases}
    if wanted in by_name:
        return by_name[wanted]
    nearest = difflib.get_close_matches(wanted, by_name, n=1, cutoff=0.4)
    suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
    known = ", ".join(entry.name for entry in _ENTRIES)
    raise ConfigurationError(f"Unknown data set {name!r}; {suggestion}Known: {known}.")


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

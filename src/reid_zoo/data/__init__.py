"""Data sets of person images with captions: typed records, loaders, image decoding.

The names below load their module on first use, so importing this package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .images import DEFAULT_MAX_PIXELS, IMAGE_EXTENSIONS, find_images, load_image
    from .loading import DatasetEntry, available_datasets, load_dataset
    from .own_data import ValidationProblem, ValidationReport, load_own_data, validate_records
    from .records import CaptionedImage, PersonDataset, PersonRecord
    from .synthetic import SyntheticPedestrians
    from .text_person_benchmarks import (
        TEXT_PERSON_BENCHMARKS,
        BenchmarkDescription,
        CountDifference,
        load_text_person_benchmark,
        verify_counts,
    )

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_EXTENSIONS",
    "TEXT_PERSON_BENCHMARKS",
    "BenchmarkDescription",
    "CaptionedImage",
    "CountDifference",
    "DatasetEntry",
    "PersonDataset",
    "PersonRecord",
    "SyntheticPedestrians",
    "ValidationProblem",
    "ValidationReport",
    "available_datasets",
    "find_images",
    "load_dataset",
    "load_image",
    "load_own_data",
    "load_text_person_benchmark",
    "validate_records",
    "verify_counts",
]

_HOMES = {
    "images": ("DEFAULT_MAX_PIXELS", "IMAGE_EXTENSIONS", "find_images", "load_image"),
    "loading": ("DatasetEntry", "available_datasets", "load_dataset"),
    "own_data": ("ValidationProblem", "ValidationReport", "load_own_data", "validate_records"),
    "records": ("CaptionedImage", "PersonDataset", "PersonRecord"),
    "synthetic": ("SyntheticPedestrians",),
    "text_person_benchmarks": (
        "TEXT_PERSON_BENCHMARKS",
        "BenchmarkDescription",
        "CountDifference",
        "load_text_person_benchmark",
        "verify_counts",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

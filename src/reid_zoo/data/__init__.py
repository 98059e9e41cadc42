"""Data sets of person (and vehicle) images: typed records, loaders, checks, image decoding.

The names below load their module on first use, so importing this package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dataset_checks import DatasetCheck, check_dataset
    from .dataset_info import (
        BENCHMARKS,
        CountDifference,
        DatasetInfo,
        SplitCounts,
        published_counts,
        verify_counts,
    )
    from .hugging_face import from_hugging_face, to_hugging_face
    from .images import DEFAULT_MAX_PIXELS, IMAGE_EXTENSIONS, find_images, load_image
    from .leakage import IdentityLeakageWarning, shared_image_sources, warn_about_leakage
    from .loading import DatasetEntry, available_datasets, load_dataset, stream_dataset
    from .occlusion import (
        InstanceLibrary,
        OccludedImage,
        OcclusionGenerator,
        OcclusionSeverity,
        occlude_image,
        severity_sweep,
    )
    from .own_data import ValidationProblem, ValidationReport, load_own_data, validate_records
    from .records import SPLITS, CaptionedImage, PersonDataset, PersonRecord, RecordStream
    from .synthetic import SyntheticPedestrians
    from .text_person_benchmarks import load_text_person_benchmark
    from .vehicle_benchmarks import vehicleid_trial, vehicleid_trials

__all__ = [
    "BENCHMARKS",
    "DEFAULT_MAX_PIXELS",
    "IMAGE_EXTENSIONS",
    "SPLITS",
    "CaptionedImage",
    "CountDifference",
    "DatasetCheck",
    "DatasetEntry",
    "DatasetInfo",
    "IdentityLeakageWarning",
    "InstanceLibrary",
    "OccludedImage",
    "OcclusionGenerator",
    "OcclusionSeverity",
    "PersonDataset",
    "PersonRecord",
    "RecordStream",
    "SplitCounts",
    "SyntheticPedestrians",
    "ValidationProblem",
    "ValidationReport",
    "available_datasets",
    "check_dataset",
    "find_images",
    "from_hugging_face",
    "load_dataset",
    "load_image",
    "load_own_data",
    "load_text_person_benchmark",
    "occlude_image",
    "published_counts",
    "severity_sweep",
    "shared_image_sources",
    "stream_dataset",
    "to_hugging_face",
    "validate_records",
    "vehicleid_trial",
    "vehicleid_trials",
    "verify_counts",
    "warn_about_leakage",
]

_HOMES = {
    "dataset_checks": ("DatasetCheck", "check_dataset"),
    "dataset_info": (
        "BENCHMARKS",
        "CountDifference",
        "DatasetInfo",
        "SplitCounts",
        "published_counts",
        "verify_counts",
    ),
    "hugging_face": ("from_hugging_face", "to_hugging_face"),
    "images": ("DEFAULT_MAX_PIXELS", "IMAGE_EXTENSIONS", "find_images", "load_image"),
    "leakage": ("IdentityLeakageWarning", "shared_image_sources", "warn_about_leakage"),
    "loading": ("DatasetEntry", "available_datasets", "load_dataset", "stream_dataset"),
    "occlusion": (
        "InstanceLibrary",
        "OccludedImage",
        "OcclusionGenerator",
        "OcclusionSeverity",
        "occlude_image",
        "severity_sweep",
    ),
    "own_data": ("ValidationProblem", "ValidationReport", "load_own_data", "validate_records"),
    "records": ("SPLITS", "CaptionedImage", "PersonDataset", "PersonRecord", "RecordStream"),
    "synthetic": ("SyntheticPedestrians",),
    "text_person_benchmarks": ("load_text_person_benchmark",),
    "vehicle_benchmarks": ("vehicleid_trial", "vehicleid_trials"),
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

"""OGor, MGCC's occlusion generator: cut-outs pasted in front of people, reproducibly.

`OcclusionGenerator` writes occluded versions of whole benchmarks, `occlude_image` and `OcclusionSeverity` work on images
in memory. The names below load their module on first use, so a loader that only needs the layout pays for nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compositing import OccludedImage, occlude_image
    from .generator import OcclusionGenerator, OcclusionSummary
    from .instances import InstanceLibrary, OcclusionInstance
    from .layout import occluded_image_path
    from .manifest import ManifestEntry, OcclusionManifest, read_manifest
    from .random_streams import placement_stream
    from .severity import OcclusionSeverity, severity_sweep
    from .verification import OcclusionVerification

__all__ = [
    "InstanceLibrary",
    "ManifestEntry",
    "OccludedImage",
    "OcclusionGenerator",
    "OcclusionInstance",
    "OcclusionManifest",
    "OcclusionSeverity",
    "OcclusionSummary",
    "OcclusionVerification",
    "occlude_image",
    "occluded_image_path",
    "placement_stream",
    "read_manifest",
    "severity_sweep",
]

_HOMES = {
    "compositing": (
        "OccludedImage",
        "occlude_image",
    ),
    "generator": (
        "OcclusionGenerator",
        "OcclusionSummary",
    ),
    "instances": (
        "InstanceLibrary",
        "OcclusionInstance",
    ),
    "layout": ("occluded_image_path",),
    "manifest": (
        "ManifestEntry",
        "OcclusionManifest",
        "read_manifest",
    ),
    "random_streams": ("placement_stream",),
    "severity": (
        "OcclusionSeverity",
        "severity_sweep",
    ),
    "verification": ("OcclusionVerification",),
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

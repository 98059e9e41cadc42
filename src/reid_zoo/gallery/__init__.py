"""Galleries of person images; the names load their module on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gallery import Gallery, GalleryHit
    from .identity import ModelIdentity
    from .ingest import AddReport, FailedImage

__all__ = ["AddReport", "FailedImage", "Gallery", "GalleryHit", "ModelIdentity"]

_MODULES = {
    "AddReport": "ingest",
    "FailedImage": "ingest",
    "Gallery": "gallery",
    "GalleryHit": "gallery",
    "ModelIdentity": "identity",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)

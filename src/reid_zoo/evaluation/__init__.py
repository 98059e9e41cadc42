"""Metrics and protocols of retrieval; the names load their module on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .metrics import RetrievalMetrics, evaluate_retrieval
    from .protocols import encode_captions, encode_records, evaluate_model

__all__ = ["RetrievalMetrics", "encode_captions", "encode_records", "evaluate_model", "evaluate_retrieval"]

_MODULES = {
    "RetrievalMetrics": "metrics",
    "evaluate_retrieval": "metrics",
    "encode_captions": "protocols",
    "encode_records": "protocols",
    "evaluate_model": "protocols",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)

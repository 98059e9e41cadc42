"""Metrics and protocols of retrieval; the names load their module on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gallery_trials import TrialMetrics, evaluate_gallery_trials
    from .metrics import RetrievalMetrics, evaluate_retrieval
    from .protocols import (
        encode_captions,
        encode_records,
        evaluate_image_retrieval,
        evaluate_in_two_stages,
        evaluate_model,
    )
    from .reranking import KReciprocalReranking, expand_features, k_reciprocal_rerank
    from .two_stage import TwoStageMetrics, evaluate_two_stage

__all__ = [
    "KReciprocalReranking",
    "RetrievalMetrics",
    "TrialMetrics",
    "TwoStageMetrics",
    "encode_captions",
    "encode_records",
    "evaluate_gallery_trials",
    "evaluate_image_retrieval",
    "evaluate_in_two_stages",
    "evaluate_model",
    "evaluate_retrieval",
    "evaluate_two_stage",
    "expand_features",
    "k_reciprocal_rerank",
]

_MODULES = {
    "KReciprocalReranking": "reranking",
    "RetrievalMetrics": "metrics",
    "TrialMetrics": "gallery_trials",
    "TwoStageMetrics": "two_stage",
    "encode_captions": "protocols",
    "encode_records": "protocols",
    "evaluate_gallery_trials": "gallery_trials",
    "evaluate_image_retrieval": "protocols",
    "evaluate_in_two_stages": "protocols",
    "evaluate_model": "protocols",
    "evaluate_retrieval": "metrics",
    "evaluate_two_stage": "two_stage",
    "expand_features": "reranking",
    "k_reciprocal_rerank": "reranking",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)

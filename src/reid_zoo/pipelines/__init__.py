"""Pipelines: `pipeline("text-person-retrieval", model=..., gallery=...)` and `"image-person-retrieval"`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .image_person_retrieval import ImagePersonRetrievalPipeline
    from .text_person_retrieval import TextPersonRetrievalPipeline

__all__ = ["ImagePersonRetrievalPipeline", "TextPersonRetrievalPipeline", "register_pipelines"]

_MODULES = {
    "ImagePersonRetrievalPipeline": "image_person_retrieval",
    "TextPersonRetrievalPipeline": "text_person_retrieval",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def register_pipelines() -> None:
    """Make the zoo's tasks known to transformers' `pipeline`."""
    from transformers import AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    from .image_person_retrieval import ImagePersonRetrievalPipeline
    from .text_person_retrieval import TextPersonRetrievalPipeline

    for pipeline_class in (TextPersonRetrievalPipeline, ImagePersonRetrievalPipeline):
        PIPELINE_REGISTRY.register_pipeline(
            pipeline_class.task_name, pipeline_class=pipeline_class, pt_model=(AutoModel,), type="multimodal"
        )

"""Pipelines: `pipeline("text-person-retrieval", model=..., gallery=...)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .text_person_retrieval import TextPersonRetrievalPipeline

__all__ = ["TextPersonRetrievalPipeline", "register_pipelines"]


def __getattr__(name: str) -> Any:
    if name != "TextPersonRetrievalPipeline":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .text_person_retrieval import TextPersonRetrievalPipeline

    return TextPersonRetrievalPipeline


def register_pipelines() -> None:
    """Make the zoo's tasks known to transformers' `pipeline`."""
    from transformers import AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    from .text_person_retrieval import TextPersonRetrievalPipeline

    PIPELINE_REGISTRY.register_pipeline(
        "text-person-retrieval", pipeline_class=TextPersonRetrievalPipeline, pt_model=(AutoModel,), type="multimodal"
    )

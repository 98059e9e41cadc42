"""Retrieval figures of some of the queries: by caption length, by camera, by anything that labels queries."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError
from .metrics import RetrievalMetrics

__all__ = ["caption_length_groups", "figures_by_group", "select_queries"]

_FEWEST_QUERIES = 1


def select_queries(metrics: RetrievalMetrics, rows: NDArray[Any]) -> RetrievalMetrics:
    """The same evaluation with some of its queries only; the gallery stays.

    Args:
        metrics: Of all Q queries.
        rows: (q,) indices, or (Q,) booleans.

    Raises:
        EvaluationError: If none of the chosen queries has a positive.
    """
    rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, dtype=np.int64)
    arrays = {
        name: getattr(metrics, name)[rows]
        for name in (
            "num_positives",
            "first_positive_rank",
            "last_positive_rank",
            "average_precision",
            "inverse_negative_penalty",
        )
    }
    skipped = int(np.count_nonzero(arrays["num_positives"] == 0))
    if len(rows) - skipped < _FEWEST_QUERIES:
        raise EvaluationError(f"none of the {len(rows)} chosen queries has a positive in the gallery.")
    return replace(metrics, num_queries=len(rows), num_skipped_queries=skipped, **arrays)


def figures_by_group(
    metrics: RetrievalMetrics, labels: Sequence[Hashable | None]
) -> dict[Hashable, dict[str, float | int]]:
    """Headline figures of every group of queries.

    Args:
        metrics: Of Q queries.
        labels: Q labels; queries with `None` are in no group.

    Returns:
        Label → `num_queries` (those with a positive) and the figures of `RetrievalMetrics.as_dict`, in the order of the
        labels' first appearance; groups in which no query has a positive are left out.

    Raises:
        EvaluationError: If the numbers of labels and queries differ.
    """
    if len(labels) != metrics.num_queries:
        raise EvaluationError(f"{len(labels)} labels for {metrics.num_queries} queries.")
    members: dict[Hashable, list[int]] = {}
    for row, label in enumerate(labels):
        if label is not None and metrics.num_positives[row] > 0:
            members.setdefault(label, []).append(row)
    figures: dict[Hashable, dict[str, float | int]] = {}
    for label, rows in members.items():
        chosen = select_queries(metrics, np.array(rows))
        figures[label] = {"num_queries": len(rows), **chosen.as_dict()}
    return figures


def caption_length_groups(captions: Sequence[str], *, num_groups: int = 4) -> list[str]:
    """Labels of captions by their number of words: about equally large groups, named like `"12-18 words"`.

    Args:
        captions: Sentences.
        num_groups: Most groups; fewer where many sentences are equally long.
    """
    lengths = np.array([len(caption.split()) for caption in captions])
    if not len(lengths):
        return []
    # A group ends at a quantile; equal lengths never fall into two groups.
    ends = np.unique(np.quantile(lengths, np.linspace(0, 1, num_groups + 1)[1:], method="higher").astype(int))
    places = np.searchsorted(ends, lengths)
    starts = [int(lengths.min()), *(int(end) + 1 for end in ends[:-1])]
    names = [
        f"{start}-{end} words" if start < end else f"{end} words"
        for start, end in zip(starts, ends.tolist(), strict=True)
    ]
    order = [names[place] for place in places.tolist()]
    return order

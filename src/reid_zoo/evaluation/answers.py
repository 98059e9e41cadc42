"""The best answers of every query, from scores that are made block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..errors import EvaluationError

__all__ = ["Answers", "best_answers"]


@dataclass(frozen=True, slots=True)
class Answers:
    """The first k gallery items of every query.

    Attributes:
        indices: (Q, k) int64 gallery items, best first; of equal scores the lower index comes first.
        scores: (Q, k) float32.
    """

    indices: NDArray[np.int64]
    scores: NDArray[np.float32]

    def right(self, query_person_ids: Any, gallery_person_ids: Any) -> NDArray[np.bool_]:
        """(Q, k) whether each answer is the person searched for."""
        known = np.asarray(gallery_person_ids, dtype=object)
        asked = np.asarray(query_person_ids, dtype=object)
        return np.asarray(known[self.indices] == asked[:, None], dtype=bool)


def best_answers(
    score_rows: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    num_queries: int,
    *,
    k: int = 10,
    block_size: int = 256,
    progress: bool = False,
) -> Answers:
    """Rank the gallery for every query and keep the first k items.

    Args:
        score_rows: (b,) query indices → (b, G) scores, larger is better.
        num_queries: Q.
        k: Answers per query; a smaller gallery gives all it has.
        block_size: Queries scored at a time.
        progress: Show a progress bar.

    Raises:
        EvaluationError: If there are no queries, or k is less than 1.
    """
    if num_queries < 1 or k < 1:
        raise EvaluationError(f"Answers need at least one query and k of at least 1, got {num_queries} and {k}.")
    indices, scores = [], []
    starts = range(0, num_queries, block_size)
    for start in tqdm(starts, desc="answers", unit="block", disable=not progress, leave=False):
        rows = np.arange(start, min(start + block_size, num_queries))
        block = score_rows(rows)
        best = np.stack([_first(row, min(k, block.shape[1])) for row in block])
        indices.append(best)
        scores.append(np.take_along_axis(block, best, axis=1))
    return Answers(np.concatenate(indices), np.concatenate(scores).astype(np.float32))


def _first(row: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Indices of the k largest, in order; ties by index."""
    if k < len(row):
        least = np.partition(row, len(row) - k)[len(row) - k]
        candidates = np.flatnonzero(row >= least)  # more than k where scores are tied
    else:
        candidates = np.arange(len(row))
    return candidates[np.argsort(-row[candidates], kind="stable")[:k]]

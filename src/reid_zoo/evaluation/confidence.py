"""When to say "no confident match": what scores of right and wrong answers look like, and a threshold on the best score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError

__all__ = ["ScoreSamples", "ScoreThreshold", "calibrate_threshold", "sample_scores"]

_PAIRS_AT_A_TIME = 65_536
_Z_95 = 1.6448536269514722  # one-sided 95 %


@dataclass(frozen=True, slots=True)
class ScoreSamples:
    """Scores of pairs.

    Attributes:
        positives: Scores of pairs of the same person.
        negatives: Scores of pairs of different persons.
    """

    positives: NDArray[np.float32]
    negatives: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ScoreThreshold:
    """A threshold on the score of the first answer.

    Attributes:
        threshold: Answers below it should be shown as "no confident match"; `None` if no threshold reaches the target.
        target: Share of right first answers that was asked for, 0…1.
        precision: Share of right first answers at or above the threshold, 0…1.
        precision_low: Its lower 95 % confidence bound (Wilson), which reaches the target.
        coverage: Share of the queries whose first answer is at or above the threshold, 0…1.
    """

    threshold: float | None
    target: float
    precision: float
    precision_low: float
    coverage: float


def _wilson_low(right: NDArray[np.int64], total: NDArray[np.int64]) -> NDArray[np.float64]:
    share = right / total
    z2 = _Z_95**2
    centre = share + z2 / (2 * total)
    spread = _Z_95 * np.sqrt(share * (1 - share) / total + z2 / (4 * total.astype(np.float64) ** 2))
    return (centre - spread) / (1 + z2 / total)


def calibrate_threshold(
    best_scores: Sequence[float] | NDArray[Any], right: Sequence[bool] | NDArray[np.bool_], *, target: float = 0.9
) -> ScoreThreshold:
    """The lowest threshold above which first answers are right often enough.

    Often enough: the lower 95 % bound of the share of right answers reaches the target, so that a lucky handful of
    queries does not set the threshold. Calibrate on validation queries; the threshold belongs to one model and one kind
    of gallery (a larger gallery has better wrong answers).

    Args:
        best_scores: (Q,) score of every query's first answer.
        right: (Q,) whether that answer is the person searched for.
        target: Share of right answers wanted, above 0 and below 1.

    Raises:
        EvaluationError: For no queries, different lengths, or a target out of range.
    """
    scores, correct = np.asarray(best_scores, dtype=np.float64), np.asarray(right, dtype=bool)
    if not 0 < target < 1:
        raise EvaluationError(f"The target must lie between 0 and 1, got {target}.")
    if not len(scores) or scores.shape != correct.shape or scores.ndim != 1:
        raise EvaluationError(
            f"A threshold needs scores and verdicts of the same queries, got {scores.shape} and {correct.shape}."
        )
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(correct[order])
    total = np.arange(1, len(scores) + 1)
    low = _wilson_low(hits, total)
    # A threshold takes all queries of one score or none.
    ends = np.append(ranked[1:] != ranked[:-1], True)
    reached = np.flatnonzero(ends & (low >= target))
    if not len(reached):
        return ScoreThreshold(None, target, math.nan, math.nan, 0.0)
    last = int(reached[-1])
    return ScoreThreshold(
        float(ranked[last]), target, float(hits[last] / total[last]), float(low[last]), float(total[last] / len(scores))
    )


def sample_scores(
    query_features: NDArray[Any],
    gallery_features: NDArray[Any],
    query_person_ids: Sequence[Any],
    gallery_person_ids: Sequence[Any],
    *,
    most: int = 200_000,
    seed: int = 0,
) -> ScoreSamples:
    """Scores (dot products) of pairs of the same person and of different persons.

    Args:
        query_features: (Q, D).
        gallery_features: (G, D).
        query_person_ids: Q identities.
        gallery_person_ids: G identities.
        most: Pairs of either kind; all positives if there are no more than this, a seeded sample otherwise.
        seed: Of the samples.

    Raises:
        EvaluationError: If there is no pair of one kind.
    """
    generator = np.random.default_rng(seed)
    rows_of: dict[Any, list[int]] = {}
    for row, person in enumerate(gallery_person_ids):
        rows_of.setdefault(person, []).append(row)
    sizes = np.array([len(rows_of.get(person, ())) for person in query_person_ids], dtype=np.int64)
    total = int(sizes.sum())
    num_queries, num_gallery = len(query_features), len(gallery_features)
    if total == 0 or total == num_queries * num_gallery:
        kind = "the same person" if total == 0 else "different persons"
        raise EvaluationError(f"there is no pair of {kind} among the queries and the gallery.")
    chosen = np.arange(total) if total <= most else np.sort(generator.choice(total, size=most, replace=False))
    ends = np.cumsum(sizes)
    queries = np.searchsorted(ends, chosen, side="right")
    offsets = chosen - (ends - sizes)[queries]
    items = np.array(
        [
            rows_of[query_person_ids[query]][offset]
            for query, offset in zip(queries.tolist(), offsets.tolist(), strict=True)
        ]
    )
    known = np.asarray(gallery_person_ids, dtype=object)
    asked = np.asarray(query_person_ids, dtype=object)
    left, right = generator.integers(0, num_queries, most), generator.integers(0, num_gallery, most)
    different = asked[left] != known[right]
    left, right = left[different], right[different]
    if not len(left):
        raise EvaluationError("there is no pair of different persons among the queries and the gallery.")
    return ScoreSamples(
        _pair_scores(query_features, gallery_features, queries, items),
        _pair_scores(query_features, gallery_features, left, right),
    )


def _pair_scores(
    queries: NDArray[Any], gallery: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    parts = [
        np.einsum(
            "pd,pd->p",
            queries[rows[start : start + _PAIRS_AT_A_TIME]].astype(np.float32),
            gallery[columns[start : start + _PAIRS_AT_A_TIME]].astype(np.float32),
        )
        for start in range(0, len(rows), _PAIRS_AT_A_TIME)
    ]
    return np.concatenate(parts)

"""Evaluation in two stages: vectors choose candidates for every query, and an expensive score orders them.

Scores of pairs that compare tokens cost thousands of times what a dot product does. A first stage that keeps K images
per query makes that affordable, but what it loses is lost; how much it keeps is measured beside the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError
from .metrics import Denominator, RetrievalMetrics, evaluate_retrieval, identifiers
from .scores import compute_similarity, feature_matrix

__all__ = ["CandidateScore", "TwoStageMetrics", "evaluate_two_stage"]

_LARGEST_SCORE = 2**22
"""Scores of the first stage up to which whole numbers beyond them are exact in float32."""

CandidateScore = Callable[[int, NDArray[np.int64]], Any]
"""(index of a query, (K,) ascending gallery indices) -> (K,) scores, larger is better."""


@dataclass(frozen=True, eq=False)
class TwoStageMetrics:
    """What came out of an evaluation in two stages.

    Attributes:
        metrics: Figures of the whole order: the candidates by the second score, after them the rest of the gallery by the
            first one.
        num_candidates: K, images per query that the first stage keeps.
        kept_positives: (Q,) int64, positives of each query among its candidates.
    """

    metrics: RetrievalMetrics
    num_candidates: int
    kept_positives: NDArray[np.int64] = field(repr=False)

    @property
    def positive_recall(self) -> float:
        """Per cent of a query's positives that the first stage keeps, mean over the queries that have one."""
        valid = self.metrics.valid
        return 100.0 * float(np.mean(self.kept_positives[valid] / self.metrics.num_positives[valid]))

    @property
    def query_recall(self) -> float:
        """Per cent of the queries with a positive for which the first stage keeps at least one: a bound of their Rank-k."""
        return 100.0 * float(np.mean(self.kept_positives[self.metrics.valid] > 0))

    def as_dict(self) -> dict[str, float]:
        """The figures of `metrics.as_dict()` with `positive_recall` and `query_recall`, all in per cent."""
        recall = {"positive_recall": self.positive_recall, "query_recall": self.query_recall}
        return self.metrics.as_dict() | recall


def evaluate_two_stage(
    query_features: Any,
    gallery_features: Any,
    score_candidates: CandidateScore,
    *,
    query_person_ids: Sequence[int | str] | Any,
    gallery_person_ids: Sequence[int | str] | Any,
    num_candidates: int = 128,
    ks: Sequence[int] = (1, 5, 10),
    denominator: Denominator = "valid",
    block_size: int = 256,
    progress: bool = False,
) -> TwoStageMetrics:
    """Evaluate a score that is only made for the best images by another one.

    Equal scores are ordered by gallery index in both stages. With `num_candidates` of at least G the order is that of the
    second score alone.

    Args:
        query_features: (Q, D) vectors of the first stage, ranked by dot product: NumPy array or torch tensor.
        gallery_features: (G, D) likewise.
        score_candidates: The second score of one query with some gallery items.
        query_person_ids: Q identities.
        gallery_person_ids: G identities.
        num_candidates: K, items per query that get the second score; cut to G.
        ks: See `evaluate_retrieval`.
        denominator: See `evaluate_retrieval`.
        block_size: Queries whose first-stage scores are held at a time.
        progress: Show a progress bar.

    Raises:
        EvaluationError: As `evaluate_retrieval`; for fewer than one candidate, or a second score that is not finite or not
            one number per candidate.

    References:
        Evaluation spec section 3 (RaSa's two stages, with the rest ordered by the first stage).
    """
    if num_candidates < 1:
        raise EvaluationError(f"num_candidates is {num_candidates}; the first stage must keep at least 1.")
    queries, gallery = (
        feature_matrix(query_features, "query_features"),
        feature_matrix(gallery_features, "gallery_features"),
    )
    count = min(num_candidates, len(gallery))
    candidates = np.zeros((len(queries), count), dtype=np.int64)

    def score(rows: NDArray[np.int64], _: Any) -> NDArray[np.float32]:
        tile = compute_similarity(queries[rows], gallery)
        if np.abs(tile).max() > _LARGEST_SCORE:
            raise EvaluationError("the scores of the first stage are too large; bring the features to unit length.")
        for query, scores in zip(rows.tolist(), tile, strict=True):
            chosen = _largest(scores, count)
            candidates[query] = chosen
            second = np.asarray(score_candidates(query, chosen), dtype=np.float32)
            if second.shape != chosen.shape:
                raise EvaluationError(
                    f"score_candidates returned shape {second.shape} for {len(chosen)} candidates; expected one score each."
                )
            if not np.isfinite(second).all():
                raise EvaluationError(f"a score of query {query} with its candidates is not finite.")
            # Whole numbers above every score of the first stage, the best candidate's the largest: all exact.
            order = np.argsort(-second, kind="stable")
            scores[chosen[order]] = np.ceil(scores.max()) + np.arange(count, 0, -1, dtype=np.float32)
        return tile

    metrics = evaluate_retrieval(
        np.arange(len(queries)),
        gallery,
        query_person_ids=query_person_ids,
        gallery_person_ids=gallery_person_ids,
        ks=ks,
        denominator=denominator,
        block_size=block_size,
        score_function=score,
        progress=progress,
    )
    asked, known = (
        np.asarray(identifiers(values, name), dtype=object)
        for values, name in ((query_person_ids, "query_person_ids"), (gallery_person_ids, "gallery_person_ids"))
    )
    kept = np.asarray(known[candidates] == asked[:, None], dtype=bool).sum(axis=1)
    return TwoStageMetrics(metrics, count, kept)


def _largest(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Ascending indices of the `count` largest scores; of equal ones at the border the smaller indices."""
    border = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > border)
    equal = np.flatnonzero(scores == border)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))

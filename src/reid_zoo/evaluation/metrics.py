"""Rank-k, mAP and mINP of a retrieval, exactly, by counting.

A rank is a count: the position of a positive is one plus the number of gallery items before it. So no index is ever
sorted and the matrix of all scores never exists; scores are made and used one tile of query rows at a time. The order
of the items is total (score descending, then gallery index ascending), so every figure is uniquely defined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError
from .positions import SamePerson, Ties, rank_positives
from .scores import ScoreFunction, score_tiles

__all__ = ["Denominator", "RetrievalMetrics", "Ties", "evaluate_retrieval", "identifiers"]

Denominator = Literal["valid", "all"]


@dataclass(frozen=True, eq=False)
class RetrievalMetrics:
    """What came out of one retrieval evaluation; summary figures are in per cent.

    Attributes:
        ks: The k of the Rank-k figures in `rank_k`.
        num_queries: Queries given.
        num_gallery: Gallery items given.
        num_skipped_queries: Queries without any positive in the gallery (after removal of junk).
        denominator: `"valid"`: Rank-k is the mean over the queries that have a positive; `"all"`: over all queries, one
            without positive being a miss. mAP and mINP are means over the queries that have one in both cases.
        ties: How equal scores were ordered.
        num_positives: (Q,) int64, positives of each query.
        first_positive_rank: (Q,) int64, 1-based position of the best positive, -1 for a skipped query.
        last_positive_rank: (Q,) int64, 1-based position of the worst positive, -1 for a skipped query.
        average_precision: (Q,) float64 in 0...1, NaN for a skipped query.
        inverse_negative_penalty: (Q,) float64 in 0...1 (number of positives / last position), NaN for a skipped query.
    """

    ks: tuple[int, ...]
    num_queries: int
    num_gallery: int
    num_skipped_queries: int
    denominator: Denominator
    ties: Ties
    num_positives: NDArray[np.int64] = field(repr=False)
    first_positive_rank: NDArray[np.int64] = field(repr=False)
    last_positive_rank: NDArray[np.int64] = field(repr=False)
    average_precision: NDArray[np.float64] = field(repr=False)
    inverse_negative_penalty: NDArray[np.float64] = field(repr=False)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(Q,) whether each query has a positive."""
        return self.num_positives > 0

    def rank(self, k: int) -> float:
        """Rank-k: per cent of the queries that have a positive among their first k items.

        Args:
            k: At least 1; need not be one of `ks`.

        Returns:
            The figure in per cent.

        Raises:
            EvaluationError: If k is smaller than 1.
        """
        if k < 1:
            raise EvaluationError(f"Rank-k needs k of at least 1, got {k}.")
        hits = np.count_nonzero(self.valid & (self.first_positive_rank <= k))
        return 100.0 * float(hits) / self._rank_denominator

    @property
    def _rank_denominator(self) -> int:
        return self.num_queries if self.denominator == "all" else self.num_queries - self.num_skipped_queries

    @property
    def rank_k(self) -> dict[int, float]:
        """Rank-k in per cent for each k of `ks`."""
        return {k: self.rank(k) for k in self.ks}

    def cmc(self, max_rank: int = 50) -> NDArray[np.float64]:
        """Cumulative matching characteristic: Rank-k for k = 1...max_rank.

        Args:
            max_rank: Length of the curve; cut to the size of the gallery.

        Returns:
            (min(max_rank, num_gallery),) float64, per cent, never falling.

        Raises:
            EvaluationError: If `max_rank` is smaller than 1.
        """
        if max_rank < 1:
            raise EvaluationError(f"The curve needs max_rank of at least 1, got {max_rank}.")
        depth = min(max_rank, self.num_gallery)
        first = self.first_positive_rank[self.valid]
        hits = np.bincount(first[first <= depth] - 1, minlength=depth)
        return 100.0 * np.cumsum(hits) / self._rank_denominator

    @property
    def R1(self) -> float:
        """Rank-1 in per cent."""
        return self.rank(1)

    @property
    def R5(self) -> float:
        """Rank-5 in per cent."""
        return self.rank(5)

    @property
    def R10(self) -> float:
        """Rank-10 in per cent."""
        return self.rank(10)

    @property
    def mAP(self) -> float:
        """Mean average precision over the queries that have a positive, in per cent."""
        return 100.0 * float(np.mean(self.average_precision[self.valid]))

    @property
    def mINP(self) -> float:
        """Mean inverse negative penalty over the queries that have a positive, in per cent."""
        return 100.0 * float(np.mean(self.inverse_negative_penalty[self.valid]))

    @property
    def Rsum(self) -> float:
        """Rank-1 + Rank-5 + Rank-10 in per cent (at most 300)."""
        return self.R1 + self.R5 + self.R10

    def as_dict(self) -> dict[str, float]:
        """The six headline figures, `R1`, `R5`, `R10`, `mAP`, `mINP`, `Rsum`, in per cent.

        Returns:
            Plain floats, ready for JSON; the keys do not depend on `ks`.
        """
        return {
            "R1": self.R1,
            "R5": self.R5,
            "R10": self.R10,
            "mAP": self.mAP,
            "mINP": self.mINP,
            "Rsum": self.Rsum,
        }

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:.2f}" for name, value in self.as_dict().items())
        skipped = f", {self.num_skipped_queries} skipped" if self.num_skipped_queries else ""
        return f"{figures} (per cent; {self.num_queries} queries{skipped}, {self.num_gallery} gallery items)"


def evaluate_retrieval(
    query_features: Any = None,
    gallery_features: Any = None,
    *,
    similarity: Any = None,
    query_person_ids: Sequence[int | str] | Any,
    gallery_person_ids: Sequence[int | str] | Any,
    query_camera_ids: Sequence[int | str] | Any | None = None,
    gallery_camera_ids: Sequence[int | str] | Any | None = None,
    ks: Sequence[int] = (1, 5, 10),
    ties: Ties = "stable",
    denominator: Denominator = "valid",
    block_size: int = 256,
    score_function: ScoreFunction | None = None,
    progress: bool = False,
) -> RetrievalMetrics:
    """Rank the gallery for every query and report Rank-k, mAP and mINP.

    Give either features (their dot product is the score, so normalise them for the cosine) or `similarity`. Scores are
    compared as float32, whatever the input is. Positives of a query are the gallery items of the same person. With
    cameras, items of the same person **and** the same camera are junk: taken out before ranks are counted.

    What is reproducible: from features, the ranks do not depend on `block_size`, and they are the ranks of
    `similarity=compute_similarity(query_features, gallery_features)`; see `reid_zoo.evaluation.scores` for how, and for
    position, threads and machine. With a `score_function`, all blocks have `block_size` rows (the last one is filled up
    by repeating the last query); the ranks then depend on `block_size` only if the function's score of a pair does.

    Tensors on a GPU are multiplied and counted there: the same counts of the same double-precision products.

    Memory: one tile of `block_size` x G float32 scores, and 8,192 gallery features in double precision, beside the
    inputs; never Q x G.

    Args:
        query_features: (Q, D) NumPy array, torch tensor (any device) or nested list; with a `score_function`, anything
            of length Q that can be indexed with an integer array, for instance `np.arange(Q)`.
        gallery_features: (G, D) likewise; handed as it is to a `score_function`.
        similarity: (Q, G) scores, larger = better (for a distance give its negation), instead of features.
        query_person_ids: Q identities, whole numbers or strings; they need not occur in the gallery.
        gallery_person_ids: G identities of the same type.
        query_camera_ids: Q cameras, or `None` for no camera rule.
        gallery_camera_ids: G cameras; give both or none.
        ks: The k for which `RetrievalMetrics.rank_k` holds Rank-k.
        ties: Order among equal scores: `"stable"` by gallery index (the default and the definition), `"optimistic"`
            every positive first, `"pessimistic"` every negative first (the bounds of all possible orders).
        denominator: What Rank-k is averaged over, see `RetrievalMetrics`.
        block_size: Query rows per tile; features with the dot product round it up to a multiple of 128.
        score_function: `score_function(query_block, gallery_features)` -> (b, G) scores, instead of the dot product.
        progress: Show a progress bar on standard error.

    Returns:
        The figures, with the arrays per query.

    Raises:
        EvaluationError: For shapes that do not fit, scores that are not finite, missing identities, an unknown option,
            or when no query has a positive.
    """
    _check_options(ks, ties, denominator, block_size)
    query_ids = identifiers(query_person_ids, "query_person_ids")
    gallery_ids = identifiers(gallery_person_ids, "gallery_person_ids")
    query_cameras, gallery_cameras = _cameras(query_camera_ids, gallery_camera_ids, len(query_ids), len(gallery_ids))
    if not query_ids or not gallery_ids:
        raise EvaluationError(f"Nothing to evaluate: {len(query_ids)} queries and {len(gallery_ids)} gallery items.")
    tiles = score_tiles(
        query_features,
        gallery_features,
        similarity=similarity,
        shape=(len(query_ids), len(gallery_ids)),
        block_size=block_size,
        score_function=score_function,
    )
    query_codes, gallery_codes = _codes(query_ids, gallery_ids)
    by_person = np.argsort(gallery_codes, kind="stable")
    ends = np.cumsum(np.bincount(gallery_codes, minlength=int(query_codes.max()) + 1))

    num_queries, num_gallery = len(query_ids), len(gallery_ids)
    num_positives = np.zeros(num_queries, dtype=np.int64)
    first = np.full(num_queries, -1, dtype=np.int64)
    last = np.full(num_queries, -1, dtype=np.int64)
    precision = np.full(num_queries, np.nan)
    penalty = np.full(num_queries, np.nan)
    with _progress_bar(num_queries, progress) as bar:
        for start, tile in tiles:
            block = slice(start, start + len(tile))
            persons = query_codes[block]
            stops = ends[persons]
            lengths = stops - np.where(persons > 0, ends[persons - 1], 0)
            rows = np.repeat(np.arange(len(tile)), lengths)
            items = by_person[np.arange(len(rows)) + np.repeat(stops - np.cumsum(lengths), lengths)]
            junk = np.zeros(len(rows), dtype=bool)
            if query_cameras is not None and gallery_cameras is not None:
                junk = gallery_cameras[items] == query_cameras[block][rows]
            found = rank_positives(tile, SamePerson(rows, items, junk), ties, start)
            counts = np.bincount(found.rows, minlength=len(tile))
            best, worst = found.places == 0, found.places == counts[found.rows] - 1
            num_positives[block] = counts
            first[block][found.rows[best]] = found.ranks[best]
            last[block][found.rows[worst]] = found.ranks[worst]
            sums = np.bincount(found.rows, (found.places + 1) / found.ranks, minlength=len(tile))
            some = counts > 0
            precision[block][some] = sums[some] / counts[some]
            penalty[block][some] = counts[some] / last[block][some]
            bar.update(len(tile))
    num_skipped = int(np.count_nonzero(num_positives == 0))
    if num_skipped == num_queries:
        raise EvaluationError(_no_valid_query_message(query_ids, gallery_ids, query_cameras is not None))
    return RetrievalMetrics(
        ks=tuple(ks),
        num_queries=num_queries,
        num_gallery=num_gallery,
        num_skipped_queries=num_skipped,
        denominator=denominator,
        ties=ties,
        num_positives=num_positives,
        first_positive_rank=first,
        last_positive_rank=last,
        average_precision=precision,
        inverse_negative_penalty=penalty,
    )


def identifiers(values: Any, name: str) -> list[int | str]:
    """Person or camera ids as a list of whole numbers and strings.

    Args:
        values: Sequence, NumPy array or torch tensor of one dimension.
        name: Of the argument, for the message.

    Raises:
        EvaluationError: If one is neither a whole number nor a string.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise EvaluationError(f"{name} must have one dimension, got shape {values.shape}.")
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    for index, value in enumerate(listed):
        if isinstance(value, np.generic):
            listed[index] = value = value.item()
        if not isinstance(value, (int, str)) or isinstance(value, bool):
            raise EvaluationError(f"{name}[{index}] is {value!r}; an identifier is a whole number or a string.")
    return cast("list[int | str]", listed)


def _cameras(
    query_camera_ids: Any, gallery_camera_ids: Any, num_queries: int, num_gallery: int
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Cameras as small integers; a camera that only one side has gets its own number."""
    if query_camera_ids is None and gallery_camera_ids is None:
        return None, None
    if query_camera_ids is None or gallery_camera_ids is None:
        raise EvaluationError("Give both query_camera_ids and gallery_camera_ids, or neither.")
    queries = identifiers(query_camera_ids, "query_camera_ids")
    gallery = identifiers(gallery_camera_ids, "gallery_camera_ids")
    if len(queries) != num_queries or len(gallery) != num_gallery:
        raise EvaluationError(
            f"{len(queries)} query and {len(gallery)} gallery cameras do not fit the {num_queries} and {num_gallery} "
            "person ids."
        )
    return _codes(queries, gallery)


def _codes(queries: list[int | str], gallery: list[int | str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Identifiers as small numbers from 0; one that only one side has gets its own."""
    number: dict[int | str, int] = {}
    codes = [number.setdefault(value, len(number)) for value in (*queries, *gallery)]
    return np.asarray(codes[: len(queries)]), np.asarray(codes[len(queries) :])


def _check_options(ks: Sequence[int], ties: str, denominator: str, block_size: int) -> None:
    if ties not in ("stable", "optimistic", "pessimistic"):
        raise EvaluationError(f"ties is {ties!r}; choose 'stable', 'optimistic' or 'pessimistic'.")
    if denominator not in ("valid", "all"):
        raise EvaluationError(f"denominator is {denominator!r}; choose 'valid' or 'all'.")
    if block_size < 1:
        raise EvaluationError(f"block_size is {block_size}; it must be at least 1.")
    bad = [k for k in ks if k < 1]
    if bad:
        raise EvaluationError(f"ks contains {bad[0]}; Rank-k needs k of at least 1.")


def _no_valid_query_message(query_ids: list[int | str], gallery_ids: list[int | str], cameras: bool) -> str:
    message = f"None of the {len(query_ids)} queries has a positive among the {len(gallery_ids)} gallery items"
    if {type(value) for value in query_ids}.isdisjoint({type(value) for value in gallery_ids}):
        return f"{message}: query ids are {query_ids[0]!r}, ..., gallery ids {gallery_ids[0]!r}, ...; use one type."
    if cameras:
        return f"{message} from another camera; check the person and camera ids."
    return f"{message}; check the person ids."


def _progress_bar(total: int, progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc="Ranking", unit="query", disable=not progress, dynamic_ncols=True)

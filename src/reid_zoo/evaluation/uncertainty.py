"""How far a figure can be trusted: bootstrap intervals, and paired tests between two models on the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError
from .metrics import RetrievalMetrics

__all__ = ["Interval", "PairedComparison", "bootstrap_intervals", "compare_paired"]

_METRICS = ("R1", "R5", "R10", "mAP", "mINP", "Rsum")
_SAMPLES_AT_A_TIME = 256


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its bootstrap interval, in per cent."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Difference of two models' figures on the same queries.

    Attributes:
        first: Figure of the first model, per cent.
        second: Figure of the second model, per cent.
        difference: Second minus first.
        low: Lower end of the difference's bootstrap interval.
        high: Upper end.
        p_value: Two-sided, of the paired randomisation test that the models are exchangeable.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float


def _query_values(metrics: RetrievalMetrics) -> NDArray[np.float64]:
    """(Q, 6) what every query contributes to each figure, in per cent; only rows with a positive count."""
    ranks = metrics.first_positive_rank
    hits = [100.0 * (ranks <= k) for k in (1, 5, 10)]
    columns = [*hits, 100.0 * metrics.average_precision, 100.0 * metrics.inverse_negative_penalty, sum(hits)]
    return np.stack(columns, axis=1)


def _cluster_sums(
    values: NDArray[np.float64], clusters: Sequence[Any] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sums and counts per cluster: queries about one person rise and fall together."""
    if clusters is None:
        return values, np.ones(len(values), dtype=np.int64)
    _, places = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(places.max()) + 1
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, places, values)
    return sums, np.bincount(places, minlength=count)


def _check(level: float, num_samples: int) -> None:
    if not 0 < level < 1:
        raise EvaluationError(f"The level of an interval must lie between 0 and 1, got {level}.")
    if num_samples < 100:
        raise EvaluationError(f"Intervals need at least 100 samples, got {num_samples}.")


def _resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.int64], num_samples: int, seed: int
) -> NDArray[np.float64]:
    """(num_samples, figures) means over clusters drawn with replacement."""
    generator = np.random.default_rng(seed)
    parts = []
    for start in range(0, num_samples, _SAMPLES_AT_A_TIME):
        size = min(_SAMPLES_AT_A_TIME, num_samples - start)
        drawn = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=size).astype(np.float64)
        parts.append((drawn @ sums) / (drawn @ counts)[:, None])
    return np.concatenate(parts)


def _valid_clusters(metrics: RetrievalMetrics, clusters: Sequence[Any] | None) -> Sequence[Any] | None:
    if clusters is None:
        return None
    if len(clusters) != metrics.num_queries:
        raise EvaluationError(f"{len(clusters)} persons for {metrics.num_queries} queries.")
    return np.asarray(clusters)[metrics.valid]  # type: ignore[return-value]


def bootstrap_intervals(
    metrics: RetrievalMetrics,
    *,
    person_ids: Sequence[Any] | None = None,
    level: float = 0.95,
    num_samples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile bootstrap over persons (or queries): what other queries of the same kind would have given.

    The gallery is taken as given; queries without a positive do not count.

    Args:
        metrics: The evaluation.
        person_ids: Q identities of the queries; all queries about a person are drawn together, which is what makes the
            interval honest where a person has several captions. `None`: every query by itself.
        level: Share of samples inside the interval.
        num_samples: Samples drawn.
        seed: Of the draw.

    Returns:
        Figure → value and interval.

    Raises:
        EvaluationError: For a level, number of samples or number of identities that makes no sense.
    """
    _check(level, num_samples)
    values = _query_values(metrics)[metrics.valid]
    sums, counts = _cluster_sums(values, _valid_clusters(metrics, person_ids))
    means = _resampled_means(sums, counts, num_samples, seed)
    tail = 50 * (1 - level)
    lows, highs = np.percentile(means, [tail, 100 - tail], axis=0)
    whole = values.mean(axis=0)
    return {name: Interval(float(whole[i]), float(lows[i]), float(highs[i])) for i, name in enumerate(_METRICS)}


def compare_paired(
    first: RetrievalMetrics,
    second: RetrievalMetrics,
    *,
    person_ids: Sequence[Any] | None = None,
    level: float = 0.95,
    num_samples: int = 5000,
    seed: int = 0,
) -> dict[str, PairedComparison]:
    """Whether two models differ by more than the choice of queries explains.

    For every person (or query) the two models' results are swapped at random; the p-value is the share of such draws whose
    difference is at least as large as the observed one, the observed one counted as a draw.

    Args:
        first: Evaluation of one model.
        second: Of another one on the same queries, in the same order, and the same gallery.
        person_ids: As in `bootstrap_intervals`.
        level: Of the interval of the difference.
        num_samples: Draws of the test, and samples of the bootstrap.
        seed: Of both.

    Returns:
        Figure → comparison.

    Raises:
        EvaluationError: If the two are not evaluations of the same queries.
    """
    _check(level, num_samples)
    same = first.num_queries == second.num_queries and first.num_gallery == second.num_gallery
    if not same or not np.array_equal(first.num_positives, second.num_positives):
        raise EvaluationError(
            "The two evaluations are not of the same queries and gallery: "
            f"{first.num_queries} and {second.num_queries} queries, {first.num_gallery} and {second.num_gallery} items, or "
            "other positives."
        )
    one, two = (_query_values(metrics)[metrics.valid] for metrics in (first, second))
    sums, counts = _cluster_sums(two - one, _valid_clusters(first, person_ids))
    observed = sums.sum(axis=0) / counts.sum()
    means = _resampled_means(sums, counts, num_samples, seed)
    tail = 50 * (1 - level)
    lows, highs = np.percentile(means, [tail, 100 - tail], axis=0)
    generator = np.random.default_rng(seed + 1)
    extreme = np.zeros(len(_METRICS))
    for start in range(0, num_samples, _SAMPLES_AT_A_TIME):
        size = min(_SAMPLES_AT_A_TIME, num_samples - start)
        signs = generator.integers(0, 2, size=(size, len(sums))) * 2.0 - 1.0
        drawn = (signs @ sums) / counts.sum()
        # Sums of the same numbers in another order may differ in their last digits.
        extreme += (np.abs(drawn) >= np.abs(observed) - 1e-9).sum(axis=0)
    p_values = (extreme + 1) / (num_samples + 1)
    return {
        name: PairedComparison(
            float(one[:, i].mean()),
            float(two[:, i].mean()),
            float(observed[i]),
            float(lows[i]),
            float(highs[i]),
            float(min(1.0, p_values[i])),
        )
        for i, name in enumerate(_METRICS)
    }

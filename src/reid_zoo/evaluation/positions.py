"""Positions of a query's positives among the items of the gallery, found by counting.

A position is one plus the number of items before it, so what is needed of a row of scores is, for a few thresholds (the
scores of the positives), how many scores lie above them. On the CPU, whole groups of rows and thresholds are compared at
once and the outcomes added eight bytes at a time; a row with many positives is sorted (values alone), after which a
count is a binary search. On another device rows are sorted there. All three count the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError

__all__ = ["PositiveRanks", "SamePerson", "Ties", "rank_positives"]

Ties = Literal["stable", "optimistic", "pessimistic"]

_LANE_ITEMS = 255 * 8
"""Items whose outcomes can be added as bytes, eight side by side in one 64-bit number, without overflow."""

_SHORTEST_ROW = 3 * _LANE_ITEMS
"""Comparisons run along the gallery; NumPy copies rows shorter than half of its buffer of 8,192 items around instead."""

_OUTCOME_BYTES = 512 * 1024
"""Outcomes that are held at a time: they should stay in the second-level cache."""

_MOST_COMPARED = 32
"""Positives of a query up to which comparing with each is cheaper than sorting the row."""

_NORMAL = np.float32(4 * np.finfo(np.float32).tiny)
"""Scores closer to zero have a subnormal neighbour, which a program may have told its processor to treat as zero."""


@dataclass(frozen=True)
class SamePerson:
    """The gallery items of the persons of a block of queries, flat.

    Attributes:
        rows: (S,) query of each item inside the block, ascending.
        items: (S,) gallery index, ascending inside a query.
        junk: (S,) whether the item is taken out before ranks are counted.
    """

    rows: NDArray[np.int64]
    items: NDArray[np.int64]
    junk: NDArray[np.bool_]


@dataclass(frozen=True)
class PositiveRanks:
    """Ranks of a block's positives, flat: by query, and best first inside a query.

    Attributes:
        rows: (P,) query inside the block.
        places: (P,) 0-based place of the positive among the positives of its query.
        ranks: (P,) 1-based position in the gallery without junk.
    """

    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    ranks: NDArray[np.int64]


def rank_positives(tile: Any, same: SamePerson, ties: Ties, first_query: int) -> PositiveRanks:
    """Rank the positives of a block of queries.

    Args:
        tile: (b, G) float32 scores: a NumPy array, or a torch tensor on any device.
        same: The gallery items of the queries' persons.
        ties: Rule for equal scores, see `evaluate_retrieval`.
        first_query: Index of the block's first query, for the error message.

    Raises:
        EvaluationError: If a score is not finite.
    """
    values = _take(tile, same.rows, same.items)
    order = np.lexsort((same.items, -values, same.rows))
    rows, items, values, junk = same.rows, same.items[order], values[order], same.junk[order]
    place = np.arange(len(rows))
    kept = ~junk
    first_of_row = np.searchsorted(rows, rows, side="left")
    positives_before: NDArray[np.int64] = np.cumsum(kept) - kept
    places = positives_before - (positives_before[first_of_row] if len(rows) else 0)

    positive_rows, positive_items, positive_values = rows[kept], items[kept], values[kept]
    above, at_least = _count(tile, positive_rows, positive_values, first_query)
    if ties == "stable":
        before = above + _equal_before(tile, positive_rows, positive_items, positive_values, at_least - above)
        junk_before = (place - first_of_row - places)[kept]
        return PositiveRanks(positive_rows, places[kept], 1 + before - junk_before)
    # Negatives before a positive: the counted items without those of the same person, junk included.
    starts = np.ones(len(rows), dtype=bool)
    starts[1:] = (rows[1:] != rows[:-1]) | (values[1:] != values[:-1])
    run = np.flatnonzero(starts)
    stops = np.append(run[1:], len(rows))[: len(run)]
    counted, same_counted = (above, run) if ties == "optimistic" else (at_least, stops)
    same_counted = np.repeat(same_counted, stops - run) - first_of_row
    return PositiveRanks(positive_rows, places[kept], 1 + places[kept] + counted - same_counted[kept])


def _take(tile: Any, rows: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
    if isinstance(tile, np.ndarray):
        taken: NDArray[np.float32] = tile[rows, items]
        return taken
    import torch

    on_device = (torch.from_numpy(index).to(tile.device) for index in (rows, items))
    values: NDArray[np.float32] = tile[tuple(on_device)].cpu().numpy()
    return values


def _equal_before(
    tile: Any,
    rows: NDArray[np.int64],
    items: NDArray[np.int64],
    values: NDArray[np.float32],
    num_equal: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Items of the same score and a smaller index; only where there is more than the positive itself is it looked for."""
    result = np.zeros(len(rows), dtype=np.int64)
    for pair in np.flatnonzero(num_equal > 1):
        equal = tile[rows[pair], : items[pair]] == values[pair]
        result[pair] = np.count_nonzero(equal) if isinstance(equal, np.ndarray) else int(equal.sum())
    return result


def _count(
    tile: Any, rows: NDArray[np.int64], values: NDArray[np.float32], first_query: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of every (row, value): how many scores of the row are larger, and how many at least as large."""
    if not isinstance(tile, np.ndarray):
        return _count_on_device(tile, rows, values, first_query)
    num_rows = len(tile)
    counts = np.empty((2, len(rows)), dtype=np.int64)
    lengths = np.bincount(rows, minlength=num_rows)
    offsets = np.cumsum(lengths) - lengths
    by_sorting = lengths > _MOST_COMPARED
    by_sorting[rows[np.abs(values) < _NORMAL]] = True
    for row in np.flatnonzero(by_sorting):
        _check_finite(tile[row], tile, first_query)
        ascending = np.sort(tile[row])
        own = slice(offsets[row], offsets[row] + lengths[row])
        counts[0, own] = len(ascending) - np.searchsorted(ascending, values[own], side="right")
        counts[1, own] = len(ascending) - np.searchsorted(ascending, values[own], side="left")
    compared = np.flatnonzero(~by_sorting)
    if len(compared):
        compared = compared[np.argsort(lengths[compared], kind="stable")]
        _compare(tile, compared, lengths[compared], offsets[compared], values, counts, first_query)
    return counts[0], counts[1]


def _compare(
    tile: NDArray[np.float32],
    rows: NDArray[np.int64],
    lengths: NDArray[np.int64],
    offsets: NDArray[np.int64],
    values: NDArray[np.float32],
    counts: NDArray[np.int64],
    first_query: int,
) -> None:
    """Write the counts of some rows, given by ascending number of values, by comparing with every value."""
    num_items = tile.shape[1]
    width = max(_SHORTEST_ROW, -(-num_items // _LANE_ITEMS) * _LANE_ITEMS)
    most = int(lengths[-1])
    inside = np.arange(most) < lengths[:, None]
    flat = (offsets[:, None] + np.arange(most))[inside]
    # "At least v" is "more than the number below v"; nothing is more than infinity.
    thresholds = np.full((len(rows), 2, most), np.inf, dtype=np.float32)
    own = thresholds.transpose(0, 2, 1)
    own[inside] = np.stack([values[flat], np.nextafter(values[flat], np.float32(-np.inf))], axis=1)
    counted = np.empty((len(rows), 2, most), dtype=np.int64)
    together = max(1, _OUTCOME_BYTES // (2 * width))  # thresholds of one row, or of several
    outcomes = np.empty(max(together, 1) * 2 * width, dtype=bool)
    scores = np.full((min(len(rows), together), width), -np.inf, dtype=np.float32)
    start = 0
    while start < len(rows):
        stop = min(len(rows), start + max(1, together // max(1, int(lengths[start]))))
        stop = min(stop, start + max(1, together // max(1, int(lengths[stop - 1]))))
        group = slice(start, stop)
        block = scores[: stop - start]
        block[:, :num_items] = tile[rows[start]] if stop - start == 1 else tile[rows[group]]
        _check_finite(block[:, :num_items], tile, first_query)
        for first in range(0, int(lengths[stop - 1]), together):
            part = slice(first, min(first + together, int(lengths[stop - 1])))
            asked = thresholds[group, :, part]
            held = outcomes[: asked.size * width].reshape(*asked.shape, width)
            np.greater(block[:, None, None], asked[..., None], out=held)
            lanes = np.add.reduce(held.view(np.uint64).reshape(*asked.shape, -1, _LANE_ITEMS // 8), axis=-1)
            counted[group, :, part] = np.add.reduce(lanes.view(np.uint8), axis=-1, dtype=np.int64)
        start = stop
    counts[:, flat] = counted.transpose(0, 2, 1)[inside].T


def _count_on_device(
    tile: Any, rows: NDArray[np.int64], values: NDArray[np.float32], first_query: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    import torch

    _check_finite(tile, tile, first_query)
    num_rows, num_items = tile.shape
    lengths = np.bincount(rows, minlength=num_rows)
    inside = np.arange(lengths.max(initial=0)) < lengths[:, None]
    padded = np.zeros(inside.shape, dtype=np.float32)
    padded[inside] = values
    ascending = tile.sort(dim=1).values
    asked = torch.from_numpy(padded).to(tile.device)
    above = num_items - torch.searchsorted(ascending, asked, right=True)
    at_least = num_items - torch.searchsorted(ascending, asked, right=False)
    return above.cpu().numpy()[inside], at_least.cpu().numpy()[inside]


def _check_finite(scores: Any, tile: Any, first_query: int) -> None:
    lowest, highest = scores.min(), scores.max()
    if np.isfinite(float(lowest)) and np.isfinite(float(highest)):  # NaN survives min and max
        return
    values = tile if isinstance(tile, np.ndarray) else tile.cpu().numpy()
    row, column = np.argwhere(~np.isfinite(values))[0]
    raise EvaluationError(
        f"The score of query {first_query + row} and gallery item {column} is {values[row, column]}; "
        "every score must be finite."
    )

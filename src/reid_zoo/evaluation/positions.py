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

_SHORTEST_BLOCK = 6000
"""Items of the gallery that a comparison runs along; NumPy copies shorter ones to and from its buffer instead."""

_OUTCOME_BYTES = 1024 * 1024
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
    counted = _items_before(tile, positive_rows, positive_items, positive_values, ties, first_query)
    if ties == "stable":
        junk_before = (place - first_of_row - places)[kept]
        return PositiveRanks(positive_rows, places[kept], 1 + counted - junk_before)
    # Negatives before a positive: the counted items without those of the same person, junk included.
    starts = np.ones(len(rows), dtype=bool)
    starts[1:] = (rows[1:] != rows[:-1]) | (values[1:] != values[:-1])
    run = np.flatnonzero(starts)
    stops = np.append(run[1:], len(rows))[: len(run)]
    same_counted = np.repeat(run if ties == "optimistic" else stops, stops - run) - first_of_row
    return PositiveRanks(positive_rows, places[kept], 1 + places[kept] + counted - same_counted[kept])


def _take(tile: Any, rows: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
    if isinstance(tile, np.ndarray):
        taken: NDArray[np.float32] = tile[rows, items]
        return taken
    import torch

    on_device = (torch.from_numpy(index).to(tile.device) for index in (rows, items))
    values: NDArray[np.float32] = tile[tuple(on_device)].cpu().numpy()
    return values


def _items_before(
    tile: Any,
    rows: NDArray[np.int64],
    items: NDArray[np.int64],
    values: NDArray[np.float32],
    ties: Ties,
    first_query: int,
) -> NDArray[np.int64]:
    """Of every (row, item, its score): the items of the row with a larger score, or an equal one that the rule counts.

    The rule counts of equal scores: `"stable"` those of smaller indices, `"optimistic"` none, `"pessimistic"` all (the
    item itself among them).
    """
    if not isinstance(tile, np.ndarray):
        above, at_least = _count_on_device(tile, rows, values, first_query)
        return _by_rule(tile, rows, items, values, above, at_least, ties)
    lengths = np.bincount(rows, minlength=len(tile))
    offsets = np.cumsum(lengths) - lengths
    by_sorting = lengths > _MOST_COMPARED
    by_sorting[rows[np.abs(values) < _NORMAL]] = True
    counts = np.empty(len(rows), dtype=np.int64)
    for row in np.flatnonzero(by_sorting):
        _check_finite(tile[row], tile, first_query)
        own = slice(offsets[row], offsets[row] + lengths[row])
        ascending = np.sort(tile[row])
        above = len(ascending) - np.searchsorted(ascending, values[own], side="right")
        at_least = len(ascending) - np.searchsorted(ascending, values[own], side="left")
        counts[own] = _by_rule(tile, rows[own], items[own], values[own], above, at_least, ties)
    compared = np.flatnonzero(~by_sorting)
    if len(compared):
        compared = compared[np.argsort(lengths[compared], kind="stable")]
        thresholds = _Thresholds.of_rows(tile.shape[1], offsets[compared], lengths[compared], items, values, ties)
        counts[thresholds.flat] = _compare(tile, compared, thresholds, first_query)
        if ties == "stable":
            for pair in thresholds.flat[thresholds.unsure]:
                counts[pair] += _equal_between(tile, rows[pair], thresholds.block_start(items[pair]), items[pair])
    return counts


def _by_rule(
    tile: Any,
    rows: NDArray[np.int64],
    items: NDArray[np.int64],
    values: NDArray[np.float32],
    above: NDArray[np.int64],
    at_least: NDArray[np.int64],
    ties: Ties,
) -> NDArray[np.int64]:
    if ties != "stable":
        return above if ties == "optimistic" else at_least
    counts = above.copy()
    for pair in np.flatnonzero(at_least - above > 1):
        counts[pair] += _equal_between(tile, rows[pair], 0, items[pair])
    return counts


def _equal_between(tile: Any, row: int, start: int, item: int) -> int:
    """Items from `start` to before `item` with its score."""
    equal = tile[row, start:item] == tile[row, item]
    return int(np.count_nonzero(equal) if isinstance(equal, np.ndarray) else equal.sum())


@dataclass
class _Thresholds:
    """What the scores of some rows are compared with, in blocks of the gallery.

    "More than" a threshold counts the larger scores, and "more than the number below it" the equal ones as well. Which of
    them a block needs depends on the rule; with the stable one, on whether the block lies before the item's own. In the
    item's own block equal scores are looked for; where there are some, it stays unsure how many are before the item.

    Attributes:
        flat: (P,) pairs that are compared, in the order of `inside`.
        inside: (R, M) whether a place holds a pair; rows have different numbers.
        values: (R, M) scores of the items, infinite (nothing is more) where there is none.
        asked: (R, M, K) thresholds of K blocks.
        own_block: (R, M) block of the item.
        num_lanes: Lanes of a block.
        lane_words: 64-bit words of a lane.
        unsure: (P,) whether the own block holds an equal score.
    """

    flat: NDArray[np.int64]
    inside: NDArray[np.bool_]
    values: NDArray[np.float32]
    asked: NDArray[np.float32]
    own_block: NDArray[np.int64]
    num_lanes: int
    lane_words: int
    stable: bool
    unsure: NDArray[np.bool_]

    @classmethod
    def of_rows(
        cls,
        num_items: int,
        offsets: NDArray[np.int64],
        lengths: NDArray[np.int64],
        items: NDArray[np.int64],
        values: NDArray[np.float32],
        ties: Ties,
    ) -> _Thresholds:
        num_blocks = max(1, num_items // _SHORTEST_BLOCK)
        longest = max(_SHORTEST_BLOCK, -(-num_items // num_blocks))
        num_lanes = -(-longest // _LANE_ITEMS)
        lane_words = -(-longest // (num_lanes * 8))
        inside = np.arange(int(lengths.max(initial=0))) < lengths[:, None]
        flat = (offsets[:, None] + np.arange(inside.shape[1]))[inside]
        padded = np.full(inside.shape, np.inf, dtype=np.float32)
        padded[inside] = values[flat]
        own_block = np.zeros(inside.shape, dtype=np.int64)
        own_block[inside] = items[flat] // (num_lanes * lane_words * 8)
        below = np.where(inside, np.nextafter(padded, np.float32(-np.inf)), padded)
        counts_equal = np.full((*inside.shape, num_blocks), ties == "pessimistic")
        if ties == "stable":
            counts_equal = np.arange(num_blocks) < own_block[..., None]
        asked = np.where(counts_equal, below[..., None], padded[..., None])
        unsure = np.zeros(len(flat), dtype=bool)
        return cls(flat, inside, padded, asked, own_block, num_lanes, lane_words, ties == "stable", unsure)

    @property
    def block_items(self) -> int:
        """Items of a block."""
        return self.num_lanes * self.lane_words * 8

    def block_start(self, item: int) -> int:
        """First item of the block of an item."""
        return item - item % self.block_items


def _compare(
    tile: NDArray[np.float32], rows: NDArray[np.int64], thresholds: _Thresholds, first_query: int
) -> NDArray[np.int64]:
    """Compare the scores of some rows, given by ascending number of pairs, with their thresholds.

    Returns:
        (P,) counts; `thresholds.unsure` is filled in.
    """
    num_items, size = tile.shape[1], thresholds.block_items
    num_rows, most, num_blocks = thresholds.asked.shape
    lengths = thresholds.inside.sum(axis=1)
    counted = np.zeros((num_rows, most), dtype=np.int64)
    num_equal = np.zeros((num_rows, most), dtype=np.int64)
    together = max(1, _OUTCOME_BYTES // (num_blocks * size))  # thresholds of one row, or of several
    outcomes = np.empty(together * num_blocks * size, dtype=bool)
    windows = np.empty(together * size if num_blocks > 1 else 0, dtype=np.float32)
    scores = np.full((min(num_rows, together), num_blocks * size), -np.inf, dtype=np.float32)

    def count(held: NDArray[np.bool_]) -> NDArray[np.int64]:
        words = held.view(np.uint64).reshape(*held.shape[:2], -1, thresholds.lane_words)
        lanes = np.add.reduce(words, axis=-1)
        summed: NDArray[np.int64] = np.add.reduce(lanes.view(np.uint8), axis=-1, dtype=np.int64)
        return summed

    start = 0
    while start < num_rows:
        stop = min(num_rows, start + max(1, together // max(1, int(lengths[start]))))
        stop = min(stop, start + max(1, together // max(1, int(lengths[stop - 1]))))
        group, block = slice(start, stop), scores[: stop - start]
        block[:, :num_items] = tile[rows[start]] if stop - start == 1 else tile[rows[group]]
        _check_finite(block[:, :num_items], tile, first_query)
        in_blocks = block.reshape(stop - start, num_blocks, size)
        for first in range(0, int(lengths[stop - 1]), together):
            part = slice(first, min(first + together, int(lengths[stop - 1])))
            asked = thresholds.asked[group, part]
            held = outcomes[: asked.size * size].reshape(*asked.shape, size)
            np.greater(in_blocks[:, None], asked[..., None], out=held)
            counted[group, part] = count(held)
            if thresholds.stable:
                shape = (*asked.shape[:2], size)
                own = in_blocks
                if num_blocks > 1:  # fancy indexing would allocate anew, which costs more than the comparison
                    which = thresholds.own_block[group, part] + num_blocks * np.arange(stop - start)[:, None]
                    own = windows[: which.size * size].reshape(shape)
                    np.take(block.reshape(-1, size), which, axis=0, out=own, mode="clip")
                held = outcomes[: own.shape[0] * shape[1] * size].reshape(shape)
                np.equal(own, thresholds.values[group, part, None], out=held)
                num_equal[group, part] = count(held)
        start = stop
    thresholds.unsure = num_equal[thresholds.inside] > 1
    return counted[thresholds.inside]


def _count_on_device(
    tile: Any, rows: NDArray[np.int64], values: NDArray[np.float32], first_query: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of every (row, value): how many scores of the row are larger, and how many at least as large."""
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

"""The nearest items of every item."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import EvaluationError
from .pairwise_distances import PRODUCT_ROWS, PairwiseDistances

__all__ = ["Neighbors", "find_neighbors", "nearest_in_rows"]

_GROUPS = 32
"""Strided items whose smallest value stands for them in the first step of a selection."""

_BLOCK_ROWS = 4 * PRODUCT_ROWS
"""Items whose distances to all others are held at a time."""


@dataclass(frozen=True)
class Neighbors:
    """Nearest items of every item.

    Attributes:
        items: (N, K) int64 indices, nearest first, of equally near ones the smaller index.
        distances: (N, K) float32 distances, divided by the largest one of the item.
        largest: (N,) float32, the largest distance of every item.
    """

    items: Tensor
    distances: Tensor
    largest: Tensor


def find_neighbors(source: PairwiseDistances, count: int) -> Neighbors:
    """The `count` nearest items of every item, itself among them.

    Of symmetric distances one half is made: a block of rows from its diagonal on gives neighbours of its own items, and
    candidates for all later ones, of which only those are looked at that are nearer than the ones they have.

    Args:
        source: Distances of N items.
        count: At most N.

    Raises:
        EvaluationError: If an item is at no distance from any.
    """
    number = source.num_items
    best = _Best(source.new_empty(number, count + 1).fill_(torch.inf))
    largest = source.new_empty(number).fill_(-torch.inf)
    buffer = source.new_empty(min(_BLOCK_ROWS, number) * number)
    for start in range(0, number, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, number)
        first = start if source.is_symmetric else 0
        out = buffer[: (stop - start) * (number - first)].view(stop - start, number - first)
        rows = source.rows(start, stop, first, out=out)
        torch.maximum(largest[start:stop], rows.amax(dim=1), out=largest[start:stop])
        values, items = _smallest(rows, count + 1)
        best.merge(slice(start, stop), values, items + first)
        if source.is_symmetric and stop < number:
            later = rows[:, stop - start :]
            torch.maximum(largest[stop:], later.amax(dim=0), out=largest[stop:])
            best.merge_columns(stop, later, start)
    if not bool((largest > 0).all()):
        raise EvaluationError("the features of the items are all the same; there is nothing to re-rank by.")
    quotients, items, tied = _ordered(best.values / largest[:, None], best.items, count)
    # Where the last chosen item is as near as the next one, indices decide, of all items.
    for start in range(0, number, PRODUCT_ROWS):
        ambiguous = tied[start : start + PRODUCT_ROWS].nonzero().flatten() + start
        if len(ambiguous):
            rows = source.rows(start, min(start + PRODUCT_ROWS, number))[ambiguous - start]
            ascending = (rows / largest[ambiguous, None]).sort(dim=1, stable=True)
            quotients[ambiguous], items[ambiguous] = ascending.values[:, :count], ascending.indices[:, :count]
    return Neighbors(items, quotients, largest)


class _Best:
    """The smallest values met so far of every item, ascending, and whose they are.

    Args:
        values: `(N, K)`, infinite to begin with.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.items = torch.zeros(values.shape, dtype=torch.int64, device=values.device)

    def merge(self, rows: slice | Tensor, values: Tensor, items: Tensor) -> None:
        """Further values of some items."""
        values = torch.cat([self.values[rows], values], dim=1)
        items = torch.cat([self.items[rows], items], dim=1)
        chosen = values.topk(self.values.shape[1], dim=1, largest=False)
        self.values[rows], self.items[rows] = chosen.values, items.gather(1, chosen.indices)

    def merge_columns(self, first: int, values: Tensor, start: int) -> None:
        """`(b, n)` values of the items from `first` on (columns), which are the items from `start` on (rows)."""
        num_rows, num_columns = values.shape
        count = self.values.shape[1]
        found = (values < self.values[first:, -1]).flatten().nonzero().flatten()
        if len(found) > count * num_columns:
            nearest = values.T.topk(min(count, num_rows), dim=1, largest=False)
            self.merge(slice(first, first + num_columns), nearest.values, nearest.indices + start)
            return
        if not len(found):
            return
        rows, columns = found // num_columns, found % num_columns
        columns, order = columns.sort(stable=True)
        rows = rows[order]
        wanted, places, counts = columns.unique_consecutive(return_inverse=True, return_counts=True)
        within = torch.arange(len(columns), device=columns.device) - (counts.cumsum(0) - counts)[places]
        padded = values.new_full((len(wanted), int(counts.max())), torch.inf)
        items = torch.zeros(padded.shape, dtype=torch.int64, device=padded.device)
        padded[places, within] = values[rows, columns]
        items[places, within] = rows + start
        self.merge(wanted + first, padded, items)


def _smallest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` smallest values of every row (or all, if there are fewer), ascending, and their columns.

    Two steps, because a selection among all of a long row costs many times as much: the items are put into strided
    groups, and only the `count` groups with the smallest minima are needed.
    """
    num_rows, num_items = values.shape
    num_groups = num_items // _GROUPS
    if num_groups <= 2 * count:
        chosen = values.topk(min(count, num_items), dim=1, largest=False)
        return chosen.values, chosen.indices
    whole = num_groups * _GROUPS
    minima = values[:, :whole].unflatten(1, (_GROUPS, num_groups)).amin(dim=1)
    groups = minima.topk(count, dim=1, largest=False).indices
    inside = groups[:, None] + num_groups * torch.arange(_GROUPS, device=values.device)[:, None]
    rest = torch.arange(whole, num_items, device=values.device).expand(num_rows, -1)
    candidates = torch.cat([inside.flatten(1), rest], dim=1)
    chosen = values.gather(1, candidates).topk(count, dim=1, largest=False)
    return chosen.values, candidates.gather(1, chosen.indices)


def _ordered(values: Tensor, items: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first `count` by value, then index, and whether the next one of all is as small as the last of them."""
    items, order = items.sort(dim=1)
    values, second = values.gather(1, order).sort(dim=1, stable=True)
    items = items.gather(1, second)
    tied = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    if values.shape[1] > count:
        tied = values[:, count - 1] == values[:, count]
    return values[:, :count].contiguous(), items[:, :count].contiguous(), tied


def nearest_in_rows(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` smallest values of every row in ascending order, equal ones by index.

    Args:
        values: `(R, N)`.
        count: At most N.

    Returns:
        The values, `(R, count)`, and their indices, `(R, count)` int64.
    """
    smallest, items, tied = _ordered(*_smallest(values, count + 1), count)
    ambiguous = tied.nonzero().flatten()
    if len(ambiguous):
        ascending = values[ambiguous].sort(dim=1, stable=True)
        smallest[ambiguous], items[ambiguous] = ascending.values[:, :count], ascending.indices[:, :count]
    return smallest, items

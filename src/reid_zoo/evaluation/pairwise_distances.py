"""Distances of all items to all items, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["FeatureDistances", "GivenDistances", "PairwiseDistances", "ReleasedDistances"]

PRODUCT_ROWS = 128
"""Rows of every matrix product, so that a pair's distance does not depend on how rows are asked for."""


class PairwiseDistances(Protocol):
    """N × N distances D that need not exist as a matrix; `rows` and `pairs` give its transpose, item i first."""

    num_items: int
    is_symmetric: bool
    """Whether D(i, j) = D(j, i) up to rounding, and whether it may be made for one of them only."""

    def new_empty(self, *shape: int) -> Tensor:
        """Float32 memory on the device of the distances."""

    def rows(self, start: int, stop: int, column_start: int = 0, *, out: Tensor | None = None) -> Tensor:
        """`(stop - start, N - column_start)` float32 D(j, i) of the items j from `column_start` on to the items i.

        What is returned may lie in `out`, memory to use again: freed and allocated anew in between other objects, large
        blocks do not fit where they were, and the process grows to the size of the matrix.
        """

    def pairs(self, rows: Tensor, columns: Tensor) -> Tensor:
        """`(P,)` distances D(columns[t], rows[t])."""


class FeatureDistances:
    """Squared Euclidean distances of features, |a|² + |b|² - 2 a·b in float32 (no square root, no clipping).

    The two squares are two more dimensions of the product, so nothing is added to its result afterwards.

    Args:
        features: `(N, D)` float32 on any device.
    """

    is_symmetric = True

    def __init__(self, features: Tensor) -> None:
        self.num_items = len(features)
        norms, ones = features.square().sum(dim=1, keepdim=True), features.new_ones(len(features), 1)
        self._left = torch.cat([-2 * features, norms, ones], dim=1)
        self._right = torch.cat([features, ones, norms], dim=1)

    def new_empty(self, *shape: int) -> Tensor:
        """See `PairwiseDistances`."""
        return self._right.new_empty(shape)

    def rows(self, start: int, stop: int, column_start: int = 0, *, out: Tensor | None = None) -> Tensor:
        """See `PairwiseDistances`; made in blocks that always begin at the same rows."""
        first = start - start % PRODUCT_ROWS
        last = min(stop + -stop % PRODUCT_ROWS, self.num_items)
        shape = (last - first, self.num_items - column_start)
        result = self._right.new_empty(shape) if out is None or out.shape != shape else out
        for block in range(first, last, PRODUCT_ROWS):
            part = slice(block, min(block + PRODUCT_ROWS, last))
            self._write(part, column_start, result[part.start - first : part.stop - first])
        return result[start - first : stop - first]

    def _write(self, rows: slice, column_start: int, result: Tensor) -> None:
        left, right = self._left[rows], self._right[column_start:]
        if result.device.type == "cpu":
            # NumPy's matrix library is up to half as fast again as torch's on processors that are not of Intel's make.
            np.matmul(left.numpy(), right.numpy().T, out=result.numpy())
            return
        with _full_precision():
            torch.mm(left, right.T, out=result)

    def pairs(self, rows: Tensor, columns: Tensor) -> Tensor:
        """See `PairwiseDistances`."""
        return torch.linalg.vecdot(self._left[rows], self._right[columns])


class ReleasedDistances(FeatureDistances):
    """The same distances by the operations of CLIP-ReID's released code, for equal bits; slower.

    Args:
        features: `(N, D)` float32 on any device.
    """

    is_symmetric = False

    def __init__(self, features: Tensor) -> None:
        self.num_items = len(features)
        self._left = self._right = features
        self._norms = features.pow(2).sum(dim=1)

    def _write(self, rows: slice, column_start: int, result: Tensor) -> None:
        squares = self._norms[rows, None] + self._norms[column_start:]
        with _full_precision():
            torch.addmm(squares, self._left[rows], self._right[column_start:].T, beta=1, alpha=-2, out=result)

    def pairs(self, rows: Tensor, columns: Tensor) -> Tensor:
        """See `PairwiseDistances`; `rows` must lie close together: whole rows are made."""
        if len(rows) == 0:
            return self._norms[rows]
        first = int(rows.min())
        return self.rows(first, int(rows.max()) + 1)[rows - first, columns]


@contextmanager
def _full_precision() -> Iterator[None]:
    """No TF32 or bfloat16 in products, whatever the program allows elsewhere: it would make thousands of ties."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class GivenDistances:
    """Distances of given matrices, as fast-reid's routine takes them.

    Args:
        query_gallery: `(Q, G)` float32.
        query_query: `(Q, Q)` float32.
        gallery_gallery: `(G, G)` float32.
        squared: Square every entry.
    """

    is_symmetric = False

    def __init__(self, query_gallery: Tensor, query_query: Tensor, gallery_gallery: Tensor, *, squared: bool) -> None:
        self._query_gallery, self._query_query, self._gallery_gallery = query_gallery, query_query, gallery_gallery
        self._squared = squared
        self._num_queries, self.num_items = len(query_gallery), sum(query_gallery.shape)

    def new_empty(self, *shape: int) -> Tensor:
        """See `PairwiseDistances`."""
        return self._query_gallery.new_empty(shape)

    def rows(self, start: int, stop: int, column_start: int = 0, *, out: Tensor | None = None) -> Tensor:
        """See `PairwiseDistances`."""
        border = self._num_queries
        parts = []
        if start < border:
            rows = slice(start, min(stop, border))
            parts.append(torch.cat([self._query_query[:, rows].T, self._query_gallery[rows]], dim=1))
        if stop > border:
            rows = slice(max(start, border) - border, stop - border)
            parts.append(torch.cat([self._query_gallery[:, rows].T, self._gallery_gallery[:, rows].T], dim=1))
        result = torch.cat(parts)[:, column_start:]
        return result.square() if self._squared else result

    def pairs(self, rows: Tensor, columns: Tensor) -> Tensor:
        """See `PairwiseDistances`."""
        first, border = self._num_queries, self._num_queries
        swap = (rows >= first) & (columns < first)
        rows, columns = torch.where(swap, columns, rows), torch.where(swap, rows, columns)
        result = self._query_gallery.new_empty(len(rows))
        for matrix, chosen, row_start, column_start in (
            (self._query_query.T, columns < border, 0, 0),
            (self._query_gallery, (rows < border) & (columns >= border), 0, border),
            (self._gallery_gallery.T, rows >= border, border, border),
        ):
            result[chosen] = matrix[rows[chosen] - row_start, columns[chosen] - column_start]
        return result.square() if self._squared else result

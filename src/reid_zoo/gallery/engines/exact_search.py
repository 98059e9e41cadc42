"""Exact top-k search over blocks of float16 vectors.

Two passes per block. A float32 matrix product finds every row that could be among the answers; a float64 dot product
of just those rows, rounded to float32, is their score. So a row's score depends on nothing but its vector and the
query, not on its place in a block, the batch of queries, a filter or the number of threads, and equal vectors tie
exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

__all__ = ["BLOCK_ROWS", "dot_scores", "exact_top_k"]

BLOCK_ROWS = 4096
"""Rows per matrix product; a float32 block of 512 columns (8 MB) then stays in a processor's cache."""

_PAIRS = 8192
"""(query, row) pairs scored at once in float64."""

_UNIT_ROUNDOFF = 2.0**-24
"""Of float32."""

_BFLOAT16_ERROR = 2.02 * 2.0**-8
"""Relative error of a product whose two factors were rounded to bfloat16 (8 significant bits)."""


def dot_scores(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Score of each pair of rows: the dot product in float64, rounded to float32.

    Args:
        queries: (N, D) float32.
        vectors: (N, D) float16.

    Returns:
        (N,) float32. NumPy sums each row by itself, so equal pairs get equal scores wherever they stand.
    """
    scores = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _PAIRS):
        part = slice(start, start + _PAIRS)
        scores[part] = (queries[part].astype(np.float64) * vectors[part].astype(np.float64)).sum(axis=1)
    return scores


def exact_top_k(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    queries: np.ndarray,
    top_k: int,
    *,
    largest_norm: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of largest inner product with each query; of equal scores, the smaller id first.

    Args:
        blocks: (ids (n,) int64, vectors (n, D) float16), each block of any size.
        queries: (Q, D) float32, finite.
        top_k: Number of answers, at least 1.
        largest_norm: Upper bound of the vectors' lengths; `None` measures each block.

    Returns:
        ids (Q, k) int64 and scores (Q, k) float32, where k is the smaller of `top_k` and the number of rows.
    """
    count = len(queries)
    ids = np.empty((count, 0), np.int64)
    scores = np.empty((count, 0), np.float32)
    if count == 0:
        return ids, scores
    seen = 0
    query_norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    product = _HalfProduct(queries)
    for block_ids, block in _split(blocks):
        coarse = product(block)
        norm = product.largest_norm(len(block)) if largest_norm is None else largest_norm
        # Twice the error of a product separates "cannot win" from "must be looked at": one for the row itself, one for
        # the row that sets the limit.
        slack = 2.02 * product.relative_error * norm * query_norms + 1e-30
        if seen >= top_k:
            limit = scores[:, -1] - slack
        elif len(block) > top_k:
            limit = np.partition(coarse, -top_k, axis=1)[:, -top_k] - slack
        else:
            limit = np.full(count, -np.inf)
        seen += len(block)
        widen = min(top_k, seen) - ids.shape[1]
        if widen:
            ids = np.pad(ids, ((0, 0), (0, widen)), constant_values=-1)
            scores = np.pad(scores, ((0, 0), (0, widen)), constant_values=-np.inf)
        query_index, row_index = np.nonzero(coarse >= limit[:, None])
        if not len(row_index):
            continue
        found = _score_pairs(queries, block, query_index, row_index)
        _merge(ids, scores, query_index, block_ids[row_index], found)
    return ids, scores


def _split(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for ids, vectors in blocks:
        for start in range(0, len(ids), BLOCK_ROWS):
            yield ids[start : start + BLOCK_ROWS], vectors[start : start + BLOCK_ROWS]


class _HalfProduct:
    """float32 products of the queries and float16 blocks."""

    def __init__(self, queries: np.ndarray) -> None:
        import torch

        self._from_numpy = torch.from_numpy
        self._queries = torch.from_numpy(np.array(queries, np.float32, order="C"))
        self._buffer = torch.empty((BLOCK_ROWS, queries.shape[1]))
        # A dot product of length D, summed in any order, is off by at most D u |q| |v| (Higham, Accuracy and Stability
        # of Numerical Algorithms, section 3.1).
        self.relative_error = queries.shape[1] * _UNIT_ROUNDOFF
        if _reduced_precision(torch):
            self.relative_error += _BFLOAT16_ERROR

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Products (Q, n) of the queries and a block (n, D)."""
        rows = self._buffer[: len(block)]
        # torch warns about read-only arrays, such as those that lie in Arrow's memory
        rows.copy_(self._from_numpy(block if block.flags.writeable else block.copy()))
        if len(self._queries) == 1:
            return (rows @ self._queries[0])[None].numpy()
        return (self._queries @ rows.T).numpy()

    def largest_norm(self, rows: int) -> float:
        """Length of the longest vector of the block that was multiplied last."""
        return float(self._buffer[:rows].norm(dim=1).max()) if rows else 0.0


def _reduced_precision(torch: Any) -> bool:
    """Whether the application lets torch multiply float32 matrices in bfloat16 or TF32 on the processor."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # torch >= 2.9
    setting = getattr(matmul, "fp32_precision", None)
    if setting is None:
        return bool(torch.get_float32_matmul_precision() != "highest")
    return setting not in ("ieee", "none")


def _score_pairs(queries: np.ndarray, block: np.ndarray, query_index: np.ndarray, row_index: np.ndarray) -> np.ndarray:
    found = np.empty(len(row_index), np.float32)
    for start in range(0, len(row_index), _PAIRS):
        part = slice(start, start + _PAIRS)
        found[part] = dot_scores(queries[query_index[part]], block[row_index[part]])
    return found


def _merge(
    ids: np.ndarray, scores: np.ndarray, query_index: np.ndarray, new_ids: np.ndarray, new_scores: np.ndarray
) -> None:
    """Puts candidates, which are grouped by query, among the answers so far, in place."""
    queries, starts = np.unique(query_index, return_index=True)
    for query, start, end in zip(queries, starts, [*starts[1:], len(query_index)], strict=True):
        all_ids = np.concatenate([ids[query], new_ids[start:end]])
        all_scores = np.concatenate([scores[query], new_scores[start:end]])
        best = np.lexsort((all_ids, -all_scores))[: ids.shape[1]]
        ids[query], scores[query] = all_ids[best], all_scores[best]

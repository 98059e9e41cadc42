"""k-reciprocal re-ranking in bounded memory, and query expansion.

The published routine holds several matrices over all pairs of the N = Q + G items. Only three things of them are
needed, and each is made in blocks: the nearest neighbours of every item (a partial selection per row), the encoding V
(a few dozen to a few hundred numbers per row, kept sparse) and the distances of the query rows (made when asked for).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..errors import EvaluationError
from .neighbors import find_neighbors, nearest_in_rows
from .pairwise_distances import FeatureDistances, GivenDistances, PairwiseDistances, ReleasedDistances
from .scores import feature_matrix

__all__ = ["KReciprocalReranking", "expand_features", "k_reciprocal_rerank"]

_BLOCK_ROWS = 512
"""Items that are worked on at a time."""

_PAIR_BLOCK = 8192
"""Single distances that are made at a time."""

_PAIRS = 500_000
"""Pairs of entries of the encoding that are compared at a time."""


@dataclass(frozen=True)
class _SparseRows:
    """Rows of a sparse matrix: row r has `values[offsets[r]:offsets[r + 1]]` in ascending columns."""

    offsets: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[Any]

    @classmethod
    def from_blocks(cls, blocks: list[_SparseRows]) -> _SparseRows:
        lengths = np.concatenate([np.diff(block.offsets) for block in blocks])
        return cls(
            _offsets(lengths),
            np.concatenate([block.columns for block in blocks]),
            np.concatenate([block.values for block in blocks]),
        )

    def transpose(self, num_columns: int) -> _SparseRows:
        """Rows become columns; within a row of the result the columns ascend."""
        rows = np.repeat(np.arange(len(self.offsets) - 1, dtype=np.int32), np.diff(self.offsets))
        order = np.argsort(self.columns, kind="stable")
        return _SparseRows(_offsets(np.bincount(self.columns, minlength=num_columns)), rows[order], self.values[order])


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])


def _positions(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenated `arange(start, start + length)`."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)


class KReciprocalReranking:
    """k-reciprocal re-ranking whose (Q, G) distances are made row by row, when they are asked for.

    Construction finds the neighbours and encodes all N = Q + G items; `distances` and `blocks` then cost no more memory
    than what they return. To count metrics without the matrix, give `scores` to `evaluate_retrieval`:

    >>> reranking = KReciprocalReranking(query_features, gallery_features)
    >>> evaluate_retrieval(
    ...     np.arange(len(query_features)), gallery_features, score_function=reranking.scores,
    ...     query_person_ids=..., gallery_person_ids=...,
    ... )

    Args:
        query_features: (Q, D) NumPy array or torch tensor (any device: products and selections run there), used as they
            are: bring them to unit length first, as CLIP-ReID does.
        gallery_features: (G, D) likewise.
        k1: Length of the neighbour lists: k1 + 1 entries, the item itself among them.
        k2: Neighbours (the item itself among them) whose encodings are averaged; 1 for no averaging.
        lambda_value: Weight of the original distance in the result, 0...1.
        half_precision: Round the encoding, its average, the overlap and the Jaccard distance to float16 after every
            operation, as the released code of CLIP-ReID does; changes results by up to about 2e-3 and is slow.

    Attributes:
        shape: (Q, G).

    Raises:
        EvaluationError: For features that do not fit or are not finite, or an option out of range.

    References:
        CLIP-ReID spec section 10.3; evaluation spec section 6.
    """

    def __init__(
        self,
        query_features: Any,
        gallery_features: Any,
        *,
        k1: int = 20,
        k2: int = 6,
        lambda_value: float = 0.3,
        half_precision: bool = False,
    ) -> None:
        make_distances = ReleasedDistances if half_precision else FeatureDistances
        distances = make_distances(_joined_features(query_features, gallery_features))
        self._prepare(distances, len(query_features), k1, k2, lambda_value, half_precision)

    @classmethod
    def from_distances(
        cls,
        query_gallery: Any,
        query_query: Any,
        gallery_gallery: Any,
        *,
        k1: int = 20,
        k2: int = 6,
        lambda_value: float = 0.3,
        half_precision: bool = False,
        squared: bool = True,
    ) -> KReciprocalReranking:
        """From three matrices of non-negative distances, as fast-reid's routine takes them.

        Args:
            query_gallery: (Q, G).
            query_query: (Q, Q).
            gallery_gallery: (G, G).
            k1: See the class.
            k2: See the class.
            lambda_value: See the class.
            half_precision: See the class.
            squared: Square every entry first, as fast-reid's routine does, also to distances that are squares already.

        Raises:
            EvaluationError: For matrices that do not fit or are not finite, or an option out of range.
        """
        matrices = [
            _matrix(values, name)
            for values, name in (
                (query_gallery, "query_gallery"),
                (query_query, "query_query"),
                (gallery_gallery, "gallery_gallery"),
            )
        ]
        num_queries, num_gallery = matrices[0].shape
        for matrix, size, name in (
            (matrices[1], num_queries, "query_query"),
            (matrices[2], num_gallery, "gallery_gallery"),
        ):
            if matrix.shape != (size, size):
                raise EvaluationError(f"{name} has shape {tuple(matrix.shape)}; query_gallery asks for {(size, size)}.")
        reranking = cls.__new__(cls)
        reranking._prepare(
            GivenDistances(*matrices, squared=squared), num_queries, k1, k2, lambda_value, half_precision
        )
        return reranking

    def _prepare(
        self,
        source: PairwiseDistances,
        num_queries: int,
        k1: int,
        k2: int,
        lambda_value: float,
        half_precision: bool,
    ) -> None:
        for name, value in (("k1", k1), ("k2", k2)):
            if value < 1:
                raise EvaluationError(f"{name} is {value}; re-ranking needs at least 1.")
        if not 0 <= lambda_value <= 1:
            raise EvaluationError(f"lambda_value is {lambda_value}; it must be in 0...1.")
        self.shape = (num_queries, source.num_items - num_queries)
        if 0 in self.shape:
            raise EvaluationError(f"nothing to re-rank: {self.shape[0]} queries and {self.shape[1]} gallery items.")
        self._source = source
        self._lambda = lambda_value
        self._half = half_precision
        neighbors = find_neighbors(source, min(max(k1 + 1, k2), source.num_items))
        self._largest = neighbors.largest
        items = neighbors.items.cpu().numpy().astype(np.int32)
        encoding = _encode(source, items, neighbors.distances.cpu().numpy(), neighbors.largest, k1, half_precision)
        if k2 != 1:
            encoding = _average(encoding, items[:, :k2], half_precision)
        self._queries = encoding
        self._inverted = _gallery_rows(encoding, num_queries).transpose(source.num_items)

    def distances(self, queries: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Re-ranked distances of some queries to the whole gallery; smaller is better.

        Args:
            queries: A slice, or (b,) indices of queries.

        Returns:
            (b, G) float32. The numbers of a query do not depend on which other queries are asked for.
        """
        asked = np.arange(self.shape[0])[queries]
        indices, places = np.unique(asked, return_inverse=True)
        result = np.empty((len(indices), self.shape[1]), dtype=np.float32)
        # Runs of neighbouring rows share their matrix product.
        for run in np.split(np.arange(len(indices)), np.flatnonzero(np.diff(indices) != 1) + 1):
            if len(run):
                self._fill(result[run[0] : run[-1] + 1], int(indices[run[0]]))
        return result if np.array_equal(asked, indices) else result[places]

    def scores(self, queries: NDArray[np.int64], gallery: Any = None) -> NDArray[np.float32]:
        """Minus the distances, as a `score_function` of `evaluate_retrieval` whose query features are indices.

        Args:
            queries: (b,) indices of queries.
            gallery: Not looked at.

        Returns:
            (b, G) float32, larger is better.
        """
        return -self.distances(queries)

    def blocks(self, block_size: int = 256) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All rows in order, a block at a time.

        Args:
            block_size: Rows per block.

        Yields:
            Index of the first query of the block, and its (b, G) distances.

        Raises:
            EvaluationError: If `block_size` is smaller than 1.
        """
        if block_size < 1:
            raise EvaluationError(f"block_size is {block_size}; it must be at least 1.")
        for start in range(0, self.shape[0], block_size):
            yield start, self.distances(slice(start, start + block_size))

    def _fill(self, result: NDArray[np.float32], start: int) -> None:
        """Write the distances of the consecutive queries from `start` on."""
        num_queries = self.shape[0]
        for row in range(0, len(result), _BLOCK_ROWS):
            part = result[row : row + _BLOCK_ROWS]
            rows = slice(start + row, start + row + len(part))
            original = self._source.rows(rows.start, rows.stop, num_queries)
            self._fill_jaccard(part, rows)
            part += original.div_(self._largest[rows, None]).mul_(self._lambda).cpu().numpy()

    def _fill_jaccard(self, result: NDArray[np.float32], rows: slice) -> None:
        """Write (1 - λ) times the Jaccard distances of some queries to the gallery."""
        offsets = self._queries.offsets[rows.start : rows.stop + 1]
        columns = self._queries.columns[offsets[0] : offsets[-1]]
        partners = np.concatenate([[0], np.cumsum(np.diff(self._inverted.offsets)[columns])])[offsets - offsets[0]]
        first = 0
        while first < len(result):
            last = max(first + 1, int(np.searchsorted(partners, partners[first] + _PAIRS, side="right")) - 1)
            overlap = self._overlap(rows.start + first, rows.start + last)
            # In half precision every operation of this line rounds, 1 - λ included.
            result[first:last] = (1 - overlap / (2 - overlap)) * overlap.dtype.type(1 - self._lambda)
            first = last

    def _overlap(self, start: int, stop: int) -> NDArray[Any]:
        """(b, G) sums over l of min(V(i, l), V(j, l)) of the queries i = start...stop - 1 and gallery items j."""
        num_gallery = self.shape[1]
        offsets = self._queries.offsets[start : stop + 1]
        entries = slice(offsets[0], offsets[-1])
        columns, values = self._queries.columns[entries], self._queries.values[entries]
        rows = np.repeat(np.arange(stop - start), np.diff(offsets))
        starts = self._inverted.offsets[columns]
        lengths = self._inverted.offsets[columns.astype(np.int64) + 1] - starts
        if not self._half:
            met = _positions(starts, lengths)
            common = np.minimum(np.repeat(values, lengths), self._inverted.values[met])
            target = np.repeat(rows * num_gallery, lengths) + self._inverted.columns[met]
            sums = np.bincount(target, common, minlength=(stop - start) * num_gallery)
            return sums.astype(np.float32).reshape(-1, num_gallery)
        # The released code adds the columns of V in ascending order, and each addition rounds.
        overlap = np.zeros((stop - start) * num_gallery, dtype=np.float16)
        place = np.arange(len(columns)) - np.repeat(offsets[:-1] - offsets[0], np.diff(offsets))
        for step in range(int(place.max()) + 1 if len(place) else 0):
            now = place == step
            met = _positions(starts[now], lengths[now])
            common = np.minimum(np.repeat(values[now], lengths[now]), self._inverted.values[met])
            overlap[np.repeat(rows[now] * num_gallery, lengths[now]) + self._inverted.columns[met]] += common
        return overlap.reshape(-1, num_gallery)


def k_reciprocal_rerank(
    query_features: Any,
    gallery_features: Any,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    half_precision: bool = False,
) -> NDArray[np.float32]:
    """Re-ranked distances of every query to every gallery item; arguments as in `KReciprocalReranking`.

    Returns:
        (Q, G) float32, smaller is better; `KReciprocalReranking` gives the same rows without holding them all.

    Raises:
        EvaluationError: See `KReciprocalReranking`.
    """
    return KReciprocalReranking(
        query_features, gallery_features, k1=k1, k2=k2, lambda_value=lambda_value, half_precision=half_precision
    ).distances(slice(None))


def expand_features(
    query_features: Any, gallery_features: Any, *, k: int = 5, alpha: float = 3.0, rounds: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Query expansion: every query and gallery feature becomes a weighted mean over its k most similar items.

    The k items are found by the cosine among queries and gallery together, the item itself included; the mean (the sum
    divided by k) is over cosine^alpha times the features as they are. A negative cosine weighs nothing.

    Args:
        query_features: (Q, D) NumPy array or torch tensor (any device).
        gallery_features: (G, D) likewise.
        k: Items that are averaged, at most Q + G.
        alpha: Exponent of the weight; 0 for the plain average.
        rounds: How often the whole is repeated.

    Returns:
        (Q, D) and (G, D) float32, not normalised.

    Raises:
        EvaluationError: For features that do not fit or are not finite, or an option out of range.

    References:
        Evaluation spec section 6 (fast-reid's average query expansion).
    """
    features = _joined_features(query_features, gallery_features)
    if not 1 <= k <= len(features):
        raise EvaluationError(f"k is {k}; choose 1...{len(features)}, the number of items.")
    if alpha < 0:
        raise EvaluationError(f"alpha is {alpha}; it must not be negative.")
    if rounds < 1:
        raise EvaluationError(f"rounds is {rounds}; it must be at least 1.")
    for _ in range(rounds):
        unit = FeatureDistances(functional.normalize(features, dim=1))
        expanded = torch.empty_like(features)
        for start in range(0, len(features), _BLOCK_ROWS):
            distances = unit.rows(start, min(start + _BLOCK_ROWS, len(features)))
            _, nearest = nearest_in_rows(distances, k)
            cosines = 1 - distances.gather(1, nearest) / 2
            if alpha != int(alpha):  # such a power of a negative number does not exist
                cosines = cosines.clamp(min=0)
            weights = cosines.pow(alpha) / k
            expanded[start : start + len(nearest)] = torch.einsum("bk,bkd->bd", weights, features[nearest])
        features = expanded
    result = features.cpu().numpy()
    return result[: len(query_features)], result[len(query_features) :]


def _encode(
    source: PairwiseDistances,
    neighbors: NDArray[np.int32],
    distances: NDArray[np.float32],
    largest: Tensor,
    k1: int,
    half: bool,
) -> _SparseRows:
    """V of all items before the average (steps 3 to 5)."""
    num_items = len(neighbors)
    full, short = neighbors[:, : k1 + 1], neighbors[:, : round(k1 / 2) + 1]
    mutual, mutual_short = _mutual(full), _mutual(short)
    blocks = []
    for start in range(0, num_items, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        own, is_own = full[block], mutual[block]
        # R(c, h) of every candidate c, and how much of it lies in R(i, k1): -1 marks what is not a member.
        members = np.where(is_own, own, -1)
        added, is_added = short[own], mutual_short[own] & is_own[:, :, None]
        shared = np.zeros(is_added.shape, dtype=bool)
        for place in range(members.shape[1]):
            shared |= added == members[:, place, None, None]
        shared &= is_added
        is_added &= (3 * shared.sum(axis=2) > 2 * is_added.sum(axis=2))[:, :, None]
        first_key = np.arange(len(own), dtype=np.int64) * num_items
        own_keys = (first_key[:, None] + own)[is_own]
        keys = np.unique(np.concatenate([own_keys, (first_key[:, None, None] + added)[is_added]]))
        rows, columns = np.divmod(keys, num_items)
        # The distances of the item's own neighbours are known; those to the neighbours' neighbours are made here.
        scaled = np.full(len(keys), np.nan, dtype=np.float32)
        scaled[np.searchsorted(keys, own_keys)] = distances[block, : k1 + 1][is_own]
        missing = np.isnan(scaled)
        scaled[missing] = _scaled_pairs(source, start + rows[missing], columns[missing], largest)
        weights = np.exp(-scaled)
        lengths = np.bincount(rows, minlength=len(own))
        starts = np.cumsum(lengths) - lengths
        if half:  # the bits of a sum depend on how it is made
            sums = np.asarray([part.sum() for part in np.split(weights, starts[1:])], dtype=np.float32)
        else:
            sums = np.add.reduceat(weights, starts)
        values = weights / np.repeat(sums, lengths)
        blocks.append(
            _SparseRows(_offsets(lengths), columns.astype(np.int32), values.astype(np.float16) if half else values)
        )
    return _SparseRows.from_blocks(blocks)


def _scaled_pairs(
    source: PairwiseDistances, rows: NDArray[np.int64], columns: NDArray[np.int64], largest: Tensor
) -> NDArray[np.float32]:
    parts = [np.empty(0, dtype=np.float32)]
    for start in range(0, len(rows), _PAIR_BLOCK):
        part = slice(start, start + _PAIR_BLOCK)
        first, second = (torch.from_numpy(index[part]).to(largest.device) for index in (rows, columns))
        parts.append((source.pairs(first, second) / largest[first]).cpu().numpy())
    return np.concatenate(parts)


def _mutual(lists: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Of every entry j of the list of i, whether i is in the list of j."""
    result = np.empty(lists.shape, dtype=bool)
    for start in range(0, len(lists), _BLOCK_ROWS):
        own = lists[start : start + _BLOCK_ROWS]
        items = np.arange(start, start + len(own), dtype=lists.dtype)
        result[start : start + len(own)] = (lists[own] == items[:, None, None]).any(axis=2)
    return result


def _average(encoding: _SparseRows, neighbors: NDArray[np.int32], half: bool) -> _SparseRows:
    """Mean of the encodings of every item's neighbours (step 6)."""
    num_items, count = neighbors.shape
    blocks = []
    for start in range(0, num_items, _BLOCK_ROWS):
        own = neighbors[start : start + _BLOCK_ROWS].ravel()
        starts, lengths = encoding.offsets[own], np.diff(encoding.offsets)[own]
        met = _positions(starts, lengths)
        row = np.arange(len(own), dtype=np.int64) // count
        keys = np.repeat(row * num_items, lengths) + encoding.columns[met]
        unique, inverse = np.unique(keys, return_inverse=True)
        sums = np.bincount(inverse, encoding.values[met], minlength=len(unique)).astype(np.float32)
        values = sums / np.float32(count)
        lengths = np.bincount(unique // num_items, minlength=len(own) // count)
        columns = (unique % num_items).astype(np.int32)
        blocks.append(_SparseRows(_offsets(lengths), columns, values.astype(np.float16) if half else values))
    return _SparseRows.from_blocks(blocks)


def _gallery_rows(encoding: _SparseRows, num_queries: int) -> _SparseRows:
    first = encoding.offsets[num_queries]
    return _SparseRows(encoding.offsets[num_queries:] - first, encoding.columns[first:], encoding.values[first:])


def _joined_features(query_features: Any, gallery_features: Any) -> Tensor:
    """`(Q + G, D)` float32 on the device of the queries."""
    queries = _matrix(query_features, "query_features")
    gallery = _matrix(gallery_features, "gallery_features").to(queries.device)
    if queries.shape[1] != gallery.shape[1]:
        raise EvaluationError(
            f"query features have {queries.shape[1]} dimensions, gallery features {gallery.shape[1]}; "
            "both must come from the same model."
        )
    return torch.cat([queries, gallery])


def _matrix(values: Any, name: str) -> Tensor:
    if not isinstance(values, Tensor):
        array = feature_matrix(values, name)
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    matrix = values.detach().float()
    if matrix.ndim != 2:
        raise EvaluationError(f"{name} must have two dimensions (number, size), got shape {tuple(matrix.shape)}.")
    finite = matrix.isfinite().all(dim=1)
    if not bool(finite.all()):
        raise EvaluationError(f"{name}: row {int((~finite).nonzero()[0])} contains NaN or infinity.")
    return matrix

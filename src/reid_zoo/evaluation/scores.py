"""Scores of queries against a gallery, one tile of query rows at a time, the same bits however they are cut.

A rank is decided by comparing scores, so one pair must have one score. The last bit of a single-precision product
depends on the kernel that the matrix library picks, hence on shapes, positions and threads: two copies of one image
could get different scores. So products are made in double precision, always with the same number of rows, and then
rounded to float32. The same number of rows makes the result independent of the block size without exception; the
double precision makes it independent of position, threads and library too, except where a sum lies within its rounding
error of the middle between two float32 numbers (about one pair in 10^8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import EvaluationError

__all__ = [
    "ScoreFunction",
    "accelerator_tiles",
    "compute_similarity",
    "feature_matrix",
    "is_on_accelerator",
    "score_tiles",
]

ScoreFunction = Callable[[Any, Any], Any]
"""(block of b queries, all gallery features) -> (b, G) scores."""

PRODUCT_ROWS = 128
"""Query rows of every matrix product."""

_GALLERY_CHUNK = 8192
"""Gallery rows that are held in double precision at a time."""


def compute_similarity(query_features: Any, gallery_features: Any) -> NDArray[np.float32]:
    """The dot products that `evaluate_retrieval` makes from features, as one matrix.

    Args:
        query_features: (Q, D) NumPy array, torch tensor or nested list.
        gallery_features: (G, D) likewise.

    Returns:
        (Q, G) float32, each the rounded double-precision product.

    Raises:
        EvaluationError: If the shapes do not fit or a feature is not finite.
    """
    queries = feature_matrix(query_features, "query_features")
    gallery = feature_matrix(gallery_features, "gallery_features")
    scores = np.empty((len(queries), len(gallery)), dtype=np.float32)
    for start, tile in _product_tiles(queries, gallery, 2 * PRODUCT_ROWS):
        scores[start : start + len(tile)] = tile
    return scores


def score_tiles(
    query_features: Any,
    gallery_features: Any,
    *,
    similarity: Any,
    shape: tuple[int, int],
    block_size: int,
    score_function: ScoreFunction | None,
) -> Iterator[tuple[int, Any]]:
    """Yield (index of the first query, float32 tile (b, G)); all checks are made before the first tile.

    A tile is a NumPy array, or a tensor on the device of the similarity or of both features, if that is not the processor.
    """
    if similarity is not None:
        if query_features is not None or gallery_features is not None or score_function is not None:
            raise EvaluationError("Give either similarity or features (with or without score_function), not both.")
        return _matrix_tiles(similarity, shape, block_size)
    if query_features is None or gallery_features is None:
        raise EvaluationError("Give query_features and gallery_features, or similarity.")
    if len(query_features) != shape[0] or len(gallery_features) != shape[1]:
        raise EvaluationError(
            f"{len(query_features)} query and {len(gallery_features)} gallery features do not fit the "
            f"{shape[0]} and {shape[1]} person ids."
        )
    if score_function is not None:
        return _function_tiles(query_features, gallery_features, shape, block_size, score_function)
    if is_on_accelerator(query_features) and is_on_accelerator(gallery_features):
        return accelerator_tiles(query_features, gallery_features, block_size)
    queries = feature_matrix(query_features, "query_features")
    gallery = feature_matrix(gallery_features, "gallery_features")
    return _product_tiles(queries, gallery, block_size)


def is_on_accelerator(values: Any) -> bool:
    """Whether these are a tensor on a device on which scores can be counted (one that knows double precision)."""
    return hasattr(values, "detach") and values.device.type not in ("cpu", "mps", "meta")


def accelerator_tiles(queries: Any, gallery: Any, block_size: int) -> Iterator[tuple[int, Any]]:
    """The tiles of two feature tensors, made where they are.

    Args:
        queries: (Q, D) tensor.
        gallery: (G, D) tensor on the same device.
        block_size: Query rows per tile, rounded up to whole products.

    Raises:
        EvaluationError: If the features do not fit or are not finite.
    """
    queries, gallery = queries.detach().float(), gallery.detach().float()
    for features, name in ((queries, "query_features"), (gallery, "gallery_features")):
        if features.ndim != 2:
            raise EvaluationError(f"{name} must have two dimensions (number, size), got shape {tuple(features.shape)}.")
        finite = features.isfinite().all(dim=1)
        if not bool(finite.all()):
            raise EvaluationError(f"{name}: row {int((~finite).nonzero()[0])} contains NaN or infinity.")
    _check_same_size(queries, gallery)
    rows = -(-min(block_size, len(queries)) // PRODUCT_ROWS) * PRODUCT_ROWS
    return _generate_accelerator_tiles(queries, gallery, rows)


def _generate_accelerator_tiles(queries: Any, gallery: Any, rows: int) -> Iterator[tuple[int, Any]]:
    for start in range(0, len(queries), rows):
        filled = min(rows, len(queries) - start)
        block = queries.new_zeros(rows, queries.shape[1]).double()
        block[:filled] = queries[start : start + filled]
        tile = queries.new_empty(rows, len(gallery))
        for column in range(0, len(gallery), _GALLERY_CHUNK):
            chunk = gallery[column : column + _GALLERY_CHUNK].double()
            for row in range(0, filled, PRODUCT_ROWS):
                tile[row : row + PRODUCT_ROWS, column : column + len(chunk)] = block[row : row + PRODUCT_ROWS] @ chunk.T
        yield start, tile[:filled]


def _matrix_tiles(similarity: Any, shape: tuple[int, int], block_size: int) -> Iterator[tuple[int, Any]]:
    if isinstance(similarity, (list, tuple)):
        similarity = _float32(similarity, "similarity")
    if tuple(similarity.shape) != shape:
        raise EvaluationError(
            f"similarity has shape {tuple(similarity.shape)}, but there are {shape[0]} query and {shape[1]} gallery "
            "person ids."
        )
    return (
        (start, _tile(similarity[start : start + block_size], "similarity")) for start in range(0, shape[0], block_size)
    )


def _tile(values: Any, name: str) -> Any:
    return values.detach().float() if is_on_accelerator(values) else _float32(values, name)


def _function_tiles(
    queries: Any, gallery: Any, shape: tuple[int, int], block_size: int, score_function: ScoreFunction
) -> Iterator[tuple[int, Any]]:
    rows = min(block_size, shape[0])
    for start in range(0, shape[0], rows):
        index = np.minimum(np.arange(start, start + rows), shape[0] - 1)
        tile = _tile(score_function(queries[index], gallery), "score_function's result")
        if tuple(tile.shape) != (rows, shape[1]):
            raise EvaluationError(
                f"score_function returned shape {tuple(tile.shape)} for {rows} queries and {shape[1]} gallery items; "
                f"expected {(rows, shape[1])}."
            )
        yield start, tile[: shape[0] - start]


def _product_tiles(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], block_size: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    _check_same_size(queries, gallery)
    return _generate_product_tiles(queries, gallery, -(-min(block_size, len(queries)) // PRODUCT_ROWS) * PRODUCT_ROWS)


def _check_same_size(queries: Any, gallery: Any) -> None:
    if queries.shape[1] != gallery.shape[1]:
        raise EvaluationError(
            f"Query features have {queries.shape[1]} dimensions, gallery features {gallery.shape[1]}; "
            "both must come from the same model."
        )


def _generate_product_tiles(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], rows: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    tile = np.empty((rows, len(gallery)), dtype=np.float32)
    block = np.zeros((rows, queries.shape[1]))
    for start in range(0, len(queries), rows):
        filled = min(rows, len(queries) - start)
        block[:filled] = queries[start : start + filled]
        block[filled:] = 0.0
        for column in range(0, len(gallery), _GALLERY_CHUNK):
            chunk = gallery[column : column + _GALLERY_CHUNK].astype(np.float64)
            for row in range(0, filled, PRODUCT_ROWS):
                product = block[row : row + PRODUCT_ROWS] @ chunk.T
                with np.errstate(over="ignore"):
                    tile[row : row + PRODUCT_ROWS, column : column + len(chunk)] = product
        yield start, tile[:filled]


def _float32(values: Any, name: str) -> NDArray[np.float32]:
    """A NumPy float32 view or copy of an array, a torch tensor (any device, dtype) or a nested list."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise EvaluationError(f"{name} is not a rectangular array of numbers ({error}).") from None
    if array.dtype.kind not in "fiub":
        raise EvaluationError(f"{name} must hold numbers, got {array.dtype}.")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused as such
        return cast(NDArray[np.float32], array.astype(np.float32, copy=False))


def feature_matrix(features: Any, name: str) -> NDArray[np.float32]:
    """Features as a contiguous float32 matrix of finite numbers.

    Args:
        features: (N, D) NumPy array, torch tensor (any device) or nested list.
        name: Of the argument, for the messages.

    Raises:
        EvaluationError: If it is no such matrix.
    """
    matrix = _float32(features, name)
    if matrix.ndim != 2:
        raise EvaluationError(f"{name} must have two dimensions (number, size), got shape {matrix.shape}.")
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise EvaluationError(f"{name}: row {int(np.flatnonzero(~finite)[0])} contains NaN or infinity.")
    return np.ascontiguousarray(matrix)

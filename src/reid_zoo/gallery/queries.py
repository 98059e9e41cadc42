"""From what a user searches for to query vectors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageReadError, QueryError
from .ingest import Encoder, checked_embeddings

__all__ = ["encode_queries"]


def encode_queries(query: Any, size: int, need_encoder: Callable[[str], Encoder]) -> tuple[np.ndarray, bool]:
    """The vectors of a query or of several.

    Args:
        query: As of `Gallery.search`.
        size: Embedding size D of the gallery.
        need_encoder: Gives the model; its argument says what for. Not called for vectors.

    Returns:
        (Q, D) float32, and whether `query` was a single one.

    Raises:
        QueryError: If a query is empty, unreadable, without any word the model knows, or of another type or shape.
    """
    if isinstance(query, np.ndarray):
        return _checked_vectors(query, size), query.ndim == 1
    single = not isinstance(query, list | tuple)
    queries = [query] if single else list(query)
    vectors = np.empty((len(queries), size), np.float32)
    prepared = [_prepare(one) for one in queries]
    given = [row for row, one in enumerate(prepared) if isinstance(one, np.ndarray)]
    texts = [row for row, one in enumerate(prepared) if isinstance(one, str)]
    images = [row for row, one in enumerate(prepared) if not isinstance(one, str | np.ndarray)]
    for row in given:
        if prepared[row].ndim != 1:
            raise QueryError(
                f"query {row} is an array of shape {prepared[row].shape}; in a list, give vectors ({size},)"
            )
        vectors[row] = _checked_vectors(prepared[row], size)
    if texts:
        encoder = need_encoder("searching by sentence")
        for row in texts:
            encoder.check_query(prepared[row])
        vectors[texts] = _encode(encoder, encoder.encode_texts, [prepared[row] for row in texts])
    if images:
        encoder = need_encoder("searching by image")
        vectors[images] = _encode(encoder, encoder.encode_images, [prepared[row] for row in images])
    return vectors, single


def _encode(encoder: Encoder, encode: Callable[[Sequence[Any]], np.ndarray], values: Sequence[Any]) -> np.ndarray:
    return checked_embeddings(encoder, encode(values), len(values))


def _checked_vectors(array: np.ndarray, size: int) -> np.ndarray:
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2) or array.shape[-1] != size:
        raise QueryError(
            f"the query is an array of shape {array.shape} and type {array.dtype}; "
            f"this gallery needs numbers of shape ({size},) or (number of queries, {size})"
        )
    vectors = np.atleast_2d(array).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise QueryError("the query vector has NaN or infinite values")
    return vectors


def _prepare(query: Any) -> Any:
    """A query as stripped text, a decoded RGB image, or the array it is."""
    from PIL import Image

    from ..data.images import IMAGE_EXTENSIONS, load_image

    if isinstance(query, np.ndarray):
        return query
    if isinstance(query, Image.Image):
        try:
            return query.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise QueryError(f"the query image cannot be read: {error}") from error
    if isinstance(query, str):
        text = query.strip()
        if not text:
            raise QueryError("the query is empty; describe a person or give an image")
        if os.path.splitext(text)[1].lower() not in IMAGE_EXTENSIONS:
            return text
        query = Path(text)  # nobody describes a person with a sentence that ends like a file name
    if isinstance(query, os.PathLike):
        try:
            return load_image(Path(query))
        except ImageReadError as error:
            raise QueryError(f"the query image cannot be read: {error}") from error
    raise QueryError(f"cannot search for {type(query).__name__}; give a sentence, an image, a path or a vector")

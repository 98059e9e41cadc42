"""From what a user searches for to query vectors."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageReadError, QueryError
from .encoder import (
    LABELS,
    Encoder,
    LateInteractionEncoder,
    checked_embeddings,
    label_problem,
    late_interaction,
    uses_labels,
)

if TYPE_CHECKING:
    from ..outputs import RetrievalFeatures

__all__ = ["EncodedQueries", "encode_queries", "prepare_query"]


@dataclass(slots=True)
class EncodedQueries:
    """Queries as a gallery searches for them.

    Attributes:
        vectors: (Q, D) float32.
        single: Whether one query was given instead of several.
        scorer: The model, where some of the queries are sentences that it scores by late interaction.
        text_rows: Positions of these sentences among the queries.
        text_features: Features of these sentences.
    """

    vectors: np.ndarray
    single: bool
    scorer: LateInteractionEncoder | None = None
    text_rows: tuple[int, ...] = ()
    text_features: RetrievalFeatures | None = None


def encode_queries(
    query: Any,
    size: int,
    need_encoder: Callable[[str], Encoder],
    *,
    late: bool = False,
    camera_ids: Any = None,
    view_ids: Any = None,
) -> EncodedQueries:
    """The vectors of a query or of several, and the features of sentences that are scored by late interaction.

    Args:
        query: As of `Gallery.search`.
        size: Embedding size D of the gallery.
        need_encoder: Gives the model; its argument says what for. Not called for vectors.
        late: Whether the gallery's model scores by late interaction, where that is known without the model.
        camera_ids: As of `Gallery.search`.
        view_ids: As of `Gallery.search`.

    Raises:
        QueryError: If a query is empty, unreadable, without any word the model knows, or of another type or shape; if it
            is a vector, but the model scores by late interaction; if cameras or viewpoints do not fit.
    """
    labels = {"camera_ids": camera_ids, "view_ids": view_ids}
    if isinstance(query, np.ndarray):
        vectors = _checked_vectors(query, size)
        _check_vectors_rank(late)
        _labels(labels, len(vectors), [])
        return EncodedQueries(vectors, query.ndim == 1)
    single = not isinstance(query, list | tuple)
    prepared = [prepare_query(one) for one in ([query] if single else query)]
    vectors = np.empty((len(prepared), size), np.float32)
    given = [row for row, one in enumerate(prepared) if isinstance(one, np.ndarray)]
    texts = [row for row, one in enumerate(prepared) if isinstance(one, str)]
    images = [row for row, one in enumerate(prepared) if not isinstance(one, str | np.ndarray)]
    for row in given:
        if prepared[row].ndim != 1:
            raise QueryError(
                f"query {row} is an array of shape {prepared[row].shape}; in a list, give vectors ({size},)"
            )
        vectors[row] = _checked_vectors(prepared[row], size)
    if given:
        _check_vectors_rank(late)
    labels = _labels(labels, len(prepared), images)
    encoded = EncodedQueries(vectors, single)
    if texts:
        encoder = need_encoder("searching by sentence")
        for row in texts:
            encoder.check_query(prepared[row])
        sentences = [prepared[row] for row in texts]
        encoded.scorer = late_interaction(encoder)
        if encoded.scorer is not None:
            encoded.text_rows = tuple(texts)
            encoded.text_features = encoded.scorer.encode_text_features(sentences)
            vectors[texts] = checked_embeddings(encoder, encoded.text_features.embeds, len(texts))
        else:
            vectors[texts] = checked_embeddings(encoder, encoder.encode_texts(sentences), len(texts))
    if images:
        encoder = need_encoder("searching by image")
        used = uses_labels(encoder)
        for name in labels:
            if name not in used:
                raise QueryError(
                    f"{name} are given, but the model {encoder.identity.name} does not use them; leave them out"
                )
        columns = {LABELS[name]: values for name, values in labels.items()}
        metadata = [{column: values[row] for column, values in columns.items()} for row in images]
        for row, one in zip(images, metadata, strict=True):
            if problem := label_problem(encoder, one):
                raise QueryError(f"query {row}: {problem}")
        arguments = {name: [labels[name][row] for row in images] for name in labels}
        found = encoder.encode_images([prepared[row] for row in images], **arguments)
        vectors[images] = checked_embeddings(encoder, found, len(images))
    return encoded


def _check_vectors_rank(late: bool) -> None:
    if late:
        raise QueryError(
            "the gallery's model scores by comparing tokens, which a vector does not have; search with a sentence"
        )


def _labels(given: Mapping[str, Any], count: int, images: Sequence[int]) -> dict[str, list[Any]]:
    """Argument name → one value per query, of those that are given.

    Raises:
        QueryError: If there are not as many as queries, or no query is an image.
    """
    labels = {}
    for name, values in given.items():
        if values is None:
            continue
        if not images:
            raise QueryError(f"{name} are of image queries, but there is none; leave them out")
        if isinstance(values, np.ndarray):
            values = values.tolist()
        given_one_by_one = isinstance(values, list | tuple)
        if not given_one_by_one:
            values = [values] * count
        if len(values) != count:
            raise QueryError(f"there are {len(values)} {name} for {count} queries; give one for all or one for each")
        for row in set(range(count)) - set(images):
            if given_one_by_one and values[row] is not None:
                raise QueryError(f"{name}: query {row} is no image, give None for it")
        labels[name] = list(values)
    return labels


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


def prepare_query(query: Any) -> Any:
    """A query as stripped text, a decoded RGB image, or the array it is.

    Raises:
        QueryError: If it is empty, unreadable or of another type.
    """
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

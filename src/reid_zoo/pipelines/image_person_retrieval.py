"""Finding a person in a gallery of images from another image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import QueryError
from ..gallery.queries import prepare_query
from .person_retrieval import PersonRetrievalPipeline

__all__ = ["ImagePersonRetrievalPipeline"]


class ImagePersonRetrievalPipeline(PersonRetrievalPipeline):
    """`pipeline("image-person-retrieval", model=..., gallery=...)`: an image in, ranked gallery images out.

    Arguments as of [`PersonRetrievalPipeline`]. Images are ranked by the inner product of their embeddings; for MGCC, which
    has no score of two images, by its coarse vectors.

    Example:
        >>> search = pipeline("image-person-retrieval", model="org/clip_reid-market", gallery="people/")
        >>> for hit in search("person.jpg", top_k=5):
        ...     print(hit["rank"], hit["score"], hit["image"])
    """

    task_name = "image-person-retrieval"

    @classmethod
    def option_names(cls) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """See `PersonRetrievalPipeline.option_names`."""
        return ("camera_ids", "view_ids"), ("top_k", "where", "gallery")

    def __call__(
        self,
        inputs: Any,
        *,
        top_k: int | None = None,
        where: str | None = None,
        gallery: Any = None,
        camera_ids: Any = None,
        view_ids: Any = None,
    ) -> list[Any]:
        """Search for the person in one image or several.

        An image that is in the gallery itself is its own best answer; leave it out by
        `where=f"image != '{path}'"`, with the absolute path.

        Args:
            inputs: A PIL image, the path of an image, an array of `uint8` (height, width[, 3 or 4]), or a list of these.
            top_k: Number of answers, 10 by default; a smaller gallery gives all it has.
            where: Only images whose metadata match, e.g. `"camera_id != 3"`.
            gallery: Search here instead of in the pipeline's gallery.
            camera_ids: Camera of the queries, for models that use it: one for all, or a list with one per query (`None`
                where unknown), numbered from 0 as in the model's training. Without it, the query is encoded without
                camera, which `MissingCameraWarning` says once.
            view_ids: Viewpoint of the queries, likewise.

        Returns:
            For one image a list of dictionaries, best first: `rank` (from 1), `score`, `image` (path), `id`, `metadata`.
            For a list of images a list of such lists.

        Raises:
            QueryError: If a query is no readable image, `top_k` is less than 1, or cameras or viewpoints are given to a model
                that does not use them, are none of the model's, or not as many as queries.
            GalleryError: If there is no gallery.
        """
        single = not isinstance(inputs, list | tuple)
        answers = self._answers(
            [inputs] if single else list(inputs),
            top_k=top_k,
            where=where,
            gallery=gallery,
            camera_ids=camera_ids,
            view_ids=view_ids,
        )
        return answers[0] if single else answers

    def preprocess(self, input_: list[Any], **preprocess_parameters: Any) -> list[Image.Image]:
        """Queries as decoded RGB images."""
        return [prepare_query(_picture(query)) for query in input_]


def _picture(query: Any) -> Image.Image | Path:
    if isinstance(query, Image.Image):
        return query
    if isinstance(query, str | os.PathLike):
        return Path(query)
    if not isinstance(query, np.ndarray):
        raise QueryError(f"cannot search with {type(query).__name__}; give an image, its path, or an array of pixels.")
    if query.dtype != np.uint8 or not (query.ndim == 2 or (query.ndim == 3 and query.shape[2] in (3, 4))):
        raise QueryError(
            f"the query is an array of shape {query.shape} and type {query.dtype}; pixels are uint8 of shape (height, width) "
            "or (height, width, 3 or 4), several images a list."
        )
    return Image.fromarray(query)

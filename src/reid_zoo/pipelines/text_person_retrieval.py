"""Finding a person in a gallery of images from a description."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import QueryError
from .person_retrieval import PersonRetrievalPipeline

__all__ = ["TextPersonRetrievalPipeline"]


class TextPersonRetrievalPipeline(PersonRetrievalPipeline):
    """`pipeline("text-person-retrieval", model=..., gallery=...)`: a description in, ranked gallery images out.

    Arguments as of [`PersonRetrievalPipeline`].

    Example:
        >>> search = pipeline("text-person-retrieval", model="org/cfine-cuhk", gallery="people/")
        >>> for hit in search("a woman in a red coat with a black backpack", top_k=5):
        ...     print(hit["rank"], hit["score"], hit["image"])
    """

    task_name = "text-person-retrieval"

    @classmethod
    def option_names(cls) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """See `PersonRetrievalPipeline.option_names`."""
        return (), ("top_k", "where", "gallery", "candidates")

    def __call__(
        self,
        inputs: str | Sequence[str],
        *,
        top_k: int | None = None,
        where: str | None = None,
        gallery: Any = None,
        candidates: int | None = None,
    ) -> list[Any]:
        """Search for one description or several.

        Args:
            inputs: A description, or a list of them.
            top_k: Number of answers, 10 by default; a smaller gallery gives all it has.
            where: Only images whose metadata match, e.g. `"camera_id = 3"`.
            gallery: Search here instead of in the pipeline's gallery.
            candidates: Images to score, for models that compare tokens (MGCC); see `Gallery.search`.

        Returns:
            For one description a list of dictionaries, best first: `rank` (from 1), `score`, `image` (path), `id`,
            `metadata`. For a list of descriptions a list of such lists.

        Raises:
            QueryError: If a description is empty or has no word the model knows, the model takes images only, or `top_k` or
                `candidates` does not fit.
            GalleryError: If there is no gallery.
        """
        queries = [inputs] if isinstance(inputs, str) else list(inputs)
        answers = self._answers(queries, top_k=top_k, where=where, gallery=gallery, candidates=candidates)
        return answers[0] if isinstance(inputs, str) else answers

    def preprocess(self, input_: list[str], **preprocess_parameters: Any) -> list[str]:
        """Descriptions, checked."""
        for query in input_:
            if not isinstance(query, str) or not query.strip():
                raise QueryError(f"the query {query!r} is empty; describe the person in words.")
            self.encoder.check_query(query)
        return input_

"""Finding a person in a gallery of images from a description."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Pipeline

from ..encoding import PersonEncoder
from ..errors import GalleryError, QueryError
from ..gallery import Gallery
from ..outputs import RetrievalFeatures

__all__ = ["TextPersonRetrievalPipeline"]


class TextPersonRetrievalPipeline(Pipeline):
    """`pipeline("text-person-retrieval", model=..., gallery=...)`: a description in, ranked gallery images out.

    Args:
        args: As for every pipeline of transformers.
        gallery: Where to search: a [`Gallery`], the folder of one, a folder of images, or a list of images (paths, PIL
            images, records). Images are indexed when the pipeline is made, into a temporary gallery; to keep it, index
            them first (`reid-zoo index` or `Gallery.create`). It can also be given with each call.
        batch_size: Images encoded at once while indexing.
        kwargs: As for every pipeline of transformers (`model`, `processor`, `device`, ...).

    Example:
        >>> search = pipeline("text-person-retrieval", model="org/cfine-cuhk", gallery="people/")
        >>> for hit in search("a woman in a red coat with a black backpack", top_k=5):
        ...     print(hit["rank"], hit["score"], hit["image"])
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, gallery: Any = None, batch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.encoder = PersonEncoder(self.model, self.processor, batch_size=batch_size)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.gallery = None if gallery is None else self._resolve(gallery)

    def _resolve(self, gallery: Any) -> Gallery:
        """A gallery from whatever the user gave; image folders and lists are indexed."""
        if isinstance(gallery, Gallery):
            self._check(gallery)
            return gallery
        if isinstance(gallery, str | os.PathLike):
            if Gallery.is_gallery(gallery):
                return Gallery.open(gallery, encoder=self.encoder)
            if not Path(gallery).exists():
                raise GalleryError(f"{gallery} does not exist; give a gallery, a folder of images or a list of images.")
        self._temporary = tempfile.TemporaryDirectory(prefix="reid-zoo-")
        indexed = Gallery.create(Path(self._temporary.name) / "images.gallery", encoder=self.encoder)
        report = indexed.add(gallery, batch_size=self.encoder.batch_size)
        if not len(indexed):
            reasons = "; ".join(f"{failed.path}: {failed.reason}" for failed in report.failed[:3])
            raise GalleryError(f"none of the images could be indexed ({reasons or 'there were none'}).")
        return indexed

    def _check(self, gallery: Gallery) -> None:
        gallery.check_identity(self.encoder.identity)

    def _sanitize_parameters(
        self, top_k: int | None = None, where: str | None = None, gallery: Any = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise TypeError(f"text-person-retrieval takes top_k, where and gallery, not {', '.join(kwargs)}.")
        given = {"top_k": top_k, "where": where, "gallery": gallery}
        return {}, {}, {name: value for name, value in given.items() if value is not None}

    def __call__(
        self, inputs: str | Sequence[str], *, top_k: int = 10, where: str | None = None, gallery: Any = None
    ) -> list[Any]:
        """Search for one description or several.

        Args:
            inputs: A description, or a list of them.
            top_k: Number of answers; a smaller gallery gives all it has.
            where: Only images whose metadata match, e.g. `"camera_id = 3"`.
            gallery: Search here instead of in the pipeline's gallery.

        Returns:
            For one description a list of dictionaries, best first: `rank` (from 1), `score`, `image` (path), `id`,
            `metadata`. For a list of descriptions a list of such lists.

        Raises:
            QueryError: If a description is empty or has no word the model knows, or `top_k` is less than 1.
            GalleryError: If there is no gallery.
        """
        queries = [inputs] if isinstance(inputs, str) else list(inputs)
        for query in queries:
            if not isinstance(query, str) or not query.strip():
                raise QueryError(f"the query {query!r} is empty; describe the person in words.")
            self.encoder.check_query(query)
        answers = self.postprocess(self.forward(self.preprocess(queries)), top_k=top_k, where=where, gallery=gallery)
        return answers[0] if isinstance(inputs, str) else answers

    def preprocess(self, input_: Any, **preprocess_parameters: Any) -> Mapping[str, torch.Tensor]:
        """Sentences → token tensors."""
        return self.processor(text=input_)

    def _forward(self, input_tensors: Mapping[str, torch.Tensor], **forward_parameters: Any) -> RetrievalFeatures:
        features: RetrievalFeatures = self.model.get_text_features(**input_tensors)
        return RetrievalFeatures(embeds=features.embeds)

    def postprocess(
        self,
        model_outputs: RetrievalFeatures,
        top_k: int = 10,
        where: str | None = None,
        gallery: Any = None,
        **postprocess_parameters: Any,
    ) -> list[list[dict[str, Any]]]:
        """Embeddings of Q sentences → Q ranked lists."""
        searched = self.gallery if gallery is None else self._resolve(gallery)
        if searched is None:
            raise GalleryError(
                "there is nothing to search in: give gallery= when making the pipeline or with the call."
            )
        assert model_outputs.embeds is not None
        vectors = model_outputs.embeds.float().cpu().numpy()
        return [
            [
                {
                    "rank": hit.rank,
                    "score": hit.score,
                    "image": hit.image,
                    "id": hit.id,
                    "metadata": dict(hit.metadata),
                }
                for hit in hits
            ]
            for hits in searched.search(list(vectors), top_k=top_k, where=where)
        ]

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save model and processor, nothing else: such a folder loads by task name, without remote code.

        (transformers' own version writes a custom-pipeline entry into the live configuration, which then asks for
        remote code wherever the model is loaded.)
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)

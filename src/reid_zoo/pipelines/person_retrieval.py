"""What the pipelines that search a gallery share."""

from __future__ import annotations

import os
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import Pipeline

from ..encoding import PersonEncoder
from ..errors import GalleryError
from ..gallery import Gallery
from ..gallery.queries import EncodedQueries, encode_queries

__all__ = ["PersonRetrievalPipeline"]


class PersonRetrievalPipeline(Pipeline):
    """Base of the pipelines: queries in, ranked gallery images out.

    Args:
        args: As for every pipeline of transformers.
        gallery: Where to search: a [`Gallery`], the folder of one, a folder of images, or a list of images (paths, PIL
            images, records). Images are indexed when the pipeline is made, into a temporary gallery; to keep it, index
            them first (`reid-zoo index` or `Gallery.create`). It can also be given with each call.
        batch_size: Images encoded at once while indexing.
        kwargs: As for every pipeline of transformers (`model`, `processor`, `device`, ...), and defaults for the options
            of a call, such as `top_k`.
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    task_name = ""

    def __init__(self, *args: Any, gallery: Any = None, batch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.encoder = PersonEncoder(self.model, self.processor, batch_size=batch_size)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.gallery = None if gallery is None else self._resolve(gallery)

    def _resolve(self, gallery: Any) -> Gallery:
        """A gallery from whatever the user gave; image folders and lists are indexed."""
        if isinstance(gallery, Gallery):
            gallery.check_identity(self.encoder.identity)
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

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Options of a call → those of encoding and those of searching."""
        encoding, searching = self.option_names()
        unknown = options.keys() - {*encoding, *searching}
        if unknown:
            names = f"{', '.join([*searching, *encoding][:-1])} and {[*searching, *encoding][-1]}"
            raise TypeError(f"{self.task_name} takes {names}, not {', '.join(sorted(unknown))}.")
        given = {name: value for name, value in options.items() if value is not None}
        return (
            {},
            {name: value for name, value in given.items() if name in encoding},
            {name: value for name, value in given.items() if name in searching},
        )

    @classmethod
    def option_names(cls) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the options of a call: of encoding the queries, and of searching."""
        return (), ("top_k", "where", "gallery")

    def _answers(self, queries: list[Any], **options: Any) -> list[list[dict[str, Any]]]:
        """One ranked list per query."""
        before, encoding, searching = self._sanitize_parameters(**options)
        prepared = self.preprocess(queries, **(self._preprocess_params | before))
        encoded = self.forward(prepared, **(self._forward_params | encoding))
        return self.postprocess(encoded, **(self._postprocess_params | searching))

    @abstractmethod
    def preprocess(self, input_: list[Any], **preprocess_parameters: Any) -> list[Any]:
        """Checks queries and makes them what `_forward` encodes."""

    def _forward(self, input_tensors: Sequence[Any], **forward_parameters: Any) -> EncodedQueries:
        """Encodes prepared queries."""
        return encode_queries(
            list(input_tensors),
            self.encoder.identity.embedding_size,
            lambda purpose: self.encoder,
            **forward_parameters,
        )

    def postprocess(
        self,
        model_outputs: EncodedQueries,
        top_k: int = 10,
        where: str | None = None,
        gallery: Any = None,
        candidates: int | None = None,
    ) -> list[list[dict[str, Any]]]:
        """Q encoded queries → Q ranked lists."""
        searched = self.gallery if gallery is None else self._resolve(gallery)
        if searched is None:
            raise GalleryError(
                "there is nothing to search in: give gallery= when making the pipeline or with the call."
            )
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
            for hits in searched.search_encoded(model_outputs, top_k, where, candidates=candidates)
        ]

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save model and processor, nothing else: such a folder loads by task name, without remote code.

        (transformers' own version writes a custom-pipeline entry into the live configuration, which then asks for
        remote code wherever the model is loaded.)
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)

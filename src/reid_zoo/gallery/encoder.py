"""What a gallery needs of a model, and the checks of what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from ..errors import GalleryError
from ..model_identity import ModelIdentity

if TYPE_CHECKING:
    from PIL import Image

    from ..outputs import RetrievalFeatures

__all__ = [
    "Encoder",
    "ImageEmbeddings",
    "LateInteractionEncoder",
    "checked_embeddings",
    "encode_images",
    "label_problem",
    "late_interaction",
    "uses_labels",
]

LABELS = {"camera_ids": "camera_id", "view_ids": "view_id"}
"""Argument of an encoder → metadata column that it comes from."""


class Encoder(Protocol):
    """What a gallery needs of a model; `reid_zoo.encoding.PersonEncoder` is one.

    An encoder whose embeddings depend on the camera of an image also has `uses_camera_ids = True` and
    `label_problem(camera_id, view_id)` (a reason, or `None`), and its `encode_images` takes `camera_ids`; likewise
    `uses_view_ids` and `view_ids`. One that scores by late interaction is a `LateInteractionEncoder`.
    """

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is."""

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(B, D) float32 with rows of unit length."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(B, D) float32 with rows of unit length."""

    def check_query(self, text: str) -> None:
        """Raise `QueryError` for a sentence that the model cannot make anything of."""


class LateInteractionEncoder(Encoder, Protocol):
    """An encoder whose own score compares the tokens of a sentence and of an image."""

    scores_by_late_interaction: bool

    def encode_image_features(self, images: Sequence[Image.Image]) -> RetrievalFeatures:
        """`embeds` (B, D), `tokens` (B, Z, D') and `token_mask` (B, Z)."""

    def encode_text_features(self, texts: Sequence[str]) -> RetrievalFeatures:
        """`embeds` (B, D), and whatever `similarity` needs."""

    def similarity(self, texts: RetrievalFeatures, images: RetrievalFeatures) -> np.ndarray:
        """(num_texts, num_images) float32; the images' features hold `embeds`, `tokens` and `token_mask`."""


@dataclass(slots=True)
class ImageEmbeddings:
    """Images as a gallery stores them.

    Attributes:
        vectors: (B, D) float32.
        tokens: (B, Z, D') float16, for late interaction only.
        mask: (B, Z) bool, true where there is a token.
    """

    vectors: np.ndarray
    tokens: np.ndarray | None = None
    mask: np.ndarray | None = None


def late_interaction(encoder: Encoder) -> LateInteractionEncoder | None:
    """The encoder, if it scores by late interaction."""
    late = getattr(encoder, "scores_by_late_interaction", False)
    return cast(LateInteractionEncoder, encoder) if late else None


def uses_labels(encoder: Encoder) -> list[str]:
    """Which of `camera_ids` and `view_ids` the encoder takes."""
    return [name for name in LABELS if getattr(encoder, f"uses_{name}", False)]


def label_problem(encoder: Encoder, metadata: Mapping[str, Any]) -> str | None:
    """Why the encoder cannot take an image with the camera and the viewpoint in its metadata, or `None`."""
    if not uses_labels(encoder):
        return None
    problem: str | None = cast(Any, encoder).label_problem(*(metadata.get(column) for column in LABELS.values()))
    return problem


def encode_images(
    encoder: Encoder, images: Sequence[Image.Image], metadata: Sequence[Mapping[str, Any]]
) -> ImageEmbeddings:
    """Vectors, and tokens where the encoder scores by them.

    Args:
        encoder: The model.
        images: B images.
        metadata: Metadata of each; camera and viewpoint go to a model that uses them.

    Raises:
        GalleryError: If the encoder gives something else than it promises.
    """
    labels = {name: [row.get(LABELS[name]) for row in metadata] for name in uses_labels(encoder)}
    late = late_interaction(encoder)
    if late is None:
        return ImageEmbeddings(checked_embeddings(encoder, encoder.encode_images(images, **labels), len(images)))
    features = late.encode_image_features(images, **labels)
    tokens = np.empty(0) if features.tokens is None else np.asarray(features.tokens)
    if tokens.ndim != 3 or len(tokens) != len(images):
        raise GalleryError(f"model {encoder.identity.name} gave no tokens (B, Z, D), although it scores by them")
    mask = np.ones(tokens.shape[:2], bool) if features.token_mask is None else np.asarray(features.token_mask, bool)
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused as such
        tokens = tokens.astype(np.float16)
    return ImageEmbeddings(checked_embeddings(encoder, features.embeds, len(images)), tokens, mask)


def checked_embeddings(encoder: Encoder, embeddings: Any, count: int) -> np.ndarray:
    """The encoder's result as (count, D) float32.

    Raises:
        GalleryError: If the shape is not what the encoder's identity says, or a value is not finite.
    """
    vectors = np.asarray(embeddings, np.float32)
    wanted = (count, encoder.identity.embedding_size)
    if vectors.shape != wanted:
        raise GalleryError(f"model {encoder.identity.name} gave embeddings of shape {vectors.shape}; wanted {wanted}")
    if not np.isfinite(vectors).all():
        raise GalleryError(
            f"model {encoder.identity.name} gave an embedding with NaN or infinite values; its weights may be damaged"
        )
    return vectors

"""Typed outputs that every method returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput

__all__ = ["EncoderOutput", "ReIDTrainingOutput", "RetrievalFeatures", "RetrievalOutput"]


@dataclass
class EncoderOutput(ModelOutput):
    """Output of one tower.

    Attributes:
        last_hidden_state: `(B, L, D)` tokens, the class token first.
        token_scores: `(B, L)` attention of the class token to every token in the last block, averaged over the heads;
            `None` unless it was asked for.
        unnormalised_state: `(B, L, D)` image tokens as the last block leaves them, before the last layer norm.
    """

    last_hidden_state: Tensor | None = None
    token_scores: Tensor | None = None
    unnormalised_state: Tensor | None = None


@dataclass
class RetrievalFeatures(ModelOutput):
    """What one modality contributes to a search.

    Attributes:
        embeds: `(B, E)` vectors of unit length whose dot product ranks exactly like the method's own score (for
            late-interaction methods: like the first stage).
        granularities: Name → `(B, D)` vector of each granularity, before any normalisation.
        tokens: `(B, L, D)` local tokens of the encoder.
        token_mask: `(B, L)`, true where a token is real (not padding).
        token_indices: `(B, K)` positions of the selected tokens, most informative first.
        token_scores: `(B, L)` score each token was selected by.
    """

    embeds: Tensor | None = None
    granularities: dict[str, Tensor] | None = None
    tokens: Tensor | None = None
    token_mask: Tensor | None = None
    token_indices: Tensor | None = None
    token_scores: Tensor | None = None

    @property
    def pooler_output(self) -> Tensor | None:
        """`embeds`, under the name that transformers' own dual encoders use."""
        return self.embeds


@dataclass
class RetrievalOutput(ModelOutput):
    """Output of an inference model's `forward`.

    Attributes:
        similarity: `(num_texts, num_images)` scores in float32 when both modalities were given.
        image_features: Features of the images, if any were given.
        text_features: Features of the sentences, if any were given.
    """

    similarity: Tensor | None = None
    image_features: RetrievalFeatures | None = None
    text_features: RetrievalFeatures | None = None


@dataclass
class ReIDTrainingOutput(ModelOutput):
    """Output of a training model's `forward`.

    Attributes:
        loss: Scalar to minimise.
        loss_terms: Name → scalar of every term, with its gradient.
        image_features: Features of the images of the batch.
        text_features: Features of the sentences of the batch.
        similarities: Name → `(B, B)` image × text similarity that a loss was computed on.
        correspondences: Name → index tensor that a training-only module chose (constants for the gradient).
        accuracies: Name → share of correct predictions of a training-only head in the batch, 0…1.
    """

    loss: Tensor | None = None
    loss_terms: dict[str, Tensor] | None = None
    image_features: RetrievalFeatures | None = None
    text_features: RetrievalFeatures | None = None
    similarities: dict[str, Tensor] | None = None
    correspondences: dict[str, Tensor] | None = None
    accuracies: dict[str, Tensor] | None = None

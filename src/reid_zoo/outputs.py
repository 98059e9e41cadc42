"""Typed outputs that every method returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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
        penultimate_state: `(B, L, D)` image tokens as the block before the last one leaves them.
    """

    last_hidden_state: Tensor | None = None
    token_scores: Tensor | None = None
    unnormalised_state: Tensor | None = None
    penultimate_state: Tensor | None = None


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
        pooler_output: `embeds`, under the name that transformers' own dual encoders use.
    """

    embeds: Tensor | None = None
    granularities: dict[str, Tensor] | None = None
    tokens: Tensor | None = None
    token_mask: Tensor | None = None
    token_indices: Tensor | None = None
    token_scores: Tensor | None = None
    pooler_output: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def map(self, function: Callable[[Tensor], Tensor]) -> RetrievalFeatures:
        """The same features with `function` applied to every tensor."""

        def apply(value: Any) -> Any:
            return (
                {key: function(tensor) for key, tensor in value.items()} if isinstance(value, dict) else function(value)
            )

        return RetrievalFeatures(**{name: apply(value) for name, value in self.items()})

    def take(self, rows: Tensor | slice) -> RetrievalFeatures:
        """The features of some of the B images or sentences: indices, a mask or a slice of the first axis."""
        return self.map(lambda tensor: tensor[rows])


# A declared field, which is how sentence-transformers finds out what `get_*_features` return, but stored nowhere.
RetrievalFeatures.pooler_output = property(lambda self: self.embeds)  # type: ignore[assignment]


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
        logits: Name → `(B, K)` scores of the training identities by a training-only head.
    """

    loss: Tensor | None = None
    loss_terms: dict[str, Tensor] | None = None
    image_features: RetrievalFeatures | None = None
    text_features: RetrievalFeatures | None = None
    similarities: dict[str, Tensor] | None = None
    correspondences: dict[str, Tensor] | None = None
    accuracies: dict[str, Tensor] | None = None
    logits: dict[str, Tensor] | None = None

"""Evaluating a model on a data set: text to image, image to text, image to image, exactly or in two stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ..data.records import PersonDataset, PersonRecord
from ..errors import QueryError
from ..validation import check_choice
from .metrics import RetrievalMetrics
from .record_encoding import encode_captions, encode_records, late_interaction_features
from .runs import captions_of, run_evaluation, run_image_evaluation
from .scores import compute_similarity
from .two_stage import TwoStageMetrics, evaluate_two_stage

if TYPE_CHECKING:
    from ..encoding import PersonEncoder
    from ..outputs import RetrievalFeatures

__all__ = [
    "Direction",
    "encode_captions",
    "encode_records",
    "evaluate_image_retrieval",
    "evaluate_in_two_stages",
    "evaluate_model",
    "score_captions",
]

Direction = Literal["text-to-image", "image-to-text"]


def score_captions(
    encoder: PersonEncoder,
    captions: Sequence[str],
    records: Sequence[PersonRecord],
    *,
    batch_size: int = 64,
    progress: bool = False,
) -> np.ndarray:
    """The model's own score of every caption with every record's image: `(num_captions, num_records)` float32.

    Args:
        encoder: The model.
        captions: At least one sentence.
        records: At least one record.
        batch_size: Images or captions per step.
        progress: Show progress bars.
    """
    if encoder.scores_by_late_interaction:
        return encoder.similarity(*late_interaction_features(encoder, captions, records, batch_size, progress))
    images = encode_records(encoder, records, batch_size=batch_size, progress=progress)
    return compute_similarity(encode_captions(encoder, captions, batch_size=batch_size, progress=progress), images)


def evaluate_model(
    encoder: PersonEncoder | str,
    dataset: PersonDataset,
    *,
    direction: Direction = "text-to-image",
    batch_size: int = 64,
    progress: bool = True,
) -> RetrievalMetrics:
    """Text-to-image retrieval: every caption is a query, every record one gallery image, nothing is removed.

    Captions and images are compared by the model's own score, also where that is a late interaction of tokens (MGCC).

    Args:
        encoder: The model, or the folder or Hub id of one.
        dataset: Records with captions and identities.
        direction: `"image-to-text"` for the same scores the other way round: every image is a query, and the captions of
            its person are the positives.
        batch_size: Images or captions per step.
        progress: Show progress bars.

    Returns:
        Rank-1, -5, -10, mAP, mINP, Rsum and the per-query values behind them (evaluation spec, section 3).

    Raises:
        DatasetError: If there are no images, or a record lacks captions or an identity.
        ConfigurationError: If there is no such direction.
        QueryError: If the model takes images only, or a record's camera is none of the model's.
    """
    check_choice("evaluate_model", "direction", direction, get_args(Direction))
    encoder = _loaded(encoder, batch_size)
    return run_evaluation(encoder, dataset, protocol=direction, batch_size=batch_size, progress=progress).metrics


def evaluate_in_two_stages(
    encoder: PersonEncoder | str,
    dataset: PersonDataset,
    *,
    num_candidates: int = 128,
    batch_size: int = 64,
    progress: bool = True,
) -> TwoStageMetrics:
    """Text-to-image retrieval with a model that scores by late interaction, on candidates that its vectors choose.

    Args:
        encoder: The model, or the folder or Hub id of one.
        dataset: Records with captions and identities.
        num_candidates: Images per caption that get the model's own score; the rest follows in the order of the vectors.
        batch_size: Images or captions per step.
        progress: Show progress bars.

    Returns:
        The figures of the whole order, and how many of the positives the first stage keeps.

    Raises:
        DatasetError: As `evaluate_model`.
        EvaluationError: If `num_candidates` is smaller than 1.
        QueryError: If the model ranks by its vectors alone, so that there is no second stage.
    """
    encoder = _loaded(encoder, batch_size)
    items = captions_of(encoder, dataset)
    if not encoder.scores_by_late_interaction:
        raise QueryError(f"the model {encoder.name!r} ranks by its vectors alone; use evaluate_model, which is exact.")
    captions = [item.caption for item in items]
    texts, images = late_interaction_features(encoder, captions, dataset.records, batch_size, progress)

    def score(query: int, candidates: np.ndarray) -> np.ndarray:
        return encoder.similarity(_rows(texts, np.asarray([query])), _rows(images, candidates))[0]

    return evaluate_two_stage(
        texts.embeds,
        images.embeds,
        score,
        query_person_ids=[item.record.person_id for item in items],
        gallery_person_ids=[record.person_id for record in dataset],
        num_candidates=num_candidates,
        progress=progress,
    )


def evaluate_image_retrieval(
    encoder: PersonEncoder | str,
    queries: PersonDataset,
    gallery: PersonDataset,
    *,
    reranking: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> RetrievalMetrics:
    """Image-to-image retrieval: gallery images of the query's person by its own camera are left out of its list.

    Args:
        encoder: The model, or the folder or Hub id of one.
        queries: Records with identities and cameras, for instance `dataset.part("query")`.
        gallery: Likewise. Without any camera in both sets nothing is left out.
        reranking: Options of `KReciprocalReranking` (`{}` for its defaults); `None` for the order of the cosines.
        batch_size: Images per step.
        progress: Show progress bars.

    Returns:
        Rank-1, -5, -10, mAP, mINP and the per-query values behind them (evaluation spec, section 4).

    Raises:
        DatasetError: If a set is empty, or some records lack an identity or a camera that others have.
        EvaluationError: If no query has a positive.
    """
    encoder = _loaded(encoder, batch_size)
    run = run_image_evaluation(encoder, queries, gallery, reranking=reranking, batch_size=batch_size, progress=progress)
    return run.metrics


def _rows(features: RetrievalFeatures, indices: np.ndarray) -> RetrievalFeatures:
    import torch

    return features.take(torch.from_numpy(np.asarray(indices)))


def _loaded(encoder: PersonEncoder | str, batch_size: int) -> PersonEncoder:
    if not isinstance(encoder, str):
        return encoder
    from ..encoding import PersonEncoder

    return PersonEncoder.from_pretrained(encoder, batch_size=batch_size)

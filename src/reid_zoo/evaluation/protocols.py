"""Evaluating a model on a data set: text to image, image to text, image to image, exactly or in two stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from tqdm.auto import tqdm

from ..data.images import load_image
from ..data.records import PersonDataset, PersonRecord
from ..errors import DatasetError, QueryError
from ..validation import check_choice
from .metrics import RetrievalMetrics, evaluate_retrieval
from .reranking import KReciprocalReranking
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

_DECODING_THREADS = 2


def _batches(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def encode_records(
    encoder: PersonEncoder, records: Sequence[PersonRecord], *, batch_size: int = 64, progress: bool = True
) -> np.ndarray:
    """Embeddings of the records' images, in order; the next batch is decoded while the model works.

    Args:
        encoder: The model; one that uses the camera or the viewpoint of an image takes them from the records
            (`camera_id`, and `view_id` of the metadata).
        records: N records.
        batch_size: Images per step.
        progress: Show a progress bar.

    Returns:
        `(N, E)` float32.
    """
    parts = list(_encoded_batches(encoder, encoder.encode_images, records, batch_size, progress))
    return np.concatenate(parts) if parts else encoder.encode_images([])


def _encoded_batches(
    encoder: PersonEncoder,
    encode: Callable[..., Any],
    records: Sequence[PersonRecord],
    batch_size: int,
    progress: bool,
) -> Iterator[Any]:
    size = encoder.processor.image_size
    batches = list(_batches(len(records), batch_size))
    with ThreadPoolExecutor(_DECODING_THREADS) as pool:

        def submit(batch: slice) -> list:
            return [pool.submit(load_image, record.image_path, target_size=size) for record in records[batch]]

        pending = submit(batches[0]) if batches else []
        for index in tqdm(range(len(batches)), desc="images", unit="batch", disable=not progress, leave=False):
            current = pending
            pending = submit(batches[index + 1]) if index + 1 < len(batches) else []
            cameras = [record.camera_id for record in records[batches[index]]]
            views = [record.metadata.get("view_id") for record in records[batches[index]]]
            yield encode([future.result() for future in current], cameras, views)


def encode_captions(
    encoder: PersonEncoder, captions: Sequence[str], *, batch_size: int = 64, progress: bool = True
) -> np.ndarray:
    """Embeddings of sentences, in order: `(N, E)` float32."""
    parts = [encoder.encode_texts(captions[batch]) for batch in _caption_bar(len(captions), batch_size, progress)]
    return np.concatenate(parts) if parts else encoder.encode_texts([])


def _caption_bar(count: int, batch_size: int, progress: bool) -> Iterator[slice]:
    batches = list(_batches(count, batch_size))
    return iter(tqdm(batches, desc="captions", unit="batch", disable=not progress, leave=False))


def _late_interaction_features(
    encoder: PersonEncoder,
    captions: Sequence[str],
    records: Sequence[PersonRecord],
    batch_size: int,
    progress: bool,
) -> tuple[RetrievalFeatures, RetrievalFeatures]:
    """What the model's own score takes of captions and images; the tokens are kept in float32."""
    from ..encoding import join_features

    images = join_features(
        list(_encoded_batches(encoder, encoder.encode_image_features, records, batch_size, progress))
    )
    bar = _caption_bar(len(captions), batch_size, progress)
    return join_features([encoder.encode_text_features(captions[batch]) for batch in bar]), images


def _rows(features: RetrievalFeatures, indices: np.ndarray) -> RetrievalFeatures:
    import torch

    return features.take(torch.from_numpy(np.asarray(indices)))


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
        return encoder.similarity(*_late_interaction_features(encoder, captions, records, batch_size, progress))
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
    encoder, captions, caption_ids, image_ids = _text_protocol(encoder, dataset, batch_size)
    by_text = direction == "text-to-image"
    ids: dict[str, Any] = {
        "query_person_ids": caption_ids if by_text else image_ids,
        "gallery_person_ids": image_ids if by_text else caption_ids,
    }
    if encoder.scores_by_late_interaction:
        texts, images = _late_interaction_features(encoder, captions, dataset.records, batch_size, progress)

        def score(rows: np.ndarray, _: Any) -> np.ndarray:
            if by_text:
                return encoder.similarity(_rows(texts, rows), images)
            return encoder.similarity(texts, _rows(images, rows)).T

        queries, gallery = (np.arange(len(ids[f"{side}_person_ids"])) for side in ("query", "gallery"))
        return evaluate_retrieval(queries, gallery, score_function=score, **ids)
    gallery = encode_records(encoder, dataset.records, batch_size=batch_size, progress=progress)
    queries = encode_captions(encoder, captions, batch_size=batch_size, progress=progress)
    return evaluate_retrieval(*((queries, gallery) if by_text else (gallery, queries)), **ids)


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
    encoder, captions, caption_ids, image_ids = _text_protocol(encoder, dataset, batch_size)
    if not encoder.scores_by_late_interaction:
        raise QueryError(f"the model {encoder.name!r} ranks by its vectors alone; use evaluate_model, which is exact.")
    texts, images = _late_interaction_features(encoder, captions, dataset.records, batch_size, progress)

    def score(query: int, candidates: np.ndarray) -> np.ndarray:
        return encoder.similarity(_rows(texts, np.asarray([query])), _rows(images, candidates))[0]

    return evaluate_two_stage(
        texts.embeds,
        images.embeds,
        score,
        query_person_ids=caption_ids,
        gallery_person_ids=image_ids,
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
    ids: dict[str, Any] = {}
    for side, part in (("query", queries), ("gallery", gallery)):
        if not part.records:
            raise DatasetError(f"{part.name} ({part.split}) has no images, in {part.root}.")
        part.person_labels()  # refuses a record without an identity by name
        ids[f"{side}_person_ids"] = [record.person_id for record in part]
        ids[f"{side}_camera_ids"] = [record.camera_id for record in part]
    cameras = ids["query_camera_ids"] + ids["gallery_camera_ids"]
    if all(camera is None for camera in cameras):
        ids["query_camera_ids"] = ids["gallery_camera_ids"] = None
    elif None in cameras:
        record = (*queries, *gallery)[cameras.index(None)]
        raise DatasetError(f"{record.image_path} has no camera, but other records do; give all of them one, or none.")
    features = [
        encode_records(encoder, part.records, batch_size=batch_size, progress=progress) for part in (queries, gallery)
    ]
    if reranking is None:
        return evaluate_retrieval(*features, **ids)
    reranked = KReciprocalReranking(*features, **reranking)
    return evaluate_retrieval(np.arange(len(queries)), features[1], score_function=reranked.scores, **ids)


def _loaded(encoder: PersonEncoder | str, batch_size: int) -> PersonEncoder:
    if not isinstance(encoder, str):
        return encoder
    from ..encoding import PersonEncoder

    return PersonEncoder.from_pretrained(encoder, batch_size=batch_size)


def _text_protocol(
    encoder: PersonEncoder | str, dataset: PersonDataset, batch_size: int
) -> tuple[PersonEncoder, list[str], list[Any], list[Any]]:
    """The model, and the captions with their identities and the identities of the images; refuses what lacks some."""
    encoder = _loaded(encoder, batch_size)
    encoder.check_supports_text()
    items = dataset.captioned_images()
    if not items:
        raise DatasetError(f"{dataset.name} ({dataset.split}) has no captions to search with, in {dataset.root}.")
    dataset.person_labels()  # refuses a record without an identity by name
    return (
        encoder,
        [item.caption for item in items],
        [item.record.person_id for item in items],
        [record.person_id for record in dataset],
    )

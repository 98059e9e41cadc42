"""One evaluation with everything that a report needs of it: queries, gallery, figures, and the scores behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.records import CaptionedImage, PersonDataset, PersonRecord
from ..errors import DatasetError
from ..validation import check_choice
from .answers import Answers, best_answers
from .metrics import RetrievalMetrics, evaluate_retrieval
from .record_encoding import encode_captions, encode_records, late_interaction_features
from .reranking import KReciprocalReranking
from .scores import compute_similarity

if TYPE_CHECKING:
    from ..encoding import PersonEncoder

__all__ = [
    "EvaluationRun",
    "Protocol",
    "captions_of",
    "natural_protocol",
    "run_evaluation",
    "run_image_evaluation",
]

Protocol = Literal["text-to-image", "image-to-text", "image-to-image"]

ScoreRows = Callable[[NDArray[np.int64]], NDArray[np.float32]]

_JUNK_SCORE = -np.inf


@dataclass(frozen=True, eq=False)
class EvaluationRun:
    """An evaluation of one model on one data set.

    Attributes:
        model: Name of the model.
        dataset: Label of the data set.
        split: Split.
        protocol: What searches what.
        metrics: The figures.
        query_records: (Q) the record of every query.
        query_texts: (Q) the sentences, with `"text-to-image"`; empty otherwise.
        gallery_records: (G) the record of every gallery item.
        gallery_texts: (G) the sentences, with `"image-to-text"`; empty otherwise.
        score_rows: (b,) query indices → (b, G) scores by which the gallery was ranked, larger is better.
        query_features: (Q, D), for a model whose score is their dot product; `None` for late interaction.
        gallery_features: (G, D) likewise.
        reranked: Whether `score_rows` are re-ranked, so that they are no cosines.
    """

    model: str
    dataset: str
    split: str
    protocol: Protocol
    metrics: RetrievalMetrics
    query_records: Sequence[PersonRecord] = field(repr=False)
    gallery_records: Sequence[PersonRecord] = field(repr=False)
    score_rows: ScoreRows = field(repr=False)
    query_texts: Sequence[str] = field(default=(), repr=False)
    gallery_texts: Sequence[str] = field(default=(), repr=False)
    query_features: NDArray[np.float32] | None = field(default=None, repr=False)
    gallery_features: NDArray[np.float32] | None = field(default=None, repr=False)
    reranked: bool = False

    @property
    def query_person_ids(self) -> list[int | str | None]:
        """(Q) identities of the queries."""
        return [record.person_id for record in self.query_records]

    @property
    def gallery_person_ids(self) -> list[int | str | None]:
        """(G) identities of the gallery items."""
        return [record.person_id for record in self.gallery_records]

    def answers(self, k: int = 10, *, progress: bool = False) -> Answers:
        """The first k items of every query; what the protocol leaves out of a list comes last in it."""
        if self.protocol != "image-to-image":
            return best_answers(self.score_rows, len(self.query_records), k=k, progress=progress)
        same_person, same_camera = _codes(self.query_records, self.gallery_records)

        def without_junk(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            scores = np.array(self.score_rows(rows), dtype=np.float32)
            query_persons, gallery_persons = same_person
            query_cameras, gallery_cameras = same_camera
            junk = (query_persons[rows, None] == gallery_persons) & (query_cameras[rows, None] == gallery_cameras)
            scores[junk & (query_cameras[rows, None] >= 0)] = _JUNK_SCORE
            return scores

        return best_answers(without_junk, len(self.query_records), k=k, progress=progress)


def _codes(
    queries: Sequence[PersonRecord], gallery: Sequence[PersonRecord]
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    """Identities and cameras of both sides as numbers; -1 for an unknown camera."""
    persons: dict[Any, int] = {}
    cameras: dict[Any, int] = {None: -1}

    def code(records: Sequence[PersonRecord]) -> tuple[NDArray[Any], NDArray[Any]]:
        return (
            np.array([persons.setdefault(record.person_id, len(persons)) for record in records]),
            np.array([cameras.setdefault(record.camera_id, len(cameras)) for record in records]),
        )

    query, item = code(queries), code(gallery)
    return (query[0], item[0]), (query[1], item[1])


def natural_protocol(dataset: PersonDataset) -> Protocol:
    """`"image-to-image"` for a set that names its queries and its gallery, `"text-to-image"` otherwise."""
    divided = any(record.metadata.get("split") == "query" for record in dataset.records)
    return "image-to-image" if divided else "text-to-image"


def run_evaluation(
    encoder: PersonEncoder,
    dataset: PersonDataset,
    *,
    protocol: Protocol | None = None,
    reranking: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> EvaluationRun:
    """Evaluate a model by the protocol of a data set.

    Args:
        encoder: The model.
        dataset: Records with identities; with captions for the two protocols with sentences; for `"image-to-image"` a set
            whose records' metadata name their `split` as `query` or `gallery`.
        protocol: What searches what; by default what the data set is for.
        reranking: Options of `KReciprocalReranking` for `"image-to-image"` (`{}` for its defaults); `None` for none.
        batch_size: Images or captions per step.
        progress: Show progress bars.

    Raises:
        ConfigurationError: If there is no such protocol, or it cannot be re-ranked.
        DatasetError: If records lack captions, identities or, some of them, cameras.
        QueryError: If the model takes images only and the protocol has sentences.
    """
    chosen = protocol or natural_protocol(dataset)
    check_choice("evaluate", "protocol", chosen, get_args(Protocol))
    if reranking is not None and chosen != "image-to-image":
        check_choice("evaluate", "protocol with re-ranking", chosen, ("image-to-image",))
    if chosen == "image-to-image":
        return run_image_evaluation(
            encoder,
            dataset.part("query"),
            dataset.part("gallery"),
            reranking=reranking,
            batch_size=batch_size,
            progress=progress,
        )
    shared: dict[str, Any] = {
        "model": encoder.name,
        "dataset": dataset.label,
        "split": dataset.split,
        "protocol": chosen,
    }
    items = captions_of(encoder, dataset)
    captions, owners = [item.caption for item in items], [item.record for item in items]
    by_text = chosen == "text-to-image"
    images_of: Sequence[PersonRecord] = dataset.records
    queries, gallery = (owners, images_of) if by_text else (images_of, owners)
    texts: dict[str, Any] = {"query_texts" if by_text else "gallery_texts": captions}
    if encoder.scores_by_late_interaction:
        scores = _late_interaction_scores(encoder, captions, dataset.records, by_text, batch_size, progress)
        metrics = evaluate_retrieval(
            np.arange(len(queries)),
            np.arange(len(gallery)),
            query_person_ids=[record.person_id for record in queries],
            gallery_person_ids=[record.person_id for record in gallery],
            score_function=lambda rows, _: scores(rows),
        )
        return EvaluationRun(
            metrics=metrics, query_records=queries, gallery_records=gallery, score_rows=scores, **texts, **shared
        )
    images = encode_records(encoder, dataset.records, batch_size=batch_size, progress=progress)
    sentences = encode_captions(encoder, captions, batch_size=batch_size, progress=progress)
    features = (sentences, images) if by_text else (images, sentences)
    return _vector_run(features, queries, gallery, texts | shared)


def captions_of(encoder: PersonEncoder, dataset: PersonDataset) -> list[CaptionedImage]:
    """The captions of a data set as queries of a model, in order.

    Raises:
        DatasetError: If there are none, or a record has no identity.
        QueryError: If the model takes images only.
    """
    encoder.check_supports_text()
    items = dataset.captioned_images()
    if not items:
        raise DatasetError(f"{dataset.label} ({dataset.split}) has no captions to search with, in {dataset.root}.")
    dataset.person_labels()  # refuses a record without an identity by name
    return items


def _vector_run(
    features: tuple[NDArray[np.float32], NDArray[np.float32]],
    queries: Sequence[PersonRecord],
    gallery: Sequence[PersonRecord],
    fields: dict[str, Any],
    **cameras: Any,
) -> EvaluationRun:
    metrics = evaluate_retrieval(
        *features,
        query_person_ids=[record.person_id for record in queries],
        gallery_person_ids=[record.person_id for record in gallery],
        **cameras,
    )
    return EvaluationRun(
        metrics=metrics,
        query_records=queries,
        gallery_records=gallery,
        score_rows=lambda rows: compute_similarity(features[0][rows], features[1]),
        query_features=features[0],
        gallery_features=features[1],
        **fields,
    )


def _late_interaction_scores(
    encoder: PersonEncoder,
    captions: Sequence[str],
    records: Sequence[PersonRecord],
    by_text: bool,
    batch_size: int,
    progress: bool,
) -> ScoreRows:
    import torch

    texts, images = late_interaction_features(encoder, captions, records, batch_size, progress)

    def scores(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        chosen = torch.from_numpy(np.asarray(rows))
        if by_text:
            return encoder.similarity(texts.take(chosen), images)
        return encoder.similarity(texts, images.take(chosen)).T

    return scores


def run_image_evaluation(
    encoder: PersonEncoder,
    queries: PersonDataset,
    gallery: PersonDataset,
    *,
    reranking: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> EvaluationRun:
    """Image-to-image retrieval: gallery images of the query's person by its own camera are left out of its list.

    Args:
        encoder: The model.
        queries: Records with identities, and cameras (all of both sets or none).
        gallery: Likewise.
        reranking: Options of `KReciprocalReranking` (`{}` for its defaults); `None` for the order of the cosines.
        batch_size: Images per step.
        progress: Show progress bars.

    Raises:
        DatasetError: If a set is empty, or some records lack an identity or a camera that others have.
        EvaluationError: If no query has a positive.
    """
    for part in (queries, gallery):
        if not part.records:
            raise DatasetError(f"{part.name} ({part.split}) has no images, in {part.root}.")
        part.person_labels()  # refuses a record without an identity by name
    records = (*queries.records, *gallery.records)
    known = [record.camera_id is not None for record in records]
    if any(known) and not all(known):
        record = records[known.index(False)]
        raise DatasetError(f"{record.image_path} has no camera, but other records do; give all of them one, or none.")
    cameras: dict[str, Any] = {}
    if all(known):
        cameras = {
            "query_camera_ids": [record.camera_id for record in queries],
            "gallery_camera_ids": [record.camera_id for record in gallery],
        }
    features = (
        encode_records(encoder, queries.records, batch_size=batch_size, progress=progress),
        encode_records(encoder, gallery.records, batch_size=batch_size, progress=progress),
    )
    split = queries.split if gallery.split == queries.split else f"{queries.split}/{gallery.split}"
    shared: dict[str, Any] = {
        "model": encoder.name,
        "dataset": queries.label,
        "split": split,
        "protocol": "image-to-image",
    }
    if reranking is None:
        return _vector_run(features, queries.records, gallery.records, shared, **cameras)
    ranking = KReciprocalReranking(*features, **reranking)
    metrics = evaluate_retrieval(
        np.arange(len(queries)),
        features[1],
        query_person_ids=[record.person_id for record in queries],
        gallery_person_ids=[record.person_id for record in gallery],
        score_function=ranking.scores,
        **cameras,
    )
    return EvaluationRun(
        metrics=metrics,
        query_records=queries.records,
        gallery_records=gallery.records,
        score_rows=ranking.scores,
        query_features=features[0],
        gallery_features=features[1],
        reranked=True,
        **shared,
    )

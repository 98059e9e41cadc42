"""Image-to-image figures of a model that is being trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..data.records import PersonDataset
from ..evaluation.gallery_trials import TrialMetrics, evaluate_gallery_trials
from ..evaluation.metrics import RetrievalMetrics
from ..evaluation.protocols import evaluate_image_retrieval
from ..evaluation.record_encoding import encode_records

if TYPE_CHECKING:
    from ..encoding import PersonEncoder

__all__ = ["evaluate_images"]


def evaluate_images(
    encoder: PersonEncoder, dataset: PersonDataset, *, batch_size: int = 64, progress: bool = True
) -> RetrievalMetrics | TrialMetrics:
    """Rank-1, mAP and so on of images that are searched by images.

    A set that is divided into queries and gallery (a benchmark's test split) is evaluated so: gallery images of the query's
    person by its own camera are left out of its list. Any other set is evaluated by VehicleID's protocol, which is that of
    its test split: ten times, one random image of every identity is the gallery and all others are queries.

    Args:
        encoder: The model.
        dataset: Records with identities.
        batch_size: Images per step.
        progress: Show progress bars.

    Returns:
        The figures; their `as_dict()` has the same names for both protocols.

    Raises:
        DatasetError: If records lack identities, or some of them the camera that others have.
        EvaluationError: If no query has a match.
    """
    if {"query", "gallery"} <= {record.metadata.get("split") for record in dataset}:
        queries, gallery = dataset.part("query"), dataset.part("gallery")
        return evaluate_image_retrieval(encoder, queries, gallery, batch_size=batch_size, progress=progress)
    dataset.person_labels()  # refuses a record without an identity by name
    features = encode_records(encoder, dataset.records, batch_size=batch_size, progress=progress)
    return evaluate_gallery_trials(features, [record.person_id for record in dataset])

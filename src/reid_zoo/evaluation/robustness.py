"""How a model copes with occluded galleries: the figures over the severity of the occlusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..data.images import load_image
from ..data.occlusion import OcclusionSeverity, severity_sweep
from ..data.records import PersonDataset, PersonRecord
from ..errors import QueryError
from .metrics import evaluate_retrieval
from .record_encoding import encode_captions
from .runs import natural_protocol

if TYPE_CHECKING:
    from ..encoding import PersonEncoder

__all__ = ["RobustnessPoint", "evaluate_robustness"]


@dataclass(frozen=True, slots=True)
class RobustnessPoint:
    """Figures at one severity.

    Attributes:
        severity: Which images were occluded and by how much.
        num_occluded: Gallery images that were.
        metrics: `R1`, `R5`, `R10`, `mAP`, `mINP`, `Rsum` in per cent.
    """

    severity: OcclusionSeverity
    num_occluded: int
    metrics: dict[str, float]


def evaluate_robustness(
    encoder: PersonEncoder,
    dataset: PersonDataset,
    *,
    severities: Sequence[OcclusionSeverity] | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> list[RobustnessPoint]:
    """Evaluate with occluded gallery images; queries stay as they are.

    The same seed occludes the same images with the same occluders at every severity (OGor's built-in ones), so the points
    differ by nothing else.

    Args:
        encoder: The model; one that ranks by its vectors.
        dataset: As of `run_evaluation`: captions search images, or queries search the gallery.
        severities: Points of the curve; by default none, a quarter, a half, three quarters and all of the images, each
            occluder with the area of its class.
        batch_size: Images per step.
        progress: Show a progress bar.

    Raises:
        QueryError: If the model scores by late interaction, or takes images only and the data set has captions.
    """
    if encoder.scores_by_late_interaction:
        raise QueryError(
            f"the model {encoder.name!r} scores by late interaction; evaluate it on an occluded copy of the data set "
            "(reid-zoo occlude) instead."
        )
    levels = list(severity_sweep()) if severities is None else list(severities)
    cameras: dict[str, Any] = {}
    if natural_protocol(dataset) == "image-to-image":
        query_part, gallery = dataset.part("query").records, dataset.part("gallery").records
        queries = _encode(encoder, query_part, None, batch_size, None)
        query_persons = [record.person_id for record in query_part]
        if all(record.camera_id is not None for record in (*query_part, *gallery)):
            cameras = {
                "query_camera_ids": [record.camera_id for record in query_part],
                "gallery_camera_ids": [record.camera_id for record in gallery],
            }
    else:
        encoder.check_supports_text()
        gallery = dataset.records
        items = dataset.captioned_images()
        queries = encode_captions(encoder, [item.caption for item in items], batch_size=batch_size, progress=False)
        query_persons = [item.record.person_id for item in items]
    points = []
    with tqdm(total=len(levels) * len(gallery), desc="occluded images", disable=not progress, leave=False) as bar:
        for level in levels:
            images = _encode(encoder, gallery, level, batch_size, bar)
            metrics = evaluate_retrieval(
                queries,
                images,
                query_person_ids=query_persons,
                gallery_person_ids=[record.person_id for record in gallery],
                **cameras,
            )
            occluded = sum(level.is_occluded(record.image_path.name) for record in gallery)
            points.append(RobustnessPoint(level, occluded, metrics.as_dict()))
    return points


def _encode(
    encoder: PersonEncoder,
    records: Sequence[PersonRecord],
    severity: OcclusionSeverity | None,
    batch_size: int,
    bar: tqdm[NoReturn] | None,
) -> NDArray[np.float32]:
    size = encoder.processor.image_size
    parts = []
    for start in range(0, len(records), batch_size):
        batch = records[start : start + batch_size]
        images = [load_image(record.image_path, target_size=size) for record in batch]
        if severity is not None:
            images = [
                severity.apply(image, record.image_path.name) for image, record in zip(images, batch, strict=True)
            ]
        parts.append(
            encoder.encode_images(images, [record.camera_id for record in batch], [record.view_id for record in batch])
        )
        if bar is not None:
            bar.update(len(batch))
    return np.concatenate(parts)

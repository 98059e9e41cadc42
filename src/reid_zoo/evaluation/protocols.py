"""Evaluating a model on a data set by the text-to-image protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from ..data.images import load_image
from ..data.records import PersonDataset, PersonRecord
from ..errors import DatasetError
from .metrics import RetrievalMetrics, evaluate_retrieval

if TYPE_CHECKING:
    from ..encoding import PersonEncoder

__all__ = ["encode_captions", "encode_records", "evaluate_model"]

_DECODING_THREADS = 2


def _batches(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def encode_records(
    encoder: PersonEncoder, records: Sequence[PersonRecord], *, batch_size: int = 64, progress: bool = True
) -> np.ndarray:
    """Embeddings of the records' images, in order; the next batch is decoded while the model works.

    Args:
        encoder: The model.
        records: N records.
        batch_size: Images per step.
        progress: Show a progress bar.

    Returns:
        `(N, E)` float32.
    """
    size = encoder.processor.image_size
    batches = list(_batches(len(records), batch_size))
    parts = []
    with ThreadPoolExecutor(_DECODING_THREADS) as pool:

        def submit(batch: slice) -> list:
            return [pool.submit(load_image, record.image_path, target_size=size) for record in records[batch]]

        pending = submit(batches[0]) if batches else []
        for index in tqdm(range(len(batches)), desc="images", unit="batch", disable=not progress, leave=False):
            current = pending
            pending = submit(batches[index + 1]) if index + 1 < len(batches) else []
            parts.append(encoder.encode_images([future.result() for future in current]))
    return np.concatenate(parts) if parts else encoder.encode_images([])


def encode_captions(
    encoder: PersonEncoder, captions: Sequence[str], *, batch_size: int = 64, progress: bool = True
) -> np.ndarray:
    """Embeddings of sentences, in order: `(N, E)` float32."""
    bar = tqdm(
        list(_batches(len(captions), batch_size)), desc="captions", unit="batch", disable=not progress, leave=False
    )
    parts = [encoder.encode_texts(captions[batch]) for batch in bar]
    return np.concatenate(parts) if parts else encoder.encode_texts([])


def evaluate_model(
    encoder: PersonEncoder | str, dataset: PersonDataset, *, batch_size: int = 64, progress: bool = True
) -> RetrievalMetrics:
    """Text-to-image retrieval: every caption is a query, every record one gallery image, nothing is removed.

    Args:
        encoder: The model, or the folder or Hub id of one.
        dataset: Records with captions and identities.
        batch_size: Images or captions per step.
        progress: Show progress bars.

    Returns:
        Rank-1, -5, -10, mAP, mINP, Rsum and the per-query values behind them (evaluation spec, section 3).

    Raises:
        DatasetError: If there are no images, or a record lacks captions or an identity.
    """
    if isinstance(encoder, str):
        from ..encoding import PersonEncoder

        encoder = PersonEncoder.from_pretrained(encoder, batch_size=batch_size)
    items = dataset.captioned_images()
    if not items:
        raise DatasetError(f"{dataset.name} ({dataset.split}) has no captions to search with, in {dataset.root}.")
    dataset.person_labels()  # refuses a record without an identity by name
    gallery = encode_records(encoder, dataset.records, batch_size=batch_size, progress=progress)
    queries = encode_captions(encoder, [item.caption for item in items], batch_size=batch_size, progress=progress)
    return evaluate_retrieval(
        queries,
        gallery,
        query_person_ids=[item.record.person_id for item in items],
        gallery_person_ids=[record.person_id for record in dataset],
    )

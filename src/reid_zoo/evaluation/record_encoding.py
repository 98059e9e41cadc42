"""From the records of a data set to what a model makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from ..data.images import load_image
from ..data.records import PersonRecord

if TYPE_CHECKING:
    from ..encoding import PersonEncoder
    from ..outputs import RetrievalFeatures

__all__ = ["encode_captions", "encode_records", "late_interaction_features"]

_DECODING_THREADS = 2


def _batches(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def encode_records(
    encoder: PersonEncoder, records: Sequence[PersonRecord], *, batch_size: int = 64, progress: bool = True
) -> np.ndarray:
    """Embeddings of the records' images, in order; the next batch is decoded while the model works.

    Args:
        encoder: The model; one that uses the camera or the viewpoint of an image takes them from the records.
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
            views = [record.view_id for record in records[batches[index]]]
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


def late_interaction_features(
    encoder: PersonEncoder,
    captions: Sequence[str],
    records: Sequence[PersonRecord],
    batch_size: int,
    progress: bool,
) -> tuple[RetrievalFeatures, RetrievalFeatures]:
    """What the model's own score takes of captions and images; the tokens are kept in float32.

    Args:
        encoder: A model that scores by late interaction.
        captions: At least one sentence.
        records: At least one record.
        batch_size: Images or captions per step.
        progress: Show progress bars.

    Returns:
        Features of the captions, and of the images.
    """
    from ..encoding import join_features

    images = join_features(
        list(_encoded_batches(encoder, encoder.encode_image_features, records, batch_size, progress))
    )
    bar = _caption_bar(len(captions), batch_size, progress)
    return join_features([encoder.encode_text_features(captions[batch]) for batch in bar]), images

"""Encoding shared out among the processes of a training run: what evaluation between epochs uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..distributed import gather_batch, num_processes, process_index
from ..encoding import Labels, PersonEncoder
from ..outputs import RetrievalFeatures

__all__ = ["ShardedEncoder"]


class ShardedEncoder(PersonEncoder):
    """A [`PersonEncoder`] of which every process encodes its share of the items, and gets the features of all of them.

    Arguments and results are those of `PersonEncoder`. Every method that encodes is a collective call: all processes have to
    make it, with the same items. `batch_size` stays the number of items that one process encodes at a time, so what is
    given at once should be `num_processes()` times that many. Fewer items than processes are encoded by all of them.
    """

    def encode_images(
        self, images: Sequence[Image.Image], camera_ids: Labels = None, view_ids: Labels = None
    ) -> np.ndarray:
        """See [`PersonEncoder.encode_images`]."""
        encode = super().encode_images
        own = self._own_share(len(images))
        part = encode(images[own], _part(camera_ids, own), _part(view_ids, own))
        return self._joined(torch.from_numpy(part), len(images)).numpy()

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See [`PersonEncoder.encode_texts`]."""
        part = super().encode_texts(texts[self._own_share(len(texts))])
        return self._joined(torch.from_numpy(part), len(texts)).numpy()

    def encode_image_features(
        self, images: Sequence[Image.Image], camera_ids: Labels = None, view_ids: Labels = None
    ) -> RetrievalFeatures:
        """See [`PersonEncoder.encode_image_features`]."""
        encode = super().encode_image_features
        own = self._own_share(len(images))
        part = encode(images[own], _part(camera_ids, own), _part(view_ids, own))
        return part.map(lambda tensor: self._joined(tensor, len(images)))

    def encode_text_features(self, texts: Sequence[str]) -> RetrievalFeatures:
        """See [`PersonEncoder.encode_text_features`]."""
        part = super().encode_text_features(texts[self._own_share(len(texts))])
        return part.map(lambda tensor: self._joined(tensor, len(texts)))

    def _own_share(self, count: int) -> slice:
        """A run of items for every process, as equal as can be; all of them where there are fewer than processes."""
        parts, index = num_processes(), process_index()
        if count < parts:
            return slice(0, count)
        return slice(count * index // parts, count * (index + 1) // parts)

    def _joined(self, part: Tensor, count: int) -> Tensor:
        """The shares of all processes, on the processor."""
        return part if count < num_processes() else gather_batch(part.to(self.model.device))[0].cpu()


def _part(labels: Labels, rows: slice) -> Labels:
    return None if labels is None else labels[rows]

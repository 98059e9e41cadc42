"""From records to training batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .images import load_image
from .records import PersonDataset
from .transforms import CaptionAugmentation, ImageAugmentation, augment_caption, build_image_augmentation

if TYPE_CHECKING:
    from ..processing import ReIDProcessor

__all__ = ["ImageTextCollator", "ImageTextPairs"]


class ImageTextPairs(Dataset):
    """Items of training: one per (image, caption) pair, in file order.

    Args:
        dataset: Records with captions and identities.
        processor: Gives image size and interpolation.
        augmentation: What to do to an image.
        caption_augmentation: What to do to a caption.
        cache_images: Keep the resized images in memory (3·H·W bytes each), so that later epochs decode nothing.

    Raises:
        DatasetError: If a record has no identity.
    """

    def __init__(
        self,
        dataset: PersonDataset,
        processor: ReIDProcessor,
        augmentation: ImageAugmentation | None = None,
        caption_augmentation: CaptionAugmentation | None = None,
        *,
        cache_images: bool = False,
    ) -> None:
        self.items = dataset.captioned_images()
        self.labels = dataset.person_labels()
        self.image_size = processor.image_size
        self.transform = build_image_augmentation(
            augmentation or ImageAugmentation(), processor.image_size, int(processor.image_processor.resample)
        )
        self.caption_augmentation = caption_augmentation or CaptionAugmentation()
        self.captions_of: dict[int | str | None, list[str]] = {}
        for item in self.items:
            self.captions_of.setdefault(item.record.person_id, []).append(item.caption)
        self.cache: dict[int, Tensor] | None = {} if cache_images else None

    def __len__(self) -> int:
        return len(self.items)

    def _pixels(self, index: int) -> Tensor:
        record = self.items[index].record
        if self.cache is not None and record.image_id in self.cache:
            return self.cache[record.image_id]
        pixels = self.transform.resize(load_image(record.image_path, target_size=self.image_size))
        if self.cache is not None:
            self.cache[record.image_id] = pixels
        return pixels

    def _caption(self, index: int) -> str:
        item, settings = self.items[index], self.caption_augmentation
        caption = item.caption
        if settings.same_person_swap and torch.rand(()).item() < settings.same_person_swap:
            choices = self.captions_of[item.record.person_id]
            caption = choices[int(torch.randint(len(choices), ()))]
        return augment_caption(caption, settings)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`pixels` uint8 `(3, H, W)`, `caption`, `person_label`, `image_id`."""
        item = self.items[index]
        assert item.record.person_id is not None
        return {
            "pixels": self.transform(self._pixels(index)),
            "caption": self._caption(index),
            "person_label": self.labels[item.record.person_id],
            "image_id": item.record.image_id,
        }


class ImageTextCollator:
    """Items of [`ImageTextPairs`] → a batch for a training model's `forward`.

    Args:
        processor: Normalises the pixels and tokenises the captions.
        image_ids: Also say which image each pair comes from, for the losses of some methods.
    """

    def __init__(self, processor: ReIDProcessor, *, image_ids: bool = False) -> None:
        self.processor = processor
        self.image_ids = image_ids
        image_processor = processor.image_processor
        self.mean = torch.tensor(image_processor.image_mean).view(1, 3, 1, 1)
        self.std = torch.tensor(image_processor.image_std).view(1, 3, 1, 1)

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """`pixel_values` `(B, 3, H, W)`, `input_ids`, `attention_mask` `(B, L)`, `person_labels` `(B,)`; `image_ids`."""
        pixels = torch.stack([item["pixels"] for item in items]).float().div_(255)
        batch = {"pixel_values": (pixels - self.mean) / self.std}
        batch |= self.processor.process_texts([item["caption"] for item in items], training=True)
        batch["person_labels"] = torch.tensor([item["person_label"] for item in items])
        if self.image_ids:
            batch["image_ids"] = torch.tensor([item["image_id"] for item in items])
        return batch

"""From records to training batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ..errors import DatasetError
from .images import load_image
from .records import CaptionedImage, PersonDataset, PersonRecord
from .samplers import SeededIndex
from .transforms import CaptionAugmentation, ImageAugmentation, augment_caption, build_image_augmentation

if TYPE_CHECKING:
    from ..processing import ReIDProcessor

__all__ = ["EvaluationImages", "ImageCollator", "ImageTextCollator", "ImageTextPairs", "TrainingImages"]

_LABELS = {"camera_ids": "camera_id", "view_ids": "view_id"}


class TrainingImages(Dataset):
    """Items of training on images alone: one per record, in file order.

    Indexed with a [`SeededIndex`], everything random about an item follows from its seed, and torch's generator is left as
    it was; indexed with a number, an item draws from that generator.

    Args:
        dataset: Records with identities.
        processor: Gives image size, interpolation and normalisation.
        augmentation: What to do to an image.
        cache_images: Keep the resized images in memory (3·H·W bytes each), so that later epochs decode nothing. Every worker
            keeps those that it read itself, and only for one epoch.
        labels: Which of `"camera_ids"` and `"view_ids"` the items are to have as well.

    Raises:
        DatasetError: If a record has no identity, or not the camera or viewpoint that is asked for.
    """

    def __init__(
        self,
        dataset: PersonDataset,
        processor: ReIDProcessor,
        augmentation: ImageAugmentation | None = None,
        *,
        cache_images: bool = False,
        labels: Sequence[str] = (),
    ) -> None:
        self.labels = dataset.person_labels()
        self.items: Sequence[Any] = self._items_of(dataset)
        self.image_size = processor.image_size
        settings = processor.image_processor
        self.transform = build_image_augmentation(
            augmentation or ImageAugmentation(),
            processor.image_size,
            int(settings.resample),
            settings.image_mean,
            settings.image_std,
        )
        self.cache: dict[int, Tensor] | None = {} if cache_images else None
        self.fields = {name: _LABELS[name] for name in labels}
        for name, field in self.fields.items():
            for record in dataset:
                if getattr(record, field) is None:
                    raise DatasetError(
                        f"{dataset.name} ({dataset.split}): {record.image_path} has no {field}, but the model's side "
                        f"information needs {name}; add the field to every record, or switch it off."
                    )

    def _items_of(self, dataset: PersonDataset) -> Sequence[Any]:
        return dataset.records

    def record_of(self, index: int) -> PersonRecord:
        """The record that an item is made of."""
        record: PersonRecord = self.items[index]
        return record

    def person_label_of_items(self) -> list[int]:
        """Training label of every item, what an identity sampler draws by."""
        return [self._label(self.record_of(index)) for index in range(len(self))]

    def _label(self, record: PersonRecord) -> int:
        assert record.person_id is not None
        return self.labels[record.person_id]

    def __len__(self) -> int:
        return len(self.items)

    def _pixels(self, record: PersonRecord) -> Tensor:
        if self.cache is not None and record.image_id in self.cache:
            return self.cache[record.image_id]
        pixels = self.transform.resize(load_image(record.image_path, target_size=self.image_size))
        if self.cache is not None:
            self.cache[record.image_id] = pixels
        return pixels

    def __getitem__(self, index: int | SeededIndex) -> dict[str, Any]:
        """`pixel_values` `(3, H, W)` float32, `person_label`, `image_id`, `camera_ids` and `view_ids` as asked for."""
        if not isinstance(index, SeededIndex):
            return self._item(index)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(index.seed)
            return self._item(index.index)

    def _item(self, index: int) -> dict[str, Any]:
        record = self.record_of(index)
        return {
            "pixel_values": self.transform.normalize(self.transform(self._pixels(record))),
            "person_label": self._label(record),
            "image_id": record.image_id,
            **{name: getattr(record, field) for name, field in self.fields.items()},
        }


class ImageTextPairs(TrainingImages):
    """Items of training: one per (image, caption) pair, in file order. See [`TrainingImages`].

    Args:
        dataset: Records with captions and identities.
        processor: Gives image size, interpolation and normalisation.
        augmentation: What to do to an image.
        caption_augmentation: What to do to a caption.
        cache_images: Keep the resized images in memory, see [`TrainingImages`].

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
        super().__init__(dataset, processor, augmentation, cache_images=cache_images)
        self.caption_augmentation = caption_augmentation or CaptionAugmentation()
        self.captions_of: dict[int | str | None, list[str]] = {}
        for item in self.items:
            self.captions_of.setdefault(item.record.person_id, []).append(item.caption)

    def _items_of(self, dataset: PersonDataset) -> Sequence[CaptionedImage]:
        return dataset.captioned_images()

    def record_of(self, index: int) -> PersonRecord:
        """The record that an item is made of."""
        record: PersonRecord = self.items[index].record
        return record

    def _caption(self, index: int) -> str:
        item, settings = self.items[index], self.caption_augmentation
        caption = item.caption
        if settings.same_person_swap and torch.rand(()).item() < settings.same_person_swap:
            choices = self.captions_of[item.record.person_id]
            caption = choices[int(torch.randint(len(choices), ()))]
        return augment_caption(caption, settings)

    def _item(self, index: int) -> dict[str, Any]:
        """Those of images, and `caption`."""
        return {**super()._item(index), "caption": self._caption(index)}


class EvaluationImages(Dataset):
    """The records' images as the processor prepares them for retrieval, without chance: `(3, H, W)` each.

    Args:
        records: The records.
        processor: The model's processor.
    """

    def __init__(self, records: Sequence[PersonRecord], processor: ReIDProcessor) -> None:
        self.records = records
        self.processor = processor

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tensor:
        image = load_image(self.records[index].image_path, target_size=self.processor.image_size)
        pixels: Tensor = self.processor(images=[image], return_tensors="pt")["pixel_values"][0]
        return pixels


class ImageCollator:
    """Items of [`TrainingImages`] → a batch for the `forward` of a method that trains on images alone.

    Args:
        image_ids: Also say which image each item is.
    """

    def __init__(self, *, image_ids: bool = False) -> None:
        self.image_ids = image_ids

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """`pixel_values` `(B, 3, H, W)`, `person_labels` `(B,)`; `camera_ids`, `view_ids`, `image_ids` if there are any."""
        batch = {
            # stacks, and in a worker straight into memory that the main process shares
            "pixel_values": default_collate([item["pixel_values"] for item in items]),
            "person_labels": torch.tensor([item["person_label"] for item in items]),
        }
        names = [name for name in _LABELS if name in items[0]]
        batch |= {name: torch.tensor([item[name] for item in items]) for name in names}
        if self.image_ids:
            batch["image_ids"] = torch.tensor([item["image_id"] for item in items])
        return batch


class ImageTextCollator(ImageCollator):
    """Items of [`ImageTextPairs`] → a batch for a training model's `forward`.

    Args:
        processor: Tokenises the captions.
        image_ids: Also say which image each pair comes from, for the losses of some methods.
    """

    def __init__(self, processor: ReIDProcessor, *, image_ids: bool = False) -> None:
        super().__init__(image_ids=image_ids)
        self.processor = processor

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Those of [`ImageCollator`], and `input_ids`, `attention_mask` `(B, L)`."""
        captions = [item["caption"] for item in items]
        return {**super().__call__(items), **self.processor.process_texts(captions, training=True)}

"""Training-time augmentation of images and captions."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..errors import ConfigurationError
from ..validation import check_choice

__all__ = ["CaptionAugmentation", "ImageAugmentation", "augment_caption", "build_image_augmentation"]

_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?;])\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAugmentation:
    """What is done to a training image, in this order; the defaults are CFine's (a flip and nothing else).

    Attributes:
        horizontal_flip: Probability of mirroring.
        crop_padding: Pixels of border added on every side before a random crop back to size; 0 for no crop.
        color_jitter: Largest relative change of brightness, contrast and saturation. Hue is never touched: colours are
            what captions speak of.
        scale_jitter: Largest relative change of size, height and width on their own, before the crop.
        erase_probability: Probability that one random rectangle is filled with one colour.
        crop_fill: What the border of the crop shows: the `"edge"` continued, or `"black"`.
        erase_scale: Smallest and largest share of the area that is erased.
        erase_value: Colour of the erased rectangle, red, green and blue in 0…255 (grey by default).
    """

    horizontal_flip: float = 0.5
    crop_padding: int = 0
    color_jitter: float = 0.0
    scale_jitter: float = 0.0
    erase_probability: float = 0.0
    crop_fill: str = "edge"
    erase_scale: tuple[float, ...] = (0.02, 0.25)
    erase_value: tuple[int, ...] = (127, 127, 127)

    def __post_init__(self) -> None:
        check_choice("augmentation", "crop_fill", self.crop_fill, ("edge", "black"))
        if len(self.erase_scale) != 2 or not 0 < self.erase_scale[0] <= self.erase_scale[1] < 1:
            raise ConfigurationError(
                f"augmentation.erase_scale is {list(self.erase_scale)}, but must be [smallest, largest] between 0 and 1."
            )
        if len(self.erase_value) != 3 or not all(0 <= value <= 255 for value in self.erase_value):
            raise ConfigurationError(
                f"augmentation.erase_value is {list(self.erase_value)}, but must be three numbers of 0 to 255."
            )
        for name in ("horizontal_flip", "erase_probability", "color_jitter", "scale_jitter"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigurationError(f"augmentation.{name} is {value}, but must lie between 0 and 1.")
        if self.crop_padding < 0:
            raise ConfigurationError(f"augmentation.crop_padding is {self.crop_padding}, but cannot be negative.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionAugmentation:
    """What is done to a training caption, in this order; nothing by default.

    Attributes:
        same_person_swap: Probability that a caption is replaced by one drawn from all captions of the same person.
        sentence_shuffle: Probability that its sentences are put in random order.
        sentence_dropout: Probability with which each sentence is left out (at least one always stays).
        word_dropout: Probability with which each word is left out (at least one always stays).
    """

    same_person_swap: float = 0.0
    sentence_shuffle: float = 0.0
    sentence_dropout: float = 0.0
    word_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("same_person_swap", "sentence_shuffle"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigurationError(f"caption_augmentation.{name} is {value}, but must lie between 0 and 1.")
        for name in ("sentence_dropout", "word_dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigurationError(f"caption_augmentation.{name} is {value}, but must be at least 0 and below 1.")


class _ImageTransform:
    """PIL image → uint8 tensor `(3, H, W)`, resized and augmented."""

    def __init__(self, settings: ImageAugmentation, image_size: tuple[int, int], interpolation: int) -> None:
        from torchvision.transforms import v2

        self.image_size = image_size
        self.interpolation = interpolation
        height, width = image_size
        steps: list = []
        if settings.scale_jitter:
            low, high = 1 - settings.scale_jitter, 1 + settings.scale_jitter
            steps.append(v2.RandomAffine(degrees=0, scale=(low, high), fill=127))
        if settings.crop_padding:
            mode = "constant" if settings.crop_fill == "black" else "edge"
            steps.append(v2.RandomCrop((height, width), padding=settings.crop_padding, padding_mode=mode))
        if settings.horizontal_flip:
            steps.append(v2.RandomHorizontalFlip(settings.horizontal_flip))
        if settings.color_jitter:
            amount = settings.color_jitter
            steps.append(v2.ColorJitter(brightness=amount, contrast=amount, saturation=amount))
        if settings.erase_probability:
            scale, value = list(settings.erase_scale), [float(channel) for channel in settings.erase_value]
            steps.append(v2.RandomErasing(settings.erase_probability, scale=scale, value=value))
        self.augment = v2.Compose(steps) if steps else None

    def resize(self, image: Image.Image) -> Tensor:
        """The part without chance, which may be cached: `(3, H, W)` uint8."""
        from torchvision.transforms.v2 import functional

        height, width = self.image_size
        resized = image.convert("RGB").resize((width, height), resample=self.interpolation)
        return functional.pil_to_tensor(resized)

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.augment(pixels) if self.augment is not None else pixels


def build_image_augmentation(
    settings: ImageAugmentation, image_size: tuple[int, int], interpolation: int
) -> _ImageTransform:
    """The transform for these settings.

    Args:
        settings: What to do.
        image_size: `(height, width)` in pixels.
        interpolation: Pillow resampling filter of the resize.

    Returns:
        An object with `resize(image)` (PIL → uint8 `(3, H, W)`, no chance involved) and a call for the random part,
        which draws from torch's global generator.
    """
    return _ImageTransform(settings, image_size, interpolation)


def _drop(parts: list[str], probability: float) -> list[str]:
    """Leave each part out with a probability; the order is kept, and one part always stays."""
    if not probability:
        return parts
    draws = torch.rand(len(parts)).tolist()
    kept = [part for part, draw in zip(parts, draws, strict=True) if draw >= probability]
    return kept or [parts[draws.index(max(draws))]]


def augment_caption(caption: str, settings: CaptionAugmentation) -> str:
    """Shuffle and drop sentences and words of a caption, drawing from torch's global generator.

    A sentence ends at `.`, `!`, `?` or `;` before white space.
    """
    if settings.sentence_shuffle or settings.sentence_dropout:
        sentences = _BETWEEN_SENTENCES.split(caption.strip())
        if settings.sentence_shuffle and torch.rand(()).item() < settings.sentence_shuffle:
            sentences = [sentences[i] for i in torch.randperm(len(sentences)).tolist()]
        caption = " ".join(_drop(sentences, settings.sentence_dropout))
    return " ".join(_drop(caption.split(), settings.word_dropout)) if settings.word_dropout else caption

"""Training-time augmentation of images and captions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from PIL import Image
from torch import Tensor

from ..errors import ConfigurationError
from ..validation import Count, OneOf, Within, check_settings

__all__ = [
    "CaptionAugmentation",
    "ImageAugmentation",
    "ImageTransform",
    "augment_caption",
    "build_image_augmentation",
]

_INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_ERASE_FILLS = ("color", "noise", "normalized_mean")

_Probability = Annotated[float, Within(0, 1)]
_BelowOne = Annotated[float, Within(0, 1, open_high=True)]
_InsideOfOne = Annotated[float, Within(0, 1, open_low=True, open_high=True)]
_AboveZero = Annotated[float, Within(0, open_low=True)]
_SMALLEST_AND_LARGEST = Count(2, "[smallest, largest]")

_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?;])\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAugmentation:
    """What is done to a training image, in this order; the defaults are CFine's (a flip and nothing else).

    Attributes:
        resize_interpolation: How training images are resized, `"bicubic"` or `"bilinear"`; by default as the processor does
            it in evaluation. CLIP-ReID trains with the one and evaluates with the other.
        scale_jitter: Largest relative change of size, height and width on their own, before the crop.
        horizontal_flip: Probability of mirroring.
        crop_padding: Pixels of border added on every side before a random crop back to size; 0 for no crop.
        crop_fill: What the border of the crop shows: the `"edge"` continued, or `"black"`.
        color_jitter: Largest relative change of brightness, contrast and saturation. Hue is never touched: colours are
            what captions speak of.
        erase_probability: Probability that one random rectangle is erased.
        erase_scale: Smallest and largest share of the area that is erased.
        erase_ratio: Smallest and largest ratio of height to width of the rectangle, drawn on a logarithmic scale.
        erase_fill: What the rectangle shows: one `"color"`; or, behind the normalisation, standard normal `"noise"` for
            every pixel and channel on its own (CLIP-ReID), or the mean that pixels were normalised with, once more
            (`"normalized_mean"`, what IRRA's and VFE-TPS's releases do).
        erase_value: The colour, red, green and blue in 0…255 (grey by default).
    """

    resize_interpolation: Annotated[str | None, OneOf(*_INTERPOLATIONS)] = None
    scale_jitter: _BelowOne = 0.0
    horizontal_flip: _Probability = 0.5
    crop_padding: Annotated[int, Within(0)] = 0
    crop_fill: Annotated[str, OneOf("edge", "black")] = "edge"
    color_jitter: Annotated[float, Within(0, 1)] = 0.0
    erase_probability: _Probability = 0.0
    erase_scale: Annotated[tuple[_InsideOfOne, ...], _SMALLEST_AND_LARGEST] = (0.02, 0.25)
    erase_ratio: Annotated[tuple[_AboveZero, ...], _SMALLEST_AND_LARGEST] = (0.3, 3.3)
    erase_fill: Annotated[str, OneOf(*_ERASE_FILLS)] = "color"
    erase_value: Annotated[tuple[Annotated[int, Within(0, 255)], ...], Count(3, "three numbers of 0 to 255")] = (
        127,
        127,
        127,
    )

    def __post_init__(self) -> None:
        check_settings(self, "augmentation.")
        for name in ("erase_scale", "erase_ratio"):
            smallest, largest = getattr(self, name)
            if smallest > largest:
                raise ConfigurationError(
                    f"augmentation.{name} is {[smallest, largest]}, but must be [smallest, largest]."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionAugmentation:
    """What is done to a training caption, in this order; nothing by default.

    Attributes:
        same_person_swap: Probability that a caption is replaced by one drawn from all captions of the same person.
        sentence_shuffle: Probability that its sentences are put in random order.
        sentence_dropout: Probability with which each sentence is left out (at least one always stays).
        word_dropout: Probability with which each word is left out (at least one always stays).
    """

    same_person_swap: _Probability = 0.0
    sentence_shuffle: _Probability = 0.0
    sentence_dropout: _BelowOne = 0.0
    word_dropout: _BelowOne = 0.0

    def __post_init__(self) -> None:
        check_settings(self, "caption_augmentation.")


class ImageTransform:
    """PIL image → normalised training pixels, in three parts, so that the first can be cached.

    Everything random draws from torch's global generator.

    Args:
        settings: What to do.
        image_size: `(height, width)` in pixels.
        interpolation: Pillow resampling filter of the resize, where the settings do not say another one.
        image_mean: Mean per channel, of pixels in [0, 1].
        image_std: Standard deviation per channel.
    """

    def __init__(
        self,
        settings: ImageAugmentation,
        image_size: tuple[int, int],
        interpolation: int,
        image_mean: Sequence[float],
        image_std: Sequence[float],
    ) -> None:
        from torchvision.transforms import v2

        self.image_size = image_size
        own = settings.resize_interpolation
        self.interpolation = interpolation if own is None else _INTERPOLATIONS[own]
        self.mean = torch.tensor(list(image_mean)).view(3, 1, 1)
        self.std = torch.tensor(list(image_std)).view(3, 1, 1)
        steps: list = []
        if settings.scale_jitter:
            low, high = 1 - settings.scale_jitter, 1 + settings.scale_jitter
            steps.append(v2.RandomAffine(degrees=0, scale=(low, high), fill=127))
        if settings.horizontal_flip:
            steps.append(v2.RandomHorizontalFlip(settings.horizontal_flip))
        if settings.crop_padding:
            mode = "constant" if settings.crop_fill == "black" else "edge"
            steps.append(v2.RandomCrop(image_size, padding=settings.crop_padding, padding_mode=mode))
        if settings.color_jitter:
            amount = settings.color_jitter
            steps.append(v2.ColorJitter(brightness=amount, contrast=amount, saturation=amount))
        self.erase_normalized = None
        if settings.erase_probability:
            value: str | list[float] = "random"  # torchvision's name of the noise
            if settings.erase_fill != "noise":
                color = settings.erase_value if settings.erase_fill == "color" else image_mean
                value = [float(channel) for channel in color]
            erasing = v2.RandomErasing(
                settings.erase_probability,
                scale=list(settings.erase_scale),
                ratio=list(settings.erase_ratio),
                value=value,
                inplace=settings.erase_fill != "color",  # behind the normalisation the pixels are nobody else's
            )
            if settings.erase_fill == "color":
                steps.append(erasing)
            else:
                self.erase_normalized = erasing
        self.augment = v2.Compose(steps) if steps else None

    def resize(self, image: Image.Image) -> Tensor:
        """The part without chance: `(3, H, W)` uint8."""
        from torchvision.transforms.v2 import functional

        height, width = self.image_size
        if image.mode != "RGB":
            image = image.convert("RGB")
        return functional.pil_to_tensor(image.resize((width, height), resample=self.interpolation))

    def __call__(self, pixels: Tensor) -> Tensor:
        """The random part on uint8 pixels: `(3, H, W)`, left unchanged, → `(3, H, W)`."""
        return self.augment(pixels) if self.augment is not None else pixels

    def normalize(self, pixels: Tensor) -> Tensor:
        """Augmented uint8 pixels → normalised ones in float32, with what is erased behind the normalisation."""
        values = pixels.to(torch.float32, copy=True).div_(255).sub_(self.mean).div_(self.std)
        return self.erase_normalized(values) if self.erase_normalized is not None else values


def build_image_augmentation(
    settings: ImageAugmentation,
    image_size: tuple[int, int],
    interpolation: int,
    image_mean: Sequence[float] = (0.5, 0.5, 0.5),
    image_std: Sequence[float] = (0.5, 0.5, 0.5),
) -> ImageTransform:
    """The transform for these settings; arguments as of [`ImageTransform`]."""
    return ImageTransform(settings, image_size, interpolation, image_mean, image_std)


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

"""How a method's authors turn images and sentences into tensors, as data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLIP_PIXELS", "HALF_PIXELS", "IMAGENET_PIXELS", "PixelStatistics", "ProcessorDefaults"]


@dataclass(frozen=True, slots=True)
class PixelStatistics:
    """Mean and standard deviation per colour channel, of pixels in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET_PIXELS = PixelStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_PIXELS = PixelStatistics((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF_PIXELS = PixelStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorDefaults:
    """Preprocessing of a method's release.

    Attributes:
        pixels: What pixels are normalised with.
        interpolation: `"bicubic"` or `"bilinear"`.
        tokenizer: `"wordpiece"` (a BERT's, which a user must name), `"clip"`, `"clip_with_mask"` (its last merge gives way
            to a mask token), or `None` for a method without sentences.
        truncation_keeps_sep: See [`ReIDProcessor`].
        clean_text: See [`ReIDProcessor`].
        pad_token_id: See [`ReIDProcessor`].
        caption_cleaning: See [`ReIDProcessor`].
    """

    pixels: PixelStatistics = IMAGENET_PIXELS
    interpolation: str = "bicubic"
    tokenizer: str | None = "wordpiece"
    truncation_keeps_sep: bool = False
    clean_text: bool = False
    pad_token_id: int | None = None
    caption_cleaning: str = "none"

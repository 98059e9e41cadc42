"""Size and position of an occluder: the 15 classes, the released tool's anchors and the paper's position sets.

Boxes are (left, top, right, bottom) in pixels, right and bottom exclusive. Source: OGor of MGCC, its Table 1 and
Algorithm 1, and the released tool where the two differ; `docs/occlusion.md` lists the differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..synthetic.randomness import RandomStream

__all__ = [
    "AREA_RANGE",
    "CLASS_GEOMETRY",
    "POSITION_MODES",
    "SIZE_MODES",
    "Anchor",
    "Box",
    "ClassGeometry",
    "PositionMode",
    "PositionSet",
    "SizeMode",
    "anchored_box",
    "clip_box",
    "draw_area_ratio",
    "draw_box",
    "paste_size",
]

Box = tuple[int, int, int, int]
Anchor = Literal["bottom_left", "bottom_right", "top_left", "upper_half_left", "upper_half_right"]
PositionSet = Literal["up", "middle", "bottom"]
SizeMode = Literal["class_ratio", "uniform"]
PositionMode = Literal["class_anchor", "random_horizontal", "algorithm1"]

SIZE_MODES: tuple[SizeMode, ...] = ("class_ratio", "uniform")
POSITION_MODES: tuple[PositionMode, ...] = ("class_anchor", "random_horizontal", "algorithm1")

AREA_RANGE = (0.1, 0.6)
"""Share of the image area that a box of the paper's Algorithm 1 covers: uniform between these two."""

_STEPS = 2**32


@dataclass(frozen=True, slots=True)
class ClassGeometry:
    """What is fixed for all instances of one class.

    Attributes:
        area_ratio: Share of the image area that the bounding box covers (released tool).
        anchor: Where the box lies (released tool).
        position_set: Where the box may lie (paper, Table 1).
    """

    area_ratio: float
    anchor: Anchor
    position_set: PositionSet


CLASS_GEOMETRY: Mapping[str, ClassGeometry] = {
    "bag": ClassGeometry(0.20, "upper_half_left", "middle"),
    "bench": ClassGeometry(0.40, "bottom_left", "bottom"),
    "bike": ClassGeometry(0.60, "bottom_left", "bottom"),
    "car": ClassGeometry(0.45, "bottom_left", "bottom"),
    "card": ClassGeometry(0.20, "bottom_left", "bottom"),
    "chair": ClassGeometry(0.65, "bottom_left", "bottom"),
    "firehydrant": ClassGeometry(0.20, "bottom_right", "bottom"),
    "kite": ClassGeometry(0.40, "top_left", "up"),
    "motorbike": ClassGeometry(0.50, "bottom_left", "bottom"),
    "pedestrian": ClassGeometry(0.50, "bottom_right", "bottom"),
    "post": ClassGeometry(0.50, "bottom_left", "middle"),
    "roadsign": ClassGeometry(0.40, "bottom_right", "bottom"),
    "stone": ClassGeometry(0.15, "bottom_left", "bottom"),
    "suitcase": ClassGeometry(0.10, "upper_half_right", "middle"),
    "umbrella": ClassGeometry(0.25, "top_left", "up"),
}
"""The classes of occluders, by name."""


def paste_size(instance_size: tuple[int, int], image_size: tuple[int, int], area_ratio: float) -> tuple[int, int]:
    """Size of a pasted instance: its aspect ratio is kept, its box has the given share of the image area.

    Args:
        instance_size: (width, height) of the cut-out, in pixels.
        image_size: (width, height) of the image, in pixels.
        area_ratio: Area of the box over area of the image; the box may still stick out.

    Returns:
        (width, height) in pixels, rounded half to even, at least 1.
    """
    width, height = instance_size
    area = area_ratio * image_size[0] * image_size[1]
    return max(1, round(math.sqrt(area * width / height))), max(1, round(math.sqrt(area * height / width)))


def anchored_box(anchor: Anchor, size: tuple[int, int], image_size: tuple[int, int]) -> Box:
    """The box of the released tool: fixed by the anchor, and sticking out of the image where it is too large.

    Args:
        anchor: Where the class belongs.
        size: (width, height) of the pasted instance.
        image_size: (width, height) of the image.

    Returns:
        The box before clipping; coordinates may be negative or beyond the image.
    """
    width, height = size
    left = image_size[0] - width if anchor in ("bottom_right", "upper_half_right") else 0
    if anchor in ("bottom_left", "bottom_right"):
        top = image_size[1] - height
    elif anchor == "top_left":
        top = 0
    else:
        top = image_size[1] // 2 - height
    return left, top, left + width, top + height


def clip_box(box: Box, image_size: tuple[int, int]) -> Box:
    """The part of a box inside the image; of no width or height where the two do not meet."""
    left, top = (min(max(value, 0), limit) for value, limit in zip(box[:2], image_size, strict=True))
    right, bottom = (min(max(value, 0), limit) for value, limit in zip(box[2:], image_size, strict=True))
    return left, top, right, bottom


def draw_area_ratio(rng: RandomStream) -> float:
    """A share of the image area, uniform over `AREA_RANGE` (Algorithm 1)."""
    low, high = AREA_RANGE
    return low + (high - low) * rng.below(_STEPS) / _STEPS


def draw_box(
    mode: PositionMode, class_name: str, size: tuple[int, int], image_size: tuple[int, int], rng: RandomStream
) -> Box | None:
    """Draw where a pasted instance lies.

    Args:
        mode: `"class_anchor"` (released tool, nothing random), `"random_horizontal"` (main text of the paper: the
            upper set at the top edge, the lower set at the bottom edge, the middle set in the upper half, each at a
            random horizontal place inside the image; a box wider than the image covers its whole width) or
            `"algorithm1"` (upper and lower set at the left edge, middle set anywhere in the upper half).
        class_name: A key of `CLASS_GEOMETRY`.
        size: (width, height) of the pasted instance.
        image_size: (width, height) of the image.
        rng: Where the draws come from.

    Returns:
        The box before clipping, or `None` if Algorithm 1 refuses it because it does not fit; then draw again from the
        start. The other modes never refuse.
    """
    geometry = CLASS_GEOMETRY[class_name]
    width, height = size
    if mode == "class_anchor":
        return anchored_box(geometry.anchor, size, image_size)
    lowest_top = image_size[1] - height
    if mode == "random_horizontal":
        slack = image_size[0] - width
        left = rng.between(min(0, slack), max(0, slack))
        top = {"up": 0, "bottom": lowest_top}.get(geometry.position_set)
        if top is None:
            top = rng.between(0, max(0, image_size[1] // 2 - height))
        return left, top, left + width, top + height
    if geometry.position_set == "middle":
        tops = -(-image_size[1] // 2) - height  # how many whole numbers lie in [0, H / 2 - h)
        if tops <= 0:
            return None
        left, top = rng.below(image_size[0]), rng.below(tops)
    else:
        left, top = 0, 0 if geometry.position_set == "up" else lowest_top
    # The paper asks for y + h < H, which no box at the bottom edge could meet.
    if top < 0 or left + width > image_size[0] or top + height > image_size[1]:
        return None
    return left, top, left + width, top + height

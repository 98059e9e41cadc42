"""A pen for objects: shapes with light and shade on a transparent background, anti-aliased.

Pictures are drawn four times too large with whole numbers only and then averaged, so the pixels are the same on every
machine. One unit is a thousandth of 240 pixels; x runs to the right and y upwards from the lower left corner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
from PIL import Image

from ...synthetic.painter import FigurePainter, darker, lighter
from ...synthetic.randomness import RandomStream
from ...synthetic.raster import Canvas, Color, Mask, Point, arc
from ...synthetic.view import Part

__all__ = ["ObjectPainter", "canvas_to_cutout"]

_FACTOR = 4
_PIXELS = 240  # of 1000 units
_LIGHT: Color = (255, 252, 240)
_SHADE: Color = (4, 4, 22)


class _ClippedCanvas(Canvas):
    """A canvas that paints inside of `clip` only, if there is one."""

    clip: Mask | None = None

    def fill(self, mask: Mask, color: Color, part: int) -> None:
        super().fill(mask if self.clip is None else mask.intersect(self.clip), color, part)

    def tint(self, mask: Mask, color: Color, opacity: int) -> None:
        super().tint(mask if self.clip is None else mask.intersect(self.clip), color, opacity)


class ObjectPainter(FigurePainter):
    """Draws one object.

    Args:
        width: Width of the drawing in units.
        height: Height of the drawing in units.
    """

    def __init__(self, width: int, height: int) -> None:
        size = _PIXELS * _FACTOR
        canvas = _ClippedCanvas(-(-width * size // 1000), -(-height * size // 1000))
        super().__init__(canvas, (0, canvas.height), size)
        self._clipped = canvas

    # --- shapes ------------------------------------------------------------------------------------------------------

    def shape(self, points: Sequence[Point], color: Color, *, rounded: bool = False, volume: int = 12) -> Mask:
        """A polygon; `rounded` cuts its corners, `volume` is the width of light and shade at its edges in units."""
        return self.polygon(points, color, Part.OCCLUDER, rounded=rounded, volume=volume)

    def box(
        self, left: int, bottom: int, right: int, top: int, color: Color, *, radius: int = 0, volume: int = 12
    ) -> Mask:
        """An upright rectangle with corners of the given radius."""
        if radius == 0:
            return self.shape([(left, bottom), (right, bottom), (right, top), (left, top)], color, volume=volume)
        return self.shape(self.round_corners(left, bottom, right, top, radius), color, volume=volume)

    @staticmethod
    def round_corners(left: int, bottom: int, right: int, top: int, radius: int) -> list[Point]:
        """The outline of a rectangle with round corners."""
        return [
            *arc(right - radius, top - radius, radius, radius, 0, 90),
            *arc(left + radius, top - radius, radius, radius, 90, 180),
            *arc(left + radius, bottom + radius, radius, radius, 180, 270),
            *arc(right - radius, bottom + radius, radius, radius, 270, 360),
        ]

    def disc(self, center: Point, rx: int, color: Color, *, ry: int = 0, volume: int = 12) -> Mask:
        """An ellipse; a circle if `ry` is left out."""
        return self.ellipse(center, rx, ry or rx, color, Part.OCCLUDER, volume=volume)

    def line(self, points: Sequence[Point], radius: int, color: Color, *, volume: int = 0) -> None:
        """A line with round corners and ends."""
        for start, end in pairwise(points):
            self.stroke(start, end, radius, color, Part.OCCLUDER, volume=volume)

    def tube(self, points: Sequence[Point], radius: int, color: Color) -> None:
        """A line with a highlight along its upper side: a pipe or a rod."""
        self.line(points, radius, darker(color, 26))
        self.line(points, max(1, radius * 7 // 10), color)
        lifted = [(x - radius // 4, y + radius // 3) for x, y in points]
        self.line(lifted, max(1, radius // 4), lighter(color, 40))

    def ring(self, center: Point, radius: int, width: int, color: Color) -> Mask:
        """A circle of a given line width, measured inwards."""
        mask = self.ring_mask(center, radius, width)
        self.canvas.fill(mask, color, Part.OCCLUDER)
        return mask

    def ring_mask(self, center: Point, radius: int, width: int) -> Mask:
        """The pixels of a `ring`."""
        x, y = self.at(center)
        outer, inner = self.length(radius), self.length(radius - width)
        mask = self.canvas.ellipse(x, y, outer, outer)
        hole = self.canvas.ellipse(x, y, inner, inner)
        return subtract(mask, hole)

    def erase(self, mask: Mask) -> None:
        """Makes pixels transparent again: a hole that one can see through."""
        if not mask.empty:
            self.canvas.parts.paste(
                0, (mask.left, mask.top), Image.fromarray(mask.inside.view(np.uint8) * np.uint8(255))
            )

    # --- light and shade ---------------------------------------------------------------------------------------------

    def blend(self, mask: Mask, color: Color, opacity: np.ndarray) -> None:
        """Blends a colour over a mask; `opacity` is 0 to 255 and broadcasts to the mask."""
        if mask.empty:
            return
        values = np.clip(opacity, 0, 255) * mask.inside
        self.canvas.colors.paste(color, (mask.left, mask.top), Image.fromarray(values.astype(np.uint8)))

    def round_off(self, mask: Mask, strength: int = 110) -> None:
        """Shades a mask like an upright cylinder lit from the upper left."""
        if mask.empty:
            return
        width = mask.inside.shape[1]
        place = (np.arange(width, dtype=np.int64) * 2 + 1) * 500 // width  # thousandths of the width
        self.blend(mask, _SHADE, (strength * np.maximum(0, place - 480) // 520)[None, :])
        self.blend(mask, _SHADE, (strength * np.maximum(0, 160 - place) // 400)[None, :])
        self.blend(mask, _LIGHT, (strength * np.maximum(0, 150 - abs(place - 300)) // 190)[None, :])

    def darken_below(self, mask: Mask, strength: int = 70) -> None:
        """Shades a mask towards its lower edge and lightens it towards its upper one."""
        if mask.empty:
            return
        height = mask.inside.shape[0]
        place = (np.arange(height, dtype=np.int64) * 2 + 1) * 500 // height
        self.blend(mask, _SHADE, (strength * np.maximum(0, place - 350) // 650)[:, None])
        self.blend(mask, _LIGHT, (strength * np.maximum(0, 300 - place) // 450)[:, None])

    def ball(self, mask: Mask, strength: int = 130) -> None:
        """Shades a mask like a ball lit from the upper left."""
        if mask.empty:
            return
        height, width = mask.inside.shape
        x = (np.arange(width, dtype=np.int64) * 2 + 1) * 500 // width - 340
        y = (np.arange(height, dtype=np.int64) * 2 + 1) * 500 // height - 300
        distance = x[None, :] ** 2 + y[:, None] ** 2  # of the brightest point, up to about 900 000
        self.blend(mask, _SHADE, strength * np.maximum(0, distance - 60_000) // 420_000)
        self.blend(mask, _LIGHT, strength * np.maximum(0, 70_000 - distance) // 90_000)

    def speckle(
        self, mask: Mask, stream: RandomStream, color: Color, *, percent: int, grain: int, opacity: int
    ) -> None:
        """Strews square grains of a colour over a mask: the surface of stone or rough wood."""
        if mask.empty:
            return
        side = self.length(grain)
        height, width = mask.inside.shape
        rows, columns = -(-height // side), -(-width // side)
        cells = np.array([stream.below(100) < percent for _ in range(rows * columns)]).reshape(rows, columns)
        grains = np.kron(cells, np.ones((side, side), dtype=bool))[:height, :width]
        self.blend(mask, color, opacity * grains)

    def reflect(self, mask: Mask, start: Point, end: Point, width: int, opacity: int = 70) -> None:
        """A bright band across a mask, from `start` to `end`: a reflection in glass or lacquer."""
        band = self.canvas.capsule(self.at(start), self.at(end), self.length(width), self.length(width))
        part = mask.intersect(band)
        self.canvas.tint(part, (255, 255, 255), opacity)

    def edge(self, mask: Mask, color: Color, width: int, opacity: int = 120) -> None:
        """A line along the right and left edges of a mask."""
        for side in (1, -1):
            self.canvas.tint(mask.edge_band(side * self.length(width)), color, opacity)

    @contextmanager
    def inside(self, mask: Mask) -> Iterator[None]:
        """Shapes and lines painted within the `with` block show inside the mask only."""
        self._clipped.clip = mask
        try:
            yield
        finally:
            self._clipped.clip = None

    def finish(self) -> Image.Image:
        """The drawing as an RGBA cut-out without empty margins."""
        return canvas_to_cutout(self.canvas, _FACTOR)


def subtract(mask: Mask, other: Mask) -> Mask:
    """The pixels of `mask` that are not in `other`."""
    inside = mask.inside.copy()
    both = mask.intersect(other)
    if not both.empty:
        top, left = both.top - mask.top, both.left - mask.left
        inside[top : top + both.inside.shape[0], left : left + both.inside.shape[1]] &= ~both.inside
    return Mask(mask.left, mask.top, inside)


def canvas_to_cutout(canvas: Canvas, factor: int) -> Image.Image:
    """Averages blocks of canvas pixels; where nothing was drawn, the result is transparent.

    Args:
        canvas: The drawing, `factor` times too large.
        factor: Side of the blocks.

    Returns:
        RGBA picture with straight alpha, cropped to what is not transparent.
    """
    box = canvas.parts.point(lambda part: 255 if part else 0).getbbox()
    if box is None:
        return Image.new("RGBA", (1, 1))
    left, top = (value // factor for value in box[:2])
    width, height = (-(-box[2] // factor) - left, -(-box[3] // factor) - top)
    # `crop` fills what lies beyond the canvas with zeros, that is with nothing drawn
    area = (left * factor, top * factor, (left + width) * factor, (top + height) * factor)
    drawn = (np.asarray(canvas.parts.crop(area)) > 0).astype(np.uint16)
    colors = np.asarray(canvas.colors.crop(area)) * drawn[:, :, None]
    count = np.zeros((height, width), dtype=np.int64)
    total = np.zeros((height, width, 3), dtype=np.int64)
    for row in range(factor):
        for column in range(factor):
            count += drawn[row::factor, column::factor]
            total += colors[row::factor, column::factor]
    known = np.maximum(count, 1)[:, :, None]
    pixels = np.zeros((height, width, 4), dtype=np.uint8)
    pixels[:, :, :3] = (2 * total + known) // (2 * known)
    pixels[:, :, 3] = (2 * 255 * count + factor * factor) // (2 * factor * factor)
    return Image.fromarray(pixels)

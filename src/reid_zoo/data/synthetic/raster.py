"""Drawing with whole numbers only, so that a picture has the same pixels on every machine.

Pillow's own polygons are drawn with floating point, whose last bit differs between processors; the masks here are
computed with integers in numpy, and Pillow only pastes them (8-bit integer blending).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["Canvas", "Color", "Mask", "Point", "arc", "cosine", "sine"]

Point = tuple[int, int]
Color = tuple[int, int, int]


def sine(degrees: int) -> int:
    """Sine of whole degrees, times 1024, by Bhaskara's rational approximation (error below 0.2 %)."""
    degrees %= 360
    sign = 1
    if degrees >= 180:
        degrees, sign = degrees - 180, -1
    product = degrees * (180 - degrees)
    return sign * (4096 * product // (40500 - product))


def cosine(degrees: int) -> int:
    """Cosine of whole degrees, times 1024; see `sine`."""
    return sine(degrees + 90)


def arc(cx: int, cy: int, rx: int, ry: int, start: int, end: int, step: int = 15) -> list[Point]:
    """Points of an elliptic arc from `start` to `end` degrees (counter-clockwise with y upwards), both included."""
    signed_step = step if end >= start else -step
    angles = [*range(start, end, signed_step), end]
    return [(cx + rx * cosine(angle) // 1024, cy + ry * sine(angle) // 1024) for angle in angles]


@dataclass(slots=True)
class Mask:
    """A set of canvas pixels: a boolean array of shape (height, width) whose first pixel lies at (left, top)."""

    left: int
    top: int
    inside: np.ndarray

    @property
    def empty(self) -> bool:
        """True where the shape lies outside the canvas."""
        return self.inside.size == 0

    def edge_band(self, thickness: int) -> Mask:
        """The pixels within `thickness` of the right edge (left edge if negative), row by row: where shading goes."""
        band = self.inside.copy()
        size = abs(thickness)
        if thickness > 0:
            band[:, :-size] &= ~self.inside[:, size:]
        elif thickness < 0:
            band[:, size:] &= ~self.inside[:, :-size]
        return Mask(self.left, self.top, band)

    def rows(self, selected: np.ndarray) -> Mask:
        """The pixels whose row is selected; `selected` is boolean of shape (height,)."""
        return Mask(self.left, self.top, self.inside & selected[:, None])

    def columns(self, selected: np.ndarray) -> Mask:
        """The pixels whose column is selected; `selected` is boolean of shape (width,)."""
        return Mask(self.left, self.top, self.inside & selected[None, :])

    def intersect(self, other: Mask) -> Mask:
        """The pixels that are in both masks."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom = min(self.top + self.inside.shape[0], other.top + other.inside.shape[0])
        right = min(self.left + self.inside.shape[1], other.left + other.inside.shape[1])
        if bottom <= top or right <= left:
            return Mask(left, top, np.zeros((0, 0), dtype=bool))
        mine = self.inside[top - self.top : bottom - self.top, left - self.left : right - self.left]
        theirs = other.inside[top - other.top : bottom - other.top, left - other.left : right - other.left]
        return Mask(left, top, mine & theirs)


class Canvas:
    """A picture and, beside it, a map of which part of the scene each pixel shows.

    Args:
        width: Width in pixels.
        height: Height in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self.colors = Image.new("RGB", (width, height))
        self.parts = Image.new("L", (width, height))

    def polygon(self, points: Sequence[Point]) -> Mask:
        """The pixels whose centre lies inside a polygon (even-odd rule). Points are (x, y) in pixels, y downwards."""
        corners = np.array(points, dtype=np.int64)
        x0, y0 = corners[:, 0], corners[:, 1]
        x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
        left, right = max(0, int(x0.min())), min(self.width, int(x0.max()) + 1)
        top, bottom = max(0, int(y0.min())), min(self.height, int(y0.max()))
        if right <= left or bottom <= top:
            return Mask(left, top, np.zeros((0, 0), dtype=bool))
        sloped = y0 != y1
        x0, y0, x1, y1 = x0[sloped], y0[sloped], x1[sloped], y1[sloped]
        upward = y1 < y0
        x0, x1 = np.where(upward, x1, x0), np.where(upward, x0, x1)
        y0, y1 = np.where(upward, y1, y0), np.where(upward, y0, y1)
        rows = np.arange(top, bottom, dtype=np.int64)[:, None]
        rise = y1 - y0
        # First column whose centre lies right of the edge at the centre of the row: the ceiling of an exact fraction.
        numerator = 2 * x0 * rise + (x1 - x0) * (2 * rows + 1 - 2 * y0) - rise
        crossing = np.clip(-((-numerator) // (2 * rise)), left, right) - left
        active = (rows >= y0) & (rows < y1)
        width = right - left
        flat = (crossing + (rows - top) * (width + 1))[active]
        toggles = np.bincount(flat, minlength=(bottom - top) * (width + 1)).astype(np.uint8)
        inside = np.bitwise_xor.accumulate(toggles.reshape(bottom - top, width + 1) & 1, axis=1)[:, :-1]
        return Mask(left, top, inside.astype(bool))

    def ellipse(self, cx: int, cy: int, rx: int, ry: int) -> Mask:
        """The pixels inside an axis-parallel ellipse."""
        left, right = max(0, cx - rx), min(self.width, cx + rx + 1)
        top, bottom = max(0, cy - ry), min(self.height, cy + ry + 1)
        if right <= left or bottom <= top:
            return Mask(left, top, np.zeros((0, 0), dtype=bool))
        dx = np.arange(left - cx, right - cx, dtype=np.int64)
        dy = np.arange(top - cy, bottom - cy, dtype=np.int64)
        rx, ry = max(rx, 1), max(ry, 1)
        inside = (dx * dx * (ry * ry))[None, :] + (dy * dy * (rx * rx))[:, None] <= rx * rx * ry * ry
        return Mask(left, top, inside)

    def capsule(self, start: Point, end: Point, start_radius: int, end_radius: int) -> Mask:
        """The pixels of a tapered stroke with round ends: a limb, a strap or a pole."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = math.isqrt(dx * dx + dy * dy)
        if length == 0:
            return self.ellipse(start[0], start[1], start_radius, start_radius)
        points: list[Point] = []
        for (cx, cy), radius, first in ((end, end_radius, -90), (start, start_radius, 90)):
            for angle in range(first, first + 181, 30):
                along, across = cosine(angle) * radius, sine(angle) * radius
                scale = 1024 * length
                points.append((cx + (along * dx - across * dy) // scale, cy + (along * dy + across * dx) // scale))
        return self.polygon(points)

    def fill(self, mask: Mask, color: Color, part: int) -> None:
        """Paints a mask in one colour and records the part it shows."""
        if mask.empty:
            return
        stencil = Image.fromarray(mask.inside.view(np.uint8) * np.uint8(255))
        self.colors.paste(color, (mask.left, mask.top), stencil)
        self.parts.paste(part, (mask.left, mask.top), stencil)

    def tint(self, mask: Mask, color: Color, opacity: int) -> None:
        """Blends a colour over a mask (opacity 0 to 255) without changing what the pixels show."""
        if mask.empty:
            return
        stencil = Image.fromarray(mask.inside.view(np.uint8) * np.uint8(opacity))
        self.colors.paste(color, (mask.left, mask.top), stencil)

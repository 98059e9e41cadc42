"""A pen that draws in body coordinates and gives every shape some volume."""

from __future__ import annotations

from collections.abc import Sequence

from .attributes import COLORS
from .raster import Canvas, Color, Mask, Point
from .view import Part

__all__ = ["FigurePainter", "contrast_shade", "darker", "lighter", "named_color"]

HAIR_COLORS: dict[str, Color] = {
    "black": (28, 24, 24),
    "brown": (92, 58, 34),
    "blond": (222, 184, 104),
    "red": (164, 70, 28),
    "grey": (188, 188, 188),
}
SKIN_TONES: tuple[Color, ...] = (
    (244, 208, 184),
    (232, 188, 156),
    (212, 164, 126),
    (176, 124, 86),
    (132, 88, 60),
    (96, 64, 46),
)


def darker(color: Color, percent: int) -> Color:
    """A colour scaled towards black."""
    red, green, blue = (channel * (100 - percent) // 100 for channel in color)
    return (red, green, blue)


def lighter(color: Color, percent: int) -> Color:
    """A colour moved towards white."""
    red, green, blue = (channel + (255 - channel) * percent // 100 for channel in color)
    return (red, green, blue)


def contrast_shade(color: Color, percent: int) -> Color:
    """A tone of the same colour that stands out from it: darker, or lighter where it is nearly black."""
    return lighter(color, percent) if sum(color) < 180 else darker(color, percent)


def named_color(name: str | None) -> Color:
    """The RGB value of a colour of the vocabulary; mid-grey for `None`, which nothing visible has."""
    return COLORS["grey"] if name is None else COLORS[name]


class FigurePainter:
    """Draws on a canvas in body coordinates.

    Args:
        canvas: What to draw on.
        origin: Canvas pixel of the point between the feet.
        size: Height of an adult body, in canvas pixels.
        mirrored: Whether x runs to the left of the image.
    """

    def __init__(self, canvas: Canvas, origin: Point, size: int, *, mirrored: bool = False) -> None:
        self.canvas = canvas
        self.origin = origin
        self.size = size
        self.mirrored = mirrored

    def length(self, units: int) -> int:
        """Body units in whole canvas pixels, at least one."""
        return max(1, units * self.size // 1000)

    def at(self, point: Point) -> Point:
        """Canvas pixel of a point in body coordinates."""
        x = -point[0] if self.mirrored else point[0]
        return (self.origin[0] + x * self.size // 1000, self.origin[1] - point[1] * self.size // 1000)

    def polygon_mask(self, points: Sequence[Point], *, rounded: bool = False) -> Mask:
        """Pixels of a polygon; `rounded` cuts its corners once (Chaikin's scheme)."""
        corners = [self.at(point) for point in points]
        if rounded:
            cut: list[Point] = []
            for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
                cut.append(((3 * ax + bx) // 4, (3 * ay + by) // 4))
                cut.append(((ax + 3 * bx) // 4, (ay + 3 * by) // 4))
            corners = cut
        return self.canvas.polygon(corners)

    def paint(self, mask: Mask, color: Color, part: Part, *, volume: int = 14) -> Mask:
        """Fills a mask and shades it: light comes from the upper left. `volume` is the shaded width in body units."""
        self.canvas.fill(mask, color, part)
        if volume and not mask.empty:
            self.canvas.tint(mask.edge_band(self.length(volume)), (0, 0, 20), 70)
            self.canvas.tint(mask.edge_band(-self.length(volume // 2)), (255, 250, 235), 34)
        return mask

    def polygon(
        self, points: Sequence[Point], color: Color, part: Part, *, rounded: bool = False, volume: int = 14
    ) -> Mask:
        """Paints a polygon."""
        return self.paint(self.polygon_mask(points, rounded=rounded), color, part, volume=volume)

    def ellipse(self, center: Point, rx: int, ry: int, color: Color, part: Part, *, volume: int = 14) -> Mask:
        """Paints an ellipse."""
        x, y = self.at(center)
        return self.paint(self.canvas.ellipse(x, y, self.length(rx), self.length(ry)), color, part, volume=volume)

    def stroke(
        self, start: Point, end: Point, radius: int, color: Color, part: Part, *, end_radius: int = 0, volume: int = 0
    ) -> Mask:
        """Paints a line with round ends; `end_radius` 0 means the same radius at both ends."""
        mask = self.canvas.capsule(self.at(start), self.at(end), self.length(radius), self.length(end_radius or radius))
        return self.paint(mask, color, part, volume=volume)

    def shadow(self, mask: Mask, opacity: int = 60) -> None:
        """Darkens a mask without changing what it shows."""
        self.canvas.tint(mask, (0, 0, 16), opacity)

"""Cars from the front, from behind and, cut off by the edge, from the side."""

from __future__ import annotations

from PIL import Image

from ...synthetic.painter import darker, lighter
from ...synthetic.raster import Color, Point, cosine, sine
from .object_painter import ObjectPainter

__all__ = ["draw_cars"]

_RUBBER: Color = (30, 30, 32)
_GLASS: Color = (86, 108, 122)
_DARK: Color = (38, 40, 46)


def _glass(p: ObjectPainter, outline: list[Point], *, reflections: list[tuple[Point, Point]]) -> None:
    mask = p.shape(outline, _GLASS, rounded=True, volume=8)
    p.darken_below(mask, 90)
    for start, end in reflections:
        p.reflect(mask, start, end, 26, 70)


def _number_plate(p: ObjectPainter, left: int, bottom: int, color: Color) -> None:
    p.box(left, bottom, left + 230, bottom + 66, color, radius=8, volume=4)
    for number, x in enumerate(range(left + 24, left + 200, 30)):
        p.box(x, bottom + 18, x + (16 if number % 3 else 20), bottom + 48, (50, 54, 70), radius=4, volume=0)


def _mirrored(points: list[Point], axis: int) -> list[Point]:
    return [(2 * axis - x, y) for x, y in reversed(points)]


def _symmetric(half: list[Point], axis: int) -> list[Point]:
    """A left half, from the bottom to the top, and its mirror image."""
    return half + _mirrored(half, axis)


def _front(paint: Color, *, tall: bool) -> Image.Image:
    p = ObjectPainter(1200, 1000)
    up = 110 if tall else 0
    for x in (110, 900):
        p.box(x, 10, x + 190, 260, _RUBBER, radius=30, volume=10)
    roof = _symmetric([(170, 560 + up // 2), (270, 830 + up), (360, 870 + up)], 600)
    p.shape(roof, darker(paint, 6), rounded=True, volume=18)
    _glass(p, _symmetric([(210, 580 + up // 2), (300, 800 + up), (380, 830 + up)], 600),
           reflections=[((330, 600 + up), (470, 820 + up)), ((640, 600 + up), (740, 820 + up))])  # fmt: skip
    body = p.shape(
        _symmetric([(90, 110), (50, 300), (70, 480), (150, 570 + up // 2), (320, 610 + up // 2)], 600),
        paint,
        rounded=True,
    )
    p.darken_below(body, 100)
    p.reflect(body, (200, 560 + up // 3), (1000, 560 + up // 3), 12, 70)
    p.line([(300, 500), (360, 600 + up // 2)], 5, darker(paint, 26))
    p.line([(900, 500), (840, 600 + up // 2)], 5, darker(paint, 26))
    for side in (0, 1):
        lamp: list[Point] = [(90, 400), (110, 470), (280, 450), (330, 380), (200, 360)]
        points = _mirrored(lamp, 600) if side else lamp
        p.shape(points, (206, 212, 216), rounded=True, volume=8)
        p.disc((1200 - 190 if side else 190, 414), 40, (250, 250, 240), volume=8)
        mirror: list[Point] = [(40, 600 + up // 2), (30, 660 + up // 2), (130, 680 + up // 2), (160, 610 + up // 2)]
        p.shape(_mirrored(mirror, 600) if side else mirror, darker(paint, 10), rounded=True, volume=10)
        p.disc((1200 - 180 if side else 180, 190), 34, (230, 228, 206), ry=24, volume=6)
    grille = p.shape(_symmetric([(400, 280), (370, 380), (400, 430)], 600), _DARK, rounded=True, volume=0)
    for y in range(290, 430, 26):
        with p.inside(grille):
            p.line([(360, y), (840, y)], 6, (150, 154, 160))
    p.disc((600, 370), 38, (206, 208, 212), volume=8)
    p.box(300, 120, 900, 180, _DARK, radius=20, volume=0)
    p.box(70, 92, 1130, 118, darker(paint, 40), radius=10, volume=0)
    _number_plate(p, 485, 190, (238, 238, 230))
    return p.finish()


def _rear(paint: Color, *, estate: bool) -> Image.Image:
    p = ObjectPainter(1200, 960)
    up = 90 if estate else 0
    for x in (110, 910):
        p.box(x, 8, x + 180, 240, _RUBBER, radius=30, volume=10)
    p.shape(_symmetric([(170, 540), (270, 800 + up), (370, 840 + up)], 600), darker(paint, 10), rounded=True, volume=18)
    _glass(p, _symmetric([(220, 560), (304, 770 + up), (390, 800 + up)], 600),
           reflections=[((360, 570), (480, 790 + up)), ((720, 570), (800, 790 + up))])  # fmt: skip
    body = p.shape(
        _symmetric([(100, 100), (54, 290), (70, 470), (150, 560), (330, 590)], 600), paint, rounded=True, volume=20
    )
    p.darken_below(body, 100)
    p.reflect(body, (180, 545), (1020, 545), 12, 70)
    p.line([(230, 556), (250, 330), (950, 330), (970, 556)], 4, darker(paint, 30))
    for side in (0, 1):
        lamp: list[Point] = [(80, 370), (84, 480), (240, 500), (300, 450), (280, 380)]
        points = _mirrored(lamp, 600) if side else lamp
        p.shape(points, (176, 26, 32), rounded=True, volume=10)
        x = 1200 - 190 if side else 190
        p.box(x - 60, 426, x + 60, 456, (240, 170, 150), radius=12, volume=0)
        p.tube([(1200 - 260 if side else 260, 110), (1200 - 250 if side else 250, 90)], 24, (150, 152, 158))
    p.line([(330, 450), (870, 450)], 9, (196, 198, 202))
    p.box(80, 130, 1120, 250, darker(paint, 12), radius=30, volume=10)
    p.box(340, 84, 860, 128, _DARK, radius=14, volume=0)
    _number_plate(p, 485, 350, (58, 96, 180) if estate else (240, 214, 90))
    return p.finish()


def _alloy_wheel(p: ObjectPainter, center: Point, radius: int) -> None:
    x, y = center
    p.disc(center, radius, _RUBBER, volume=10)
    rim = p.disc(center, radius * 68 // 100, (176, 180, 186), volume=0)
    p.ball(rim, 90)
    for number in range(5):
        angle = 72 * number + 90
        inner = (x + radius * 26 * cosine(angle + 36) // 102400, y + radius * 26 * sine(angle + 36) // 102400)
        outer = (x + radius * 50 * cosine(angle + 36) // 102400, y + radius * 50 * sine(angle + 36) // 102400)
        p.line([inner, outer], radius // 9, (70, 72, 78))
    p.disc(center, radius // 8, (110, 112, 118), volume=6)


def _side_front(paint: Color, lower: Color | None, *, taxi: bool) -> Image.Image:
    """The front half from the side, headed to the right; the left edge cuts it off."""
    p = ObjectPainter(1240, 960)
    roof: list[Point] = [(0, 560), (0, 900), (330, 900), (520, 850), (770, 580)]
    p.shape(roof, darker(paint, 4), rounded=False, volume=14)
    _glass(p, [(40, 570), (40, 850), (330, 850), (350, 570)], reflections=[((90, 580), (260, 850))])
    _glass(p, [(390, 570), (374, 846), (500, 806), (700, 580)], reflections=[((450, 580), (560, 760))])
    outline: list[Point] = [
        (0, 130), (0, 590), (760, 590), (1010, 540), (1180, 450), (1220, 330), (1210, 180), (1150, 130)
    ]  # fmt: skip
    body = p.shape(outline, paint, volume=16)
    if lower is not None:
        with p.inside(body):
            p.box(0, 100, 1240, 330, lower, volume=0)
    p.darken_below(body, 110)
    p.reflect(body, (20, 560), (900, 545), 10, 80)
    for x in (20, 366):
        p.line([(x, 160), (x, 570)], 4, darker(paint, 32))
    p.line([(366, 160), (700, 170), (740, 570)], 4, darker(paint, 32))
    for x in (250, 560):
        p.box(x, 470, x + 90, 496, darker(paint, 30), radius=10, volume=0)
    lamp = p.shape([(1050, 420), (1080, 500), (1150, 470), (1196, 380), (1130, 370)], (226, 230, 230), rounded=True)
    p.reflect(lamp, (1080, 400), (1150, 450), 8, 150)
    p.box(1150, 200, 1216, 250, _DARK, radius=12, volume=0)
    p.shape([(640, 600), (640, 670), (740, 680), (760, 610)], darker(paint, 12), rounded=True)
    arch = p.canvas.ellipse(*p.at((900, 170)), p.length(196), p.length(196))
    p.canvas.fill(arch.intersect(body), (24, 24, 26), 18)
    _alloy_wheel(p, (900, 168), 164)
    p.box(0, 96, 720, 134, _DARK, radius=10, volume=0)
    if taxi:
        p.box(140, 896, 330, 950, (246, 214, 70), radius=14, volume=6)
        for x in range(40, 720, 80):
            p.box(x, 344, x + 40, 370, (30, 30, 32), volume=0)
    return p.finish()


def draw_cars() -> list[Image.Image]:
    """Two from the front, two from behind, two from the side."""
    return [
        _front((172, 42, 44), tall=False),
        _rear((42, 44, 52), estate=False),
        _side_front((232, 190, 60), None, taxi=True),
        _rear((176, 182, 190), estate=True),
        _front((58, 96, 142), tall=True),
        _side_front(lighter((60, 120, 96), 10), (222, 224, 222), taxi=False),
    ]

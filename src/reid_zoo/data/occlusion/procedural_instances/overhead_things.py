"""Umbrellas and kites: what comes into the picture from above."""

from __future__ import annotations

from itertools import pairwise

from PIL import Image

from ...synthetic.painter import darker, lighter
from ...synthetic.raster import Color, Point, arc
from .object_painter import ObjectPainter

__all__ = ["draw_kites", "draw_umbrellas"]

_POLE: Color = (92, 70, 52)

_RIB: tuple[Point, ...] = (
    (1000, 0), (980, 200), (920, 390), (820, 570), (680, 735), (500, 866), (260, 965), (0, 1000)
)  # fmt: skip
"""A quarter of a circle, in thousandths of its radii: the line of a rib from the edge of an umbrella to its top."""


# --- umbrellas -------------------------------------------------------------------------------------------------------


def _turn(points: list[Point], slope: int) -> list[Point]:
    """Tilts points about the origin by a shear in both directions, `slope` in thousandths."""
    return [(x + y * slope // 1000, y - x * slope // 1000) for x, y in points]


def _umbrella(colors: list[Color], *, tilt: int, handle: bool, trim: Color | None = None) -> Image.Image:
    p = ObjectPainter(1500, 1250)

    def place(points: list[Point]) -> list[Point]:
        return [(x + 740, y + 640) for x, y in _turn(points, tilt)]

    if handle:
        hook = [(0, -280), (0, -440), *arc(56, -440, 56, 90, 180, 360)]
        p.line(place([(0, 300), (0, -300)]), 11, (120, 122, 128))
        p.line(place(hook), 19, _POLE)
    radius, height = 680, 440
    ribs = [-1000, -780, -420, 0, 420, 780, 1000]
    for number, (left, right) in enumerate(pairwise(ribs)):
        color = colors[number % len(colors)]
        x0, x1 = radius * left // 1000, radius * right // 1000
        outline: list[Point] = [
            *((x0 * across // 1000, height * up // 1000) for across, up in _RIB),
            *((x1 * across // 1000, height * up // 1000) for across, up in reversed(_RIB)),
        ]
        sag = 34 if 0 < number < 5 else 18
        outline += [((3 * x1 + x0) // 4, sag * 3 // 4), ((x0 + x1) // 2, sag), ((x1 + 3 * x0) // 4, sag * 3 // 4)]
        mask = p.shape(place(outline), color, volume=0)
        p.darken_below(mask, 70)
        p.canvas.tint(mask, (4, 4, 22), (0, 0, 10, 26, 48, 74)[number])
        if trim is not None:
            edge = [(x0, 22), ((x0 + x1) // 2, sag + 22), (x1, 22)]
            with p.inside(mask):
                p.line(place(edge), 15, trim)
    for number, x in enumerate(ribs[1:-1], 1):
        rib = [(radius * x // 1000 * across // 1000, height * up // 1000) for across, up in _RIB]
        p.line(place(rib), 3, darker(colors[number % len(colors)], 34))
    p.line(place([(0, height - 6), (0, height + 56)]), 11, (70, 60, 54))
    return p.finish()


def draw_umbrellas() -> list[Image.Image]:
    """Open umbrellas: rainbow, plain, two-coloured, with and without a handle."""
    rainbow: list[Color] = [
        (206, 52, 48),
        (236, 140, 44),
        (240, 208, 64),
        (74, 160, 80),
        (56, 118, 190),
        (112, 72, 160),
    ]
    return [
        _umbrella(rainbow, tilt=120, handle=False),
        _umbrella([(52, 58, 74)], tilt=-160, handle=True),
        _umbrella([(206, 60, 72), (240, 236, 226)], tilt=0, handle=True),
        _umbrella([(226, 150, 166)], tilt=200, handle=False, trim=(250, 236, 238)),
        _umbrella([(60, 120, 186)], tilt=0, handle=False, trim=(232, 236, 240)),
    ]


# --- kites -----------------------------------------------------------------------------------------------------------


def _tail(p: ObjectPainter, points: list[Point], colors: list[Color]) -> None:
    p.line(points, 4, (90, 84, 80))
    for number, (x, y) in enumerate(points[1:]):
        color = colors[number % len(colors)]
        p.shape([(x, y), (x - 46, y + 26), (x - 46, y - 26)], color, volume=6)
        p.shape([(x, y), (x + 46, y + 26), (x + 46, y - 26)], darker(color, 16), volume=6)


def _diamond_kite(quarters: list[Color], tail: list[Color], *, lean: int) -> Image.Image:
    p = ObjectPainter(1300, 1250)

    def at(x: int, y: int) -> Point:
        return (x + 200 + y * lean // 1000, y)

    top, left, right, bottom, middle = at(440, 1230), at(40, 900), at(840, 900), at(440, 400), at(440, 900)
    quarter = ((top, left), (top, right), (left, bottom), (right, bottom))
    for number, corners in enumerate(quarter):
        mask = p.shape([*corners, middle], quarters[number % len(quarters)], volume=0)
        p.darken_below(mask, 50)
        if number % 2:
            p.canvas.tint(mask, (4, 4, 22), 40)
    p.line([top, bottom], 7, (110, 82, 56))
    p.line([left, right], 7, (110, 82, 56))
    p.line([top, left, bottom, right, top], 5, darker(quarters[0], 40))
    sway = [bottom, at(500, 320), at(420, 230), at(500, 140), at(430, 50)]
    _tail(p, sway, tail)
    return p.finish()


def _delta_kite(colors: list[Color]) -> Image.Image:
    p = ObjectPainter(1400, 1000)
    nose: Point = (700, 970)
    spans: list[Point] = [(30, 420), (330, 340), (560, 420), (700, 330), (840, 420), (1070, 340), (1370, 420)]
    for number, (a, b) in enumerate(pairwise(spans)):
        mask = p.shape([nose, a, b], colors[number % len(colors)], volume=0)
        p.darken_below(mask, 60)
        if number > 2:
            p.canvas.tint(mask, (4, 4, 22), 34)
    crest: list[Point] = [(700, 970), (360, 690), (330, 640), (700, 800), (1070, 640), (1040, 690)]
    stripe = p.shape(crest, lighter(colors[1], 40), volume=0)
    p.darken_below(stripe, 40)
    for end in (spans[0], spans[3], spans[-1]):
        p.line([nose, end], 7, (60, 56, 60))
    for x in (330, 700, 1070):
        ribbon = [(x, 340), (x + 40, 250), (x - 24, 170), (x + 30, 80), (x - 10, 12)]
        p.line(ribbon, 13, colors[(x // 300) % len(colors)])
    return p.finish()


def _bird_kite(color: Color, accent: Color) -> Image.Image:
    p = ObjectPainter(1500, 900)
    for side in (-1, 1):
        wing: list[Point] = [
            (0, 660), (-180, 790), (-420, 850), (-720, 740), (-560, 640), (-600, 560), (-420, 530), (-400, 450), (-120, 480)
        ]  # fmt: skip
        mask = p.shape([(750 + side * -x, y) for x, y in wing], color, rounded=True, volume=0)
        p.darken_below(mask, 80)
        for x0, y0, x1, y1 in ((-150, 760, -140, 520), (-340, 820, -400, 500), (-480, 820, -560, 610)):
            p.line([(750 + side * -x0, y0), (750 + side * -x1, y1)], 9, accent)
        if side == -1:
            p.canvas.tint(mask, (4, 4, 22), 36)
    for offset in (-90, 0, 90):
        feather = p.shape([(750, 560), (750 + offset - 46, 60), (750 + offset + 46, 60)], accent if offset else color,
                          rounded=True, volume=8)  # fmt: skip
        p.darken_below(feather, 50)
    body = p.shape(
        [(690, 420), (680, 640), (750, 760), (820, 640), (810, 420)], darker(color, 14), rounded=True, volume=14
    )
    p.round_off(body, 90)
    p.disc((750, 760), 66, color, volume=12)
    p.shape([(724, 800), (776, 800), (750, 870)], (236, 170, 50), volume=6)
    for x in (724, 776):
        p.disc((x, 776), 14, (24, 24, 26), volume=0)
    return p.finish()


def draw_kites() -> list[Image.Image]:
    """Diamonds with tails, a delta and a bird."""
    return [
        _diamond_kite(
            [(206, 44, 54), (240, 200, 60), (240, 200, 60), (206, 44, 54)], [(206, 44, 54), (60, 110, 190)], lean=0
        ),
        _delta_kite([(56, 150, 190), (240, 206, 70), (220, 70, 110)]),
        _diamond_kite([(238, 208, 50)], [(190, 40, 44)], lean=160),
        _bird_kite((66, 92, 160), (230, 120, 50)),
        _diamond_kite(
            [(60, 160, 110), (236, 236, 228), (60, 90, 170), (230, 110, 60)],
            [(236, 236, 228), (60, 160, 110)],
            lean=-140,
        ),
    ]

"""Benches without a back, and seats with one."""

from __future__ import annotations

from PIL import Image

from ...synthetic.painter import darker, lighter
from ...synthetic.randomness import RandomStream
from ...synthetic.raster import Color
from .object_painter import ObjectPainter

__all__ = ["draw_benches", "draw_chairs"]

_OAK: Color = (178, 124, 72)
_TEAK: Color = (146, 88, 52)
_PINE: Color = (214, 172, 112)
_IRON: Color = (46, 48, 54)
_GREEN: Color = (52, 100, 70)
_CONCRETE: Color = (172, 170, 164)
_GRANITE: Color = (150, 148, 152)


def _board(p: ObjectPainter, left: int, bottom: int, right: int, top: int, color: Color, grain: int) -> None:
    mask = p.box(left, bottom, right, top, color, radius=6, volume=4)
    stream = RandomStream(31, grain)
    for _ in range(3):
        y = stream.between(bottom + 4, top - 4)
        x = stream.between(left, right - 120)
        with p.inside(mask):
            p.line([(x, y), (x + 110, y + 2)], 2, darker(color, 14))
    p.darken_below(mask, 60)


def _slatted_bench(wood: Color, metal: Color) -> Image.Image:
    p = ObjectPainter(1010, 470)
    for x in (120, 830):
        p.tube([(x + 20, 330), (x - 40, 20)], 17, metal)
        p.tube([(x + 20, 330), (x + 90, 20)], 17, metal)
        p.tube([(x - 20, 140), (x + 66, 140)], 10, metal)
    for row, (bottom, shade) in enumerate(((385, 0), (345, 8), (302, 16))):
        inset = 24 - 12 * row
        _board(p, 8 + inset, bottom, 1000 - inset, bottom + 38, darker(wood, shade), row)
    p.box(10, 286, 998, 302, darker(wood, 38), volume=0)
    return p.finish()


def _slab_bench(stone: Color, seed: int) -> Image.Image:
    p = ObjectPainter(1010, 500)
    stream = RandomStream(32, seed)
    for left, right in ((80, 250), (750, 920)):
        leg = p.shape([(left, 10), (right, 10), (right - 16, 360), (left + 16, 360)], darker(stone, 18), volume=16)
        p.speckle(leg, stream, (255, 255, 255), percent=16, grain=7, opacity=60)
        p.speckle(leg, stream, (30, 30, 36), percent=16, grain=7, opacity=60)
        p.round_off(leg, 70)
    top = p.shape([(20, 420), (990, 420), (940, 480), (70, 480)], lighter(stone, 16), volume=0)
    front = p.box(20, 344, 990, 420, stone, volume=8)
    for mask in (top, front):
        p.speckle(mask, stream, (255, 255, 255), percent=14, grain=7, opacity=70)
        p.speckle(mask, stream, (30, 30, 36), percent=14, grain=7, opacity=60)
    p.darken_below(front, 60)
    return p.finish()


def _wood_on_concrete(wood: Color) -> Image.Image:
    p = ObjectPainter(1010, 420)
    for left, right in ((110, 250), (760, 900)):
        leg = p.box(left, 8, right, 276, _CONCRETE, volume=14)
        p.speckle(leg, RandomStream(33, left), (60, 60, 60), percent=8, grain=8, opacity=50)
        p.round_off(leg, 60)
    top = p.shape([(16, 340), (994, 340), (930, 402), (80, 402)], lighter(wood, 10), rounded=True, volume=0)
    for y in (358, 372, 386):
        with p.inside(top):
            p.line([(0, y), (1010, y)], 3, darker(wood, 24))
    front = p.box(14, 268, 996, 342, wood, radius=20, volume=6)
    for seed in range(9):
        x, y = RandomStream(34, seed).between(20, 800), 276 + 7 * seed
        with p.inside(front):
            p.line([(x, y), (x + 190, y)], 2, darker(wood, 16))
    p.darken_below(front, 80)
    return p.finish()


def _mesh_bench(color: Color) -> Image.Image:
    p = ObjectPainter(1010, 440)
    for x in (110, 880):
        p.tube([(x, 320), (x, 24)], 20, darker(color, 10))
        p.tube([(x - 80, 24), (x + 80, 24)], 15, darker(color, 10))
    seat = p.box(16, 300, 994, 420, color, radius=34, volume=10)
    for x in range(60, 960, 30):
        for y in (332, 360, 388):
            hole = p.canvas.ellipse(*p.at((x + (y - 332) // 28 % 2 * 15, y)), p.length(8), p.length(8))
            p.erase(hole.intersect(seat))
    p.darken_below(seat, 70)
    return p.finish()


def _park_seat(wood: Color, metal: Color, *, slats: int) -> Image.Image:
    p = ObjectPainter(1010, 620)
    for x in (90, 920):
        p.tube([(x, 280), (x - 46, 16)], 17, metal)
        p.tube([(x + 6, 280), (x + 56, 16)], 17, metal)
    for x in (130, 880):
        p.tube([(x, 270), (x, 600)], 13, darker(metal, 12))
    height = 240 // slats
    for row in range(slats):
        bottom = 352 + row * (height + 6)
        _board(p, 40, bottom, 970, bottom + height - 8, lighter(wood, 3 * row), row)
    for row, bottom in enumerate((290, 262, 230)):
        _board(p, 12 + 10 * (2 - row), bottom, 998 - 10 * (2 - row), bottom + 26, darker(wood, 6 + 8 * row), 10 + row)
    for x in (64, 946):
        p.tube([(x - 30, 250), (x - 34, 410), (x + 6, 440), (x + 40, 424)], 15, metal)
        p.disc((x + 40, 424), 20, metal, volume=6)
    return p.finish()


def _shell_chair(color: Color) -> Image.Image:
    p = ObjectPainter(620, 980)
    for start, end in (
        ((190, 400), (110, 14)),
        ((430, 400), (510, 14)),
        ((220, 380), (196, 60)),
        ((400, 380), (424, 60)),
    ):
        p.tube([start, end], 15, (150, 152, 158))
    back = p.shape(
        [(110, 430), (96, 700), (130, 930), (190, 966), (430, 966), (490, 930), (524, 700), (510, 430)],
        color,
        rounded=True,
    )
    p.round_off(back, 90)
    opening = p.canvas.polygon([p.at(point) for point in p.round_corners(190, 830, 430, 880, 24)])
    p.erase(opening)
    seat = p.shape(
        [(80, 400), (90, 470), (140, 500), (480, 500), (530, 470), (540, 400), (500, 372), (120, 372)],
        lighter(color, 10),
        rounded=True,
    )
    p.darken_below(seat, 90)
    return p.finish()


def _folding_chair(wood: Color) -> Image.Image:
    p = ObjectPainter(640, 980)
    for x in (90, 520):
        p.line([(x + 20, 980), (x + 20, 440), (x - 30, 10)], 19, darker(wood, 30))
    for x in (120, 490):
        p.line([(x + 18, 470), (x + 66, 10)], 18, darker(wood, 18))
    for row in range(4):
        _board(p, 92, 640 + 84 * row, 556, 706 + 84 * row, lighter(wood, 3 * row), 20 + row)
    for row, bottom in enumerate((478, 444, 408)):
        _board(p, 66 - 14 * row, bottom, 582 + 14 * row, bottom + 32, darker(wood, 8 * row), 30 + row)
    p.tube([(60, 170), (580, 170)], 11, (120, 122, 128))
    return p.finish()


def draw_benches() -> list[Image.Image]:
    """Benches of wood, stone, concrete and steel."""
    return [
        _slatted_bench(_PINE, _IRON),
        _slab_bench(_GRANITE, 1),
        _wood_on_concrete(_TEAK),
        _mesh_bench(_GREEN),
        _slatted_bench(_TEAK, (110, 114, 120)),
    ]


def draw_chairs() -> list[Image.Image]:
    """Park seats with a back, and single chairs."""
    return [
        _park_seat(_OAK, _IRON, slats=3),
        _park_seat(_GREEN, (60, 62, 66), slats=4),
        _shell_chair((206, 84, 50)),
        _folding_chair(_PINE),
        _park_seat(_TEAK, (96, 100, 106), slats=5),
    ]

"""Posts, stones and fire hydrants: what stands on a pavement."""

from __future__ import annotations

from PIL import Image

from ...synthetic.painter import darker, lighter
from ...synthetic.randomness import RandomStream
from ...synthetic.raster import Color, Mask, Point
from .object_painter import ObjectPainter

__all__ = ["draw_fire_hydrants", "draw_posts", "draw_stones"]

_STEEL: Color = (152, 156, 162)


# --- posts -----------------------------------------------------------------------------------------------------------


def _fluted_column(stone: Color) -> Image.Image:
    p = ObjectPainter(330, 1000)
    for left, bottom, right, top in ((30, 8, 300, 62), (50, 62, 280, 104), (40, 904, 290, 948), (20, 948, 310, 992)):
        p.round_off(p.box(left, bottom, right, top, stone, radius=12, volume=6), 90)
    shaft = p.shape([(72, 104), (258, 104), (246, 904), (84, 904)], stone, volume=0)
    for x in range(88, 250, 26):
        p.line([(x, 122), (165 + (x - 165) * 92 // 100, 888)], 5, darker(stone, 20))
    p.round_off(shaft, 130)
    for y in (104, 890):
        p.round_off(p.box(62, y, 268, y + 22, lighter(stone, 8), radius=10, volume=0), 90)
    return p.finish()


def _timber_post(wood: Color) -> Image.Image:
    p = ObjectPainter(260, 1000)
    front = p.box(16, 6, 176, 936, wood, volume=8)
    side = p.shape([(176, 6), (240, 40), (240, 956), (176, 936)], darker(wood, 34), volume=0)
    p.shape([(16, 936), (176, 936), (240, 956), (92, 972)], lighter(wood, 26), volume=0)
    stream = RandomStream(41)
    for _ in range(26):
        x, y, length = stream.between(24, 168), stream.between(10, 700), stream.between(60, 260)
        with p.inside(front):
            p.line([(x, y), (x + 4, y + length)], 2, darker(wood, 20))
    for y in (300, 640):
        p.disc((90, y), 16, darker(wood, 36), ry=26, volume=0)
        p.disc((90, y), 9, darker(wood, 16), ry=16, volume=0)
    p.darken_below(front, 60)
    p.darken_below(side, 60)
    return p.finish()


def _brick_pillar() -> Image.Image:
    p = ObjectPainter(340, 1000)
    body = p.box(36, 6, 304, 900, (196, 184, 170), volume=0)
    stream = RandomStream(42)
    for row in range(16):
        bottom = 12 + row * 56
        for column in range(-1, 3):
            left = 40 + column * 134 + (row % 2) * 67
            tone = stream.between(-14, 14)
            color = (168 + tone, 84 + tone // 2, 66 + tone // 2)
            with p.inside(body):
                p.box(left, bottom, left + 122, bottom + 46, color, volume=4)
    p.round_off(body, 80)
    cap = p.box(10, 900, 330, 952, (178, 174, 166), radius=8, volume=8)
    p.round_off(cap, 60)
    p.shape([(40, 952), (300, 952), (236, 992), (104, 992)], (190, 186, 178), volume=10)
    return p.finish()


def _bollard(color: Color, band: Color) -> Image.Image:
    p = ObjectPainter(300, 1000)
    p.round_off(p.disc((150, 42), 140, darker(color, 20), ry=34, volume=0), 90)
    shaft = p.box(66, 40, 234, 860, color, volume=0)
    for y in (600, 700):
        with p.inside(shaft):
            p.box(60, y, 240, y + 58, band, volume=0)
    p.round_off(shaft, 140)
    p.round_off(p.box(48, 850, 252, 890, darker(color, 14), radius=16, volume=0), 110)
    dome = p.shape(
        [(60, 890), (66, 936), (100, 976), (150, 990), (200, 976), (234, 936), (240, 890)], color, rounded=True
    )
    p.ball(dome, 120)
    return p.finish()


def _lamp_post(color: Color) -> Image.Image:
    p = ObjectPainter(280, 1000)
    p.round_off(p.shape([(66, 6), (214, 6), (196, 84), (84, 84)], darker(color, 10), volume=0), 100)
    p.round_off(p.shape([(98, 84), (182, 84), (168, 240), (112, 240)], color, volume=0), 120)
    for y in (84, 240, 640):
        p.round_off(p.box(92, y, 188, y + 22, lighter(color, 8), radius=10, volume=0), 110)
    p.round_off(p.box(118, 262, 162, 760, color, volume=0), 130)
    p.round_off(p.box(100, 742, 180, 764, lighter(color, 8), radius=10, volume=0), 110)
    glass = p.shape([(96, 764), (184, 764), (216, 914), (64, 914)], (238, 230, 196), volume=10)
    p.reflect(glass, (90, 780), (110, 900), 10, 130)
    for x0, x1 in ((96, 64), (184, 216), (140, 140)):
        p.line([(x0, 764), (x1, 914)], 6, darker(color, 10))
    p.shape([(48, 910), (232, 910), (180, 966), (100, 966)], color, volume=14)
    p.disc((140, 974), 16, lighter(color, 10), volume=5)
    return p.finish()


# --- stones ----------------------------------------------------------------------------------------------------------


def _grain(p: ObjectPainter, mask: Mask, seed: int, *, strong: int = 60) -> None:
    stream = RandomStream(43, seed)
    p.speckle(mask, stream, (255, 255, 250), percent=16, grain=9, opacity=strong)
    p.speckle(mask, stream, (24, 24, 30), percent=16, grain=9, opacity=strong)
    p.speckle(mask, stream, (24, 24, 30), percent=12, grain=24, opacity=strong // 3)


def _stone_ball(color: Color, base: Color) -> Image.Image:
    p = ObjectPainter(820, 1000)
    foot = p.shape([(90, 10), (730, 10), (690, 180), (130, 180)], base, volume=18)
    _grain(p, foot, 1)
    p.round_off(foot, 80)
    collar = p.box(210, 180, 610, 236, darker(base, 10), radius=14, volume=10)
    p.round_off(collar, 90)
    ball = p.disc((410, 590), 390, color, volume=0)
    _grain(p, ball, 2, strong=46)
    p.ball(ball, 150)
    return p.finish()


def _boulder(color: Color, outline: list[Point], facets: list[tuple[list[Point], int]], seed: int) -> Image.Image:
    p = ObjectPainter(1000, 800)
    body = p.shape(outline, color, rounded=True, volume=26)
    for points, light in facets:
        tone = lighter(color, light) if light > 0 else darker(color, -light)
        with p.inside(body):
            p.shape(points, tone, rounded=True, volume=0)
    _grain(p, body, seed)
    p.darken_below(body, 110)
    return p.finish()


def _granite_block(color: Color) -> Image.Image:
    p = ObjectPainter(960, 860)
    front = p.shape([(20, 10), (640, 20), (640, 640), (30, 620)], color, volume=10)
    side = p.shape([(640, 20), (930, 130), (920, 730), (640, 640)], darker(color, 28), volume=0)
    top = p.shape([(30, 620), (640, 640), (920, 730), (330, 790)], lighter(color, 26), volume=0)
    for number, mask in enumerate((front, side, top)):
        _grain(p, mask, 10 + number, strong=70)
    p.darken_below(front, 70)
    p.darken_below(side, 60)
    p.line([(30, 620), (640, 640), (920, 730)], 5, lighter(color, 36))
    return p.finish()


def draw_posts() -> list[Image.Image]:
    """A column, a timber post, a brick pillar, a bollard and a lamp post."""
    return [
        _fluted_column((212, 206, 192)),
        _timber_post((196, 150, 98)),
        _brick_pillar(),
        _bollard((58, 62, 70), (232, 196, 60)),
        _lamp_post((44, 62, 56)),
    ]


def draw_stones() -> list[Image.Image]:
    """Stone balls, boulders and a block."""
    first: list[Point] = [(30, 20), (10, 260), (120, 520), (330, 720), (560, 770), (790, 640), (950, 380), (980, 20)]
    second: list[Point] = [(20, 30), (60, 380), (200, 640), (470, 690), (640, 600), (830, 560), (970, 300), (960, 20)]
    return [
        _stone_ball((176, 174, 172), (160, 154, 148)),
        _boulder(
            (142, 134, 124), first,
            [([(120, 520), (330, 720), (560, 770), (520, 520), (300, 420)], 20),
             ([(520, 520), (560, 770), (790, 640), (950, 380), (980, 20), (640, 200)], -20)],
            3,
        ),
        _granite_block((158, 156, 160)),
        _boulder(
            (156, 122, 92), second,
            [([(60, 380), (200, 640), (470, 690), (420, 430), (220, 330)], 22),
             ([(640, 600), (830, 560), (970, 300), (960, 20), (700, 120)], -24)],
            4,
        ),
        _stone_ball((206, 160, 58), (168, 146, 122)),
    ]  # fmt: skip


# --- fire hydrants ---------------------------------------------------------------------------------------------------


def _hydrant(color: Color, caps: Color, *, tall: bool) -> Image.Image:
    p = ObjectPainter(560, 1000)
    lift = 60 if tall else 0
    p.round_off(p.box(110, 8, 450, 66, darker(color, 16), radius=16, volume=0), 110)
    p.round_off(p.box(150, 66, 410, 104, color, radius=12, volume=0), 110)
    for x in (140, 224, 308, 392):
        p.disc((x + 14, 74), 15, _STEEL, ry=13, volume=5)
    body = p.box(170, 100, 390, 640 + lift, color, volume=0)
    p.round_off(body, 140)
    for x in (226, 280, 334):
        p.line([(x, 130), (x, 420)], 4, darker(color, 22))
    for side in (-1, 1):
        x = 280 + side * 132
        p.darken_below(p.box(x - 52, 470 + lift, x + 52, 590 + lift, color, radius=14, volume=0), 120)
        end = 280 + side * 206
        p.darken_below(p.box(end - 32, 450 + lift, end + 32, 610 + lift, caps, radius=16, volume=6), 120)
        p.darken_below(p.box(end - 14 + side * 34, 506 + lift, end + 14 + side * 34, 554 + lift, _STEEL, volume=4), 90)
    p.ball(p.disc((280, 330 + lift), 92, darker(color, 10), volume=0), 90)
    p.ball(p.disc((280, 330 + lift), 74, caps, volume=0), 110)
    p.disc((280, 330 + lift), 24, _STEEL, volume=8)
    p.round_off(p.box(136, 636 + lift, 424, 690 + lift, darker(color, 12), radius=16, volume=0), 120)
    for x in (150, 214, 282, 346, 392):
        p.disc((x + 10, 664 + lift), 14, _STEEL, volume=5)
    dome = p.shape(
        [(160, 690 + lift), (168, 790 + lift), (216, 868 + lift), (280, 886 + lift), (344, 868 + lift),
         (392, 790 + lift), (400, 690 + lift)], caps, rounded=True,
    )  # fmt: skip
    p.ball(dome, 130)
    p.round_off(p.box(236, 880 + lift, 324, 930 + lift, _STEEL, radius=10, volume=6), 100)
    return p.finish()


def draw_fire_hydrants() -> list[Image.Image]:
    """Hydrants in four paints."""
    return [
        _hydrant((186, 34, 32), (186, 34, 32), tall=False),
        _hydrant((232, 178, 36), (206, 150, 26), tall=True),
        _hydrant((64, 104, 152), (222, 222, 216), tall=False),
        _hydrant((196, 198, 202), (176, 40, 38), tall=True),
    ]

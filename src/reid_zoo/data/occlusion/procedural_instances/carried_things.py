"""Bags and suitcases."""

from __future__ import annotations

from PIL import Image

from ...synthetic.painter import contrast_shade, darker, lighter
from ...synthetic.randomness import RandomStream
from ...synthetic.raster import Color, Point, arc
from .object_painter import ObjectPainter

__all__ = ["draw_bags", "draw_suitcases"]

_BRASS: Color = (206, 172, 88)
_STEEL: Color = (160, 164, 170)


def _backpack(color: Color, trim: Color, *, camouflage: bool) -> Image.Image:
    p = ObjectPainter(820, 1000)
    p.line(arc(410, 900, 70, 76, 0, 180), 16, darker(trim, 10))
    for side in (-1, 1):
        p.line([(410 + side * 250, 800), (410 + side * 380, 520), (410 + side * 330, 180)], 24, darker(color, 34))
    body = p.shape(
        [(110, 60), (90, 420), (130, 760), (230, 900), (410, 930), (590, 900), (690, 760), (730, 420), (710, 60), (410, 20)],
        color, rounded=True, volume=26,
    )  # fmt: skip
    if camouflage:
        stream = RandomStream(61)
        tones: list[Color] = [darker(color, 34), lighter(color, 24), (96, 74, 48)]
        for number in range(34):
            center = (stream.between(100, 720), stream.between(40, 900))
            size = (stream.between(24, 70), stream.between(16, 44))
            tone = tones[number % 3]
            with p.inside(body):
                p.disc(center, size[0], tone, ry=size[1], volume=0)
    p.round_off(body, 110)
    p.line([(170, 640), (280, 760), (540, 760), (650, 640)], 7, darker(trim, 20))
    pocket = p.shape(
        [(170, 110), (160, 400), (200, 480), (620, 480), (660, 400), (650, 110), (410, 80)],
        trim,
        rounded=True,
        volume=18,
    )
    p.darken_below(pocket, 80)
    p.line([(190, 424), (630, 424)], 6, darker(trim, 36))
    p.box(612, 380, 632, 430, _STEEL, radius=6, volume=0)
    p.box(330, 560, 490, 640, contrast_shade(trim, 40), radius=12, volume=6)
    for x in (250, 570):
        p.line([(x, 900), (x + (20 if x < 410 else -20), 480)], 9, darker(color, 30))
    return p.finish()


def _tote(color: Color, ink: Color) -> Image.Image:
    p = ObjectPainter(820, 1000)
    p.line(arc(410, 600, 190, 380, 0, 180), 17, darker(color, 20))
    body = p.shape([(60, 30), (30, 620), (790, 620), (760, 30), (410, 10)], color, volume=24)
    p.darken_below(body, 80)
    p.line(arc(410, 560, 210, 330, 20, 160), 17, lighter(color, 6))
    p.disc((410, 320), 130, ink, volume=0)
    for angle in range(0, 360, 45):
        x, y = arc(410, 320, 190, 190, angle, angle)[0]
        p.disc((x, y), 26, ink, volume=0)
    p.disc((410, 320), 70, color, volume=0)
    p.line([(36, 590), (784, 590)], 5, darker(color, 24))
    return p.finish()


def _handbag(color: Color) -> Image.Image:
    p = ObjectPainter(1000, 960)
    p.tube(arc(500, 560, 230, 380, 0, 180), 22, darker(color, 10))
    body = p.shape(
        [(60, 30), (40, 300), (120, 560), (300, 610), (700, 610), (880, 560), (960, 300), (940, 30), (500, 10)],
        color, rounded=True, volume=28,
    )  # fmt: skip
    p.darken_below(body, 100)
    flap = p.shape([(120, 560), (300, 612), (700, 612), (880, 560), (780, 350), (500, 300), (220, 350)], lighter(color, 10),
                   rounded=True, volume=16)  # fmt: skip
    p.darken_below(flap, 50)
    p.disc((500, 340), 40, _BRASS, volume=10)
    for x in (280, 720):
        p.disc((x, 590), 26, _BRASS, volume=8)
    p.line([(130, 90), (870, 90)], 4, darker(color, 34))
    return p.finish()


def _duffel(color: Color, band: Color) -> Image.Image:
    p = ObjectPainter(1100, 760)
    p.line(arc(550, 440, 220, 270, 0, 180), 16, darker(band, 10))
    body = p.shape(p.round_corners(30, 30, 1070, 520, 190), color, volume=26)
    for x in (300, 730):
        with p.inside(body):
            p.box(x, 0, x + 70, 600, band, volume=6)
    p.darken_below(body, 120)
    p.line([(160, 470), (940, 470)], 6, darker(color, 40))
    for x in (150, 950):
        p.line(arc(x, 275, 60, 190, -90, 90) if x > 500 else arc(x, 275, 60, 190, 90, 270), 6, darker(color, 30))
    p.box(460, 150, 640, 250, lighter(color, 12), radius=14, volume=8)
    return p.finish()


def draw_bags() -> list[Image.Image]:
    """Backpacks, a tote, a handbag and a duffel bag."""
    return [
        _backpack((52, 54, 60), (70, 72, 80), camouflage=False),
        _backpack((106, 110, 70), (88, 90, 56), camouflage=True),
        _handbag((142, 62, 48)),
        _tote((224, 212, 184), (44, 92, 128)),
        _duffel((36, 74, 132), (226, 222, 212)),
        _backpack((196, 60, 92), (60, 42, 84), camouflage=False),
    ]


# --- suitcases -------------------------------------------------------------------------------------------------------


def _trolley(color: Color, *, ribs: int) -> Image.Image:
    p = ObjectPainter(680, 1000)
    for x in (250, 430):
        p.tube([(x, 700), (x, 970)], 11, _STEEL)
    p.line([(236, 974), (444, 974)], 19, (50, 52, 56))
    for x in (110, 220, 460, 570):
        p.disc((x, 34), 28, (34, 34, 38), volume=6)
    body = p.shape(p.round_corners(40, 50, 640, 800, 70), color, volume=24)
    for number in range(ribs):
        x = 100 + number * 480 // (ribs - 1)
        p.line([(x, 110), (x, 740)], 13, lighter(color, 14))
        p.line([(x + 16, 110), (x + 16, 740)], 7, darker(color, 22))
    p.round_off(body, 100)
    p.box(240, 784, 440, 822, (50, 52, 56), radius=14, volume=6)
    for x in (56, 624):
        for y in (88, 762):
            p.disc((x, y), 24, darker(color, 24), volume=8)
    return p.finish()


def _cloth_trolley(color: Color) -> Image.Image:
    p = ObjectPainter(680, 1000)
    for x in (260, 420):
        p.tube([(x, 700), (x, 970)], 11, (90, 92, 98))
    p.line([(246, 974), (434, 974)], 18, (40, 42, 46))
    for x in (130, 550):
        p.disc((x, 40), 36, (30, 30, 34), volume=6)
    body = p.shape(p.round_corners(50, 50, 630, 790, 50), color, volume=20)
    p.darken_below(body, 90)
    for bottom, top in ((110, 420), (460, 700)):
        pocket = p.shape(p.round_corners(100, bottom, 580, top, 36), lighter(color, 10), volume=14)
        p.darken_below(pocket, 60)
        p.line([(130, top - 34), (550, top - 34)], 5, darker(color, 40))
        p.box(520, top - 80, 538, top - 30, _STEEL, radius=4, volume=0)
    p.line(arc(340, 788, 90, 44, 0, 180), 13, darker(color, 30))
    return p.finish()


def _leather_case(color: Color) -> Image.Image:
    p = ObjectPainter(1100, 760)
    p.line([(440, 600), (450, 690), (480, 716), (620, 716), (650, 690), (660, 600)], 20, darker(color, 30))
    body = p.shape(p.round_corners(30, 20, 1070, 620, 44), color, volume=24)
    p.darken_below(body, 100)
    for x in (210, 830):
        strap = p.box(x, 18, x + 64, 622, darker(color, 36), volume=6)
        p.darken_below(strap, 40)
        p.box(x - 6, 420, x + 70, 500, _BRASS, radius=8, volume=6)
        p.box(x + 14, 440, x + 50, 480, darker(color, 36), radius=4, volume=0)
    corners: list[Point] = [(70, 60), (1030, 60), (70, 580), (1030, 580)]
    for corner in corners:
        with p.inside(body):
            p.disc(corner, 84, darker(color, 24), volume=10)
    p.box(500, 560, 600, 622, _BRASS, radius=8, volume=8)
    p.line([(36, 540), (1064, 540)], 4, darker(color, 34))
    return p.finish()


def _briefcase(color: Color) -> Image.Image:
    p = ObjectPainter(1100, 800)
    p.line([(420, 620), (430, 730), (670, 730), (680, 620)], 21, darker(color, 16))
    body = p.shape(p.round_corners(40, 20, 1060, 640, 60), color, volume=24)
    p.darken_below(body, 90)
    flap = p.shape(
        [(40, 400), (40, 580), (100, 642), (1000, 642), (1060, 580), (1060, 400), (900, 330), (200, 330)],
        lighter(color, 12), rounded=True, volume=16,
    )  # fmt: skip
    p.darken_below(flap, 60)
    for x in (270, 770):
        p.box(x, 270, x + 60, 450, darker(color, 26), radius=10, volume=8)
        p.box(x + 4, 330, x + 56, 390, _BRASS, radius=8, volume=6)
    p.line([(80, 80), (1020, 80)], 4, darker(color, 30))
    return p.finish()


def draw_suitcases() -> list[Image.Image]:
    """Hard and soft trolleys, a strapped leather case and a briefcase."""
    return [
        _trolley((176, 180, 188), ribs=6),
        _leather_case((134, 82, 46)),
        _cloth_trolley((58, 56, 66)),
        _briefcase((166, 92, 44)),
        _trolley((40, 110, 128), ribs=4),
    ]

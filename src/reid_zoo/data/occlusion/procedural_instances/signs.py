"""Road signs, and the display boards that the class "card" stands for."""

from __future__ import annotations

from PIL import Image

from ...synthetic.painter import darker, lighter
from ...synthetic.randomness import RandomStream
from ...synthetic.raster import Color, Point, arc
from .object_painter import ObjectPainter

__all__ = ["draw_cards", "draw_road_signs"]

_WHITE: Color = (240, 240, 236)
_BLACK: Color = (30, 30, 32)
_ALUMINIUM: Color = (164, 168, 174)


# --- road signs ------------------------------------------------------------------------------------------------------


def _pole(p: ObjectPainter, x: int, top: int, color: Color = _ALUMINIUM) -> None:
    p.round_off(p.box(x - 16, 8, x + 16, top, color, volume=0), 130)
    p.round_off(p.box(x - 60, 4, x + 60, 26, darker(color, 30), radius=8, volume=0), 90)


def _plate(p: ObjectPainter, outer: list[Point], rim: Color, inner: list[Point], face: Color) -> None:
    p.shape(outer, rim, volume=6)
    mask = p.shape(inner, face, volume=0)
    p.darken_below(mask, 40)


def _scaled(center: Point, points: list[Point], percent: int) -> list[Point]:
    x, y = center
    return [(x + (a - x) * percent // 100, y + (b - y) * percent // 100) for a, b in points]


def _diamond_sign() -> Image.Image:
    p = ObjectPainter(480, 1000)
    _pole(p, 240, 700)
    outer: list[Point] = [(240, 500), (476, 740), (240, 980), (4, 740)]
    _plate(p, outer, _BLACK, _scaled((240, 740), outer, 92), (244, 190, 36))
    for y, half in ((790, 92), (740, 130), (690, 92)):
        for part in range(-2, 3):
            x = 240 + part * half * 2 // 5
            p.box(x - half // 7, y - 16, x + half // 7, y + 16, _BLACK, volume=0)
    return p.finish()


def _parking_sign() -> Image.Image:
    p = ObjectPainter(430, 1000)
    _pole(p, 215, 500)
    outer = p.round_corners(10, 400, 420, 990, 40)
    _plate(p, outer, _WHITE, p.round_corners(26, 416, 404, 974, 30), (34, 92, 176))
    p.box(120, 520, 178, 900, _WHITE, volume=0)
    p.shape([(120, 900), (220, 900), *arc(220, 785, 106, 115, 90, -90), (120, 670)], _WHITE, volume=0)
    p.shape([(178, 848), (216, 848), *arc(216, 785, 52, 63, 90, -90), (178, 722)], (34, 92, 176), volume=0)
    p.shape([(230, 470), (300, 470), (300, 440), (360, 486), (300, 532), (300, 502), (230, 502)], _WHITE, volume=0)
    return p.finish()


def _stop_sign() -> Image.Image:
    p = ObjectPainter(480, 1000)
    _pole(p, 240, 700)
    outer = [(240 + 236 * x // 1000, 750 + 236 * y // 1000) for x, y in arc(0, 0, 1082, 1082, 22, 382, 45)[:-1]]
    _plate(p, outer, _WHITE, _scaled((240, 750), outer, 92), (190, 32, 38))
    for number, left in enumerate((76, 160, 244, 328)):
        if number == 0:  # the four letters, as bars
            for y in (700, 750, 800):
                p.box(left, y - 12, left + 66, y + 12, _WHITE, volume=0)
            p.box(left, 750, left + 22, 800, _WHITE, volume=0)
            p.box(left + 44, 700, left + 66, 750, _WHITE, volume=0)
        elif number == 1:
            p.box(left, 790, left + 66, 812, _WHITE, volume=0)
            p.box(left + 22, 688, left + 44, 800, _WHITE, volume=0)
        elif number == 2:
            p.box(left, 688, left + 66, 812, _WHITE, volume=0)
            p.box(left + 20, 708, left + 46, 792, (190, 32, 38), volume=0)
        else:
            p.box(left, 688, left + 22, 812, _WHITE, volume=0)
            p.box(left, 740, left + 66, 812, _WHITE, volume=0)
            p.box(left + 22, 760, left + 46, 792, (190, 32, 38), volume=0)
    return p.finish()


def _warning_sign() -> Image.Image:
    p = ObjectPainter(500, 1000)
    _pole(p, 250, 640, (110, 112, 116))
    outer: list[Point] = [(250, 990), (494, 560), (6, 560)]
    _plate(p, outer, (200, 30, 36), _scaled((250, 704), outer, 76), _WHITE)
    p.shape([(232, 850), (268, 850), (262, 700), (238, 700)], _BLACK, volume=0)
    p.disc((250, 660), 22, _BLACK, volume=0)
    plate = p.box(110, 420, 390, 530, _WHITE, radius=12, volume=6)
    p.edge(plate, _BLACK, 6)
    for y in (496, 456):
        p.line([(150, y), (350, y)], 8, _BLACK)
    return p.finish()


def _direction_sign() -> Image.Image:
    p = ObjectPainter(700, 1000)
    _pole(p, 330, 960, (92, 96, 100))
    for bottom, face, points_right in ((760, (30, 104, 74), True), (560, (232, 232, 226), False)):
        ends: list[Point] = [(60, 0), (560, 0), (680, 80), (560, 160), (60, 160)]
        outline = [(x if points_right else 700 - x, y + bottom) for x, y in ends]
        _plate(p, outline, darker(face, 40), _scaled((350, bottom + 80), outline, 94), face)
        ink = _WHITE if points_right else _BLACK
        stream = RandomStream(51, bottom)
        x = 130
        while x < 520:
            length = stream.between(30, 80)
            p.box(x, bottom + 56, x + length, bottom + 104, ink, radius=12, volume=0)
            x += length + 18
    return p.finish()


# --- display boards --------------------------------------------------------------------------------------------------


def _lines_of_text(
    p: ObjectPainter, left: int, right: int, rows: list[int], height: int, color: Color, seed: int
) -> None:
    stream = RandomStream(52, seed)
    for y in rows:
        x = left
        while x < right - 20:
            end = min(right, x + stream.between(30, 110))
            p.line([(x, y), (end, y)], height, color)
            x = end + 26


def _a_board(frame: Color, face: Color, ink: Color, seed: int) -> Image.Image:
    p = ObjectPainter(600, 1000)
    p.shape([(470, 30), (520, 30), (470, 960), (430, 960)], darker(frame, 40), volume=0)
    p.shape([(10, 8), (60, 8), (120, 980), (80, 980)], frame, volume=8)
    p.shape([(500, 8), (550, 8), (480, 980), (440, 980)], frame, volume=8)
    board = p.shape([(40, 130), (520, 130), (470, 980), (90, 980)], frame, volume=10)
    inner = p.shape([(76, 176), (484, 176), (442, 940), (118, 940)], face, volume=0)
    p.darken_below(inner, 40)
    with p.inside(board):
        _lines_of_text(p, 170, 400, [870], 24, ink, seed)
    with p.inside(board):
        _lines_of_text(p, 150, 420, [780, 730, 680], 12, ink, seed + 1)
    p.disc((280, 520), 92, ink, ry=84, volume=0)
    p.disc((280, 520), 70, face, ry=62, volume=0)
    p.box(216, 486, 330, 550, ink, radius=20, volume=0)
    with p.inside(board):
        _lines_of_text(p, 120, 440, [380, 330, 280, 230], 12, ink, seed + 2)
    return p.finish()


def _framed_poster(wood: Color, sky: Color, seed: int) -> Image.Image:
    p = ObjectPainter(560, 1000)
    for x, end in ((150, 60), (410, 500)):
        p.line([(x, 420), (end, 14)], 15, darker(wood, 20))
    p.line([(280, 300), (280, 40)], 12, darker(wood, 40))
    p.shape(p.round_corners(20, 240, 540, 990, 8), wood, volume=14)
    picture = p.box(62, 284, 498, 948, sky, volume=0)

    with p.inside(picture):
        p.disc((380, 840), 54, (250, 226, 150), volume=0)
        hills: list[Point] = [(40, 284), (40, 560), (180, 700), (300, 560), (420, 660), (540, 520), (540, 284)]
        p.shape(hills, darker(sky, 36), volume=0)
        p.shape([(40, 284), (40, 430), (240, 520), (540, 400), (540, 284)], darker(sky, 58), volume=0)
        _lines_of_text(p, 110, 450, [370, 330], 11, _WHITE, seed)
    p.reflect(picture, (90, 340), (330, 940), 26, 50)
    return p.finish()


def _stop_panel(color: Color, seed: int) -> Image.Image:
    p = ObjectPainter(560, 1000)
    for x in (90, 470):
        p.round_off(p.box(x - 20, 6, x + 20, 990, (120, 124, 130), volume=0), 110)
    p.box(40, 150, 520, 960, darker(color, 30), radius=14, volume=8)
    p.darken_below(p.box(60, 800, 500, 942, color, radius=8, volume=0), 50)
    p.disc((130, 870), 44, _WHITE, volume=0)
    p.box(112, 848, 148, 896, color, radius=6, volume=0)
    _lines_of_text(p, 210, 460, [894, 848], 13, _WHITE, seed)
    sheet = p.box(60, 170, 500, 786, _WHITE, radius=6, volume=0)
    for row in range(9):
        y = 740 - row * 62
        p.disc((100, y), 12, color, volume=0)
        with p.inside(sheet):
            _lines_of_text(p, 136, 470, [y], 8, (90, 94, 100), seed + row)
    p.line([(100, 740), (100, 244)], 5, color)
    p.reflect(sheet, (120, 200), (420, 780), 30, 60)
    return p.finish()


def _wet_floor_sign(color: Color) -> Image.Image:
    p = ObjectPainter(600, 1000)
    p.shape([(420, 30), (570, 30), (400, 960), (320, 960)], darker(color, 34), volume=10)
    front = p.shape([(14, 8), (470, 8), (370, 990), (170, 990)], color, rounded=True, volume=16)
    p.darken_below(front, 60)
    handle = p.canvas.polygon([p.at(point) for point in p.round_corners(220, 900, 320, 944, 20)])
    p.erase(handle)
    triangle: list[Point] = [(262, 850), (396, 600), (126, 600)]
    p.shape(triangle, _BLACK, volume=0)
    p.shape(_scaled((262, 684), triangle, 78), lighter(color, 20), volume=0)
    p.disc((262, 764), 18, _BLACK, volume=0)
    p.line([(262, 740), (246, 680), (280, 632)], 12, _BLACK)
    p.line([(250, 700), (300, 716)], 9, _BLACK)
    _lines_of_text(p, 150, 390, [520, 470], 18, (180, 30, 30), 9)
    _lines_of_text(p, 130, 410, [380, 330, 280], 10, _BLACK, 10)
    return p.finish()


def draw_road_signs() -> list[Image.Image]:
    """A diamond, a parking sign, a stop sign, a warning triangle and a pair of direction arrows."""
    return [_diamond_sign(), _parking_sign(), _stop_sign(), _warning_sign(), _direction_sign()]


def draw_cards() -> list[Image.Image]:
    """Display boards: two that stand like an A, a framed poster, a timetable and a caution sign."""
    return [
        _a_board((70, 48, 36), (40, 44, 46), (226, 226, 216), 1),
        _framed_poster((150, 98, 62), (124, 168, 200), 2),
        _stop_panel((186, 44, 52), 3),
        _wet_floor_sign((240, 196, 40)),
        _a_board((196, 200, 204), (40, 84, 160), (240, 240, 240), 4),
    ]

"""Bicycles and motorbikes, with wheels that one can see through."""

from __future__ import annotations

from PIL import Image

from ...synthetic.painter import darker, lighter
from ...synthetic.raster import Color, Point, cosine, sine
from .object_painter import ObjectPainter

__all__ = ["draw_bikes", "draw_motorbikes"]

_TYRE: Color = (34, 34, 36)
_CHROME: Color = (186, 190, 196)
_LEATHER: Color = (96, 60, 38)


def _spoked_wheel(p: ObjectPainter, center: Point, radius: int, tyre: int, *, spokes: int) -> None:
    x, y = center
    for number in range(spokes):
        angle = 360 * number // spokes + 7
        lead = angle + 18
        hub = (x + 16 * cosine(lead) // 1024, y + 16 * sine(lead) // 1024)
        rim = (x + (radius - tyre) * cosine(angle) // 1024, y + (radius - tyre) * sine(angle) // 1024)
        p.line([hub, rim], 2, (160, 164, 170))
    p.ring(center, radius, tyre, _TYRE)
    p.ring(center, radius - tyre + 2, 9, _CHROME)
    p.disc(center, 20, (120, 124, 130), volume=6)


def _bike(
    frame: Color,
    *,
    step_through: bool,
    drop_bars: bool,
    fenders: bool,
    basket: bool,
    saddle: Color = _TYRE,
    front_panel: Color | None = None,
) -> Image.Image:
    p = ObjectPainter(1500, 960)
    rear, front, radius = (310, 300), (1180, 300), 292
    tyre = 20 if drop_bars else 30
    for wheel in (rear, front):
        _spoked_wheel(p, wheel, radius, tyre, spokes=26)
    if fenders:
        for x, y in (rear, front):
            points = [(x + 306 * cosine(a) // 1024, y + 306 * sine(a) // 1024) for a in range(20, 181, 10)]
            p.line(points, 9, frame)
    crank: Point = (690, 290)
    seat: Point = (590, 700)
    p.tube([rear, crank], 11, darker(frame, 20))
    p.tube([rear, (606, 640)], 11, darker(frame, 12))
    p.tube([crank, seat], 16, frame)
    p.tube([crank, (1070, 640)], 18, frame)
    p.tube([(668, 380), (1062, 600)] if step_through else [(606, 650), (1056, 690)], 16, frame)
    p.tube([(1040, 790), (1080, 600), front], 15, darker(frame, 8))
    if front_panel is not None:
        p.shape([(1030, 800), (1090, 790), (1150, 520), (1100, 500)], front_panel, rounded=True, volume=12)
    p.ring(crank, 92, 16, (110, 114, 120))
    p.disc(crank, 30, (90, 92, 98), volume=6)
    p.line([(crank[0], crank[1] + 88), (rear[0], rear[1] + 36)], 5, (70, 72, 76))
    p.line([(crank[0], crank[1] - 88), (rear[0], rear[1] - 36)], 5, (70, 72, 76))
    p.disc(rear, 38, (88, 90, 96), volume=6)
    p.tube([crank, (770, 140)], 11, (90, 92, 98))
    p.box(724, 118, 820, 142, _TYRE, radius=8, volume=0)
    p.tube([seat, (574, 800)], 10, _CHROME)
    p.shape([(440, 840), (470, 806), (660, 812), (720, 832), (660, 852), (520, 862)], saddle, rounded=True, volume=14)
    if drop_bars:
        p.line([(1040, 790), (1110, 800), (1190, 790), (1216, 730), (1180, 670), (1120, 670)], 13, saddle)
    else:
        p.tube([(1040, 780), (1026, 860), (950, 880)], 12, _CHROME)
        p.line([(960, 880), (900, 876)], 17, saddle)
        p.disc((1100, 770), 30, _CHROME, volume=8)
    if basket:
        body = p.shape([(1110, 850), (1390, 850), (1350, 630), (1140, 630)], (176, 130, 76), volume=10)
        for step in range(1, 6):
            with p.inside(body):
                p.line([(1100, 630 + 37 * step), (1400, 630 + 37 * step)], 5, (120, 84, 46))
                p.line([(1100 + 46 * step, 860), (1116 + 42 * step, 620)], 5, (206, 164, 106))
        p.line([(1106, 850), (1394, 850)], 11, (150, 106, 60))
    return p.finish()


def draw_bikes() -> list[Image.Image]:
    """A town bike, a racer, a hired bike and a step-through one."""
    return [
        _bike((38, 42, 50), step_through=False, drop_bars=False, fenders=True, basket=False, saddle=_LEATHER),
        _bike((196, 40, 44), step_through=False, drop_bars=True, fenders=False, basket=False),
        _bike(
            (236, 186, 40), step_through=True, drop_bars=False, fenders=True, basket=True, front_panel=(236, 186, 40)
        ),
        _bike((116, 170, 160), step_through=True, drop_bars=False, fenders=True, basket=False, saddle=_LEATHER),
        _bike((60, 104, 178), step_through=False, drop_bars=False, fenders=False, basket=False),
    ]


# --- motorbikes ------------------------------------------------------------------------------------------------------


def _road_wheel(p: ObjectPainter, center: Point, radius: int, *, spokes: int, rim: Color) -> None:
    x, y = center
    p.ring(center, radius, radius * 3 // 10, _TYRE)
    p.canvas.tint(p.ring_mask(center, radius - 8, 12), (120, 120, 126), 90)
    inner = radius * 7 // 10
    for number in range(spokes):
        angle = 360 * number // spokes + 20
        p.line([center, (x + inner * cosine(angle) // 1024, y + inner * sine(angle) // 1024)], radius // 16, rim)
    p.ring(center, inner + 8, 18, rim)
    p.ring(center, inner * 6 // 10, 12, (130, 134, 140))
    p.disc(center, radius // 6, (90, 92, 98), volume=8)


def _motorbike(paint: Color, seat: Color, *, fairing: bool, high_bars: bool) -> Image.Image:
    p = ObjectPainter(1500, 1000)
    rear, front = (300, 268), (1210, 268)
    p.line([(440, 470), (300, 268)], 22, (70, 72, 78))
    for wheel in (rear, front):
        _road_wheel(p, wheel, 258, spokes=6, rim=(150, 152, 158))
    p.shape([(70, 420), (130, 540), (330, 600), (480, 560), (420, 480), (220, 500)], darker(paint, 14), rounded=True)
    p.tube([(1210, 268), (1080, 700)], 24, _CHROME)
    p.shape([(1020, 470), (1110, 560), (1300, 540), (1400, 410), (1280, 478), (1130, 490)], paint, rounded=True)
    engine = p.shape(
        [(520, 220), (880, 220), (930, 420), (860, 560), (560, 560), (500, 400)], (78, 80, 86), rounded=True
    )
    for y in range(300, 540, 34):
        with p.inside(engine):
            p.line([(600, y), (900, y + 20)], 8, (132, 134, 140))
    p.darken_below(engine, 80)
    p.ball(p.disc((650, 310), 96, (140, 142, 148), volume=0), 110)
    p.disc((650, 310), 44, (104, 106, 112), volume=10)
    p.tube([(860, 400), (900, 200), (760, 160), (180, 190)], 26, _CHROME)
    p.line([(560, 600), (1060, 640)], 22, (54, 56, 62))
    p.line([(1060, 640), (880, 240)], 20, (54, 56, 62))
    tank = p.shape(
        [(600, 600), (640, 720), (760, 790), (930, 770), (1060, 690), (1020, 600), (820, 570)],
        paint,
        rounded=True,
        volume=20,
    )
    p.darken_below(tank, 90)
    p.reflect(tank, (700, 750), (940, 740), 14, 120)
    back = p.shape(
        [(150, 640), (180, 690), (420, 690), (560, 650), (640, 690), (620, 600), (420, 570), (240, 590)],
        seat,
        rounded=True,
    )
    p.darken_below(back, 70)
    p.box(96, 610, 160, 664, (190, 30, 34), radius=14, volume=6)
    if fairing:
        body = p.shape(
            [(820, 330), (900, 600), (1050, 760), (1200, 700), (1190, 560), (1060, 420), (930, 280)],
            paint, rounded=True, volume=20,
        )  # fmt: skip
        p.reflect(body, (960, 480), (1080, 690), 16, 110)
        p.shape([(1060, 750), (1120, 900), (1200, 700)], (120, 140, 150), rounded=True, volume=8)
        p.disc((1180, 640), 40, (240, 238, 214), ry=34, volume=8)
    else:
        p.disc((1150, 700), 74, _CHROME, volume=10)
        p.disc((1172, 700), 54, (244, 242, 220), volume=8)
    bars = [(1070, 720), (1040, 880), (930, 900)] if high_bars else [(1075, 720), (1050, 820), (950, 830)]
    p.tube(bars, 15, _CHROME)
    p.line([bars[-1], (bars[-1][0] - 60, bars[-1][1] - 6)], 21, _TYRE)
    p.tube([(1046, 850), (990, 960)], 7, (60, 62, 66))
    p.disc((986, 960), 40, (60, 62, 66), ry=26, volume=8)
    return p.finish()


def _scooter_side(paint: Color) -> Image.Image:
    p = ObjectPainter(1360, 1000)
    rear, front = (300, 190), (1080, 190)
    for wheel in (rear, front):
        _road_wheel(p, wheel, 182, spokes=5, rim=(180, 182, 188))
    p.tube([(1080, 190), (960, 640)], 24, (150, 152, 158))
    body = p.shape(
        [(90, 330), (70, 480), (150, 620), (420, 660), (600, 600), (640, 420), (560, 250), (430, 230), (380, 330),
         (260, 400), (160, 360)], paint, rounded=True, volume=22,
    )  # fmt: skip
    p.darken_below(body, 100)
    p.reflect(body, (180, 560), (460, 600), 16, 120)
    p.shape([(560, 250), (620, 330), (900, 300), (960, 240), (900, 200), (600, 200)], darker(paint, 20), rounded=True)
    shield = p.shape(
        [(860, 270), (880, 480), (920, 700), (980, 800), (1050, 760), (1040, 560), (1000, 320), (940, 240)],
        paint,
        rounded=True,
    )
    p.round_off(shield, 110)
    p.shape([(950, 330), (1010, 430), (1160, 420), (1260, 300), (1150, 350), (1040, 340)], paint, rounded=True)
    seat = p.shape([(140, 640), (170, 710), (420, 720), (620, 690), (640, 630), (400, 640)], (70, 50, 42), rounded=True)
    p.darken_below(seat, 80)
    p.box(60, 470, 106, 540, (196, 34, 36), radius=12, volume=6)
    p.tube([(990, 790), (960, 880), (880, 890)], 14, _CHROME)
    p.line([(890, 890), (830, 884)], 20, _TYRE)
    p.disc((1020, 800), 56, lighter(paint, 12), volume=10)
    p.disc((1040, 800), 38, (244, 242, 220), volume=6)
    p.tube([(950, 870), (900, 960)], 6, (120, 122, 128))
    p.disc((894, 962), 36, (40, 42, 46), ry=26, volume=6)
    return p.finish()


def _scooter_front(paint: Color) -> Image.Image:
    p = ObjectPainter(700, 1000)
    p.round_off(p.box(292, 8, 408, 330, _TYRE, radius=56, volume=0), 90)
    for y in range(40, 200, 30):
        p.line([(306, y), (394, y + 8)], 4, (70, 70, 74))
    p.round_off(p.shape([(262, 200), (438, 200), (420, 330), (280, 330)], darker(paint, 10), rounded=True), 100)
    shield = p.shape(
        [(190, 250), (150, 460), (200, 620), (270, 740), (430, 740), (500, 620), (550, 460), (510, 250), (350, 180)],
        paint, rounded=True, volume=20,
    )  # fmt: skip
    p.round_off(shield, 120)
    p.shape([(310, 330), (390, 330), (376, 620), (324, 620)], darker(paint, 16), rounded=True, volume=6)
    for x in (210, 490):
        p.disc((x, 540), 36, (236, 150, 50), ry=26, volume=6)
    p.tube([(350, 800), (150, 860), (60, 830)], 14, (70, 72, 78))
    p.tube([(350, 800), (550, 860), (640, 830)], 14, (70, 72, 78))
    for x in (64, 636):
        p.disc((x, 828), 30, _TYRE, ry=20, volume=4)
    for side in (-1, 1):
        p.tube([(350 + side * 190, 850), (350 + side * 240, 960)], 7, (60, 62, 66))
        p.disc((350 + side * 246, 962), 52, (56, 58, 64), ry=34, volume=8)
    p.ball(p.disc((350, 800), 112, paint, ry=92, volume=0), 110)
    p.disc((350, 800), 76, (250, 248, 228), ry=62, volume=8)
    return p.finish()


def draw_motorbikes() -> list[Image.Image]:
    """A cruiser, a sports bike and scooters from the side and from the front."""
    return [
        _motorbike((34, 36, 42), (30, 30, 32), fairing=False, high_bars=True),
        _motorbike((178, 34, 38), (34, 34, 36), fairing=True, high_bars=False),
        _scooter_side((206, 214, 196)),
        _scooter_front((226, 222, 210)),
        _motorbike((40, 84, 150), (60, 44, 36), fairing=False, high_bars=False),
    ]

"""The places: what each camera sees behind people, and the objects that stand in front of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from PIL import Image

from .attributes import PersonAttributes, sample_attributes
from .figure import draw_person
from .painter import contrast_shade, darker, lighter
from .randomness import RandomStream
from .raster import Canvas, Color, arc
from .view import DIRECTIONS, Part, View

__all__ = ["OCCLUDERS", "PLACES", "Camera", "draw_occluder", "draw_panorama", "sample_camera", "sample_view"]

#: Kinds of place; camera k stands in place k modulo their number.
PLACES = ("brick street", "park", "shops", "station", "crossing", "plaza")

#: Objects that can stand in front of a person.
OCCLUDERS = ("post", "bin", "car", "planter", "railing", "bench")

_PANORAMA_IMAGES = 7  # width of a camera's panorama, in image widths
_PASSERS_BY = 6


@dataclass(frozen=True, slots=True)
class Camera:
    """What is constant for one camera.

    Attributes:
        number: Number of the camera, 0-based.
        place: One of `PLACES`.
        gains: Colour cast: gain of red, green and blue, 256 being neutral.
        brightness: Exposure, 256 being neutral.
        contrast: Contrast around mid-grey, 256 being neutral.
        fall_off: Loss of light towards the lower border, in 256ths.
        blur: Smoothing passes that every image of the camera gets.
        noise: Amplitude of the sensor noise, in grey levels.
        height: Typical body height in thousandths of the image height.
        horizon: Where the wall meets the ground, in thousandths of the image height from below.
    """

    number: int
    place: str
    gains: Color
    brightness: int
    contrast: int
    fall_off: int
    blur: int
    noise: int
    height: int
    horizon: int


def sample_camera(stream: RandomStream, number: int) -> Camera:
    """Draws one camera; neighbouring numbers get different light on purpose."""
    casts: tuple[Color, ...] = ((256, 256, 256), (276, 256, 228), (232, 252, 280), (250, 270, 240), (270, 246, 258))
    cast = casts[(number + stream.below(2)) % len(casts)]
    return Camera(
        number=number,
        place=PLACES[number % len(PLACES)],
        gains=(cast[0] + stream.between(-4, 4), cast[1] + stream.between(-4, 4), cast[2] + stream.between(-4, 4)),
        brightness=(256, 236, 270, 220)[number % 4] + stream.between(-12, 12),
        contrast=(256, 236, 216, 264)[number % 4] + stream.between(-10, 10),
        fall_off=stream.between(0, 60),
        blur=(0, 1, 0, 1)[number % 4],
        noise=stream.between(3, 9),
        height=(830, 800, 770, 740)[number % 4] + stream.between(-15, 15),
        horizon=stream.between(190, 330),
    )


def sample_view(
    stream: RandomStream, camera: Camera, person: PersonAttributes, direction: str, *, occluded: bool
) -> View:
    """Draws the circumstances of one image: pose, place in the image, occluder, exposure and sharpness."""
    height = camera.height + stream.between(-60, 70)
    if person.umbrella_color is not None:
        height = min(height, 790)
    if person.headwear != "none":
        height = min(height, 850)
    occluder = stream.choice(OCCLUDERS) if occluded else None
    return View(
        camera=camera.number,
        direction=direction,
        phase=stream.below(8),
        standing=stream.chance(18),
        height=height,
        center=stream.between(445, 555),
        ground=stream.between(20, 60),
        occluder=occluder,
        occluder_position=stream.between(200, 800),
        occluder_height=stream.between(260, 520),
        background=stream.below(1000),
        brightness=256 + stream.between(-34, 34),
        blur=stream.weighted([(0, 64), (1, 26), (2, 10)]),
        motion_blur=stream.chance(12),
        low_resolution=stream.chance(14),
    )


# --- panoramas -------------------------------------------------------------------------------------------------------


class _Panorama:
    """A canvas addressed in thousandths of the image height, y upwards from the lower border."""

    def __init__(self, width: int, height: int, stream: RandomStream, camera: Camera) -> None:
        self.canvas = Canvas(width, height)
        self.unit = height
        self.length = width * 1000 // height
        self.stream = stream
        self.horizon = camera.horizon

    def scaled(self, value: int) -> int:
        return value * self.unit // 1000

    def box(self, left: int, bottom: int, right: int, top: int, color: Color) -> None:
        x0, x1 = self.scaled(left), max(self.scaled(right), self.scaled(left) + 1)
        y0, y1 = self.unit - self.scaled(top), max(self.unit - self.scaled(bottom), self.unit - self.scaled(top) + 1)
        self.canvas.colors.paste(color, (x0, y0, x1, y1))

    def disc(self, x: int, y: int, radius: int, color: Color) -> None:
        size = max(1, self.scaled(radius))
        mask = self.canvas.ellipse(self.scaled(x), self.unit - self.scaled(y), size, size)
        self.canvas.fill(mask, color, Part.NOTHING)

    def polygon(self, points: list[tuple[int, int]], color: Color) -> None:
        mask = self.canvas.polygon([(self.scaled(x), self.unit - self.scaled(y)) for x, y in points])
        self.canvas.fill(mask, color, Part.NOTHING)

    def vary(self, color: Color, amount: int) -> Color:
        change = self.stream.between(-amount, amount)
        red, green, blue = (min(255, max(0, channel + change)) for channel in color)
        return (red, green, blue)


def _sky(p: _Panorama) -> None:
    for step in range(10):
        low, high = p.horizon + (1000 - p.horizon) * step // 10, p.horizon + (1000 - p.horizon) * (step + 1) // 10
        p.box(0, low, p.length, high + 2, (206 - 5 * step, 218 - 3 * step, 228))


def _pavement(p: _Panorama, color: Color, tile: int) -> None:
    p.box(0, 0, p.length, p.horizon, color)
    y, height = 0, 70
    while y < p.horizon:
        p.box(0, y, p.length, y + 4, darker(color, 14))
        for x in range(p.stream.below(tile), p.length, tile):
            p.box(x, y, x + 4, min(y + height, p.horizon), darker(color, 12))
            if p.stream.chance(20):
                p.box(x + 4, y + 4, x + tile, min(y + height, p.horizon), p.vary(color, 9))
        y, height = y + height, max(22, height * 3 // 4)


def _brick_street(p: _Panorama) -> None:
    brick = p.stream.choice([(150, 92, 74), (168, 132, 104), (126, 104, 96)])
    p.box(0, p.horizon, p.length, 1000, darker(brick, 22))
    for row, y in enumerate(range(p.horizon, 1000, 26)):
        for x in range(-(row % 2) * 32, p.length, 64):
            p.box(max(0, x), y + 3, x + 60, y + 26, p.vary(brick, 12))
    for x in range(p.stream.between(60, 300), p.length, 520):
        p.box(x, 620, x + 170, 900, (214, 208, 196))
        p.box(x + 14, 634, x + 156, 886, p.vary((74, 92, 112), 14))
        p.box(x + 80, 634, x + 90, 886, (214, 208, 196))
    for x in range(p.stream.between(260, 500), p.length, 900):
        door = p.stream.choice([(88, 40, 36), (40, 66, 54), (44, 50, 80)])
        p.box(x, p.horizon, x + 190, 800, (206, 200, 188))
        p.box(x + 14, p.horizon, x + 176, 786, door)
        p.disc(x + 152, 540, 9, (214, 188, 92))
    _pavement(p, (156, 152, 146), 150)


def _park(p: _Panorama) -> None:
    _sky(p)
    for x in range(0, p.length, 60):
        for _ in range(3):
            shade = p.vary((70, 110, 58), 24)
            p.disc(
                x + p.stream.between(-40, 40), p.horizon + p.stream.between(20, 260), p.stream.between(40, 80), shade
            )
    for x in range(p.stream.between(40, 200), p.length, 420):
        trunk = x + p.stream.between(-60, 60)
        p.box(trunk, p.horizon - 20, trunk + 46, 840, p.vary((92, 72, 54), 12))
        for _ in range(14):
            shade = p.vary((62, 104, 50), 28)
            p.disc(trunk + p.stream.between(-140, 180), p.stream.between(760, 1000), p.stream.between(50, 96), shade)
    p.box(0, 0, p.length, p.horizon, (112, 142, 82))
    for _ in range(260):
        x, y = p.stream.below(p.length), p.stream.below(p.horizon)
        p.box(x, y, x + 6, y + 18, p.vary((100, 132, 72), 18))
    p.box(0, 0, p.length, p.horizon * 2 // 3, (186, 172, 146))
    for _ in range(200):
        x, y = p.stream.below(p.length), p.stream.below(p.horizon * 2 // 3)
        p.box(x, y, x + 10, y + 5, p.vary((176, 160, 134), 12))


def _shops(p: _Panorama) -> None:
    p.box(0, p.horizon, p.length, 1000, (198, 190, 178))
    x = -p.stream.below(200)
    while x < p.length:
        width = p.stream.between(320, 460)
        accent = p.stream.choice([(154, 44, 46), (38, 86, 122), (46, 104, 78), (198, 152, 58), (92, 62, 110)])
        p.box(max(0, x), 800, x + width - 16, 900, accent)
        letter = x + 40
        while letter < x + width - 80:
            p.box(max(0, letter), 830, letter + p.stream.between(14, 30), 872, lighter(accent, 75))
            letter += 44
        p.box(max(0, x + 16), p.horizon + 60, x + width - 32, 780, (96, 112, 122))
        for _ in range(7):
            left = x + p.stream.between(20, width - 120)
            goods = p.vary(p.stream.choice([(196, 170, 120), (120, 80, 90), (80, 110, 130), (210, 200, 190)]), 20)
            low = p.horizon + 60
            p.box(
                max(0, left), low, left + p.stream.between(40, 90), low + p.stream.between(60, 320), darker(goods, 20)
            )
        p.polygon([(x + 40, 780), (x + 120, 780), (x + 60, p.horizon + 60), (x, p.horizon + 60)], (136, 152, 160))
        x += width
    _pavement(p, (178, 170, 160), 190)


def _station(p: _Panorama) -> None:
    wall = p.stream.choice([(190, 192, 190), (172, 184, 188), (196, 186, 170)])
    p.box(0, p.horizon, p.length, 1000, wall)
    for y in range(p.horizon, 1000, 74):
        p.box(0, y, p.length, y + 5, darker(wall, 16))
    for x in range(0, p.length, 104):
        p.box(x, p.horizon, x + 5, 1000, darker(wall, 12))
    p.box(0, 560, p.length, 610, p.stream.choice([(38, 84, 140), (160, 48, 44), (60, 120, 84)]))
    for x in range(p.stream.between(80, 320), p.length, 560):
        p.box(x, 640, x + 230, 900, (232, 232, 228))
        p.box(x + 14, 654, x + 216, 886, p.vary(p.stream.choice([(210, 120, 90), (90, 140, 170), (180, 180, 90)]), 20))
        p.disc(x + 115, 770, 60, p.vary((236, 226, 200), 12))
    for x in range(p.stream.between(100, 300), p.length, 880):
        p.box(x, 0 + p.horizon // 2, x + 90, 1000, darker(wall, 26))
        p.box(x, p.horizon // 2, x + 22, 1000, darker(wall, 10))
    p.box(0, 0, p.length, p.horizon // 2, (120, 122, 126))
    _pavement(p, (136, 138, 142), 120)
    p.box(0, p.horizon * 2 // 3, p.length, p.horizon * 2 // 3 + 26, (216, 190, 70))


def _crossing(p: _Panorama) -> None:
    _sky(p)
    x = -p.stream.below(200)
    while x < p.length:
        width = p.stream.between(240, 420)
        wall = p.vary(p.stream.choice([(152, 146, 140), (170, 150, 126), (124, 130, 140)]), 12)
        top = p.stream.between(760, 1000)
        p.box(max(0, x), p.horizon, x + width, top, wall)
        for wx in range(x + 26, x + width - 50, 84):
            for wy in range(p.horizon + 230, top - 60, 110):
                p.box(max(0, wx), wy, max(1, wx + 44), wy + 66, p.vary((84, 98, 112), 16))
        x += width
    p.box(0, 0, p.length, p.horizon, (92, 92, 96))
    for x in range(p.stream.below(200), p.length, 230):
        p.polygon([(x, 0), (x + 120, 0), (x + 100, p.horizon * 3 // 5), (x + 20, p.horizon * 3 // 5)], (214, 214, 208))
    p.box(0, p.horizon - 24, p.length, p.horizon, (164, 160, 154))
    for x in range(p.stream.between(0, 400), p.length, 820):
        _parked_car(
            p, x, p.stream.choice([(168, 40, 40), (46, 70, 120), (206, 206, 204), (44, 46, 50), (190, 160, 60)])
        )


def _plaza(p: _Panorama) -> None:
    _sky(p)
    p.box(0, p.horizon, p.length, 820, (206, 198, 182))
    for x in range(-p.stream.below(160), p.length, 210):
        p.box(max(0, x), p.horizon, x + 74, 820, (224, 216, 200))
        p.box(max(0, x), p.horizon, max(1, x + 16), 820, (188, 180, 164))
        p.box(max(0, x + 90), p.horizon, max(1, x + 196), 700, (92, 96, 100))
    p.box(0, 820, p.length, 860, (232, 226, 212))
    _pavement(p, (196, 184, 164), 110)
    for x in range(p.stream.between(100, 400), p.length, 700):
        p.box(x, p.horizon - 60, x + 190, p.horizon + 50, (132, 112, 96))
        for _ in range(9):
            leaf = p.vary((76, 122, 62), 26)
            p.disc(x + p.stream.between(10, 180), p.horizon + p.stream.between(60, 150), p.stream.between(24, 50), leaf)


def _parked_car(p: _Panorama, x: int, color: Color) -> None:
    low = p.horizon - 40
    p.polygon([(x, low + 30), (x + 10, low + 130), (x + 470, low + 130), (x + 490, low + 30)], color)
    p.polygon(
        [(x + 80, low + 130), (x + 140, low + 220), (x + 340, low + 220), (x + 420, low + 130)], darker(color, 12)
    )
    p.polygon([(x + 105, low + 132), (x + 152, low + 206), (x + 232, low + 206), (x + 232, low + 132)], (120, 140, 152))
    p.polygon([(x + 246, low + 132), (x + 246, low + 206), (x + 332, low + 206), (x + 390, low + 132)], (120, 140, 152))
    for wheel in (100, 390):
        p.disc(x + wheel, low + 34, 46, (30, 30, 32))
        p.disc(x + wheel, low + 34, 22, (160, 160, 164))


_PAINTERS = {
    "brick street": _brick_street,
    "park": _park,
    "shops": _shops,
    "station": _station,
    "crossing": _crossing,
    "plaza": _plaza,
}


def draw_panorama(camera: Camera, stream: RandomStream, height: int, width: int) -> Image.Image:
    """Draws what a camera sees without the person: the place, lamp posts and passers-by in the distance.

    Args:
        camera: The camera.
        stream: Draws of this camera.
        height: Height of the images, in pixels.
        width: Width of the images, in pixels.

    Returns:
        An RGB picture of `height` rows, several images wide.
    """
    scale = 2
    panorama = _Panorama(width * _PANORAMA_IMAGES * scale, height * scale, stream, camera)
    _PAINTERS[camera.place](panorama)
    for x in range(stream.between(100, 300), panorama.length, 640):
        panorama.box(x, camera.horizon - 30, x + 20, 1000, (70, 74, 76))
        panorama.box(x - 8, camera.horizon - 34, x + 28, camera.horizon + 60, (62, 66, 68))
    canvas = panorama.canvas
    for _ in range(_PASSERS_BY):
        person = replace(sample_attributes(stream), umbrella_color=None)
        size = stream.between(230, 380)
        place = View(
            camera=camera.number, direction=stream.choice(DIRECTIONS), phase=stream.below(8), standing=False,
            height=size, center=stream.below(1000), ground=camera.horizon - stream.between(30, 80), occluder=None,
            occluder_position=0, occluder_height=0, background=0, brightness=256, blur=0, motion_blur=False,
            low_resolution=False,
        )  # fmt: skip
        draw_person(canvas, person, place)
    return canvas.colors.reduce(scale)


# --- occluders -------------------------------------------------------------------------------------------------------


def draw_occluder(canvas: Canvas, view: View) -> None:
    """Draws the object in front of the person, if the view has one, and records the pixels that it hides.

    Everything is measured in thousandths of the body height, so that objects grow with the person.
    """
    if view.occluder is None:
        return
    size = canvas.height * view.height // 1000
    x = canvas.width * view.occluder_position // 1000
    floor = canvas.height - canvas.height * max(0, view.ground - 14) // 1000
    tint: Color = ((58, 92, 66), (70, 74, 80), (150, 60, 50), (60, 80, 120))[view.background % 4]

    def at(dx: int, y: int) -> tuple[int, int]:
        return (x + dx * size // 1000, floor - y * size // 1000)

    def shape(points: list[tuple[int, int]], color: Color) -> None:
        mask = canvas.polygon([at(dx, y) for dx, y in points])
        canvas.fill(mask, color, Part.OCCLUDER)
        canvas.tint(mask.edge_band(max(1, 16 * size // 1000)), (0, 0, 20), 60)

    def disc(dx: int, y: int, radius: int, color: Color) -> None:
        cx, cy = at(dx, y)
        canvas.fill(canvas.ellipse(cx, cy, radius * size // 1000, radius * size // 1000), color, Part.OCCLUDER)

    top = view.occluder_height
    if view.occluder == "post":
        shape([(-30, 0), (30, 0), (30, 1400), (-30, 1400)], (92, 96, 98))
        shape([(-42, 0), (42, 0), (42, 120), (-42, 120)], (76, 80, 82))
        shape([(-34, 560), (34, 560), (34, 590), (-34, 590)], (190, 168, 60))
    elif view.occluder == "bin":
        shape([(-120, 0), (120, 0), (136, top), (-136, top)], tint)
        shape([(-146, top - 30), (146, top - 30), (130, top + 34), (-130, top + 34)], lighter(tint, 14))
        shape([(-70, top - 90), (70, top - 90), (70, top - 60), (-70, top - 60)], darker(tint, 60))
    elif view.occluder == "car":
        shape([(-700, 70), (420, 70), (430, top - 70), (300, top), (-700, top + 40)], lighter(tint, 10))
        shape([(-700, 60), (430, 60), (430, 110), (-700, 110)], (40, 40, 44))
        disc(360, top - 110, 34, (240, 236, 200))
        disc(90, 70, 118, (26, 26, 28))
        disc(90, 70, 56, (150, 152, 156))
    elif view.occluder == "planter":
        shape([(-170, 0), (170, 0), (190, top // 2), (-190, top // 2)], (150, 132, 112))
        for step, (dx, dy) in enumerate(arc(0, top // 2, 150, top // 2, 0, 180, 20)):
            disc(dx, dy - 20, 64, ((60, 108, 52), (78, 128, 62), (50, 92, 46))[step % 3])
        disc(0, top // 2 + 30, 100, (66, 114, 56))
    elif view.occluder == "railing":
        for dx in range(-900, 901, 90):
            shape([(dx - 9, 0), (dx + 9, 0), (dx + 9, top), (dx - 9, top)], (74, 80, 86))
        shape([(-900, top - 18), (900, top - 18), (900, top + 18), (-900, top + 18)], (88, 94, 100))
        shape([(-900, 60), (900, 60), (900, 84), (-900, 84)], (74, 80, 86))
    else:
        for y in (top - 60, top - 130, top - 200):
            shape([(-330, y), (220, y), (220, y + 48), (-330, y + 48)], (134, 94, 58))
        for dx in (-290, 160):
            shape([(dx, 0), (dx + 26, 0), (dx + 26, top), (dx, top)], contrast_shade((70, 72, 76), 10))

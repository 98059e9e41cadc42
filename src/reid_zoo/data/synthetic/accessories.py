"""Drawing what a person carries or wears besides clothes: bags, scarf and umbrella."""

from __future__ import annotations

from .attributes import PersonAttributes
from .painter import FigurePainter, contrast_shade, darker, lighter, named_color
from .pose import Skeleton
from .raster import Point, arc
from .view import Part, View

__all__ = ["draw_bag_behind", "draw_bag_in_front", "draw_scarf", "draw_umbrella", "own_right_is_near"]


def own_right_is_near(view: View) -> bool:
    """Whether a side view shows the person's right side (they walk to the right of the image)."""
    return view.direction == "right"


def draw_bag_behind(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton, view: View) -> None:
    """Draws the bag where the body covers it: a far-side hand, a suitcase pulled along, a backpack seen from the front."""
    if skeleton.side_view:
        if person.bag == "backpack":
            _backpack_side(painter, person, skeleton)
        elif person.bag == "suitcase":
            _suitcase(painter, person, (-150, 0), skeleton.arms[0].end)
        elif person.bag in ("handbag", "shopping bag") and not own_right_is_near(view):
            _hand_carried(painter, person, skeleton.arms[0].end)
        elif person.bag == "shoulder bag" and not own_right_is_near(view):
            _pouch(painter, person, (30, 500), 46)
    elif person.bag == "backpack" and not skeleton.back_view:
        width = skeleton.half_shoulder - 6
        painter.polygon(
            [(-width, 826), (width, 826), (width + 4, 780), (-width - 4, 780)],
            darker(named_color(person.bag_color), 20), Part.STRAP, volume=0,
        )  # fmt: skip


def draw_bag_in_front(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton, view: View) -> None:
    """Draws the bag where it covers the body."""
    if person.bag == "none":
        return
    if skeleton.side_view:
        if person.bag == "backpack":
            color = darker(named_color(person.bag_color), 22)
            lean = skeleton.lean
            painter.stroke((lean - 18, 826), (lean + 34, 760), 11, color, Part.STRAP)
            painter.stroke((lean + 34, 760), (-40, 600), 10, color, Part.STRAP)
        elif person.bag == "shoulder bag":
            strap = darker(named_color(person.bag_color), 20)
            near = own_right_is_near(view)
            painter.stroke((skeleton.lean - 6, 830), (10 if near else -20, 560), 8, strap, Part.STRAP)
            if near:
                _pouch(painter, person, (6, 500), 64)
        elif person.bag in ("handbag", "shopping bag") and own_right_is_near(view):
            _hand_carried(painter, person, skeleton.arms[0].end)
        return
    right = skeleton.right_sign
    if person.bag == "backpack":
        if skeleton.back_view:
            _backpack_back(painter, person)
        else:
            color = darker(named_color(person.bag_color), 22)
            for side in (-1, 1):
                x = side * (skeleton.half_shoulder - 44)
                painter.stroke((x, 826), (x + side * 4, 650), 12, color, Part.STRAP)
                painter.stroke((x + side * 4, 650), (x + side * 30, 610), 9, color, Part.STRAP)
    elif person.bag == "shoulder bag":
        strap = darker(named_color(person.bag_color), 20)
        hip = right * (skeleton.half_hip + 8)
        painter.stroke((-right * (skeleton.half_shoulder - 50), 828), (hip, 540), 9, strap, Part.STRAP)
        _pouch(painter, person, (hip + right * 8, 490), 52)
    elif person.bag in ("handbag", "shopping bag"):
        _hand_carried(painter, person, skeleton.arms[0].end)
    elif person.bag == "suitcase":
        hand = skeleton.arms[0].end
        _suitcase(painter, person, (hand[0] + right * 44, 0), hand)


def _backpack_back(painter: FigurePainter, person: PersonAttributes) -> None:
    color = named_color(person.bag_color)
    trim = contrast_shade(color, 30)
    outline = [(-66, 800), (-50, 834), (50, 834), (66, 800), (78, 620), (66, 540), (-66, 540), (-78, 620)]
    painter.polygon(outline, color, Part.BAG, rounded=True, volume=22)
    painter.polygon([(-54, 660), (54, 660), (58, 562), (-58, 562)], trim, Part.BAG, rounded=True, volume=12)
    painter.stroke((-56, 740), (56, 740), 4, trim, Part.BAG)
    painter.stroke((-14, 842), (14, 842), 7, trim, Part.BAG)


def _backpack_side(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton) -> None:
    color = named_color(person.bag_color)
    lean = skeleton.lean
    outline: list[Point] = [
        (lean - 44, 826),
        (lean - 112, 812),
        (lean - 140, 720),
        (-146, 580),
        (-112, 540),
        (-40, 548),
    ]
    painter.polygon(outline, color, Part.BAG, rounded=True, volume=18)
    pocket = [(lean - 128, 670), (lean - 158, 650), (-160, 580), (-128, 562)]
    painter.polygon(pocket, contrast_shade(color, 30), Part.BAG, rounded=True, volume=8)


def _pouch(painter: FigurePainter, person: PersonAttributes, center: Point, half_width: int) -> None:
    x, y = center
    color = named_color(person.bag_color)
    corners = [
        (x - half_width, y + 52),
        (x + half_width, y + 52),
        (x + half_width + 4, y - 52),
        (x - half_width - 4, y - 52),
    ]
    painter.polygon(corners, color, Part.BAG, volume=14)
    flap = [
        (x - half_width, y + 54),
        (x + half_width, y + 54),
        (x + half_width - 8, y - 4),
        (x - half_width + 8, y - 4),
    ]
    painter.polygon(flap, contrast_shade(color, 24), Part.BAG, rounded=True, volume=8)
    painter.ellipse((x, y), 6, 6, (214, 186, 90), Part.BAG, volume=0)


def _hand_carried(painter: FigurePainter, person: PersonAttributes, wrist: Point) -> None:
    x, y = wrist[0], wrist[1] - 30
    color = named_color(person.bag_color)
    if person.bag == "handbag":
        for side in (-1, 1):
            painter.stroke((x, y), (x + side * 40, y - 66), 6, contrast_shade(color, 34), Part.BAG)
        body = [(x - 54, y - 60), (x + 54, y - 60), (x + 72, y - 158), (x - 72, y - 158)]
        painter.polygon(body, color, Part.BAG, rounded=False, volume=16)
        painter.stroke((x - 50, y - 72), (x + 50, y - 72), 7, contrast_shade(color, 30), Part.BAG)
        painter.ellipse((x, y - 92), 8, 8, (214, 186, 90), Part.BAG, volume=0)
        return
    for side in (-1, 1):
        painter.stroke((x, y), (x + side * 26, y - 70), 5, lighter(color, 25), Part.BAG)
    body = [(x - 48, y - 62), (x + 48, y - 62), (x + 58, y - 220), (x - 58, y - 220)]
    painter.polygon(body, color, Part.BAG, volume=18)
    painter.ellipse((x, y - 140), 26, 26, contrast_shade(color, 26), Part.BAG, volume=0)


def _suitcase(painter: FigurePainter, person: PersonAttributes, base: Point, hand: Point) -> None:
    x, _ = base
    color = named_color(person.bag_color)
    trim = contrast_shade(color, 26)
    for side in (-1, 1):
        painter.stroke((hand[0] + side * 10, hand[1] - 24), (x + side * 24, 250), 5, (120, 120, 124), Part.BAG)
    body = [(x - 66, 262), (x + 66, 262), (x + 66, 26), (x - 66, 26)]
    painter.polygon(body, color, Part.BAG, volume=20)
    for offset in (-34, 0, 34):
        painter.stroke((x + offset, 240), (x + offset, 48), 5, trim, Part.BAG)
    for side in (-1, 1):
        painter.ellipse((x + side * 46, 14), 16, 16, (24, 24, 26), Part.BAG, volume=0)


def draw_scarf(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton) -> None:
    """Draws a scarf around the neck, with its end hanging down."""
    if person.scarf_color is None:
        return
    color = named_color(person.scarf_color)
    lean = skeleton.lean
    wide = 46 if skeleton.side_view else 58
    if skeleton.back_view:
        painter.polygon([(-wide, 852), (wide, 852), (wide + 6, 812), (-wide - 6, 812)], color, Part.SCARF, rounded=True)
        return
    tail_x = lean + 34 if skeleton.side_view else 24
    tail = [(tail_x - 20, 820), (tail_x + 20, 820), (tail_x + 24, 650), (tail_x - 20, 650)]
    painter.polygon(tail, darker(color, 10), Part.SCARF, volume=10)
    for y in (700, 670):
        painter.stroke((tail_x - 18, y), (tail_x + 20, y), 5, contrast_shade(color, 34), Part.SCARF)
    band = [(lean - wide, 854), (lean + wide, 854), (lean + wide + 8, 812), (lean, 796), (lean - wide - 8, 812)]
    painter.polygon(band, color, Part.SCARF, rounded=True, volume=12)


def draw_umbrella(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton) -> None:
    """Draws an open umbrella above the head, its pole in the left hand."""
    if person.umbrella_color is None:
        return
    color = named_color(person.umbrella_color)
    hand = umbrella_hand(skeleton)
    top = 1150
    painter.stroke((hand[0], hand[1] - 40), (hand[0], top), 6, (70, 60, 54), Part.UMBRELLA)
    x = hand[0] // 2
    wide = 212
    scallops: list[Point] = []
    for rib in range(4):
        scallops += arc(x - wide + wide // 4 + rib * wide // 2, 1018, wide // 4, 20, 180, 0, 30)
    dome = [*arc(x, 1018, wide, 128, 0, 180), *scallops]
    painter.polygon(dome, color, Part.UMBRELLA, volume=34)
    for rib in (-106, 0, 106):
        painter.stroke((x, 1144), (x + rib, 1020), 3, contrast_shade(color, 28), Part.UMBRELLA)


def umbrella_hand(skeleton: Skeleton) -> Point:
    """Where the hand that holds the umbrella is."""
    if skeleton.side_view:
        return (skeleton.lean + 76, 700)
    return (-skeleton.right_sign * (skeleton.half_shoulder + 10), 700)

"""Drawing the head: hair styles, face, beard, glasses and headwear."""

from __future__ import annotations

from .attributes import PersonAttributes
from .painter import HAIR_COLORS, SKIN_TONES, FigurePainter, contrast_shade, darker, lighter, named_color
from .pose import Skeleton
from .raster import Point, arc
from .view import Part

__all__ = ["draw_hair_behind", "draw_head"]

_HEAD = (0, 920)


def _hair(person: PersonAttributes) -> tuple[int, int, int]:
    return HAIR_COLORS[person.hair_color or "black"]


def draw_hair_behind(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton) -> None:
    """Draws the hair that hangs behind the neck and shoulders (front and side views)."""
    color = darker(_hair(person), 12)
    lean = skeleton.lean
    if skeleton.back_view or person.hair_style in ("short", "curly", "bald", "bun"):
        return
    if skeleton.side_view:
        if person.hair_style == "long":
            outline = [(lean - 40, 980), (lean + 16, 960), (lean - 8, 840), (lean - 30, 735), (lean - 82, 740)]
            painter.polygon([*outline, (lean - 78, 880)], color, Part.HAIR, rounded=True)
        elif person.hair_style == "bob":
            outline = [(lean - 40, 980), (lean + 20, 960), (lean + 10, 838), (lean - 66, 834), (lean - 76, 900)]
            painter.polygon(outline, color, Part.HAIR, rounded=True)
        return
    if person.hair_style == "long":
        painter.polygon([(-66, 960), (66, 960), (84, 745), (-84, 745)], color, Part.HAIR, rounded=True)
    elif person.hair_style == "bob":
        painter.polygon([(-72, 970), (72, 970), (84, 826), (-84, 826)], color, Part.HAIR, rounded=True)


def draw_head(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton) -> None:
    """Draws neck, head, face or back of the head, hair, beard, glasses and headwear."""
    skin = SKIN_TONES[person.skin_tone]
    lean = skeleton.lean
    neck = (lean, 850)
    painter.stroke((lean // 2, 815), neck, 27 if person.gender == "man" else 22, darker(skin, 14), Part.SKIN)
    if skeleton.back_view:
        _draw_back(painter, person)
    elif skeleton.side_view:
        _draw_profile(painter, person, lean)
    else:
        _draw_face(painter, person)
    _draw_headwear(painter, person, skeleton)


def _draw_face(painter: FigurePainter, person: PersonAttributes) -> None:
    skin = SKIN_TONES[person.skin_tone]
    hair = _hair(person)
    x, y = _HEAD
    for side in (-1, 1):
        painter.ellipse((x + side * 55, y - 6), 10, 17, darker(skin, 8), Part.SKIN, volume=0)
    jaw = 50 if person.gender == "man" else 45
    face = [(-56, 950), (-54, 905), (-jaw, 870), (-22, 843), (22, 843), (jaw, 870), (54, 905), (56, 950)]
    painter.polygon([*face, *arc(0, 944, 56, 52, 0, 180)], skin, Part.FACE, volume=12)
    for side in (-1, 1):
        painter.ellipse((side * 23, 922), 11, 8, (250, 250, 250), Part.FACE, volume=0)
        painter.ellipse((side * 23, 921), 7, 8, (40, 28, 24), Part.FACE, volume=0)
        painter.stroke((side * 34, 940), (side * 13, 942), 4, darker(hair, 25), Part.FACE)
    painter.stroke((0, 914), (3, 896), 4, darker(skin, 22), Part.FACE)
    lips = (178, 62, 70) if person.gender == "woman" else darker(skin, 34)
    if person.beard:
        beard = [(-54, 906), (-44, 862), (-20, 838), (20, 838), (44, 862), (54, 906), (40, 886), (0, 892), (-40, 886)]
        painter.polygon(beard, hair if person.hair_color else (60, 44, 36), Part.BEARD, volume=0)
    painter.stroke((-13, 872), (13, 872), 5, lips, Part.FACE)
    if person.age == "elderly":
        for side in (-1, 1):
            painter.stroke((side * 30, 902), (side * 24, 880), 2, darker(skin, 24), Part.FACE)
        painter.stroke((-24, 958), (24, 958), 2, darker(skin, 16), Part.FACE)
    elif person.gender == "woman":
        for side in (-1, 1):
            painter.ellipse((side * 33, 898), 11, 7, (226, 132, 122), Part.FACE, volume=0)
    _draw_front_hair(painter, person)
    if person.glasses != "none":
        dark = (22, 22, 26)
        lens = dark if person.glasses == "sunglasses" else lighter(skin, 50)
        for side in (-1, 1):
            painter.ellipse((side * 26, 921), 24, 18, dark, Part.GLASSES, volume=0)
            painter.ellipse((side * 26, 921), 17, 11, lens, Part.GLASSES, volume=0)
            if person.glasses == "glasses":
                painter.ellipse((side * 24, 921), 7, 7, (40, 28, 24), Part.GLASSES, volume=0)
        painter.stroke((-10, 924), (10, 924), 4, dark, Part.GLASSES)
        for side in (-1, 1):
            painter.stroke((side * 46, 926), (side * 57, 926), 4, dark, Part.GLASSES)


def _draw_front_hair(painter: FigurePainter, person: PersonAttributes) -> None:
    hair = _hair(person)
    style = person.hair_style
    if style == "bald":
        return
    top = arc(0, 936, 64, 64, -8, 188)
    if style == "curly":
        for angle_point in arc(0, 945, 62, 56, -20, 200, 22):
            painter.ellipse(angle_point, 27, 27, hair, Part.HAIR, volume=8)
        painter.polygon([*arc(0, 945, 66, 66, 0, 180), (-40, 962), (40, 962)], hair, Part.HAIR, volume=0)
        return
    fringes: dict[str, list[Point]] = {
        "short": [(-56, 945), (-40, 968), (10, 962), (46, 972), (56, 945)],
        "long": [(-54, 880), (-46, 940), (-8, 984), (44, 950), (54, 880)],
        "bob": [(-58, 900), (-50, 950), (0, 956), (50, 950), (58, 900)],
        "ponytail": [(-57, 930), (-44, 966), (0, 976), (44, 966), (57, 930)],
        "bun": [(-57, 930), (-44, 966), (0, 976), (44, 966), (57, 930)],
    }
    painter.polygon([*top, *fringes[style]], hair, Part.HAIR, volume=12)
    if style in ("long", "bob"):
        lowest = 770 if style == "long" else 840
        for side in (-1, 1):
            strand = [(side * 62, 950), (side * 50, 940), (side * 50, lowest), (side * 80, lowest), (side * 72, 900)]
            painter.polygon(strand, hair, Part.HAIR, rounded=True, volume=8)
    if style == "bun":
        painter.ellipse((0, 1012), 32, 26, hair, Part.TIED_HAIR, volume=10)


def _draw_profile(painter: FigurePainter, person: PersonAttributes, lean: int) -> None:
    skin = SKIN_TONES[person.skin_tone]
    hair = _hair(person)
    style = person.hair_style
    skull = [*arc(lean, 936, 62, 62, 0, 180), (lean - 58, 890), (lean - 30, 852), (lean + 20, 846)]
    profile = [(lean + 48, 850), (lean + 56, 872), (lean + 58, 892), (lean + 74, 898), (lean + 62, 926)]
    painter.polygon([*skull, *profile], skin, Part.FACE, volume=10)
    painter.ellipse((lean + 42, 922), 7, 8, (40, 28, 24), Part.FACE, volume=0)
    painter.stroke((lean + 30, 940), (lean + 54, 941), 4, darker(hair, 25), Part.FACE)
    lips = (178, 62, 70) if person.gender == "woman" else darker(skin, 34)
    if person.beard:
        beard = [(lean + 10, 906), (lean + 4, 860), (lean + 34, 838), (lean + 56, 848), (lean + 58, 884)]
        painter.polygon([*beard, (lean + 30, 888)], hair if person.hair_color else (60, 44, 36), Part.BEARD, volume=0)
    painter.stroke((lean + 44, 872), (lean + 56, 873), 4, lips, Part.FACE)
    if style != "bald":
        low, front = {
            "short": (880, 6), "long": (850, 12), "bob": (846, 20), "ponytail": (886, 4), "bun": (890, 4),
            "curly": (870, 8),
        }[style]  # fmt: skip
        shape = [*arc(lean - 2, 938, 68, 66, 24, 190), (lean - 66, low), (lean - 24, low - 6)]
        painter.polygon([*shape, (lean - 6, 920), (lean + front, 950), (lean + 40, 966)], hair, Part.HAIR, volume=10)
    if style == "curly":
        for point in arc(lean - 6, 946, 62, 56, 20, 215, 22):
            painter.ellipse(point, 27, 27, hair, Part.HAIR, volume=8)
    elif style == "ponytail":
        tail = [(lean - 56, 965), (lean - 96, 940), (lean - 108, 830), (lean - 92, 770), (lean - 80, 850)]
        painter.polygon([*tail, (lean - 62, 925)], hair, Part.TIED_HAIR, rounded=True, volume=8)
    elif style == "bun":
        painter.ellipse((lean - 40, 1004), 32, 28, hair, Part.TIED_HAIR, volume=10)
    if style not in ("long", "bob", "curly"):
        painter.ellipse((lean - 10, 912), 9, 16, darker(skin, 16), Part.SKIN, volume=0)
    if person.glasses != "none":
        dark = (22, 22, 26)
        painter.ellipse((lean + 46, 921), 15, 17, dark, Part.GLASSES, volume=0)
        if person.glasses == "glasses":
            painter.ellipse((lean + 46, 921), 9, 10, lighter(skin, 50), Part.GLASSES, volume=0)
        painter.stroke((lean + 36, 926), (lean - 8, 926), 4, dark, Part.GLASSES)


def _draw_back(painter: FigurePainter, person: PersonAttributes) -> None:
    skin = SKIN_TONES[person.skin_tone]
    hair = _hair(person)
    style = person.hair_style
    for side in (-1, 1):
        painter.ellipse((side * 57, 912), 10, 17, darker(skin, 8), Part.SKIN, volume=0)
    painter.ellipse((0, 924), 58, 74, skin, Part.SKIN)
    if style == "bald":
        return
    nape = {"short": 872, "curly": 862, "bob": 822, "long": 700, "ponytail": 868, "bun": 868}[style]
    wide = 80 if style in ("long", "bob") else 52
    outline = [*arc(0, 932, 65, 68, -6, 186), (-wide, (nape + 900) // 2), (-wide + 12, nape), (wide - 12, nape)]
    painter.polygon([*outline, (wide, (nape + 900) // 2)], hair, Part.HAIR, volume=16)
    if style == "curly":
        for point in arc(0, 930, 60, 60, -30, 210, 22):
            painter.ellipse(point, 28, 28, hair, Part.HAIR, volume=8)
    elif style == "ponytail":
        tail = [(-16, 950), (16, 950), (30, 860), (14, 740), (-14, 740), (-30, 860)]
        painter.polygon(tail, contrast_shade(hair, 13), Part.TIED_HAIR, rounded=True, volume=8)
        painter.stroke((-14, 940), (14, 940), 8, (150, 40, 60), Part.TIED_HAIR)
    elif style == "bun":
        painter.ellipse((0, 1000), 34, 30, contrast_shade(hair, 14), Part.TIED_HAIR, volume=10)


def _draw_headwear(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton) -> None:
    if person.headwear == "none":
        return
    color = named_color(person.headwear_color)
    trim = contrast_shade(color, 28)
    lean = skeleton.lean
    crown = arc(lean, 950, 68, 66, 0, 180)
    if person.headwear == "cap":
        painter.polygon([*crown, (lean - 66, 946), (lean + 66, 946)], color, Part.HEADWEAR)
        if skeleton.side_view:
            painter.polygon(
                [(lean + 40, 960), (lean + 116, 944), (lean + 112, 932), (lean + 40, 942)],
                trim,
                Part.HEADWEAR,
                volume=0,
            )
        elif skeleton.back_view:
            painter.stroke((-34, 944), (34, 944), 6, trim, Part.HEADWEAR)
        else:
            painter.polygon([(-62, 962), (62, 962), (48, 938), (-48, 938)], trim, Part.HEADWEAR, rounded=True, volume=0)
    elif person.headwear == "beanie":
        painter.polygon([*arc(lean, 944, 68, 78, 0, 180), (lean - 68, 940), (lean + 68, 940)], color, Part.HEADWEAR)
        band = [(lean - 70, 966), (lean + 70, 966), (lean + 70, 938), (lean - 70, 938)]
        painter.polygon(band, trim, Part.HEADWEAR, volume=8)
        painter.ellipse((lean, 1024), 17, 15, trim, Part.HEADWEAR, volume=5)
    else:
        painter.ellipse((lean, 956), 118, 20, darker(color, 12), Part.HEADWEAR)
        painter.polygon(
            [(lean - 62, 958), (lean - 52, 1024), (lean + 52, 1024), (lean + 62, 958)],
            color,
            Part.HEADWEAR,
            rounded=False,
        )
        painter.polygon(
            [(lean - 61, 974), (lean + 61, 974), (lean + 62, 958), (lean - 62, 958)], trim, Part.HEADWEAR, volume=0
        )

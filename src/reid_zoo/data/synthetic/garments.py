"""Drawing clothes: trousers, skirts, shoes, tops with sleeves, patterns, collars and pockets."""

from __future__ import annotations

import numpy as np

from .attributes import PersonAttributes
from .painter import SKIN_TONES, FigurePainter, contrast_shade, darker, lighter, named_color
from .pose import Limb, Skeleton
from .raster import Color, Mask, Point
from .view import Part

__all__ = ["draw_arm", "draw_leg", "draw_skirt", "draw_torso"]

_SHORT_SLEEVES = ("t-shirt", "dress")
_SHOE_SOLES: Color = (226, 226, 222)


def _between(start: Point, end: Point, percent: int) -> Point:
    return (start[0] + (end[0] - start[0]) * percent // 100, start[1] + (end[1] - start[1]) * percent // 100)


def draw_leg(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton, leg: Limb) -> None:
    """Draws one leg with its trouser leg and shoe; the leg behind is a little darker."""
    shade = 16 if leg.behind else 0
    heavy = {"slim": -3, "average": 0, "heavy": 6}[person.build]
    skin = darker(SKIN_TONES[person.skin_tone], shade)
    cloth = darker(named_color(person.lower_color), shade)
    _draw_shoe(painter, person, skeleton, leg, shade)
    bare = person.lower in ("shorts", "skirt", "none")
    if bare:
        painter.stroke(leg.root, leg.middle, 38 + heavy, skin, Part.BARE_LEG, end_radius=28, volume=10)
        painter.stroke(leg.middle, leg.end, 28, skin, Part.BARE_LEG, end_radius=19, volume=10)
    if person.lower == "shorts":
        hem = _between(leg.root, leg.middle, 78)
        painter.stroke(leg.root, hem, 48 + heavy, cloth, Part.LOWER, end_radius=46 + heavy, volume=14)
    elif person.lower in ("trousers", "jeans"):
        slack = 6 if person.lower == "trousers" else 0
        ankle = _between(leg.middle, leg.end, 94)
        painter.stroke(leg.root, leg.middle, 46 + heavy, cloth, Part.LOWER, end_radius=34 + slack, volume=14)
        painter.stroke(leg.middle, ankle, 34 + slack, cloth, Part.LOWER, end_radius=26 + slack * 2, volume=12)
        if person.lower == "jeans":
            faded = _between(leg.root, leg.middle, 45), _between(leg.root, leg.middle, 85)
            painter.stroke(*faded, 15, lighter(cloth, 20), Part.LOWER)
            cuff = _between(leg.middle, leg.end, 90)
            painter.stroke(
                (cuff[0] - 22, cuff[1] - 12), (cuff[0] + 22, cuff[1] - 12), 9, lighter(cloth, 34), Part.LOWER
            )
        elif not skeleton.side_view:
            painter.stroke(_between(leg.root, leg.middle, 30), ankle, 3, contrast_shade(cloth, 26), Part.LOWER)


def _draw_shoe(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton, leg: Limb, shade: int) -> None:
    color = darker(named_color(person.shoes_color), shade)
    x, y = leg.end
    base = y - 50
    if person.shoes == "boots":
        painter.stroke((x, y + 66), (x, y), 34, color, Part.SHOES, end_radius=30, volume=10)
    if skeleton.side_view:
        tilt = max(0, (base - 4) // 3)
        outline = [(x - 30, y + 12), (x + 22, y + 12), (x + 74, base + 24 - tilt), (x + 80, base + 4 - tilt)]
        outline += [(x - 32, base + tilt // 2)]
        painter.polygon(outline, color, Part.SHOES, volume=8)
        sole = [(x - 34, base + 10 + tilt // 2), (x + 82, base + 10 - tilt), (x + 82, base - 2 - tilt)]
        sole.append((x - 34, base - 2 + tilt // 2))
    else:
        spread = -4 if x < 0 else 4
        outline = [(x - 26, y + 14), (x + 26, y + 14), (x + 34 + spread, base + 8), (x + 20 + spread, base - 8)]
        outline += [(x - 20 + spread, base - 8), (x - 34 + spread, base + 8)]
        painter.polygon(outline, color, Part.SHOES, volume=8)
        sole = [(x - 32 + spread, base + 4), (x + 32 + spread, base + 4), (x + 22 + spread, base - 10)]
        sole.append((x - 22 + spread, base - 10))
    if person.shoes == "trainers":
        white = person.shoes_color == "white"
        painter.polygon(sole, darker((150, 150, 150) if white else _SHOE_SOLES, shade), Part.SHOES, volume=0)
        if not skeleton.back_view and not skeleton.side_view:
            lace = contrast_shade(color, 45)
            painter.stroke((x - 8, y), (x + 8, y), 4, lace, Part.SHOES)
            painter.stroke((x - 8, y - 14), (x + 8, y - 14), 4, lace, Part.SHOES)


def _lower_hem(person: PersonAttributes) -> int:
    return {"t-shirt": 462, "shirt": 468, "sweater": 468, "hoodie": 458, "jacket": 456, "coat": 300}.get(
        person.upper, 470
    )


def draw_skirt(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton) -> None:
    """Draws hips: the top of trousers or shorts, or a skirt."""
    if person.lower == "none":
        return
    color = named_color(person.lower_color)
    hip = skeleton.half_hip
    if person.lower == "skirt":
        hem = 318
        flare = 34
        mask = painter.polygon(
            [(-hip + 8, 545), (hip - 8, 545), (hip + flare, hem), (-hip - flare, hem)], color, Part.LOWER, volume=18
        )
        for x in (-46, 0, 46):
            fold = painter.canvas.capsule(painter.at((x, 470)), painter.at((x * 4 // 3, hem)), 1, painter.length(5))
            painter.shadow(fold.intersect(mask), 44)
        return
    top = [(-hip + 4, 540), (hip - 4, 540), (hip, 470), (8, 428), (-8, 428), (-hip, 470)]
    painter.polygon(top, color, Part.LOWER, volume=14)
    if person.lower != "shorts":
        painter.stroke((0, 470), (0, 436), 3, contrast_shade(color, 30), Part.LOWER)


def _torso_outline(person: PersonAttributes, skeleton: Skeleton) -> list[Point]:
    hem = _lower_hem(person)
    loose = {"hoodie": 12, "jacket": 12, "coat": 14, "sweater": 7, "t-shirt": 2, "shirt": 3, "dress": 0}[person.upper]
    shoulder, waist, hip = skeleton.half_shoulder, skeleton.half_waist + loose, skeleton.half_hip + loose
    if person.upper == "dress":
        lower = [(hip + 2, 500), (hip + 42, 300), (-hip - 42, 300), (-hip - 2, 500)]
    elif person.upper == "coat":
        lower = [(hip + 4, 480), (hip + 22, hem), (-hip - 22, hem), (-hip - 4, 480)]
    else:
        lower = [(hip, hem), (-hip, hem)]
    if skeleton.side_view:
        lean = skeleton.lean
        chest = 12 if person.gender == "woman" else 4
        belly = {"slim": 0, "average": 4, "heavy": 22}[person.build]
        front = [(lean + 26, 836), (lean + 52, 790), (lean + 60 + chest, 720), (waist + belly, 600)]
        back = [(-waist + 4, 610), (lean - shoulder - 4, 730), (lean - 52, 796), (lean - 26, 836)]
        return [*front, *lower, *back]
    right = [(38, 838), (shoulder - 22, 816), (shoulder, 790), (shoulder - 4, 720), (waist, 600)]
    return [*right, *lower, *[(-x, y) for x, y in reversed(right)]]


def _apply_pattern(painter: FigurePainter, person: PersonAttributes, mask: Mask) -> None:
    """Draws stripes or checks over everything inside the mask."""
    if mask.empty or person.pattern not in ("striped", "checked"):
        return
    color = named_color(person.pattern_color)
    height, width = mask.inside.shape
    origin_x, origin_y = painter.origin
    rows = (origin_y - mask.top - np.arange(height, dtype=np.int64)) * 1000 // painter.size
    columns = np.abs(np.arange(width, dtype=np.int64) + mask.left - origin_x) * 1000 // painter.size
    if person.pattern == "striped":
        painter.canvas.fill(mask.rows(rows % 56 < 24), color, Part.UPPER_PATTERN)
        return
    horizontal, vertical = mask.rows(rows % 62 < 20), mask.columns((columns + 10) % 62 < 20)
    for band in (horizontal, vertical):
        painter.canvas.tint(band, color, 150)
    crossing = horizontal.intersect(vertical)
    painter.canvas.fill(crossing, color, Part.UPPER_PATTERN)


def draw_torso(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton) -> None:
    """Draws the upper garment without its sleeves, with pattern, collar, buttons, zip, hood and pockets."""
    color = named_color(person.upper_color)
    trim = contrast_shade(color, 28)
    if person.upper == "hoodie" and not skeleton.back_view:
        lean = skeleton.lean
        center = lean - 34 if skeleton.side_view else 0
        width = 44 if skeleton.side_view else 76
        painter.ellipse((center, 826), width, 36, darker(color, 22), Part.UPPER, volume=0)
    outline = _torso_outline(person, skeleton)
    mask = painter.polygon_mask(outline, rounded=True)
    painter.canvas.fill(mask, color, Part.UPPER)
    _apply_pattern(painter, person, mask)
    painter.canvas.tint(mask.edge_band(painter.length(24)), (0, 0, 20), 64)
    painter.canvas.tint(mask.edge_band(painter.length(50)), (0, 0, 20), 30)
    painter.canvas.tint(mask.edge_band(-painter.length(14)), (255, 250, 235), 36)
    if skeleton.back_view:
        _draw_back_details(painter, person, trim)
    elif skeleton.side_view:
        _draw_side_details(painter, person, skeleton, trim)
    else:
        _draw_front_details(painter, person, skeleton, trim)
    if person.upper in ("sweater", "hoodie", "jacket") and not (skeleton.side_view and person.upper == "jacket"):
        hem = _lower_hem(person)
        band = painter.polygon_mask([(-200, hem + 22), (200, hem + 22), (200, hem - 4), (-200, hem - 4)])
        painter.shadow(band.intersect(mask), 50)


def _draw_back_details(painter: FigurePainter, person: PersonAttributes, trim: Color) -> None:
    if person.upper == "hoodie":
        hood = [(-62, 838), (62, 838), (54, 770), (0, 730), (-54, 770)]
        painter.polygon(hood, trim, Part.UPPER, rounded=True, volume=12)
    elif person.upper in ("shirt", "jacket", "coat"):
        painter.polygon([(-44, 850), (44, 850), (50, 816), (-50, 816)], trim, Part.UPPER, rounded=True, volume=0)
    if person.upper == "coat":
        painter.stroke((0, 420), (0, 306), 3, contrast_shade(trim, 30), Part.UPPER)
        painter.stroke((-70, 570), (70, 570), 9, trim, Part.UPPER)


def _draw_side_details(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton, trim: Color) -> None:
    lean = skeleton.lean
    if person.upper in ("shirt", "jacket", "coat", "hoodie"):
        collar = [(lean - 30, 846), (lean + 30, 840), (lean + 34, 816), (lean - 36, 818)]
        painter.polygon(collar, trim, Part.UPPER, volume=0)


def _draw_front_details(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton, trim: Color) -> None:
    skin = SKIN_TONES[person.skin_tone]
    hem = _lower_hem(person)
    upper = person.upper
    if upper in ("t-shirt", "sweater"):
        painter.ellipse((0, 836), 34, 20, skin, Part.SKIN, volume=0)
        if upper == "sweater":
            painter.stroke((-32, 826), (0, 814), 6, trim, Part.UPPER)
            painter.stroke((0, 814), (32, 826), 6, trim, Part.UPPER)
    elif upper == "dress":
        painter.polygon([(-38, 842), (38, 842), (0, 776)], skin, Part.SKIN, volume=0)
        waist = skeleton.half_waist
        painter.stroke((-waist + 2, 588), (waist - 2, 588), 10, trim, Part.UPPER)
    elif upper == "shirt":
        painter.polygon([(-18, 838), (18, 838), (0, 800)], skin, Part.SKIN, volume=0)
        for side in (-1, 1):
            collar = [(side * 34, 846), (side * 6, 806), (side * 40, 796)]
            painter.polygon(collar, lighter(named_color(person.upper_color), 22), Part.UPPER, volume=0)
        painter.stroke((0, 800), (0, hem), 3, trim, Part.UPPER)
        for y in range(hem + 30, 790, 62):
            painter.ellipse((0, y), 6, 6, contrast_shade(trim, 40), Part.UPPER, volume=0)
    elif upper == "hoodie":
        painter.ellipse((0, 838), 34, 20, skin, Part.SKIN, volume=0)
        for side in (-1, 1):
            painter.stroke((side * 18, 818), (side * 22, 730), 4, (235, 235, 230), Part.UPPER)
        pocket = [(-44, 570), (44, 570), (70, 480), (-70, 480)]
        painter.polygon(pocket, trim, Part.UPPER, volume=0)
    elif upper == "jacket":
        if person.inner_color is not None:
            inner = named_color(person.inner_color)
            opening = [(-26, 838), (26, 838), (40, 640), (46, hem + 4), (-46, hem + 4), (-40, 640)]
            painter.polygon(opening, inner, Part.INNER, volume=8)
            painter.ellipse((0, 838), 26, 18, skin, Part.SKIN, volume=0)
        else:
            painter.stroke((0, 836), (0, hem), 5, (205, 205, 205), Part.UPPER)
        for side in (-1, 1):
            painter.polygon([(side * 44, 848), (side * 12, 838), (side * 44, 780)], trim, Part.UPPER, volume=0)
            painter.stroke((side * 64, 560), (side * 76, 520), 4, trim, Part.UPPER)
    elif upper == "coat":
        for side in (-1, 1):
            lapel = [(side * 42, 846), (side * 2, 720), (side * 58, 770)]
            painter.polygon(lapel, trim, Part.UPPER, volume=0)
        painter.polygon([(-24, 842), (24, 842), (0, 770)], lighter((90, 90, 96), 40), Part.SKIN, volume=0)
        painter.stroke((0, 720), (4, hem), 4, trim, Part.UPPER)
        for y in (680, 600, 520):
            for x in (-20, 22):
                painter.ellipse((x, y), 8, 8, contrast_shade(trim, 45), Part.UPPER, volume=0)
    if person.pattern == "logo":
        logo = named_color(person.pattern_color)
        painter.ellipse((0, 700), 46, 40, logo, Part.UPPER_PATTERN, volume=0)
        star = [(0, 734), (12, 708), (38, 704), (18, 688), (24, 664), (0, 678), (-24, 664), (-18, 688)]
        star += [(-38, 704), (-12, 708)]
        painter.polygon(star, named_color(person.upper_color), Part.UPPER_PATTERN, volume=0)


def draw_arm(painter: FigurePainter, person: PersonAttributes, skeleton: Skeleton, arm: Limb) -> None:
    """Draws one arm: sleeve, forearm and hand; the arm behind the body is a little darker."""
    shade = 16 if arm.behind and skeleton.side_view else 4
    skin = darker(SKIN_TONES[person.skin_tone], shade)
    cloth = darker(named_color(person.upper_color), shade)
    thick = {"t-shirt": 0, "dress": -3, "shirt": 1, "sweater": 4, "hoodie": 7, "jacket": 7, "coat": 8}[person.upper]
    woman = -4 if person.gender == "woman" else 0
    hand = _between(arm.middle, arm.end, 108)
    painter.ellipse(hand, 22 + woman, 27, skin, Part.SKIN, volume=6)
    if person.upper in _SHORT_SLEEVES:
        painter.stroke(arm.root, arm.middle, 27 + woman, skin, Part.SKIN, end_radius=22 + woman, volume=8)
        painter.stroke(arm.middle, arm.end, 22 + woman, skin, Part.SKIN, end_radius=16, volume=8)
        sleeve_end = _between(arm.root, arm.middle, 66)
        masks = [(arm.root, sleeve_end, 36 + woman, 35 + woman)]
    else:
        masks = [
            (arm.root, arm.middle, 33 + thick + woman, 28 + thick + woman),
            (arm.middle, _between(arm.middle, arm.end, 94), 28 + thick + woman, 22 + thick + woman),
        ]
    for start, end, start_radius, end_radius in masks:
        mask = painter.canvas.capsule(
            painter.at(start), painter.at(end), painter.length(start_radius), painter.length(end_radius)
        )
        painter.canvas.fill(mask, cloth, Part.UPPER)
        _apply_pattern(painter, person, mask)
        painter.shadow(mask.edge_band(painter.length(12)), 76)
        painter.canvas.tint(mask.edge_band(-painter.length(7)), (0, 0, 20) if arm.root[0] > 0 else (255, 250, 235), 40)
    if person.upper in ("sweater", "hoodie", "jacket"):
        cuff_start, cuff_end = _between(arm.middle, arm.end, 84), _between(arm.middle, arm.end, 96)
        painter.stroke(cuff_start, cuff_end, 23 + thick + woman, contrast_shade(cloth, 24), Part.UPPER)

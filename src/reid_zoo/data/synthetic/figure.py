"""Drawing a whole person: the order of the layers for each direction of view."""

from __future__ import annotations

from .accessories import draw_bag_behind, draw_bag_in_front, draw_scarf, draw_umbrella, umbrella_hand
from .attributes import PersonAttributes
from .garments import draw_arm, draw_leg, draw_skirt, draw_torso
from .head import draw_hair_behind, draw_head
from .painter import FigurePainter
from .pose import Limb, Skeleton, build_skeleton
from .raster import Canvas, Point
from .view import View

__all__ = ["draw_person"]

_STATURE = {"young": 990, "adult": 1000, "elderly": 955}


def _raised(skeleton: Skeleton, arm: Limb) -> Limb:
    hand = umbrella_hand(skeleton)
    elbow = ((arm.root[0] + hand[0]) // 2 + (14 if hand[0] > 0 else -14), 648)
    return Limb(arm.root, elbow, hand, behind=False)


def draw_person(canvas: Canvas, person: PersonAttributes, view: View) -> None:
    """Draws a person on the canvas and records the visible parts.

    Args:
        canvas: The canvas; its size decides the size of the figure.
        person: Who is drawn.
        view: From where, in which pose, where in the image and how large.
    """
    skeleton = build_skeleton(person, view)
    size = canvas.height * view.height // 1000 * _STATURE[person.age] // 1000
    origin: Point = (canvas.width * view.center // 1000, canvas.height - canvas.height * view.ground // 1000)
    painter = FigurePainter(canvas, origin, size, mirrored=view.direction == "left")
    right_arm, left_arm = skeleton.arms
    if person.umbrella_color is not None:
        left_arm = _raised(skeleton, left_arm)
    if skeleton.side_view:
        near_arm, far_arm = (right_arm, left_arm) if view.direction == "right" else (left_arm, right_arm)
        draw_arm(painter, person, skeleton, far_arm)
    draw_hair_behind(painter, person, skeleton)
    draw_bag_behind(painter, person, skeleton, view)
    for leg in sorted(skeleton.legs, key=lambda limb: not limb.behind):
        draw_leg(painter, person, skeleton, leg)
    draw_skirt(painter, person, skeleton)
    if not skeleton.side_view and skeleton.back_view:
        draw_arm(painter, person, skeleton, right_arm)
        draw_arm(painter, person, skeleton, left_arm)
        draw_torso(painter, person, skeleton)
        draw_bag_in_front(painter, person, skeleton, view)
        draw_head(painter, person, skeleton)
        draw_scarf(painter, person, skeleton)
    else:
        draw_torso(painter, person, skeleton)
        draw_head(painter, person, skeleton)
        draw_scarf(painter, person, skeleton)
        if skeleton.side_view:
            if person.bag == "backpack" or view.direction == "left":
                draw_bag_in_front(painter, person, skeleton, view)
                draw_arm(painter, person, skeleton, near_arm)
            else:
                draw_arm(painter, person, skeleton, near_arm)
                draw_bag_in_front(painter, person, skeleton, view)
        else:
            draw_arm(painter, person, skeleton, right_arm)
            draw_arm(painter, person, skeleton, left_arm)
            draw_bag_in_front(painter, person, skeleton, view)
    draw_umbrella(painter, person, skeleton)

"""The skeleton: where the joints are for a direction of view and a moment of the step.

Body coordinates: a standing adult is 1000 units tall, x runs to the right of the image, y upwards from the soles.
Side views are drawn for a person who walks to the right and mirrored for the other direction.
"""

from __future__ import annotations

from dataclasses import dataclass

from .attributes import PersonAttributes
from .raster import Point, cosine, sine
from .view import View

__all__ = ["Limb", "Skeleton", "build_skeleton"]


@dataclass(frozen=True, slots=True)
class Limb:
    """An arm or a leg: root (shoulder, hip), middle joint (elbow, knee) and end (wrist, ankle)."""

    root: Point
    middle: Point
    end: Point
    behind: bool


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Joints and half widths of the body; limbs with the person's own right side first."""

    side_view: bool
    back_view: bool
    half_shoulder: int
    half_waist: int
    half_hip: int
    lean: int
    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]

    @property
    def right_sign(self) -> int:
        """On which side of the image the person's right hand is in a front (-1) or back (+1) view."""
        return 1 if self.back_view else -1


_BUILD = {"slim": -8, "average": 0, "heavy": 15}


def _polar(origin: Point, degrees: int, length: int) -> Point:
    """The point `length` away from `origin`, at an angle from straight down, positive to the front."""
    return (origin[0] + length * sine(degrees) // 1024, origin[1] - length * cosine(degrees) // 1024)


def _frontal(person: PersonAttributes, view: View, swing: int, widths: tuple[int, int, int]) -> Skeleton:
    half_shoulder, half_waist, half_hip = widths
    back = view.direction == "back"
    arms, legs = [], []
    for own_side in (1, -1):  # own right side first
        sign = -own_side if not back else own_side
        forward = swing * own_side * (-1 if back else 1)  # positive: this leg is the nearer one
        lifted, near = max(0, -forward), max(0, forward)
        hip = (sign * 46, 490)
        knee = (sign * (50 - lifted // 12), 268 + lifted // 5)
        ankle = (sign * (46 - lifted // 10), 52 + lifted * 2 // 5 - near // 8)
        legs.append(Limb(hip, knee, ankle, behind=forward < 0))
        shoulder = (sign * (half_shoulder - 18), 790)
        bend = abs(swing) // 8
        elbow = (sign * (half_shoulder + 14 + bend), 640)
        wrist = (sign * (half_shoulder + 12), 496 + (near + lifted) // 6)
        arms.append(Limb(shoulder, elbow, wrist, behind=forward > 0))
    return Skeleton(False, back, half_shoulder, half_waist, half_hip, 0, (arms[0], arms[1]), (legs[0], legs[1]))


def _sideways(person: PersonAttributes, view: View, swing: int, widths: tuple[int, int, int]) -> Skeleton:
    lean = 22 if person.age == "elderly" else 6
    legs, arms = [], []
    for own_side in (1, -1):
        forward = swing * own_side
        near = (own_side == 1) == (view.direction == "right")
        thigh_angle = 3 + forward * 21 // 100
        flexion = 6 + (max(0, -forward) * 26 + max(0, 60 - abs(forward)) * (22 if own_side * swing < 0 else 4)) // 100
        hip = (0, 490)
        knee = _polar(hip, thigh_angle, 224)
        ankle = _polar(knee, thigh_angle - flexion, 214)
        legs.append(Limb(hip, knee, ankle, behind=not near))
        shoulder = (lean - 4, 780)
        elbow = _polar(shoulder, -forward * 26 // 100, 150)
        wrist = _polar(elbow, -forward * 26 // 100 + 18, 146)
        arms.append(Limb(shoulder, elbow, wrist, behind=not near))
    lowest = min(leg.end[1] for leg in legs)
    drop = lowest - 52
    legs = [Limb(leg.root, leg.middle, (leg.end[0], leg.end[1] - drop), leg.behind) for leg in legs]
    legs = [Limb(leg.root, (leg.middle[0], leg.middle[1] - drop // 2), leg.end, leg.behind) for leg in legs]
    return Skeleton(True, False, *widths, lean, (arms[0], arms[1]), (legs[0], legs[1]))


def build_skeleton(person: PersonAttributes, view: View) -> Skeleton:
    """Joints of the person in one view, in body coordinates.

    Args:
        person: Supplies gender, age and build.
        view: Supplies direction and moment of the step.
    """
    extra = _BUILD[person.build]
    woman = person.gender == "woman"
    swing = 12 if view.standing else 100 * sine(view.phase * 45 + 20) // 1024
    if view.direction in ("front", "back"):
        widths = (100 if woman else 116, (70 if woman else 88) + extra * 5 // 4, (94 if woman else 86) + extra)
        return _frontal(person, view, swing, (widths[0] + extra // 2, widths[1], widths[2]))
    widths = (64, (52 if woman else 58) + extra, (66 if woman else 60) + extra)
    return _sideways(person, view, swing, widths)

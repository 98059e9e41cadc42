"""How one image sees its person, and which parts of the scene a pixel can show."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["DIRECTIONS", "Part", "View"]

#: From where the person is seen; "left" and "right" say where in the image the person walks to.
DIRECTIONS = ("front", "back", "left", "right")


class Part(IntEnum):
    """What a pixel shows; counted to find out which attributes an image really shows."""

    NOTHING = 0
    SKIN = 1
    FACE = 2
    HAIR = 3
    TIED_HAIR = 4
    BEARD = 5
    HEADWEAR = 6
    UPPER = 7
    UPPER_PATTERN = 8
    INNER = 9
    LOWER = 10
    BARE_LEG = 11
    SHOES = 12
    BAG = 13
    STRAP = 14
    GLASSES = 15
    SCARF = 16
    UMBRELLA = 17
    OCCLUDER = 18


@dataclass(frozen=True, slots=True)
class View:
    """The circumstances of one image.

    Attributes:
        camera: Number of the camera, 0-based.
        direction: One of `DIRECTIONS`.
        phase: Moment of the step, in eighths of a full stride (0 to 7).
        standing: Whether the person stands still, in which case `phase` has no effect.
        height: Height of the body in thousandths of the image height.
        center: Horizontal place of the body in thousandths of the image width.
        ground: Height of the soles above the lower image border in thousandths of the image height.
        occluder: Name of the object in front of the person, or `None`.
        occluder_position: Horizontal place of that object in thousandths of the image width.
        occluder_height: Height of its upper edge above the ground, in thousandths of the body height.
        background: Place of the image in the panorama of the camera, in thousandths of its width.
        brightness: Exposure of this image; 256 is neutral.
        blur: Number of smoothing passes.
        motion_blur: Whether the picture is smeared sideways by the movement.
        low_resolution: Whether the picture was taken at half the resolution and enlarged.
    """

    camera: int
    direction: str
    phase: int
    standing: bool
    height: int
    center: int
    ground: int
    occluder: str | None
    occluder_position: int
    occluder_height: int
    background: int
    brightness: int
    blur: int
    motion_blur: bool
    low_resolution: bool

"""Other people who walk into the picture: the drawn pedestrians of the synthetic data set."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from ...synthetic.attributes import PersonAttributes, sample_attributes
from ...synthetic.figure import draw_person
from ...synthetic.randomness import RandomStream
from ...synthetic.raster import Canvas
from ...synthetic.view import DIRECTIONS, View
from .object_painter import canvas_to_cutout

__all__ = ["draw_passers_by"]

_NUMBER = 6
_HEIGHT = 240
_FACTOR = 4


def _attributes(number: int) -> PersonAttributes:
    return replace(sample_attributes(RandomStream(20, number)), umbrella_color=None)


def draw_passers_by() -> list[Image.Image]:
    """Six people from all four directions."""
    cutouts = []
    for number in range(_NUMBER):
        canvas = Canvas(_HEIGHT * _FACTOR * 3 // 5, _HEIGHT * _FACTOR)
        view = View(
            camera=0, direction=DIRECTIONS[number % 4], phase=number * 3 % 8, standing=number == 4, height=950, center=500,
            ground=15, occluder=None, occluder_position=0, occluder_height=0, background=0, brightness=256, blur=0,
            motion_blur=False, low_resolution=False,
        )  # fmt: skip
        draw_person(canvas, _attributes(number), view)
        cutouts.append(canvas_to_cutout(canvas, _FACTOR))
    return cutouts

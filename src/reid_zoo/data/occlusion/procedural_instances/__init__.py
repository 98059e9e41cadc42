"""The built-in library of occluders: cut-outs of all 15 classes, drawn by code, the same pixels on every machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PIL import Image

from .carried_things import draw_bags, draw_suitcases
from .columns_and_stones import draw_fire_hydrants, draw_posts, draw_stones
from .cycles import draw_bikes, draw_motorbikes
from .motor_cars import draw_cars
from .overhead_things import draw_kites, draw_umbrellas
from .passers_by import draw_passers_by
from .seats import draw_benches, draw_chairs
from .signs import draw_cards, draw_road_signs

__all__ = ["draw_all_instances"]

_DRAWERS: Mapping[str, Callable[[], list[Image.Image]]] = {
    "bag": draw_bags,
    "bench": draw_benches,
    "bike": draw_bikes,
    "car": draw_cars,
    "card": draw_cards,
    "chair": draw_chairs,
    "firehydrant": draw_fire_hydrants,
    "kite": draw_kites,
    "motorbike": draw_motorbikes,
    "pedestrian": draw_passers_by,
    "post": draw_posts,
    "roadsign": draw_road_signs,
    "stone": draw_stones,
    "suitcase": draw_suitcases,
    "umbrella": draw_umbrellas,
}


def draw_all_instances() -> dict[str, list[Image.Image]]:
    """Draws the library.

    Returns:
        Class → its RGBA cut-outs, at least four of each, up to 240 pixels high.
    """
    return {class_name: draw() for class_name, draw in _DRAWERS.items()}

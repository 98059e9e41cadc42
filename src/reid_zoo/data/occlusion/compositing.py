"""Pasting an occluder into an image, in memory."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageStat

from ...errors import ConfigurationError
from ...validation import check_choice
from ..synthetic.randomness import RandomStream
from .geometry import (
    CLASS_GEOMETRY,
    POSITION_MODES,
    SIZE_MODES,
    Box,
    PositionMode,
    SizeMode,
    clip_box,
    draw_area_ratio,
    draw_box,
    paste_size,
)
from .instances import InstanceLibrary, OcclusionInstance

__all__ = ["OccludedImage", "draw_placement", "occlude_image", "paste_instance"]

_TRIES = 10_000


_BLENDING_MODES = ("RGB", "L", "RGBA", "LA", "CMYK")


@dataclass(frozen=True, slots=True, eq=False)
class OccludedImage:
    """An image with an occluder, and what is known about it.

    Attributes:
        image: The picture, of the size and mode of the one it was made from; palettes and bitmaps become `RGB`.
        instance: The cut-out that was pasted.
        box: Its box (left, top, right, bottom) in pixels before clipping.
        visible_box: The part of the box inside the image.
        visible_fraction: Share of the image that can still be seen: 1 minus the mean opacity of what was pasted.
    """

    image: Image.Image
    instance: OcclusionInstance
    box: Box
    visible_box: Box
    visible_fraction: float


def paste_instance(image: Image.Image, instance: OcclusionInstance, box: Box) -> OccludedImage:
    """Paste a cut-out into a box: bicubic resize with premultiplied alpha, then 8-bit alpha blending.

    Args:
        image: The holistic image; not changed. Modes whose values do not blend (a palette, a bitmap) are converted to `RGB`.
        instance: The cut-out.
        box: (left, top, right, bottom) in pixels; what lies outside of the image is cut off.
    """
    result = image.copy() if image.mode in _BLENDING_MODES else image.convert("RGB")
    left, top, right, bottom = box
    resized = instance.image.resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    result.paste(resized, (left, top), resized)
    visible = clip_box(box, image.size)
    shown = (visible[0] - left, visible[1] - top, visible[2] - left, visible[3] - top)
    covered = 0.0
    if shown[2] > shown[0] and shown[3] > shown[1]:
        covered = ImageStat.Stat(resized.getchannel("A").crop(shown)).sum[0] / 255
    fraction = 1 - covered / (image.width * image.height)
    return OccludedImage(result, instance, box, visible, round(fraction, 6))


def draw_placement(
    image_size: tuple[int, int],
    rng: RandomStream,
    instances: InstanceLibrary,
    *,
    size: SizeMode = "class_ratio",
    position: PositionMode = "class_anchor",
    area: float | None = None,
) -> tuple[OcclusionInstance, Box]:
    """Draw what is pasted where.

    Args:
        image_size: (width, height) of the image.
        rng: Where the draws come from.
        instances: The library.
        size: `"class_ratio"`: each class covers its own share of the image (released tool). `"uniform"`: a share drawn
            from [0.1, 0.6] (paper).
        position: See `draw_box`.
        area: Share of the image area that every box covers, in (0, 1]; takes the place of `size`.

    Returns:
        The cut-out and its box before clipping.

    Raises:
        ConfigurationError: For an unknown mode, a share out of range, or if `"algorithm1"` finds nothing that fits.
    """
    check_choice("occlusion", "size", size, SIZE_MODES)
    check_choice("occlusion", "position", position, POSITION_MODES)
    if area is not None and not 0 < area <= 1:
        raise ConfigurationError(f"occlusion.area is {area!r}, but must be above 0 and at most 1.")
    for _ in range(_TRIES):
        instance = instances.draw(rng)
        if area is not None:
            ratio = area
        elif size == "uniform":
            ratio = draw_area_ratio(rng)
        else:
            ratio = CLASS_GEOMETRY[instance.class_name].area_ratio
        pasted = paste_size(instance.image.size, image_size, ratio)
        box = draw_box(position, instance.class_name, pasted, image_size, rng)
        if box is not None:
            return instance, box
    raise ConfigurationError(
        f"No occluder of the library fits inside an image of {image_size[0]} x {image_size[1]} pixels, which "
        "position='algorithm1' asks for; use size='uniform', a smaller area or another position."
    )


def occlude_image(
    image: Image.Image,
    rng: RandomStream,
    *,
    instances: InstanceLibrary | None = None,
    size: SizeMode = "class_ratio",
    position: PositionMode = "class_anchor",
    area: float | None = None,
) -> OccludedImage:
    """Put one random occluder in front of an image, in memory.

    Args:
        image: The holistic image; not changed.
        rng: Where the draws come from, e.g. `placement_stream(seed, path)`; the same stream gives the same result.
        instances: The library; the built-in one by default.
        size: See `draw_placement`.
        position: See `draw_box`.
        area: Share of the image area that the box covers, in place of `size`: how severe the occlusion is.

    Raises:
        ConfigurationError: See `draw_placement`.
    """
    library = InstanceLibrary.procedural() if instances is None else instances
    instance, box = draw_placement(image.size, rng, library, size=size, position=position, area=area)
    return paste_instance(image, instance, box)

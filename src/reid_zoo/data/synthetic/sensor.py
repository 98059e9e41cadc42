"""From a drawn figure to a camera picture: compositing, light, colour cast, blur and noise, in whole numbers."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .randomness import RandomStream
from .raster import Canvas
from .scene import Camera
from .view import View

__all__ = ["expose"]


def _place_shadow(pixels: np.ndarray, view: View) -> None:
    """Darkens the ground under the feet, in place."""
    height, width, _ = pixels.shape
    radius_x = max(2, height * view.height * 150 // 1_000_000)
    radius_y = max(1, radius_x // 5)
    cx, cy = width * view.center // 1000 + radius_x // 5, height - 1 - height * view.ground // 1000
    dx = np.arange(width, dtype=np.int32) - cx
    dy = np.arange(height, dtype=np.int32) - cy
    inside = 256 - (dx * dx * 256 // (radius_x * radius_x))[None, :] - (dy * dy * 256 // (radius_y * radius_y))[:, None]
    shade = np.clip(inside, 0, 200) * 5 // 8
    pixels[...] = pixels * (256 - shade[:, :, None]) >> 8


def _smooth(pixels: np.ndarray, axis: int) -> np.ndarray:
    """One pass of the kernel (1, 2, 1)/4 along one axis, edges repeated."""
    pad = [(0, 0)] * 3
    pad[axis] = (1, 1)
    padded = np.pad(pixels, pad, mode="edge")
    size = pixels.shape[axis]
    first, middle, last = (padded.take(range(start, start + size), axis) for start in range(3))
    return (first + 2 * middle + last + 2) >> 2


def expose(canvas: Canvas, backdrop: Image.Image, camera: Camera, view: View, stream: RandomStream) -> np.ndarray:
    """Takes the picture.

    Args:
        canvas: Figure and occluder, drawn at a multiple of the size of the picture.
        backdrop: What is behind, RGB, at the size of the picture.
        camera: Colour cast, exposure, contrast, blur and noise of the camera.
        view: Exposure and blur of this image.
        stream: Draws of the sensor noise.

    Returns:
        Array of shape (height, width, 3), uint8.
    """
    factor = canvas.height // backdrop.height
    coverage_image = canvas.parts.point([0] + [255] * 255)
    coverage = np.asarray(coverage_image.reduce(factor), dtype=np.int32)[:, :, None]
    figure = np.asarray(canvas.colors.reduce(factor), dtype=np.int32)
    pixels = np.array(backdrop, dtype=np.int32)
    _place_shadow(pixels, view)
    pixels = figure + (pixels * (255 - coverage) + 127) // 255
    height, width, _ = pixels.shape
    if view.low_resolution:
        small = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).reduce(2)
        enlarged = np.asarray(small, dtype=np.int32).repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
        pixels = _smooth(_smooth(enlarged, 0), 1)
    for _ in range(camera.blur + view.blur):
        pixels = _smooth(_smooth(pixels, 0), 1)
    if view.motion_blur:
        for _ in range(3):
            pixels = _smooth(pixels, 1)
    gains = np.array(camera.gains, dtype=np.int32)
    exposure = camera.brightness * view.brightness >> 8
    fall_off = 256 - camera.fall_off * np.arange(height, dtype=np.int32) // height
    light = (gains[None, :] * fall_off[:, None] >> 8) * exposure >> 8
    pixels = pixels * light[:, None, :] >> 8
    pixels = 128 + ((pixels - 128) * camera.contrast >> 8)
    # The sum of four uniform bytes is close to a normal distribution (standard deviation 148) and needs no logarithm.
    draws = stream.raw_bytes(4 * height * width).reshape(4, height, width).sum(axis=0, dtype=np.int32) - 510
    pixels = pixels + (draws * camera.noise // 148)[:, :, None]
    return np.clip(pixels, 0, 255).astype(np.uint8)

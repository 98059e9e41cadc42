"""Occlusion of a chosen severity, in memory: for measuring how a method copes with more and larger occluders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from ...errors import ConfigurationError
from ...validation import check_choice
from .compositing import occlude_image
from .geometry import POSITION_MODES, PositionMode
from .instances import InstanceLibrary
from .random_streams import placement_stream, selection_draw

__all__ = ["OcclusionSeverity", "severity_sweep"]


@dataclass(frozen=True, slots=True)
class OcclusionSeverity:
    """How many images are occluded and by how much.

    The same seed occludes the same images with the same occluders at every severity: a larger fraction adds images, and
    a larger area enlarges the occluders.

    Attributes:
        fraction: Probability that an image is occluded, in [0, 1].
        area: Share of the image area that the occluder's box covers, in (0, 1]; `None`: the share of its class.
        position: See `draw_box`; with `"algorithm1"` another occluder may be drawn where one does not fit.
        seed: Seed of all draws, not negative.

    Raises:
        ConfigurationError: If a value is out of range.
    """

    fraction: float = 1.0
    area: float | None = None
    position: PositionMode = "class_anchor"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("severity", "position", self.position, POSITION_MODES)
        if not 0 <= self.fraction <= 1:
            raise ConfigurationError(f"severity.fraction is {self.fraction!r}, but must be between 0 and 1.")
        if self.area is not None and not 0 < self.area <= 1:
            raise ConfigurationError(f"severity.area is {self.area!r}, but must be above 0 and at most 1.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigurationError(f"severity.seed is {self.seed!r}, but must be a whole number from 0.")

    def is_occluded(self, key: str) -> bool:
        """Whether an image is occluded; `key` names the image, e.g. its path inside the data set."""
        return selection_draw(self.seed, key) < self.fraction

    def apply(self, image: Image.Image, key: str, *, instances: InstanceLibrary | None = None) -> Image.Image:
        """The image with its occluder, or the image itself if it stays clean.

        Args:
            image: The holistic image; not changed.
            key: Names the image, e.g. its path inside the data set; decides, with the seed, what is drawn.
            instances: The library; the built-in one by default.
        """
        if not self.is_occluded(key):
            return image
        rng = placement_stream(self.seed, key)
        return occlude_image(image, rng, instances=instances, position=self.position, area=self.area).image


def severity_sweep(
    fractions: Iterable[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    areas: Iterable[float | None] = (None,),
    *,
    position: PositionMode = "class_anchor",
    seed: int = 0,
) -> Sequence[OcclusionSeverity]:
    """Every combination of fractions and areas, areas varying fastest; fraction 0 only once.

    Args:
        fractions: Shares of occluded images.
        areas: Shares of the image area, or `None` for the share of the class.
        position: See `draw_box`.
        seed: Seed of all draws.

    Raises:
        ConfigurationError: If a value is out of range.
    """
    all_areas = list(areas)
    return [
        OcclusionSeverity(fraction, area, position, seed)
        for fraction in fractions
        for area in (all_areas if fraction > 0 else all_areas[:1])
    ]

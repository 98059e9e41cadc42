"""Occluding images in memory: one image, and a sweep over severities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reid_zoo.data.occlusion import (
    InstanceLibrary,
    OcclusionInstance,
    OcclusionSeverity,
    occlude_image,
    placement_stream,
    severity_sweep,
)
from reid_zoo.data.occlusion.compositing import paste_instance
from reid_zoo.data.occlusion.geometry import CLASS_GEOMETRY, POSITION_MODES, SIZE_MODES
from reid_zoo.data.occlusion.instances import pixel_hash
from reid_zoo.data.synthetic.randomness import RandomStream
from reid_zoo.errors import ConfigurationError

WHITE = Image.new("RGB", (64, 128), (255, 255, 255))


def opaque(name: str = "car", size: tuple[int, int] = (10, 20)) -> OcclusionInstance:
    return OcclusionInstance(name, 1, Image.new("RGBA", size, (200, 0, 0, 255)))


def test_pixels_outside_the_box_stay_and_inside_they_are_the_occluder() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (128, 64, 3), dtype=np.uint8))
    before = np.asarray(noise).copy()
    pasted = paste_instance(noise, opaque(), (-4, 100, 16, 140))
    after = np.asarray(pasted.image)
    assert pasted.visible_box == (0, 100, 16, 128)
    assert (after[100:, :16] == (200, 0, 0)).all()
    outside = np.ones((128, 64), dtype=bool)
    outside[100:, :16] = False
    assert (after[outside] == before[outside]).all()
    assert (np.asarray(noise) == before).all()
    assert pasted.visible_fraction == pytest.approx(1 - 28 * 16 / (64 * 128), abs=1e-6)


def test_transparent_pixels_do_not_bleed_their_colour() -> None:
    """The hidden colour of transparent pixels must not show at soft edges."""
    image = Image.new("RGBA", (20, 20), (0, 255, 0, 0))
    image.paste((200, 0, 0, 255), (5, 5, 15, 15))
    pasted = paste_instance(Image.new("RGB", (40, 40), (200, 0, 0)), OcclusionInstance("car", 1, image), (0, 0, 37, 37))
    assert np.asarray(pasted.image)[:, :, 1].max() <= 1  # no green; one grey level of 8-bit rounding
    assert 0.7 < pasted.visible_fraction < 0.8


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("RGB", "RGB"), ("L", "L"), ("RGBA", "RGBA"), ("LA", "LA"), ("CMYK", "CMYK"), ("P", "RGB"), ("1", "RGB")],
)
def test_size_and_mode_are_kept(mode: str, expected: str) -> None:
    pasted = occlude_image(Image.new(mode, (50, 70)), RandomStream(1))
    assert (pasted.image.mode, pasted.image.size) == (expected, (50, 70))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(SIZE_MODES), st.sampled_from(POSITION_MODES))
def test_every_mode_is_reproducible_and_consistent(seed: int, size: str, position: str) -> None:
    first = occlude_image(WHITE, RandomStream(seed), size=size, position=position)  # type: ignore[arg-type]
    again = occlude_image(WHITE, RandomStream(seed), size=size, position=position)  # type: ignore[arg-type]
    assert first.image.tobytes() == again.image.tobytes()
    assert (first.instance.name, first.box) == (again.instance.name, again.box)
    left, top, right, bottom = first.box
    share = (right - left) * (bottom - top) / (64 * 128)
    if size == "class_ratio":
        assert share == pytest.approx(CLASS_GEOMETRY[first.instance.class_name].area_ratio, rel=0.1)
    else:
        assert 0.08 < share < 0.64
    if position == "algorithm1":
        assert first.visible_box == first.box
    assert 0 < first.visible_fraction < 1
    changed = (np.asarray(first.image) != 255).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert first.visible_box[0] <= columns[0]
    assert columns[-1] < first.visible_box[2]
    assert first.visible_box[1] <= rows[0]
    assert rows[-1] < first.visible_box[3]


def test_the_area_can_be_chosen() -> None:
    library = InstanceLibrary([opaque()])
    for area in (0.05, 0.2, 0.6):
        pasted = occlude_image(WHITE, RandomStream(3), instances=library, area=area)
        left, top, right, bottom = pasted.box
        assert (right - left) * (bottom - top) / (64 * 128) == pytest.approx(area, rel=0.05)


def test_a_known_draw() -> None:
    """One result in full, so that neither the draws nor the pixels of a seed ever change unnoticed."""
    gradient = np.add.outer(np.arange(128), np.arange(64)).astype(np.uint8)
    image = Image.fromarray(np.stack([gradient, gradient[::-1], gradient[:, ::-1]], axis=2).copy())
    pasted = occlude_image(image, placement_stream(0, "cam_a/000_45.bmp"), position="random_horizontal", size="uniform")
    assert (pasted.instance.name, pasted.box, pasted.visible_fraction) == ("chair1", (-5, 84, 67, 128), 0.817861)
    assert pixel_hash(pasted.image) == "8310e6eec2d9e49900090326b19fa1a9b6a6b36e6bba8153a52f5603cf8f77c2"


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"occlusion.size is 'big'"):
        occlude_image(WHITE, RandomStream(0), size="big")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"occlusion.position is 'left'"):
        occlude_image(WHITE, RandomStream(0), position="left")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"occlusion.area is 0"):
        occlude_image(WHITE, RandomStream(0), area=0)
    wide = InstanceLibrary([opaque(size=(400, 4))])
    with pytest.raises(ConfigurationError, match="No occluder of the library fits"):
        occlude_image(WHITE, RandomStream(0), instances=wide, position="algorithm1")


# --- severity --------------------------------------------------------------------------------------------------------


KEYS = [f"cam_a/{number:04d}.png" for number in range(400)]


def test_a_larger_fraction_adds_images() -> None:
    chosen = [{key for key in KEYS if OcclusionSeverity(fraction).is_occluded(key)} for fraction in (0, 0.25, 0.5, 1)]
    assert chosen[0] == set()
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3] == set(KEYS)
    assert len(chosen[2]) == pytest.approx(200, abs=50)  # standard deviation 10


def test_a_larger_area_hides_more_with_the_same_occluder() -> None:
    # The box of an umbrella at the upper left grows with its area, so more and more pixels change.
    library = InstanceLibrary([opaque("umbrella")])
    hidden = []
    for severity in severity_sweep((1.0,), (0.1, 0.3, 0.5)):
        image = severity.apply(WHITE, "x", instances=library)
        hidden.append(int((np.asarray(image) != 255).any(axis=2).sum()))
    assert hidden == sorted(set(hidden))
    # the built-in library draws the same instance at every area
    names = {occlude_image(WHITE, placement_stream(0, "x"), area=area).instance.name for area in (0.1, 0.3, 0.5)}
    assert len(names) == 1


def test_clean_images_are_passed_through() -> None:
    assert OcclusionSeverity(0.0).apply(WHITE, "x") is WHITE


def test_a_sweep_combines_fractions_and_areas() -> None:
    sweep = severity_sweep((0.0, 0.5, 1.0), (None, 0.4), seed=3, position="random_horizontal")
    assert [(level.fraction, level.area) for level in sweep] == [
        (0, None),
        (0.5, None),
        (0.5, 0.4),
        (1, None),
        (1, 0.4),
    ]
    assert {level.seed for level in sweep} == {3}
    assert {level.position for level in sweep} == {"random_horizontal"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 1.5}, "fraction"),
        ({"area": 0.0}, "area"),
        ({"seed": -1}, "seed"),
        ({"position": "top"}, "position"),
    ],
)
def test_impossible_severities_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"severity.{message} is"):
        OcclusionSeverity(**options)  # type: ignore[arg-type]

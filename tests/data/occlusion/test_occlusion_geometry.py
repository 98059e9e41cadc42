"""Sizes and positions: what holds for every instance, image and draw."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reid_zoo.data.occlusion.geometry import (
    AREA_RANGE,
    CLASS_GEOMETRY,
    anchored_box,
    clip_box,
    draw_area_ratio,
    draw_box,
    paste_size,
)
from reid_zoo.data.synthetic.randomness import RandomStream

SIZES = st.tuples(st.integers(8, 400), st.integers(8, 400))
CLASSES = st.sampled_from(sorted(CLASS_GEOMETRY))
SEEDS = st.integers(0, 2**40)


@given(SIZES, SIZES, st.floats(0.05, 1.0))
def test_a_pasted_instance_keeps_its_shape_and_covers_its_share(
    instance: tuple[int, int], image: tuple[int, int], ratio: float
) -> None:
    width, height = paste_size(instance, image, ratio)
    area = ratio * image[0] * image[1]
    assume(min(width, height) >= 8)
    # Both sides are rounded to whole pixels, half a pixel each way.
    assert (width - 0.5) * (height - 0.5) <= area <= (width + 0.5) * (height + 0.5)
    assert (width - 0.5) / (height + 0.5) <= instance[0] / instance[1] <= (width + 0.5) / (height - 0.5)


def test_sizes_are_rounded_half_to_even_and_never_vanish() -> None:
    assert paste_size((5, 5), (5, 5), 0.25) == (2, 2)  # 2.5
    assert paste_size((7, 7), (7, 7), 0.25) == (4, 4)  # 3.5
    assert paste_size((1000, 1), (20, 20), 0.1) == (200, 1)  # 0.2 high


@given(CLASSES, SIZES, SIZES)
def test_clipping_leaves_what_both_boxes_share(name: str, size: tuple[int, int], image: tuple[int, int]) -> None:
    box = anchored_box(CLASS_GEOMETRY[name].anchor, size, image)
    left, top, right, bottom = clip_box(box, image)
    for x in (-1, 0, left, right - 1, right, image[0] - 1, image[0]):
        for y in (-1, 0, top, bottom - 1, bottom, image[1] - 1, image[1]):
            inside_both = box[0] <= x < box[2] and box[1] <= y < box[3] and 0 <= x < image[0] and 0 <= y < image[1]
            assert (left <= x < right and top <= y < bottom) == inside_both


def test_a_box_beside_the_image_clips_to_nothing() -> None:
    left, _, right, _ = clip_box((70, 0, 90, 20), (64, 128))
    assert left == right


@given(CLASSES, SIZES, SIZES, SEEDS)
def test_random_horizontal_stays_inside_or_covers_the_width(
    name: str, size: tuple[int, int], image: tuple[int, int], seed: int
) -> None:
    box = draw_box("random_horizontal", name, size, image, RandomStream(seed))
    assert box is not None
    left, top, right, bottom = box
    assert (right - left, bottom - top) == size
    if size[0] <= image[0]:
        assert left >= 0
        assert right <= image[0]
    else:
        assert left <= 0
        assert right >= image[0]
    position = CLASS_GEOMETRY[name].position_set
    if position == "up":
        assert top == 0
    elif position == "bottom":
        assert bottom == image[1]
    else:
        assert 0 <= top <= max(0, image[1] // 2 - size[1])


@given(CLASSES, SIZES, SIZES, SEEDS)
def test_algorithm_1_puts_a_box_inside_or_refuses_it(
    name: str, size: tuple[int, int], image: tuple[int, int], seed: int
) -> None:
    box = draw_box("algorithm1", name, size, image, RandomStream(seed))
    position = CLASS_GEOMETRY[name].position_set
    if box is None:
        if position != "middle":
            assert size[0] > image[0] or size[1] > image[1]
        return
    left, top, right, bottom = box
    assert (right - left, bottom - top) == size
    assert left >= 0
    assert top >= 0
    assert right <= image[0]
    assert bottom <= image[1]
    if position == "middle":
        assert 2 * (top + size[1]) < image[1] + 2  # y < H / 2 - h, in whole pixels
    else:
        assert left == 0
        assert top == (0 if position == "up" else image[1] - size[1])


def test_random_places_use_the_whole_range() -> None:
    boxes = [draw_box("random_horizontal", "post", (10, 20), (30, 60), RandomStream(seed)) for seed in range(600)]
    assert {box[0] for box in boxes if box} == set(range(21))
    assert {box[1] for box in boxes if box} == set(range(11))
    tops = {
        box[1] for seed in range(600) if (box := draw_box("algorithm1", "bag", (5, 20), (30, 61), RandomStream(seed)))
    }
    assert tops == set(range(11))  # 0 <= y < 30.5 - 20


def test_uniform_areas_fill_the_papers_range() -> None:
    areas = sorted(draw_area_ratio(RandomStream(seed)) for seed in range(500))
    low, high = AREA_RANGE
    assert low <= areas[0] < low + 0.01
    assert high - 0.01 < areas[-1] < high
    # Standard error of the mean of 500 draws: 0.5 / sqrt(12 * 500) = 0.0065.
    assert sum(areas) / len(areas) == pytest.approx((low + high) / 2, abs=0.03)


def test_position_sets_are_the_papers() -> None:
    sets: dict[str, set[str]] = {}
    for name, geometry in CLASS_GEOMETRY.items():
        sets.setdefault(geometry.position_set, set()).add(name)
    assert sets.pop("up") == {"umbrella", "kite"}
    assert sets.pop("middle") == {"post", "bag", "suitcase"}
    assert set(sets) == {"bottom"}
    assert len(sets["bottom"]) == 10

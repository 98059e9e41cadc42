"""The integer drawing, the random draws, the attribute rules and the PNG files below SyntheticPedestrians."""

from __future__ import annotations

import io
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reid_zoo.data.synthetic.attributes import (
    VOCABULARY,
    is_consistent,
    lookalike_candidates,
    sample_attributes,
    sample_lookalike,
)
from reid_zoo.data.synthetic.figure import draw_person
from reid_zoo.data.synthetic.png_encoding import encode_png
from reid_zoo.data.synthetic.randomness import RandomStream
from reid_zoo.data.synthetic.raster import Canvas, Mask, Point, arc, cosine, sine
from reid_zoo.data.synthetic.scene import OCCLUDERS, PLACES, draw_occluder, draw_panorama, sample_camera
from reid_zoo.data.synthetic.view import DIRECTIONS, Part, View


def view_of(direction: str, phase: int = 1, occluder: str | None = None) -> View:
    return View(0, direction, phase, False, 800, 500, 30, occluder, 500, 400, 0, 256, 0, False, False)


def on_canvas(canvas: Canvas, mask: Mask) -> np.ndarray:
    full = np.zeros((canvas.height, canvas.width), dtype=bool)
    rows, columns = mask.inside.shape
    full[mask.top : mask.top + rows, mask.left : mask.left + columns] = mask.inside
    return full


def test_the_draws_are_the_recorded_ones() -> None:
    stream = RandomStream(1, 2, 3)
    assert [stream.below(1000) for _ in range(5)] == [592, 357, 487, 305, 781]
    assert RandomStream(1, 2, 3).raw_bytes(11).tolist() == [216, 64, 224, 236, 118, 152, 234, 22, 196, 153, 118]


@given(seed=st.integers(0, 2**64), low=st.integers(-50, 50), span=st.integers(0, 1000))
def test_draws_stay_in_range_and_repeat(seed: int, low: int, span: int) -> None:
    first, second = RandomStream(seed, 1), RandomStream(seed, 1)
    drawn = [first.between(low, low + span) for _ in range(40)]
    assert drawn == [second.between(low, low + span) for _ in range(40)]
    assert min(drawn) >= low
    assert max(drawn) <= low + span


def test_weighted_and_shuffled_draws() -> None:
    stream = RandomStream(0, 1)
    counts = {"a": 0, "b": 0, "c": 0}
    for _ in range(2000):
        counts[stream.weighted([("a", 1), ("b", 3), ("c", 0)])] += 1
    assert counts["c"] == 0
    assert 2 < counts["b"] / counts["a"] < 4.5
    items = stream.shuffled(range(20))
    assert sorted(items) == list(range(20))
    assert items != list(range(20))


def test_sine_is_close_to_the_real_one() -> None:
    for degrees in range(-400, 400):
        # Bhaskara's approximation is within 0.0017, plus 1/1024 for rounding.
        assert abs(sine(degrees) / 1024 - math.sin(math.radians(degrees))) < 0.0028
        assert abs(cosine(degrees) / 1024 - math.cos(math.radians(degrees))) < 0.0028


coordinates = st.integers(-30, 60)


@settings(deadline=None)
@given(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9))
def test_polygon_agrees_with_a_test_of_every_pixel_center(points: list[Point]) -> None:
    canvas = Canvas(30, 24)
    expected = np.zeros((24, 30), dtype=bool)
    for row in range(24):
        for column in range(30):
            inside = False
            for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
                if (2 * y0 > 2 * row + 1) != (2 * y1 > 2 * row + 1):
                    # Exact: the centre is at or right of the crossing, both sides multiplied by 2·|rise|.
                    rise = y1 - y0
                    left = (2 * column + 1 - 2 * x0) * rise
                    right = (x1 - x0) * (2 * row + 1 - 2 * y0)
                    inside ^= left >= right if rise > 0 else left <= right
            expected[row, column] = inside
    np.testing.assert_array_equal(on_canvas(canvas, canvas.polygon(points)), expected)


@given(cx=coordinates, cy=coordinates, rx=st.integers(1, 20), ry=st.integers(1, 20))
def test_ellipse_holds_the_pixels_of_its_equation(cx: int, cy: int, rx: int, ry: int) -> None:
    canvas = Canvas(30, 24)
    y, x = np.mgrid[0:24, 0:30]
    expected = ((x - cx) * ry) ** 2 + ((y - cy) * rx) ** 2 <= (rx * ry) ** 2
    np.testing.assert_array_equal(on_canvas(canvas, canvas.ellipse(cx, cy, rx, ry)), expected)


def test_capsule_covers_its_axis_and_a_point_is_a_disc() -> None:
    canvas = Canvas(60, 60)
    mask = on_canvas(canvas, canvas.capsule((10, 10), (40, 45), 6, 4))
    assert all(mask[10 + 35 * step // 30, 10 + step] for step in range(31))
    assert not mask[10, 40]
    np.testing.assert_array_equal(
        on_canvas(canvas, canvas.capsule((20, 20), (20, 20), 5, 9)), on_canvas(canvas, canvas.ellipse(20, 20, 5, 5))
    )


def test_shapes_outside_the_canvas_are_empty_and_harmless() -> None:
    canvas = Canvas(20, 20)
    for mask in (canvas.polygon([(30, 0), (50, 0), (40, 9)]), canvas.ellipse(-40, 5, 6, 6)):
        assert mask.empty
        canvas.fill(mask, (255, 0, 0), Part.UPPER)
        canvas.tint(mask, (255, 0, 0), 100)
    assert canvas.colors.getextrema() == ((0, 0), (0, 0), (0, 0))
    apart = canvas.ellipse(4, 4, 2, 2).intersect(canvas.ellipse(15, 15, 2, 2))
    assert apart.empty


def test_fill_records_the_part_and_tint_keeps_it() -> None:
    canvas = Canvas(40, 40)
    mask = canvas.polygon([(5, 5), (25, 5), (25, 25), (5, 25)])
    canvas.fill(mask, (200, 100, 50), Part.BAG)
    canvas.tint(mask.edge_band(3), (0, 0, 0), 255)
    assert canvas.parts.histogram()[Part.BAG] == 400
    pixels = np.asarray(canvas.colors)
    assert pixels[10, 10].tolist() == [200, 100, 50]
    assert pixels[10, 22:25].max() == 0
    assert pixels[10, 21].max() == 200
    assert on_canvas(canvas, mask.edge_band(-3))[10].nonzero()[0].tolist() == [5, 6, 7]


def test_arc_goes_from_start_to_end_in_either_direction() -> None:
    forward, backward = arc(0, 0, 100, 100, 0, 90), arc(0, 0, 100, 100, 90, 0)
    assert forward[0] == backward[-1] == (100, 0)
    assert forward[-1] == backward[0] == (0, 100)


@given(st.integers(0, 2**40))
def test_sampled_people_are_consistent_and_look_alikes_differ_once(number: int) -> None:
    person = sample_attributes(RandomStream(number))
    assert is_consistent(person)
    for name, values in VOCABULARY.items():
        assert getattr(person, name) in values
    other = sample_lookalike(person, RandomStream(number, 1))
    assert is_consistent(other)
    assert len(person.differing_fields(other)) == 1
    assert all(len(person.differing_fields(c)) == 1 for c in lookalike_candidates(person, "upper_color"))


def test_every_value_of_the_vocabulary_occurs() -> None:
    people = [sample_attributes(RandomStream(5, number)) for number in range(3000)]
    for name, values in VOCABULARY.items():
        assert {getattr(person, name) for person in people} == set(values), name


PARTS = {
    "bag": (Part.BAG, {"back", "left", "right"}),
    "scarf_color": (Part.SCARF, set(DIRECTIONS)),
    "umbrella_color": (Part.UMBRELLA, set(DIRECTIONS)),
    "headwear": (Part.HEADWEAR, set(DIRECTIONS)),
    "glasses": (Part.GLASSES, {"front", "left", "right"}),
}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_drawn_parts_are_those_that_the_person_has_and_the_view_shows(direction: str) -> None:
    for number in range(60):
        person = sample_attributes(RandomStream(8, number))
        canvas = Canvas(256, 768)
        draw_person(canvas, person, view_of(direction, number % 8))
        counts = canvas.parts.histogram()
        for field, (part, directions) in PARTS.items():
            present = getattr(person, field) not in (None, "none")
            if field == "bag" and person.bag != "backpack":
                assert present or counts[part] == 0
                continue
            assert (counts[part] > 0) == (present and direction in directions), (field, person)
        assert counts[Part.UPPER] > 0
        assert counts[Part.SHOES] > 0
        assert (counts[Part.LOWER] > 0) == (person.lower != "none")
        if direction == "back":
            assert counts[Part.FACE] == counts[Part.BEARD] == 0


def test_walking_left_mirrors_walking_right_but_for_the_side_of_the_bag() -> None:
    person = next(p for n in range(99) if (p := sample_attributes(RandomStream(1, n))).bag == "handbag")
    areas = {}
    for direction in ("left", "right"):
        canvas = Canvas(256, 768)
        draw_person(canvas, person, view_of(direction, 0))
        face = np.argwhere(np.asarray(canvas.parts) == Part.FACE)
        areas[direction] = (face[:, 1].mean() - 128, canvas.parts.histogram()[Part.BAG])
    assert areas["left"][0] < 0 < areas["right"][0]
    assert areas["left"][1] != areas["right"][1]


@pytest.mark.parametrize("occluder", OCCLUDERS)
def test_every_occluder_hides_a_part_of_the_person(occluder: str) -> None:
    person = sample_attributes(RandomStream(4))
    canvas = Canvas(256, 768)
    view = view_of("front", occluder=occluder)
    draw_person(canvas, person, view)
    before = canvas.parts.histogram()
    draw_occluder(canvas, view)
    after = canvas.parts.histogram()
    figure = [part for part in Part if part not in (Part.NOTHING, Part.OCCLUDER)]
    kept = sum(after[part] for part in figure) / sum(before[part] for part in figure)
    assert 0.3 < kept < 0.98
    assert after[Part.OCCLUDER] > 0


def test_cameras_differ_in_light_and_place() -> None:
    cameras = [sample_camera(RandomStream(0, 3, number), number) for number in range(len(PLACES))]
    assert {camera.place for camera in cameras} == set(PLACES)
    assert len({camera.gains for camera in cameras}) > 2
    panoramas = [np.asarray(draw_panorama(camera, RandomStream(0, 4, camera.number), 96, 32)) for camera in cameras]
    assert all(panorama.shape == (96, 32 * 7, 3) for panorama in panoramas)
    for first, second in pairwise(panoramas):
        assert np.abs(first.astype(int) - second).mean() > 10
    assert all(panorama.reshape(-1, 3).std(axis=0).min() > 10 for panorama in panoramas)


@given(st.integers(1, 120), st.integers(1, 300))
@settings(max_examples=25, deadline=None)
def test_png_files_decode_to_the_pixels(height: int, width: int) -> None:
    pixels = RandomStream(height, width).raw_bytes(height * width * 3).reshape(height, width, 3)
    encoded = encode_png(pixels)
    with Image.open(io.BytesIO(encoded)) as image:
        image.verify()
    with Image.open(io.BytesIO(encoded)) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)

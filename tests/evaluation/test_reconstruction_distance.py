"""Distance of masked pixels from the closest visible ones, against a slow reading of the definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import EvaluationError
from reid_zoo.evaluation.reconstruction_distance import average_distance

torch.set_num_threads(1)


def mask_of(seed: int, rows: int, columns: int) -> torch.Tensor:
    """A random mask with at least one masked and one visible patch."""
    order = torch.rand(rows * columns, generator=torch.Generator().manual_seed(seed)).argsort()
    count = 1 + seed % (rows * columns - 1)
    return torch.zeros(rows * columns, dtype=torch.long).scatter_(0, order[:count], 1).view(rows, columns)


def pictures(seed: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, height, width, generator=generator), torch.randn(3, height, width, generator=generator)


def by_definition(mask: torch.Tensor, patch: int, image: torch.Tensor | None, drawn: torch.Tensor | None) -> float:
    pixels = [
        [bool(mask[y // patch, x // patch]) for x in range(mask.shape[1] * patch)] for y in range(len(mask) * patch)
    ]
    places = [(y, x) for y, row in enumerate(pixels) for x, _ in enumerate(row)]
    visible = [(y, x) for y, x in places if not pixels[y][x]]
    found = []
    for y, x in places:
        if not pixels[y][x]:
            continue
        squares = [(y - v) ** 2 + (x - u) ** 2 for v, u in visible]
        if image is None or drawn is None:
            found.append(math.sqrt(min(squares)))
            continue
        closest = [place for place, square in zip(visible, squares, strict=True) if square == min(squares)]
        differences = [(drawn[:, y, x] - image[:, v, u]).abs().mean().item() for v, u in closest]
        found.append(sum(differences) / len(differences))
    return sum(found) / len(found)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 3),
    columns=st.integers(2, 3),
    patch=st.integers(1, 3),
    with_images=st.booleans(),
)
def test_equals_the_definition(seed, rows, columns, patch, with_images):
    mask = mask_of(seed, rows, columns)
    image, prediction = pictures(seed, rows * patch, columns * patch) if with_images else (None, None)
    found = average_distance(mask, patch, image=image, prediction=prediction)
    # the slow side averages colours in float32
    assert found == pytest.approx(by_definition(mask, patch, image, prediction), rel=1e-5)


def test_a_single_masked_patch_is_as_far_as_its_middle():
    mask = torch.zeros(3, 3, dtype=torch.long)
    mask[1, 1] = 1
    assert average_distance(mask, 1) == 1.0
    assert average_distance(mask, 3) == pytest.approx((8 * 1 + 2) / 9)  # a ring of eight, and the middle pixel


def test_the_more_is_masked_the_farther():
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    distances = []
    for count in (8, 24, 40, 56):
        mask = torch.zeros(64, dtype=torch.long).scatter_(0, order[:count], 1).view(8, 8)
        distances.append(average_distance(mask, 4))
    assert distances == sorted(distances)


def test_a_picture_of_one_colour_that_is_reconstructed_has_distance_zero():
    mask = mask_of(7, 3, 3)
    flat = torch.full((3, 12, 12), 0.25)
    assert average_distance(mask, 4, image=flat, prediction=flat) == 0
    assert average_distance(mask, 4, image=flat, prediction=flat + 0.5) == pytest.approx(0.5)


def test_visible_pixels_of_the_reconstruction_do_not_count():
    mask, (image, prediction) = mask_of(5, 2, 2), pictures(1, 8, 8)
    hidden = mask.bool().repeat_interleave(4, 0).repeat_interleave(4, 1)
    changed = torch.where(hidden, prediction, 9.0)
    expected = average_distance(mask, 4, image=image, prediction=prediction)
    assert average_distance(mask, 4, image=image, prediction=changed) == expected


def test_images_larger_than_one_block_of_pixels():
    """Masked pixels are compared in blocks; here there are more than one."""
    mask = torch.ones(10, 8, dtype=torch.long)
    mask[0] = 0
    expected = sum(range(1, 73)) / 72  # straight up to the visible row
    assert average_distance(mask, 8) == pytest.approx(expected)


def test_bad_arguments_are_explained():
    mask, (image, prediction) = mask_of(5, 2, 2), pictures(1, 8, 8)
    for everything in (torch.zeros(2, 2), torch.ones(2, 2)):
        with pytest.raises(EvaluationError, match="both masked and visible"):
            average_distance(everything, 4)
    with pytest.raises(EvaluationError, match="both image and prediction"):
        average_distance(mask, 4, image=image)
    with pytest.raises(EvaluationError, match=r"\(8, 8\) pixels, but the images have \(8, 8\) and \(8, 4\)"):
        average_distance(mask, 4, image=image, prediction=prediction[:, :, :4])

"""Resampling a position grid; the authors' numbers are in `tests/golden`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import ConfigurationError
from reid_zoo.models.encoders.position_grid import resample_position_grid, square_grid

torch.set_num_threads(1)


sides = st.integers(1, 6)


@settings(max_examples=40, deadline=None)
@given(source=st.tuples(sides, sides), target=st.tuples(sides, sides), mode=st.sampled_from(["bilinear", "bicubic"]))
def test_class_row_and_constants_stay(source, target, mode):
    embedding = torch.full((1 + source[0] * source[1], 3), 2.5)
    embedding[0] = torch.tensor([1.0, -1.0, 0.5])
    for align_corners in (True, False):
        resampled = resample_position_grid(embedding, source, target, mode=mode, align_corners=align_corners)
        assert resampled.shape == (1 + target[0] * target[1], 3)
        assert torch.equal(resampled[0], embedding[0])
        torch.testing.assert_close(resampled[1:], torch.full_like(resampled[1:], 2.5))


@settings(max_examples=40, deadline=None)
@given(source=st.tuples(st.integers(2, 6), st.integers(2, 6)), target=st.tuples(st.integers(2, 6), st.integers(2, 6)))
def test_rows_and_columns_are_not_confused(source, target):
    """A linear ramp stays a linear ramp under corner-to-corner interpolation, in its own direction."""

    def ramps(rows: int, columns: int) -> torch.Tensor:
        down, across = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, columns), indexing="ij")
        return torch.cat([torch.zeros(1, 2), torch.stack([down, across], dim=-1).flatten(0, 1)])

    torch.testing.assert_close(
        resample_position_grid(ramps(*source), source, target), ramps(*target), rtol=0, atol=1e-6
    )


def test_half_precision_stays_half_precision():
    assert resample_position_grid(torch.zeros(5, 2, dtype=torch.float16), (2, 2), (3, 3)).dtype == torch.float16


def test_errors():
    with pytest.raises(ConfigurationError, match="not 1 \\+ a square"):
        square_grid(13)
    with pytest.raises(ConfigurationError, match="has 10 rows, but a grid of 2×3 patches needs 7"):
        resample_position_grid(torch.zeros(10, 2), (2, 3), (3, 3))
    assert square_grid(197) == (14, 14)

"""Scores and losses keep their precision under autocast."""

from __future__ import annotations

import inspect

import pytest
import torch

from reid_zoo import losses
from reid_zoo.outputs import RetrievalFeatures
from reid_zoo.precision import full_precision, in_full_precision

ROWS = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))


def products(left, right=None):
    return left @ (left if right is None else right).T


def test_autocast_lowers_products_and_the_decorator_does_not():
    expected = products(ROWS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert products(ROWS).dtype == torch.bfloat16
        assert torch.equal(in_full_precision(products)(ROWS), expected)
        assert torch.is_autocast_enabled("cpu"), "only inside"
        with full_precision(ROWS.device):
            assert torch.equal(products(ROWS), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_arguments_arrive_in_float32(dtype):
    @in_full_precision
    def dtypes(one, several, *, named):
        return [one.dtype, *(value.dtype for value in several), named.dtype]

    half, labels = ROWS.to(dtype), torch.arange(4)
    assert dtypes(half, (half, labels), named=half) == [torch.float32, torch.float32, torch.int64, torch.float32]
    assert in_full_precision(products)(ROWS.double()).dtype == torch.float64


def test_tensors_inside_of_features_say_where_autocast_is_switched_off():
    @in_full_precision
    def score(features):
        return products(features.embeds)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert score(RetrievalFeatures(embeds=ROWS)).dtype == torch.float32


@pytest.mark.parametrize("name", [name for name in losses.__all__ if inspect.isclass(getattr(losses, name))])
def test_every_loss_is_computed_in_full_precision(name):
    assert hasattr(getattr(losses, name).forward, "__wrapped__"), "put @in_full_precision on forward"

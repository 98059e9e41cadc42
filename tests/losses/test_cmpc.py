"""CMPC against a loop written from the definition; the authors' number is in `tests/golden`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from reid_zoo.losses import CMPCLoss

torch.set_num_threads(1)
UNIT = load_file(Path(__file__).parents[1] / "golden" / "cases" / "cfine" / "unit" / "tensors.safetensors")


def with_weight(weight: torch.Tensor) -> CMPCLoss:
    loss = CMPCLoss(*weight.shape)
    loss.weight.data = weight.clone()
    return loss


def one_direction(projected: list, onto: list, labels: list, classes: list) -> float:
    total = 0.0
    for feature, other, label in zip(projected, onto, labels, strict=True):
        length = math.sqrt(sum(x * x for x in other))
        unit = [x / length for x in other]
        along = sum(x * y for x, y in zip(feature, unit, strict=True))
        logits = []
        for column in classes:
            norm = math.sqrt(sum(x * x for x in column))
            logits.append(sum(along * x * y / norm for x, y in zip(unit, column, strict=True)))
        largest = max(logits)
        total += largest + math.log(sum(math.exp(logit - largest) for logit in logits)) - logits[label]
    return total / len(labels)


@settings(max_examples=25, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_equals_a_loop_over_the_definition(labels, seed):
    generator = torch.Generator().manual_seed(seed)
    images, texts = torch.randn(2, len(labels), 5, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    loss = with_weight(weight)(images, texts, torch.tensor(labels))
    lists, classes = (images.tolist(), texts.tolist()), weight.T.tolist()
    expected = sum(one_direction(a, b, labels, classes) for a, b in (lists, lists[::-1]))
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_the_scale_of_the_classifier_does_not_matter():
    arguments = UNIT["cm.image"], UNIT["cm.text"], UNIT["cm.pids"]
    torch.testing.assert_close(with_weight(7 * UNIT["cm.W"])(*arguments), with_weight(UNIT["cm.W"])(*arguments))


def test_the_classifier_learns():
    loss = with_weight(UNIT["cm.W"])
    loss(UNIT["cm.image"], UNIT["cm.text"], UNIT["cm.pids"]).backward()
    assert loss.weight.grad.abs().sum() > 0


def test_a_label_outside_of_the_classifier_is_refused():
    with pytest.raises(IndexError, match="out of bounds"):
        with_weight(UNIT["cm.W"])(UNIT["cm.image"], UNIT["cm.text"], UNIT["cm.pids"] + 6)

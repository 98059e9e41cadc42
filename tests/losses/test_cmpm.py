"""CMPM against a loop written from the definition; the authors' numbers are in `tests/golden`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import CMPMLoss

torch.set_num_threads(1)
UNIT = load_file(Path(__file__).parents[1] / "golden" / "cases" / "cfine" / "unit" / "tensors.safetensors")


def one_direction(projected: list, onto: list, labels: list, target_norm: str, epsilon: float) -> float:
    """Mean over i of KL(p_i ‖ q_i), number by number."""
    total = 0.0
    for i, feature in enumerate(projected):
        scores = []
        for other in onto:
            length = math.sqrt(sum(x * x for x in other))
            scores.append(sum(x * y for x, y in zip(feature, other, strict=True)) / length)
        largest = max(scores)
        normaliser = sum(math.exp(score - largest) for score in scores)
        same = [float(label == labels[i]) for label in labels]
        scale = sum(same) if target_norm == "l1" else math.sqrt(sum(same))
        for score, match in zip(scores, same, strict=True):
            p = math.exp(score - largest) / normaliser
            total += p * (score - largest - math.log(normaliser) - math.log(match / scale + epsilon))
    return total / len(projected)


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    target_norm=st.sampled_from(["l1", "l2"]),
    epsilon=st.sampled_from([1e-8, 1e-3]),
)
def test_equals_a_loop_over_the_definition(labels, seed, target_norm, epsilon):
    generator = torch.Generator().manual_seed(seed)
    images, texts = torch.randn(2, len(labels), 5, generator=generator, dtype=torch.float64)
    loss = CMPMLoss(epsilon, target_norm)(images, texts, torch.tensor(labels))
    lists = images.tolist(), texts.tolist()
    expected = sum(one_direction(a, b, labels, target_norm, epsilon) for a, b in (lists, lists[::-1]))
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_only_the_feature_projected_on_is_normalised():
    images, texts, labels = UNIT["cm.image"], UNIT["cm.text"], UNIT["cm.pids"]
    loss = CMPMLoss()
    assert not torch.allclose(loss(2 * images, texts, labels), loss(images, texts, labels))


def test_a_batch_of_one_identity_has_a_loss_and_gradients():
    images = UNIT["cm.image"].clone().requires_grad_()
    loss = CMPMLoss(target_norm="l1")(images, UNIT["cm.text"], torch.zeros(6, dtype=torch.long))
    loss.backward()
    assert loss.isfinite()
    assert images.grad.isfinite().all()


def test_unknown_target_norm_is_refused():
    with pytest.raises(ConfigurationError, match=r"CMPMLoss\.target_norm.*'l3'"):
        CMPMLoss(target_norm="l3")

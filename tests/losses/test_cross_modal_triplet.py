"""Triplet ranking against a loop written from the definition; the authors' triplets are in `tests/golden`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import ConfigurationError
from reid_zoo.losses import CrossModalTripletLoss

torch.set_num_threads(1)


def one_direction(similarity: list, labels: list, margin: float, mining: str, reduction: str) -> float:
    terms, size = [], len(labels)
    for i in range(size):
        negatives = [j for j in range(size) if labels[j] != labels[i]]
        if negatives:
            hardest = max(similarity[i][j] for j in negatives)
            if mining == "hardest" or hardest > similarity[i][i]:
                terms.append(max(0.0, margin - similarity[i][i] + hardest))
    others = [j for j in range(size) if labels[j] != labels[-1]]
    if mining == "violating" and not terms and others:  # the placeholder
        terms.append(max(0.0, margin - similarity[-1][-1] + similarity[-1][others[0]]))
    return sum(terms) / (len(terms) if terms and reduction == "mean" else 1)


@settings(max_examples=80, deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    # strong diagonals reach the placeholder, coarse scores reach ties
    diagonal=st.sampled_from([0.0, 1.0, 3.0]),
    coarse=st.booleans(),
    margin=st.sampled_from([0.0, 0.2, 1.5]),
    mining=st.sampled_from(["violating", "hardest"]),
    reduction=st.sampled_from(["sum", "mean"]),
)
def test_equals_a_loop_over_the_definition(labels, seed, diagonal, coarse, margin, mining, reduction):
    similarity = torch.randn(
        len(labels), len(labels), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    similarity = (similarity.round() if coarse else similarity) + diagonal * torch.eye(len(labels))
    loss = CrossModalTripletLoss(margin, mining, reduction)(similarity, torch.tensor(labels))
    expected = sum(
        one_direction(matrix.tolist(), labels, margin, mining, reduction) for matrix in (similarity, similarity.T)
    )
    assert loss.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("mining", ["violating", "hardest"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_batch_of_one_identity_has_loss_zero(mining, reduction):
    similarity = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = CrossModalTripletLoss(mining=mining, reduction=reduction)(similarity, torch.full((4,), 7))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(similarity.grad, torch.zeros(4, 4))


def test_unknown_options_are_refused():
    with pytest.raises(ConfigurationError, match=r"CrossModalTripletLoss\.mining"):
        CrossModalTripletLoss(mining="easiest")
    with pytest.raises(ConfigurationError, match=r"CrossModalTripletLoss\.reduction"):
        CrossModalTripletLoss(reduction="max")

"""Choosing tokens by score."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.models.token_selection import gather_tokens, rank_tokens, selection_count

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("tokens", "ratio", "count"),
    # trunc in double precision: 0.1 · 30 is 3.0000000000000004 and 0.29 · 100 is 28.999999999999996
    [(197, 0.1, 19), (100, 0.2, 20), (17, 0.25, 4), (30, 0.1, 3), (100, 0.29, 28), (5, 0.1, 0)],
)
def test_selection_count(tokens, ratio, count):
    assert selection_count(tokens, ratio) == count


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 8).flatmap(
        lambda length: st.lists(
            st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=length, max_size=length), min_size=1, max_size=3
        )
    ),
    data=st.data(),
)
def test_order_is_by_score_then_by_position(rows, data):
    scores = torch.tensor(rows)
    count = data.draw(st.integers(0, scores.shape[1]))
    before = scores.clone()
    ranked = rank_tokens(scores, count)
    for row, chosen in zip(rows, ranked.tolist(), strict=True):
        effective = [0.0, *row[1:]]  # the class token takes part with score 0
        assert chosen == sorted(range(len(row)), key=lambda index: (-effective[index], index))[:count]
    assert torch.equal(scores, before)  # the caller's scores are left alone


def test_class_token_and_padding_fill_up_a_short_sentence_in_order():
    scores = torch.tensor([[0.5, 0.1, 0.4, 0.0, 0.0]])
    assert rank_tokens(scores, 5).tolist() == [[2, 1, 0, 3, 4]]


def test_gathered_tokens_carry_gradients():
    tokens = torch.arange(12.0).reshape(1, 4, 3).requires_grad_()
    chosen = gather_tokens(tokens, torch.tensor([[3, 1]]))
    assert chosen.tolist() == [[[9.0, 10.0, 11.0], [3.0, 4.0, 5.0]]]
    chosen.sum().backward()
    assert tokens.grad[0, :, 0].tolist() == [0, 1, 0, 1]

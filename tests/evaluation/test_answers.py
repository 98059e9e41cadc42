from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import EvaluationError
from reid_zoo.evaluation.answers import best_answers


@settings(max_examples=60, deadline=None)
@given(
    num_queries=st.integers(1, 9),
    num_gallery=st.integers(1, 30),
    k=st.integers(1, 12),
    block_size=st.integers(1, 5),
    levels=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_equals_a_stable_sort_whatever_the_block(num_queries, num_gallery, k, block_size, levels, seed):
    scores = np.random.default_rng(seed).integers(0, levels, (num_queries, num_gallery)).astype(np.float32)
    found = best_answers(lambda rows: scores[rows], num_queries, k=k, block_size=block_size)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_array_equal(found.scores, np.take_along_axis(scores, expected, axis=1))


def test_right_answers_are_told_by_identity():
    scores = np.array([[0.1, 0.9, 0.5]], dtype=np.float32)
    found = best_answers(lambda rows: scores[rows], 1, k=3)
    assert found.right(["b"], ["a", "b", "b"]).tolist() == [[True, True, False]]


def test_nothing_to_answer_is_refused():
    with pytest.raises(EvaluationError, match="at least one query"):
        best_answers(lambda rows: np.zeros((0, 0), np.float32), 0)

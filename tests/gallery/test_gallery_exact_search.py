"""Exact search over blocks: the ranking does not depend on blocks, batches or torch's settings."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.gallery.engines import exact_search
from reid_zoo.gallery.engines.exact_search import dot_scores, exact_top_k


def reference(vectors: np.ndarray, ids: np.ndarray, queries: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = np.stack([dot_scores(np.broadcast_to(query, vectors.shape), vectors) for query in queries])
    order = np.stack([np.lexsort((ids, -row)) for row in scores])[:, :top_k]
    return ids[order], np.take_along_axis(scores, order, axis=1)


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    top_k=st.integers(1, 120),
    queries=st.integers(1, 4),
    levels=st.sampled_from([2, 5, 1000]),
    know_norm=st.booleans(),
    block_rows=st.sampled_from([1, 7, 4096]),
)
def test_blocks_of_any_size_give_the_ranking_of_a_full_sort(
    seed: int, sizes: list[int], top_k: int, queries: int, levels: int, know_norm: bool, block_rows: int
) -> None:
    generator = np.random.default_rng(seed)
    count = sum(sizes)
    # few levels give many equal scores
    vectors = (generator.integers(-levels, levels + 1, (count, 8)) / levels).astype(np.float16)
    ids = generator.permutation(count).astype(np.int64)
    query_vectors = generator.normal(size=(queries, 8)).astype(np.float32)
    bounds = np.cumsum([0, *sizes])
    blocks = [(ids[a:b], vectors[a:b]) for a, b in itertools.pairwise(bounds)]
    norm = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max(initial=0)) if know_norm else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_search, "BLOCK_ROWS", block_rows)
        found_ids, found_scores = exact_top_k(blocks, query_vectors, top_k, largest_norm=norm)
    expected_ids, expected_scores = reference(vectors, ids, query_vectors, top_k)
    np.testing.assert_array_equal(found_ids, expected_ids)
    np.testing.assert_array_equal(found_scores, expected_scores)


def test_no_queries_and_no_rows_give_empty_answers() -> None:
    ids, scores = exact_top_k([], np.ones((2, 4), np.float32), 3)
    assert ids.shape == scores.shape == (2, 0)
    ids, scores = exact_top_k([(np.arange(3), np.ones((3, 4), np.float16))], np.empty((0, 4), np.float32), 3)
    assert ids.shape == scores.shape == (0, 0)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_reduced_precision_of_the_application_changes_no_answer(
    precision: str, unit_vectors: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = unit_vectors(4000, 64).astype(np.float16)
    queries = unit_vectors(5, 64, seed=1)
    expected = reference(vectors, np.arange(4000), queries, 10)
    if precision != "highest":
        # stands for a processor that really multiplies in bfloat16, whatever this one does
        product = exact_search._HalfProduct.__call__

        def rounded(self: exact_search._HalfProduct, block: np.ndarray) -> np.ndarray:
            product(self, block)
            rows = self._buffer[: len(block)].bfloat16().float()
            return (self._queries.bfloat16().float() @ rows.T).numpy()

        monkeypatch.setattr(exact_search._HalfProduct, "__call__", rounded)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        found = exact_top_k([(np.arange(4000), vectors)], queries, 10, largest_norm=1.001)
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])

"""Re-ranking against the definition on dense matrices; the released routines' results are in `tests/golden`."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import EvaluationError
from reid_zoo.evaluation import neighbors, reranking
from reid_zoo.evaluation.metrics import evaluate_retrieval
from reid_zoo.evaluation.neighbors import find_neighbors, nearest_in_rows
from reid_zoo.evaluation.pairwise_distances import PRODUCT_ROWS, FeatureDistances
from reid_zoo.evaluation.reranking import KReciprocalReranking, expand_features, k_reciprocal_rerank


def reference(distances: np.ndarray, num_queries: int, k1: int, k2: int, lambda_value: float) -> np.ndarray:
    """The definition (evaluation spec, section 6), step by step on N x N matrices; encodings in double precision."""
    number = len(distances)
    scaled = (distances / distances.max(axis=0)).T  # W(i, j) = D(j, i) / max over l of D(l, i)
    ranks = np.argsort(scaled, axis=1, kind="stable")

    def reciprocal(item: int, k: int) -> set[int]:
        return {int(other) for other in ranks[item, : k + 1] if item in ranks[other, : k + 1]}

    encoding = np.zeros((number, number))
    for item in range(number):
        original = reciprocal(item, k1)
        expanded = set(original)
        for candidate in original:
            added = reciprocal(candidate, round(k1 / 2))
            if len(added & original) > 2 / 3 * len(added):
                expanded |= added
        members = sorted(expanded)
        weights = np.exp(-scaled[item, members].astype(np.float64))
        encoding[item, members] = weights / weights.sum()
    if k2 != 1:
        encoding = np.stack([encoding[ranks[item, :k2]].mean(axis=0) for item in range(number)])
    overlap = np.minimum(encoding[:num_queries, None], encoding[None, num_queries:]).sum(axis=2)
    jaccard = 1 - overlap / (2 - overlap)
    return (1 - lambda_value) * jaccard + lambda_value * scaled[:num_queries, num_queries:]


def squared_distances(features: np.ndarray) -> np.ndarray:
    return np.square(features[:, None] - features[None]).sum(axis=2)


# Single precision against double precision: sums of numbers below one.
TOLERANCE = 1e-6


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_sparse_blocks_equal_the_definition(data: st.DataObject) -> None:
    num_queries, num_gallery = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 40))
    # Whole numbers: every distance is exact, so ties are ties on both sides.
    levels = data.draw(st.sampled_from([1, 3, 50]))
    random = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    features = random.integers(-levels, levels + 1, (num_queries + num_gallery, 6)).astype(np.float32)
    if not squared_distances(features).max(axis=1).all():
        return
    k1, k2 = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 12))
    lambda_value = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    queries, gallery = features[:num_queries], features[num_queries:]
    block, pairs = reranking._BLOCK_ROWS, reranking._PAIRS
    try:
        reranking._BLOCK_ROWS = data.draw(st.sampled_from([1, 7, 512]))
        reranking._PAIRS = data.draw(st.sampled_from([1, 100, 10**6]))
        actual = k_reciprocal_rerank(queries, gallery, k1=k1, k2=k2, lambda_value=lambda_value)
    finally:
        reranking._BLOCK_ROWS, reranking._PAIRS = block, pairs
    expected = reference(squared_distances(features), num_queries, k1, k2, lambda_value)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


def unit_rows(number: int, size: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(number, size)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def people(num_queries: int = 40, num_gallery: int = 200, num_people: int = 20) -> dict[str, Any]:
    centres = unit_rows(num_people, 16, 0)
    labels = np.arange(num_queries + num_gallery) % num_people
    features = centres[labels] + 0.9 * unit_rows(len(labels), 16, 1)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return {
        "features": (features[:num_queries], features[num_queries:]),
        "ids": {"query_person_ids": labels[:num_queries], "gallery_person_ids": labels[num_queries:]},
    }


@pytest.mark.parametrize("half_precision", [False, True])
def test_rows_do_not_depend_on_how_they_are_asked_for(half_precision: bool) -> None:
    made = KReciprocalReranking(*people(300, 500)["features"], half_precision=half_precision)
    whole = made.distances(slice(None))
    assert whole.shape == made.shape == (300, 500)
    for block_size in (1, 7, 129, 300, 1000):
        parts = list(made.blocks(block_size))
        assert [start for start, _ in parts] == list(range(0, 300, block_size))
        np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), whole)
    scattered = np.array([299, 0, 1, 2, 130, 7, 7])
    np.testing.assert_array_equal(made.distances(scattered), whole[scattered])
    assert made.distances(slice(5, 5)).shape == (0, 500)


def test_metrics_are_counted_without_the_matrix() -> None:
    given_people = people()
    made = KReciprocalReranking(*given_people["features"], k1=10, k2=3)
    counted = evaluate_retrieval(
        np.arange(40), range(200), score_function=made.scores, block_size=7, **given_people["ids"]
    )
    whole = evaluate_retrieval(similarity=-made.distances(slice(None)), **given_people["ids"])
    assert counted.as_dict() == whole.as_dict()
    plain = evaluate_retrieval(*given_people["features"], **given_people["ids"])
    assert counted.mAP > plain.mAP + 1  # what re-ranking is for


def test_half_precision_rounds_what_the_released_code_rounds() -> None:
    features = people()["features"]
    exact, rounded = (k_reciprocal_rerank(*features, half_precision=half) for half in (False, True))
    difference = np.abs(exact - rounded).max()
    assert 0 < difference < 3e-3  # evaluation spec, section 8
    # With no weight on the original distance every result is a float16 number.
    jaccard = k_reciprocal_rerank(*features, half_precision=True, lambda_value=0.0)
    np.testing.assert_array_equal(jaccard, jaccard.astype(np.float16))


def test_given_distances() -> None:
    queries, gallery = people()["features"]
    features = np.concatenate([queries, gallery])
    cosine = (1 - features @ features.T).astype(np.float32)
    matrices = cosine[:40, 40:], cosine[:40, :40], cosine[40:, 40:]
    actual = KReciprocalReranking.from_distances(*matrices, k1=8, k2=4).distances(slice(None))
    np.testing.assert_allclose(actual, reference(cosine**2, 40, 8, 4, 0.3), rtol=0, atol=TOLERANCE)
    # The squared Euclidean distance of unit vectors is twice the cosine distance: the same after scaling.
    plain = KReciprocalReranking.from_distances(*matrices, k1=8, k2=4, squared=False).distances(slice(None))
    np.testing.assert_allclose(plain, k_reciprocal_rerank(queries, gallery, k1=8, k2=4), rtol=0, atol=2e-6)


def test_torch_and_numpy_agree() -> None:
    features = people()["features"]
    tensors = [torch.from_numpy(part).requires_grad_() for part in features]
    np.testing.assert_array_equal(k_reciprocal_rerank(*tensors), k_reciprocal_rerank(*features))


def test_a_program_that_allows_tf32_keeps_its_setting() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        k_reciprocal_rerank(*people()["features"])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_memory_is_far_below_one_matrix() -> None:
    """Arrays of NumPy only; the tiles of torch are of the fixed size of a block of rows."""
    queries, gallery = unit_rows(500, 8, 2), unit_rows(3500, 8, 3)
    tracemalloc.start()
    made = KReciprocalReranking(queries, gallery, k1=6, k2=2)
    for _ in made.blocks(100):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4000 * 4000 * 4 / 3


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    num_rows=st.integers(1, 5),
    num_items=st.integers(1, 700),
    levels=st.sampled_from([1, 5, 200, 10**6]),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_nearest_equals_a_stable_sort(
    num_rows: int, num_items: int, levels: int, seed: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, min(num_items, 12)))
    values = torch.from_numpy(np.random.default_rng(seed).integers(0, levels, (num_rows, num_items)).astype(np.float32))
    expected = values.sort(dim=1, stable=True)
    smallest, indices = nearest_in_rows(values, count)
    assert torch.equal(indices, expected.indices[:, :count])
    assert torch.equal(smallest, expected.values[:, :count])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    number=st.integers(2, 400),
    levels=st.sampled_from([1, 4, 60]),
    shift=st.sampled_from([0, 100]),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_half_of_the_distances_gives_the_neighbors_of_all(
    number: int, levels: int, shift: int, seed: int, data: st.DataObject
) -> None:
    """Blocks of one product instead of four, so that there are several; a shift makes two far groups of items."""
    features = np.random.default_rng(seed).integers(-levels, levels + 1, (number, 3)).astype(np.float32)
    features[number // 3 :] += shift
    distances = squared_distances(features)
    if not distances.max(axis=1).all():
        return
    count = data.draw(st.integers(1, min(number, 12)))
    scaled = (distances / distances.max(axis=0)).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "_BLOCK_ROWS", PRODUCT_ROWS)
        found = find_neighbors(FeatureDistances(torch.from_numpy(features)), count)
    expected = np.argsort(scaled, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(found.items.numpy(), expected)
    np.testing.assert_array_equal(found.distances.numpy(), np.take_along_axis(scaled, expected, axis=1))
    np.testing.assert_array_equal(found.largest.numpy(), distances.max(axis=0))


def test_expansion_averages_the_nearest() -> None:
    queries, gallery = people()["features"]
    queries = queries * 3  # not of unit length: neighbours by cosine, averages of the features as they are
    pool = np.concatenate([queries, gallery])
    unit = pool / np.linalg.norm(pool, axis=1, keepdims=True)
    for alpha in (0.0, 3.0):
        expected = pool
        for rounds in (1, 2):
            unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
            cosine = unit @ unit.T
            nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :5]
            weights = np.take_along_axis(cosine, nearest, axis=1) ** alpha
            expected = (weights[:, :, None] * expected[nearest]).mean(axis=1)
            actual = np.concatenate(expand_features(queries, gallery, k=5, alpha=alpha, rounds=rounds))
            np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)


def test_expansion_by_items_that_look_away() -> None:
    """With fewer alike than k: a negative cosine has its power where there is one (cubed: negative), else it weighs nothing."""
    queries, gallery = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [-1.0, 0.0]])
    expanded, _ = expand_features(queries, gallery, k=3, alpha=1.5)
    np.testing.assert_allclose(expanded, [[2 / 3, 0]], atol=1e-6)
    cubed, _ = expand_features(queries, gallery, k=3, alpha=3)
    np.testing.assert_allclose(cubed, [[1, 0]], atol=1e-6)  # (1 + 1 + (-1)³·(-1)) / 3
    averaged, _ = expand_features(queries, gallery, k=3, alpha=0)
    np.testing.assert_allclose(averaged, [[1 / 3, 0]], atol=1e-6)


ROWS = np.eye(3, 4, dtype=np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((ROWS, ROWS[:, :3]), {}, "query features have 4 dimensions, gallery features 3"),
        ((ROWS[0], ROWS), {}, r"query_features must have two dimensions .* got shape \(4,\)"),
        ((ROWS, ROWS * np.nan), {}, "gallery_features: row 0 contains NaN"),
        ((ROWS[:0], ROWS), {}, "nothing to re-rank: 0 queries and 3 gallery items"),
        ((ROWS, ROWS), {"k1": 0}, "k1 is 0"),
        ((ROWS, ROWS), {"k2": 0}, "k2 is 0"),
        ((ROWS, ROWS), {"lambda_value": 1.5}, "lambda_value is 1.5"),
        ((ROWS[:1], ROWS[:1]), {}, "all the same"),
    ],
)
def test_what_cannot_be_re_ranked_is_refused_in_one_line(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as caught:
        k_reciprocal_rerank(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_expanded_or_cut_into_blocks() -> None:
    for options, message in (
        ({"k": 0}, "k is 0"),
        ({"k": 7}, "k is 7"),
        ({"alpha": -1}, "alpha"),
        ({"rounds": 0}, "rounds"),
    ):
        with pytest.raises(EvaluationError, match=message):
            expand_features(ROWS, ROWS, **options)
    with pytest.raises(EvaluationError, match="block_size is 0"):
        list(KReciprocalReranking(ROWS, ROWS[::-1]).blocks(0))
    with pytest.raises(EvaluationError, match=r"query_query has shape \(3, 4\); query_gallery asks for \(3, 3\)"):
        KReciprocalReranking.from_distances(ROWS[:, :3], ROWS, ROWS)

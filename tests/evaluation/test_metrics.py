"""Rank-k, mAP and mINP against a slow reference, and at the limits; the golden cases are in `tests/golden`."""

from __future__ import annotations

import itertools
import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import EvaluationError
from reid_zoo.evaluation import positions
from reid_zoo.evaluation.metrics import RetrievalMetrics, evaluate_retrieval
from reid_zoo.evaluation.positions import SamePerson, Ties, rank_positives
from reid_zoo.evaluation.scores import PRODUCT_ROWS, accelerator_tiles, compute_similarity

TIES = ("stable", "optimistic", "pessimistic")


def reference(
    scores: np.ndarray,
    query_ids: list[int],
    gallery_ids: list[int],
    cameras: tuple[list[int], list[int]] | None,
    ties: str,
) -> list[list[int]]:
    """Ranks of every query's positives by a plain sort."""
    answers = []
    for query, row in enumerate(scores.tolist()):
        items = []
        for index, score in enumerate(row):
            positive = gallery_ids[index] == query_ids[query]
            if positive and cameras and cameras[0][query] == cameras[1][index]:
                continue
            tie = {"stable": index, "optimistic": 0 if positive else 1, "pessimistic": 1 if positive else 0}[ties]
            items.append((-score, tie, positive))
        items.sort()
        answers.append([place for place, item in enumerate(items, 1) if item[2]])
    return answers


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_counting_equals_sorting(data: st.DataObject) -> None:
    num_queries, num_gallery = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 14))
    levels = data.draw(st.sampled_from([1, 2, 4, 1000]))  # one level: every score is the same
    grid = st.integers(-levels, levels).map(lambda value: value / 8 if levels < 1000 else value / 7)
    scores = np.array(
        data.draw(
            st.lists(
                st.lists(grid, min_size=num_gallery, max_size=num_gallery), min_size=num_queries, max_size=num_queries
            )
        ),
        dtype=np.float32,
    )
    if data.draw(st.booleans()):
        scores[scores == 0] = -0.0
        scores[:, ::2] += 0.0
    small = st.integers(0, 3)
    query_ids = data.draw(st.lists(small, min_size=num_queries, max_size=num_queries))
    gallery_ids = data.draw(st.lists(small, min_size=num_gallery, max_size=num_gallery))
    cameras = None
    if data.draw(st.booleans()):
        cameras = (
            data.draw(st.lists(small, min_size=num_queries, max_size=num_queries)),
            data.draw(st.lists(small, min_size=num_gallery, max_size=num_gallery)),
        )
    ties = data.draw(st.sampled_from(TIES))
    expected = reference(scores, query_ids, gallery_ids, cameras, ties)

    def evaluate() -> RetrievalMetrics:
        return evaluate_retrieval(
            similarity=scores,
            query_person_ids=query_ids,
            gallery_person_ids=gallery_ids,
            query_camera_ids=cameras[0] if cameras else None,
            gallery_camera_ids=cameras[1] if cameras else None,
            ties=ties,
            block_size=data.draw(st.integers(1, 8)),
        )

    if not any(expected):
        with pytest.raises(EvaluationError, match="has a positive"):
            evaluate()
        return
    metrics = evaluate()
    for query, ranks in enumerate(expected):
        assert metrics.num_positives[query] == len(ranks)
        if not ranks:
            assert metrics.first_positive_rank[query] == metrics.last_positive_rank[query] == -1
            assert math.isnan(metrics.average_precision[query])
            continue
        assert metrics.first_positive_rank[query] == ranks[0]
        assert metrics.last_positive_rank[query] == ranks[-1]
        assert metrics.average_precision[query] == pytest.approx(
            sum(place / rank for place, rank in enumerate(ranks, 1)) / len(ranks), abs=1e-12
        )
        assert metrics.inverse_negative_penalty[query] == pytest.approx(len(ranks) / ranks[-1], abs=1e-12)
    assert metrics.num_skipped_queries == sum(not ranks for ranks in expected)


def unit_rows(number: int, size: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(number, size)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def features(num_queries: int = 300, num_gallery: int = 500) -> dict[str, Any]:
    """Queries and a gallery in which every tenth image is a copy of another person's, so that exact ties occur."""
    gallery = unit_rows(num_gallery, 32, 1)
    gallery[::10] = gallery[5::10]
    return {
        "query_features": unit_rows(num_queries, 32, 0),
        "gallery_features": gallery,
        "query_person_ids": np.arange(num_queries) % 50,
        "gallery_person_ids": np.arange(num_gallery) % 50,
    }


def same(first: RetrievalMetrics, second: RetrievalMetrics) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True)
        for name in ("first_positive_rank", "last_positive_rank", "average_precision", "inverse_negative_penalty")
    )


@pytest.mark.parametrize("block_size", [1, 7, 128, 129, 299, 300, 4096])
def test_block_size_changes_nothing(block_size: int) -> None:
    given_features = features()
    whole = evaluate_retrieval(**given_features, block_size=256)
    assert same(whole, evaluate_retrieval(**given_features, block_size=block_size))
    similarity = compute_similarity(given_features.pop("query_features"), given_features.pop("gallery_features"))
    assert same(whole, evaluate_retrieval(similarity=similarity, **given_features, block_size=block_size))


def test_copies_of_an_image_tie_exactly_and_keep_gallery_order() -> None:
    """One picture filed under two persons: the smaller index comes first, whichever kernel computed its score."""
    given_features = features()
    scores = compute_similarity(given_features["query_features"], given_features["gallery_features"])
    np.testing.assert_array_equal(scores[:, ::10], scores[:, 5::10])


def test_shuffling_the_gallery_moves_scores_without_changing_them() -> None:
    queries, gallery = unit_rows(150, 48, 2), unit_rows(333, 48, 3)
    order = np.random.default_rng(4).permutation(333)
    np.testing.assert_array_equal(
        compute_similarity(queries, gallery)[:, order], compute_similarity(queries, gallery[order])
    )


def test_scores_are_products_rounded_once() -> None:
    queries, gallery = unit_rows(5, 64, 5), unit_rows(9, 64, 6)
    exact = queries.astype(np.float64) @ gallery.astype(np.float64).T
    # Half a unit in the last place of a number below one.
    np.testing.assert_allclose(compute_similarity(queries, gallery), exact, rtol=0, atol=2**-25)


def test_gallery_larger_than_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    given_features = features()
    whole = evaluate_retrieval(**given_features)
    monkeypatch.setattr("reid_zoo.evaluation.scores._GALLERY_CHUNK", 96)
    assert same(whole, evaluate_retrieval(**given_features))


def test_torch_numpy_and_lists_agree() -> None:
    given_features = features(40, 60)
    expected = evaluate_retrieval(**given_features)
    tensors = {
        name: torch.from_numpy(value).requires_grad_(value.dtype == np.float32)
        for name, value in given_features.items()
    }
    assert same(expected, evaluate_retrieval(**tensors))
    assert same(expected, evaluate_retrieval(**{name: value.tolist() for name, value in given_features.items()}))
    similarity = compute_similarity(given_features["query_features"], given_features["gallery_features"])
    ids = {name: given_features[name] for name in ("query_person_ids", "gallery_person_ids")}
    assert same(expected, evaluate_retrieval(similarity=torch.from_numpy(similarity), **ids))
    assert same(expected, evaluate_retrieval(similarity=similarity.tolist(), **ids))


def test_half_precision_is_compared_as_it_is() -> None:
    scores = torch.tensor([[0.5, 0.25, 0.75]], dtype=torch.bfloat16)
    metrics = evaluate_retrieval(similarity=scores, query_person_ids=[1], gallery_person_ids=[1, 0, 0])
    assert metrics.first_positive_rank.tolist() == [2]


def test_identities_and_cameras_may_be_strings() -> None:
    metrics = evaluate_retrieval(
        similarity=np.array([[0.9, 0.8, 0.7]]),
        query_person_ids=["ann"],
        gallery_person_ids=["ann", "bob", "ann"],
        query_camera_ids=["door"],
        gallery_camera_ids=["door", "door", "yard"],
    )
    # The best item is junk (same person, same camera); Bob, seen by the same camera, stays.
    assert metrics.first_positive_rank.tolist() == [2]
    assert metrics.num_positives.tolist() == [1]


def test_collapsed_model_is_not_rewarded() -> None:
    ids = np.arange(100)
    same_score = {"similarity": np.ones((100, 100)), "query_person_ids": ids, "gallery_person_ids": ids}
    assert evaluate_retrieval(**same_score).R1 == 1.0
    assert evaluate_retrieval(**same_score, ties="optimistic").R1 == 100.0
    assert evaluate_retrieval(**same_score, ties="pessimistic").R1 == 0.0


def test_summary_and_curve() -> None:
    similarity = -np.arange(20, dtype=np.float32)[None].repeat(4, axis=0)
    gallery_ids = [0, 9, 1, 9, 9, 2, *[9] * 13, 0]
    metrics = evaluate_retrieval(
        similarity=similarity, query_person_ids=[0, 1, 2, 77], gallery_person_ids=gallery_ids, ks=(3, 20)
    )
    assert metrics.first_positive_rank.tolist() == [1, 3, 6, -1]
    assert (metrics.num_queries, metrics.num_gallery, metrics.num_skipped_queries) == (4, 20, 1)
    assert metrics.rank_k == pytest.approx({3: 200 / 3, 20: 100.0})
    assert metrics.rank(6) == 100.0
    assert list(metrics.as_dict()) == ["R1", "R5", "R10", "mAP", "mINP", "Rsum"]
    assert metrics.as_dict() == pytest.approx(
        {
            "R1": 100 / 3,
            "R5": 200 / 3,
            "R10": 100.0,
            "mAP": 100 * ((1 + 2 / 20) / 2 + 1 / 3 + 1 / 6) / 3,
            "mINP": 100 * (2 / 20 + 1 / 3 + 1 / 6) / 3,
            "Rsum": 200.0,
        }
    )
    assert json.loads(json.dumps(metrics.as_dict())) == metrics.as_dict()
    np.testing.assert_allclose(metrics.cmc(4), [100 / 3, 100 / 3, 200 / 3, 200 / 3])
    assert len(metrics.cmc(50)) == 20
    assert "3 queries" not in str(metrics)
    assert "4 queries, 1 skipped, 20 gallery items" in str(metrics)
    everyone = evaluate_retrieval(
        similarity=similarity, query_person_ids=[0, 1, 2, 77], gallery_person_ids=gallery_ids, denominator="all"
    )
    assert everyone.denominator == "all"
    assert (everyone.R1, everyone.R10) == (25.0, 75.0)
    assert everyone.mAP == metrics.mAP
    assert everyone.cmc(1)[0] == 25.0
    for bad in (lambda: metrics.rank(0), lambda: metrics.cmc(0)):
        with pytest.raises(EvaluationError, match="at least 1"):
            bad()


def test_score_function_gets_blocks_of_one_size() -> None:
    given_features = features(50, 30)
    shapes = []

    def cosine(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        shapes.append((queries.shape, gallery.shape))
        return (queries[:, None].astype(np.float64) * gallery[None]).sum(-1)

    metrics = evaluate_retrieval(**given_features, score_function=cosine, block_size=16)
    assert shapes == [((16, 32), (30, 32))] * 4
    assert same(metrics, evaluate_retrieval(**given_features, score_function=cosine, block_size=7))
    assert same(metrics, evaluate_retrieval(**given_features))


def test_score_function_may_work_on_anything_indexable() -> None:
    similarity = torch.rand(9, 5, generator=torch.Generator().manual_seed(0))
    ids = {"query_person_ids": list(range(5)) + [0] * 4, "gallery_person_ids": list(range(5))}
    metrics = evaluate_retrieval(
        np.arange(9), range(5), score_function=lambda queries, _: similarity[queries], block_size=4, **ids
    )
    assert same(metrics, evaluate_retrieval(similarity=similarity, **ids))
    tensors = evaluate_retrieval(
        similarity, range(5), score_function=lambda queries, _: queries, block_size=4, **ids
    )  # a torch tensor is indexed by an integer array as well
    assert same(metrics, tensors)


def test_memory_holds_one_tile_and_never_the_matrix() -> None:
    number = 4000
    ids = np.arange(number) % 100
    queries, gallery = unit_rows(number, 8, 7), unit_rows(number, 8, 8)
    tile = 2 * PRODUCT_ROWS * number * 4
    evaluate_retrieval(
        queries[:1], gallery, query_person_ids=ids[:1], gallery_person_ids=ids
    )  # imports are not counted
    tracemalloc.start()
    evaluate_retrieval(queries, gallery, query_person_ids=ids, gallery_person_ids=ids, block_size=2 * PRODUCT_ROWS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The tile, the double-precision products of two halves of it, and the identities. The matrix would be 64 MB.
    assert peak < 4 * tile
    assert 4 * tile < number * number * 4 / 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    scores = np.zeros((2, 3))
    scores[1, 2] = bad
    for query_ids in ([1, 1], [1, 77]):  # the second query may even be one that is skipped
        with pytest.raises(EvaluationError, match=f"query 1 and gallery item 2 is {bad}"):
            evaluate_retrieval(similarity=scores, query_person_ids=query_ids, gallery_person_ids=[1, 2, 3])


def test_features_that_are_not_finite_or_overflow_are_refused() -> None:
    rows = np.ones((2, 3))
    broken = rows.copy()
    broken[1, 0] = np.nan
    ids = {"query_person_ids": [1, 2], "gallery_person_ids": [1, 2]}
    with pytest.raises(EvaluationError, match="query_features: row 1 contains NaN"):
        evaluate_retrieval(broken, rows, **ids)
    with pytest.raises(EvaluationError, match="gallery_features: row 1 contains NaN"):
        evaluate_retrieval(rows, broken, **ids)
    with pytest.raises(EvaluationError, match="row 0 contains NaN or infinity"):
        evaluate_retrieval(rows * 1e300, rows, **ids)
    with pytest.raises(EvaluationError, match="gallery item 0 is inf"):
        evaluate_retrieval(rows * 1e30, rows * 1e30, **ids)


IDS = {"query_person_ids": [1, 2], "gallery_person_ids": [1, 2, 3]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": np.ones((3, 2)), **IDS}, r"shape \(3, 2\), but there are 2 query and 3 gallery"),
        ({"similarity": np.ones(6), **IDS}, r"shape \(6,\)"),
        ({"similarity": [[1, 2, 3], [1, 2]], **IDS}, "similarity is not a rectangular array"),
        ({"similarity": [["a"] * 3] * 2, **IDS}, "similarity must hold numbers"),
        ({"similarity": np.ones((2, 3)), "query_features": np.ones((2, 4)), **IDS}, "not both"),
        ({"similarity": np.ones((2, 3)), "score_function": max, **IDS}, "not both"),
        (IDS, "Give query_features and gallery_features, or similarity"),
        ({"query_features": np.ones((2, 4)), **IDS}, "Give query_features and gallery_features"),
        ({"query_features": np.ones((3, 4)), "gallery_features": np.ones((3, 4)), **IDS}, "3 query and 3 gallery feat"),
        ({"query_features": np.ones((2, 4)), "gallery_features": np.ones((3, 5)), **IDS}, "4 dimensions, gallery .* 5"),
        (
            {"query_features": np.ones((2, 4, 1)), "gallery_features": np.ones((3, 4)), **IDS},
            "must have two dimensions",
        ),
        (
            {
                "query_features": np.ones((2, 4)),
                "gallery_features": np.ones((3, 4)),
                "score_function": lambda queries, gallery: np.ones((3, 2)),
                **IDS,
            },
            r"score_function returned shape \(3, 2\) for 2 queries and 3 gallery items; expected \(2, 3\)",
        ),
        ({"similarity": np.ones((2, 3)), **IDS, "ties": "random"}, "ties is 'random'"),
        ({"similarity": np.ones((2, 3)), **IDS, "denominator": "some"}, "denominator is 'some'"),
        ({"similarity": np.ones((2, 3)), **IDS, "block_size": 0}, "block_size is 0"),
        ({"similarity": np.ones((2, 3)), **IDS, "ks": (1, 0)}, "ks contains 0"),
        ({"similarity": np.ones((2, 3)), **IDS, "query_camera_ids": [0, 1]}, "Give both"),
        (
            {"similarity": np.ones((2, 3)), **IDS, "query_camera_ids": [0], "gallery_camera_ids": [0, 1, 2]},
            "1 query and 3 gallery cameras",
        ),
        ({"similarity": np.ones((2, 3)), **IDS, "query_person_ids": [1, None]}, r"query_person_ids\[1\] is None"),
        ({"similarity": np.ones((2, 3)), **IDS, "gallery_person_ids": [1, 2.5, 3]}, r"gallery_person_ids\[1\] is 2\.5"),
        ({"similarity": np.ones((2, 3)), **IDS, "query_person_ids": np.ones((2, 1), int)}, "must have one dimension"),
        ({"similarity": np.ones((0, 3)), **IDS, "query_person_ids": []}, "Nothing to evaluate: 0 queries and 3"),
        (
            {"similarity": np.ones((2, 3)), **IDS, "query_person_ids": [8, 9]},
            "None of the 2 queries .* check the person",
        ),
        ({"similarity": np.ones((2, 3)), **IDS, "query_person_ids": ["1", "2"]}, "query ids are '1', .* use one type"),
        (
            {"similarity": np.ones((2, 3)), **IDS, "query_camera_ids": [0, 0], "gallery_camera_ids": [0, 0, 0]},
            "from another camera",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as caught:
        evaluate_retrieval(**options)
    assert "\n" not in str(caught.value)


def test_progress_bar_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    options = {"similarity": np.eye(3), "query_person_ids": [1, 2, 3], "gallery_person_ids": [1, 2, 3]}
    evaluate_retrieval(**options)
    assert capfd.readouterr() == ("", "")
    evaluate_retrieval(**options, progress=True)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "3/3" in captured.err


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    num_queries=st.integers(1, 5),
    num_gallery=st.integers(1, 90),
    levels=st.sampled_from([0, 1, 3, 1000]),
    persons=st.integers(1, 3),
    ties=st.sampled_from(TIES),
    seed=st.integers(0, 2**16),
)
def test_comparing_sorting_and_accelerators_count_the_same(
    num_queries: int, num_gallery: int, levels: int, persons: int, ties: Ties, seed: int
) -> None:
    """The three ways of counting: with up to 90 positives rows are sorted, with few they are compared."""
    random = np.random.default_rng(seed)
    scores = (random.integers(-levels, levels + 1, (num_queries, num_gallery)) / 8).astype(np.float32)
    query_ids = random.integers(0, persons, num_queries)
    gallery_ids = random.integers(0, persons, num_gallery)
    rows, items = np.nonzero(query_ids[:, None] == gallery_ids)
    same_person = SamePerson(rows, items, random.random(len(rows)) < 0.3)
    expected = rank_positives(scores, same_person, ties, 0)
    made = [rank_positives(torch.from_numpy(scores), same_person, ties, 0)]
    for most, held, block in itertools.product((0, 10**6), (1, 300, 2**20), (7, 20, 6000)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(positions, "_MOST_COMPARED", most)
            patch.setattr(positions, "_OUTCOME_BYTES", held)
            patch.setattr(positions, "_SHORTEST_BLOCK", block)
            made.append(rank_positives(scores, same_person, ties, 0))
    for one in made:
        for name in ("rows", "places", "ranks"):
            np.testing.assert_array_equal(getattr(one, name), getattr(expected, name))


def test_rows_longer_than_one_lane_of_counters() -> None:
    """More than 255 outcomes per byte would overflow; the gallery fills several blocks, all of them tied."""
    scores = np.ones((2, 20_001), dtype=np.float32)
    scores[:, -1] = -1
    gallery_ids = np.zeros(scores.shape[1], dtype=int)
    gallery_ids[-1] = 1
    metrics = evaluate_retrieval(similarity=scores, query_person_ids=[1, 1], gallery_person_ids=gallery_ids)
    assert metrics.first_positive_rank.tolist() == [scores.shape[1]] * 2


@pytest.mark.parametrize("smallest", [0.0, -0.0, 1e-44, -1e-44])
def test_scores_next_to_zero_tie_as_they_should(smallest: float) -> None:
    scores = np.array([[smallest, 1e-44, 0.0, -0.0, -1e-44, 1.0]], dtype=np.float32)
    ids = [1, 0, 0, 0, 0, 0]
    metrics = evaluate_retrieval(similarity=scores, query_person_ids=[1], gallery_person_ids=ids, ties="pessimistic")
    assert metrics.first_positive_rank.tolist() == [1 + int((scores[0, 1:] >= scores[0, 0]).sum())]


@pytest.mark.parametrize("block_size", [1, 128, 200, 1000])
def test_tiles_made_on_an_accelerator_are_those_of_the_processor(block_size: int) -> None:
    queries, gallery = unit_rows(300, 32, 9), unit_rows(170, 32, 10)
    parts = list(accelerator_tiles(torch.from_numpy(queries), torch.from_numpy(gallery), block_size))
    assert [start for start, _ in parts] == list(range(0, 300, -(-min(block_size, 300) // PRODUCT_ROWS) * PRODUCT_ROWS))
    np.testing.assert_array_equal(torch.cat([tile for _, tile in parts]).numpy(), compute_similarity(queries, gallery))
    broken = torch.from_numpy(queries).clone()
    broken[7, 0] = torch.nan
    for arguments, message in (
        ((broken, broken), "query_features: row 7 contains NaN"),
        ((broken[:3], broken[:3, :5]), "32 dimensions, gallery features 5"),
        ((broken[0], broken), "query_features must have two dimensions"),
    ):
        with pytest.raises(EvaluationError, match=message):
            accelerator_tiles(*arguments, block_size)


def test_rank_positives_refuses_what_is_not_finite_on_any_device() -> None:
    scores = torch.tensor([[0.0, 1.0], [torch.inf, 0.0]])
    same_person = SamePerson(np.array([0]), np.array([0]), np.array([False]))
    with pytest.raises(EvaluationError, match="query 11 and gallery item 0 is inf"):
        rank_positives(scores, same_person, "stable", 10)

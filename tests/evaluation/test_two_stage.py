"""Evaluation in two stages against one over the whole matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import EvaluationError
from reid_zoo.evaluation.metrics import evaluate_retrieval
from reid_zoo.evaluation.scores import compute_similarity
from reid_zoo.evaluation.two_stage import evaluate_two_stage


def problem(num_queries: int = 30, num_gallery: int = 50, seed: int = 0, levels: int = 1000) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "query_features": random.integers(-levels, levels + 1, (num_queries, 4)) / 8,
        "gallery_features": random.integers(-levels, levels + 1, (num_gallery, 4)) / 8,
        "second": random.integers(-levels, levels + 1, (num_queries, num_gallery)).astype(np.float32),
        "ids": {
            "query_person_ids": random.integers(0, 8, num_queries),
            "gallery_person_ids": random.integers(0, 8, num_gallery),
        },
    }


def evaluate(made: dict[str, Any], num_candidates: int, **options: Any) -> Any:
    return evaluate_two_stage(
        made["query_features"],
        made["gallery_features"],
        lambda query, candidates: made["second"][query, candidates],
        num_candidates=num_candidates,
        **made["ids"],
        **options,
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    num_gallery=st.integers(8, 30),
    seed=st.integers(0, 2**16),
    levels=st.sampled_from([1, 1000]),
    num_candidates=st.integers(1, 40),
    block_size=st.sampled_from([1, 5, 256]),
)
def test_candidates_by_the_second_score_and_the_rest_by_the_first(
    num_gallery: int, seed: int, levels: int, num_candidates: int, block_size: int
) -> None:
    made = problem(20, num_gallery, seed, levels)
    made["ids"]["gallery_person_ids"][:8] = np.arange(8)  # every query has a positive
    result = evaluate(made, num_candidates, block_size=block_size)
    first = compute_similarity(made["query_features"], made["gallery_features"])
    places = np.empty(first.shape)
    for query in range(20):
        order = np.lexsort((np.arange(num_gallery), -first[query]))
        candidates = np.sort(order[:num_candidates])
        candidates = candidates[np.lexsort((candidates, -made["second"][query, candidates]))]
        places[query, np.concatenate([candidates, order[num_candidates:]])] = np.arange(num_gallery)
    expected = evaluate_retrieval(similarity=-places, **made["ids"])
    assert result.metrics.as_dict() == expected.as_dict()
    kept = [
        np.isin(
            made["ids"]["gallery_person_ids"][np.argsort(-first[query], kind="stable")[:num_candidates]], person
        ).sum()
        for query, person in enumerate(made["ids"]["query_person_ids"])
    ]
    assert result.kept_positives.tolist() == kept
    assert result.positive_recall == pytest.approx(100 * np.mean(kept / expected.num_positives))
    assert result.query_recall == pytest.approx(100 * np.mean(np.asarray(kept) > 0))


def test_all_candidates_give_the_second_score_alone() -> None:
    made = problem()
    result = evaluate(made, 10**6)
    assert result.num_candidates == 50
    assert result.positive_recall == result.query_recall == 100.0
    alone = evaluate_retrieval(similarity=made["second"], **made["ids"]).as_dict()
    assert result.as_dict() == alone | {"positive_recall": 100.0, "query_recall": 100.0}


def test_rank_k_is_bounded_by_the_recall() -> None:
    made = problem()
    made["second"][:] = made["ids"]["query_person_ids"][:, None] == made["ids"]["gallery_person_ids"]  # a perfect score
    result = evaluate(made, 3)
    assert result.metrics.rank(3) == pytest.approx(result.query_recall)
    assert result.query_recall < 100


@pytest.mark.parametrize(
    ("second", "num_candidates", "message"),
    [
        (lambda query, candidates: candidates * np.nan, 5, "a score of query 0 with its candidates is not finite"),
        (lambda query, candidates: np.ones(2), 5, r"returned shape \(2,\) for 5 candidates"),
        (lambda query, candidates: candidates, 0, "num_candidates is 0"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(second: Any, num_candidates: int, message: str) -> None:
    made = problem()
    with pytest.raises(EvaluationError, match=message):
        evaluate_two_stage(
            made["query_features"], made["gallery_features"], second, num_candidates=num_candidates, **made["ids"]
        )


def test_vectors_that_are_not_normalised_may_be_too_long() -> None:
    made = problem()
    made["query_features"] = made["query_features"] * 1e6
    with pytest.raises(EvaluationError, match="unit length"):
        evaluate(made, 5)

from __future__ import annotations

import numpy as np
import pytest

from reid_zoo.errors import EvaluationError
from reid_zoo.evaluation.metrics import evaluate_retrieval
from reid_zoo.evaluation.uncertainty import bootstrap_intervals, compare_paired

NUM_PEOPLE, CAPTIONS = 40, 3
PEOPLE = np.repeat(np.arange(NUM_PEOPLE), CAPTIONS)


def evaluation(noise: float, seed: int = 0, shared: bool = False):
    """Every person has captions near one gallery image; with `shared`, all captions of a person miss together."""
    generator = np.random.default_rng(seed)
    gallery = generator.normal(size=(NUM_PEOPLE, 16))
    errors = generator.normal(size=(NUM_PEOPLE if shared else len(PEOPLE), 16))
    queries = gallery[PEOPLE] + noise * (errors[PEOPLE] if shared else errors)
    return evaluate_retrieval(queries, gallery, query_person_ids=PEOPLE, gallery_person_ids=np.arange(NUM_PEOPLE))


def test_intervals_hold_the_figure_and_are_repeatable():
    metrics = evaluation(1.5)
    found = bootstrap_intervals(metrics, seed=3)
    for name, value in metrics.as_dict().items():
        assert found[name].value == pytest.approx(value)
        assert found[name].low <= value <= found[name].high
    assert found == bootstrap_intervals(metrics, seed=3)
    assert found != bootstrap_intervals(metrics, seed=4)


def test_the_interval_of_rank_1_is_that_of_a_share():
    """For independent queries the normal approximation is known."""
    metrics = evaluation(1.5)
    share = metrics.R1 / 100
    half = 1.96 * np.sqrt(share * (1 - share) / len(PEOPLE)) * 100
    interval = bootstrap_intervals(metrics, num_samples=4000)["R1"]
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.1)


def test_captions_of_one_person_are_drawn_together():
    metrics = evaluation(1.5, shared=True)
    by_query, by_person = bootstrap_intervals(metrics), bootstrap_intervals(metrics, person_ids=PEOPLE)
    width = {name: (by_person[name].high - by_person[name].low) for name in by_query}
    # Three captions that always agree say as much as one: √3 times as wide.
    ratio = width["R1"] / (by_query["R1"].high - by_query["R1"].low)
    assert ratio == pytest.approx(np.sqrt(3), rel=0.15)


def test_a_clearly_better_model_is_told_from_an_equal_one():
    good, bad = evaluation(0.8), evaluation(2.0)
    found = compare_paired(bad, good, person_ids=PEOPLE)["mAP"]
    assert found.difference == pytest.approx(good.mAP - bad.mAP)
    assert (found.first, found.second) == (pytest.approx(bad.mAP), pytest.approx(good.mAP))
    assert found.p_value < 0.01
    assert 0 < found.low < found.difference < found.high
    same = compare_paired(good, good)["mAP"]
    assert (same.difference, same.p_value) == (0, 1)


def test_the_test_rejects_exchangeable_models_about_as_often_as_it_should():
    rejected = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        one, two = evaluation(1.5, seed=1000), evaluation(1.5, seed=1000)
        # The two models' results of every query, shuffled between them.
        swap = generator.random(len(PEOPLE)) < 0.5
        other = evaluation(1.5, seed=seed)
        for name in ("first_positive_rank", "last_positive_rank", "average_precision", "inverse_negative_penalty"):
            a, b = getattr(one, name), getattr(other, name)
            object.__setattr__(one, name, np.where(swap, a, b))
            object.__setattr__(two, name, np.where(swap, b, a))
        rejected += compare_paired(one, two, num_samples=300, seed=seed)["R1"].p_value < 0.1
    assert rejected <= 13  # 6 expected; 13 or more has a probability below one in a hundred


@pytest.mark.parametrize(
    ("options", "named"),
    [({"level": 1.0}, "between 0 and 1"), ({"num_samples": 10}, "at least 100"), ({"person_ids": [1]}, "1 persons")],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(EvaluationError, match=named):
        bootstrap_intervals(evaluation(1.0), **options)


def test_evaluations_of_different_queries_are_not_compared():
    generator = np.random.default_rng(0)
    other = evaluate_retrieval(
        generator.normal(size=(5, 4)),
        generator.normal(size=(6, 4)),
        query_person_ids=np.arange(5),
        gallery_person_ids=np.arange(6),
    )
    with pytest.raises(EvaluationError, match="not of the same queries"):
        compare_paired(evaluation(1.0), other)

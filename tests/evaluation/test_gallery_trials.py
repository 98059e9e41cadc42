"""VehicleID's protocol."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reid_zoo.errors import EvaluationError
from reid_zoo.evaluation.gallery_trials import evaluate_gallery_trials
from reid_zoo.evaluation.scores import compute_similarity

LABELS = np.repeat(np.arange(12), 5)[:-4]  # the last vehicle has one image


def vehicles(noise: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(0)
    features = random.normal(size=(12, 8))[LABELS] + noise * random.normal(size=(len(LABELS), 8))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def test_every_trial_has_one_image_of_each_vehicle() -> None:
    result = evaluate_gallery_trials(vehicles(), LABELS, num_trials=4, seed=3)
    assert len(result.trials) == 4
    for trial in result.trials:
        assert (trial.num_gallery, trial.num_queries, trial.num_skipped_queries) == (12, len(LABELS) - 12, 0)
        assert (trial.num_positives == 1).all()
        # With one positive each, average precision is the reciprocal rank.
        np.testing.assert_allclose(trial.average_precision, 1 / trial.first_positive_rank)
    means = [np.mean([trial.as_dict()[name] for trial in result.trials]) for name in ("R1", "R5", "mAP")]
    assert [result.as_dict()[name] for name in ("R1", "R5", "mAP")] == pytest.approx(means)
    assert result.deviations()["R1"] == pytest.approx(np.std([trial.R1 for trial in result.trials], ddof=1))
    assert "4 trials, seed 3" in str(result)


def test_trials_by_a_plain_loop() -> None:
    features, result = vehicles(), evaluate_gallery_trials(vehicles(), LABELS, num_trials=2, seed=5)
    scores = compute_similarity(features, features)
    for number, trial in enumerate(result.trials):
        random = np.random.default_rng((5, number))
        sizes = np.bincount(LABELS)
        drawn = random.integers(sizes)
        gallery = [np.flatnonzero(vehicle == LABELS)[drawn[vehicle]] for vehicle in range(12)]
        ranks = [
            int(np.flatnonzero(np.argsort(-scores[query, gallery], kind="stable") == LABELS[query])[0]) + 1
            for query in range(len(LABELS))
            if query not in gallery
        ]
        assert trial.first_positive_rank.tolist() == ranks


def test_seed_decides_and_more_trials_keep_the_first() -> None:
    first = evaluate_gallery_trials(vehicles(), LABELS, num_trials=2)
    more = evaluate_gallery_trials(torch.from_numpy(vehicles()), [f"car {label:02}" for label in LABELS], num_trials=3)
    for one, other in zip(first.trials, more.trials, strict=False):
        np.testing.assert_array_equal(one.first_positive_rank, other.first_positive_rank)
    other_seed = evaluate_gallery_trials(vehicles(), LABELS, num_trials=2, seed=1)
    assert first.as_dict() != other_seed.as_dict()
    single = evaluate_gallery_trials(vehicles(0.0), LABELS, num_trials=1)
    assert (single.as_dict()["R1"], single.deviations()["R1"]) == (100.0, 0.0)


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        (np.eye(3), [0, 1, 2], {}, "every identity has one image only"),
        (np.eye(3), [0, 1], {}, "3 features do not fit the 2 person ids"),
        (np.eye(3), [0, 0, None], {}, r"person_ids\[2\] is None"),
        (np.full((3, 3), np.inf), [0, 0, 1], {}, "features: row 0 contains NaN"),
        (np.eye(3), [0, 0, 1], {"num_trials": 0}, "num_trials is 0"),
        (np.empty((0, 3)), [], {}, "every identity has one image only"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(features: object, labels: object, options: dict, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate_gallery_trials(features, labels, **options)

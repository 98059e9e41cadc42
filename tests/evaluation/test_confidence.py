from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import EvaluationError
from reid_zoo.evaluation.confidence import calibrate_threshold, sample_scores


def test_the_threshold_is_where_answers_become_right():
    scores = np.linspace(0, 1, 1000)
    right = scores > 0.6
    found = calibrate_threshold(scores, right, target=0.9)
    # Lower than 0.6 by the wrong answers that may be among the accepted ones.
    assert found.threshold == pytest.approx(0.6 - 0.4 * 0.1 / 0.9, abs=0.02)
    assert found.precision_low >= 0.9
    assert found.coverage == pytest.approx((scores >= found.threshold).mean())
    assert found.precision == pytest.approx(right[scores >= found.threshold].mean())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=80), st.floats(0.05, 0.95))
def test_above_the_threshold_answers_are_right_often_enough(answers, target):
    scores, right = np.array([a[0] for a in answers]), np.array([a[1] for a in answers])
    found = calibrate_threshold(scores, right, target=target)
    if found.threshold is None:
        assert found.coverage == 0
        return
    accepted = scores >= found.threshold
    assert right[accepted].mean() == pytest.approx(found.precision)
    assert found.precision >= found.precision_low >= target
    assert found.coverage == pytest.approx(accepted.mean())


def test_a_lucky_handful_sets_no_threshold():
    """Three right answers at the top are no evidence for nine in ten."""
    scores = np.concatenate([[3.0, 2.9, 2.8], np.linspace(0, 1, 100)])
    right = np.concatenate([[True] * 3, np.arange(100) % 2 == 0])
    assert calibrate_threshold(scores, right, target=0.9).threshold is None


def test_wrong_input_is_named():
    with pytest.raises(EvaluationError, match="target"):
        calibrate_threshold([1.0], [True], target=1.0)
    with pytest.raises(EvaluationError, match="same queries"):
        calibrate_threshold([1.0, 2.0], [True])
    with pytest.raises(EvaluationError, match="same queries"):
        calibrate_threshold([], [])


def test_all_positive_pairs_are_found_and_negatives_are_of_different_people():
    generator = np.random.default_rng(0)
    queries, gallery = generator.normal(size=(9, 4)), generator.normal(size=(12, 4))
    asked, known = generator.integers(0, 4, 9), generator.integers(0, 4, 12)
    same = asked[:, None] == known[None, :]
    scores = (queries @ gallery.T).astype(np.float32)
    found = sample_scores(queries, gallery, asked.tolist(), known.tolist())
    np.testing.assert_allclose(np.sort(found.positives), np.sort(scores[same]), rtol=1e-5, atol=1e-6)
    distances = np.abs(found.negatives[:, None] - scores[~same][None, :]).min(axis=1)
    assert distances.max() < 1e-5
    few = sample_scores(queries, gallery, asked.tolist(), known.tolist(), most=5)
    assert len(few.positives) == 5
    again = sample_scores(queries, gallery, asked.tolist(), known.tolist(), most=5)
    np.testing.assert_array_equal(few.positives, again.positives)


def test_pairs_of_one_kind_only_are_refused():
    features = np.eye(3)
    with pytest.raises(EvaluationError, match="different persons"):
        sample_scores(features, features, ["a"] * 3, ["a"] * 3)
    with pytest.raises(EvaluationError, match="the same person"):
        sample_scores(features, features, ["a"] * 3, ["b"] * 3)

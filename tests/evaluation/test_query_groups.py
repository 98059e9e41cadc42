from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.errors import EvaluationError
from reid_zoo.evaluation.metrics import evaluate_retrieval
from reid_zoo.evaluation.query_groups import caption_length_groups, figures_by_group, select_queries


def evaluation(num_queries: int = 30, seed: int = 0):
    generator = np.random.default_rng(seed)
    queries, gallery = generator.normal(size=(num_queries, 8)), generator.normal(size=(20, 8))
    people = generator.integers(0, 6, num_queries)
    return queries, gallery, people, np.arange(20) % 5  # nobody in the gallery is person 5


def test_selected_queries_have_the_figures_of_an_evaluation_of_their_own():
    queries, gallery, people, owners = evaluation()
    whole = evaluate_retrieval(queries, gallery, query_person_ids=people, gallery_person_ids=owners)
    rows = np.arange(0, 30, 3)
    alone = evaluate_retrieval(queries[rows], gallery, query_person_ids=people[rows], gallery_person_ids=owners)
    for chosen in (rows, np.isin(np.arange(30), rows)):
        part = select_queries(whole, chosen)
        assert part.as_dict() == pytest.approx(alone.as_dict())
        assert (part.num_queries, part.num_skipped_queries) == (alone.num_queries, alone.num_skipped_queries)


def test_groups_leave_out_queries_without_a_positive_and_without_a_label():
    queries, gallery, people, owners = evaluation()
    whole = evaluate_retrieval(queries, gallery, query_person_ids=people, gallery_person_ids=owners)
    labels = [None if row % 5 == 0 else ("even" if row % 2 == 0 else "odd") for row in range(30)]
    figures = figures_by_group(whole, labels)
    assert list(figures) == ["odd", "even"]
    valid = [row for row in range(30) if row % 5 and people[row] < 5]
    assert sum(group["num_queries"] for group in figures.values()) == len(valid)
    odd = np.array([row for row in valid if row % 2])
    hits = (whole.first_positive_rank[odd] == 1).mean()
    assert figures["odd"]["R1"] == pytest.approx(100 * hits)


def test_wrong_selections_are_refused():
    queries, gallery, people, owners = evaluation()
    whole = evaluate_retrieval(queries, gallery, query_person_ids=people, gallery_person_ids=owners)
    with pytest.raises(EvaluationError, match="none of the"):
        select_queries(whole, people == 5)
    with pytest.raises(EvaluationError, match="3 labels for 30 queries"):
        figures_by_group(whole, ["a", "b", "c"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 6))
def test_caption_length_groups_are_ranges_that_hold_their_captions(lengths, num_groups):
    captions = [" ".join(["word"] * length) for length in lengths]
    names = caption_length_groups(captions, num_groups=num_groups)
    assert 1 <= len(set(names)) <= num_groups
    for length, name in zip(lengths, names, strict=True):
        first, _, last = name.removesuffix(" words").partition("-")
        assert int(first) <= length <= int(last or first)
    # Equal lengths are never divided.
    assert len({(length, name) for length, name in zip(lengths, names, strict=True)}) == len(set(lengths))


def test_no_captions_have_no_groups():
    assert caption_length_groups([]) == []

"""Which images are occluded."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.data.occlusion import OcclusionGenerator
from reid_zoo.data.occlusion.selection import AnnotatedImage, select_first_of_run, select_random_fraction

RECORDS = [
    AnnotatedImage(f"cam_a/{person}_{image}.png", split, person)
    for split, people in (("train", range(60)), ("val", range(60, 70)), ("test", range(70, 90)))
    for person in people
    for image in range(5)
]


def of_split(paths: set[str], split: str) -> int:
    return sum(record.path in paths for record in RECORDS if record.split == split)


def test_first_of_each_run_even_when_an_identity_comes_back() -> None:
    records = [AnnotatedImage(str(place), "train", person) for place, person in enumerate([7, 7, 3, 3, 7, 0, 0])]
    assert select_first_of_run(records) == [True, False, True, False, True, True, False]
    assert select_first_of_run([]) == []


@settings(max_examples=25, deadline=None)  # 450 records each
@given(st.floats(0, 1), st.integers(0, 10**6))
def test_the_share_is_exact_in_every_split(fraction: float, seed: int) -> None:
    chosen = select_random_fraction(RECORDS, {"train": fraction, "val": 0.0, "test": 1.0}, seed)
    assert abs(of_split(chosen, "train") - fraction * 300) <= 0.5
    assert of_split(chosen, "val") == 0
    assert of_split(chosen, "test") == 100


@settings(max_examples=25, deadline=None)  # 450 records each
@given(st.integers(0, 10**6))
def test_order_does_not_matter_and_larger_shares_contain_smaller_ones(seed: int) -> None:
    shuffled = random.Random(seed).sample(RECORDS, len(RECORDS))
    some = select_random_fraction(RECORDS, {"train": 0.3}, seed)
    assert select_random_fraction(shuffled, {"train": 0.3}, seed) == some
    assert some < select_random_fraction(RECORDS, {"train": 0.5}, seed)
    assert some != select_random_fraction(RECORDS, {"train": 0.3}, seed + 1)


@settings(max_examples=25, deadline=None)  # 450 records each
@given(st.floats(0, 1), st.integers(0, 10**6))
def test_keep_clean_leaves_every_identity_an_image(fraction: float, seed: int) -> None:
    chosen = select_random_fraction(RECORDS, {"train": fraction}, seed, keep_clean=True)
    clean = Counter(record.person_id for record in RECORDS if record.split == "train" and record.path not in chosen)
    assert len(clean) == 60
    # four of five images can go, so any share up to 80 % is reached
    assert len(chosen) == min(240, int(fraction * 300 + 0.5))


def test_a_path_that_two_records_name_counts_once() -> None:
    records = [
        AnnotatedImage("a.png", "train", 1),
        AnnotatedImage("a.png", "train", 2),
        AnnotatedImage("b.png", "train", 3),
    ]
    assert select_random_fraction(records, {"train": 1.0}, 0) == {"a.png", "b.png"}
    assert len(select_random_fraction(records, {"train": 0.5}, 0)) == 1
    # the released tool writes such an image once per record, so the last one decides
    generator = OcclusionGenerator("icfg-pedes", selection="first_of_run")
    again = [
        AnnotatedImage("a.png", "train", 1),
        AnnotatedImage("b.png", "train", 2),
        AnnotatedImage("a.png", "train", 2),
    ]
    assert generator.select(again) == {"b.png"}


@pytest.mark.parametrize("fraction", [0.3, {"train": 0.3, "test": 0.3, "val": 0.3}])
def test_a_number_stands_for_all_splits(fraction: object) -> None:
    chosen = OcclusionGenerator("cuhk-pedes", fraction=fraction).select(RECORDS)  # type: ignore[arg-type]
    assert [of_split(chosen, split) for split in ("train", "val", "test")] == [90, 15, 30]

"""VeRi-776 with its viewpoints, VehicleID with its trials."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_zoo.data.loading import load_dataset
from reid_zoo.data.records import PersonRecord
from reid_zoo.data.vehicle_benchmarks import vehicleid_trial, vehicleid_trials
from reid_zoo.errors import ConfigurationError, DatasetError
from tiny_benchmarks import VERI, write_folders, write_keypoints, write_vehicleid


@pytest.fixture
def veri(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "VeRi", VERI)


@pytest.fixture
def vehicleid(tmp_path: Path) -> Path:
    return write_vehicleid(tmp_path / "VehicleID_V1.0")


def test_veri_identities_and_cameras(veri: Path) -> None:
    train = load_dataset("veri-776", veri.parent, "train")
    assert [(r.person_id, r.camera_id, r.view_id) for r in train] == [(1, 0, None), (4, 2, None), (4, 19, None)]
    test = load_dataset("veri", veri, "test")
    assert [(r.metadata["split"], r.camera_id) for r in test] == [("query", 1), ("gallery", 1), ("gallery", 3)]


def test_veri_views_come_from_the_keypoint_files(veri: Path) -> None:
    write_keypoints(
        veri,
        train=[("VeRi/image_train/0001_c001_00016450_0.jpg", 3), ("VeRi/image_train/0004_c020_00084250_0.jpg", 7)],
        test=[
            ("VeRi/image_test/0002_c002_00030600_0.jpg", 1),
            ("VeRi/image_test/0001_c001_00016450_0.jpg", 5),  # the train file has precedence
            ("VeRi/image_test/0002_c002_00030600_0.jpg", 2),  # the last line of a name counts
        ],
    )
    train = load_dataset("veri-776", veri, "train", views="require")
    assert [(r.image_path.name[:9], r.view_id) for r in train] == [("0001_c001", 3), ("0004_c020", 7)]
    assert [record.view_id for record in load_dataset("veri-776", veri, "query")] == [2]
    assert len(load_dataset("veri-776", veri, "gallery", views="ignore")) == 2
    with pytest.raises(DatasetError, match="no query has a match"):  # its only match has no view
        load_dataset("veri-776", veri, "test")


def test_veri_keypoint_files_that_are_wrong(veri: Path) -> None:
    with pytest.raises(DatasetError, match=r"keypoint_train\.txt: no such file; the views need both"):
        load_dataset("veri-776", veri, "train", views="require")
    write_keypoints(veri, train=[("a.jpg", 8)], test=[("b.jpg", 0)])
    with pytest.raises(DatasetError, match=r"keypoint_train\.txt: line 1: view '8' is outside 0\.\.\.7"):
        load_dataset("veri-776", veri, "train")
    (veri / "keypoint_train.txt").write_text("a.jpg 1 2\n")
    with pytest.raises(DatasetError, match="line 1 has 3 fields, expected 42"):
        load_dataset("veri-776", veri, "train")
    (veri / "keypoint_train.txt").write_text("")
    with pytest.raises(DatasetError, match=r"no image of split 'train' has an entry in keypoint_train\.txt"):
        load_dataset("veri-776", veri, "train")
    (veri / "keypoint_train.txt").unlink()
    with pytest.raises(DatasetError, match=r"keypoint_train\.txt: no such file"):
        load_dataset("veri-776", veri, "train")
    with pytest.raises(ConfigurationError, match="Unknown views 'some'"):
        load_dataset("veri-776", veri, "train", views="some")


def test_vehicleid_splits(vehicleid: Path) -> None:
    train = load_dataset("vehicleid", vehicleid.parent, "train")
    assert [(r.image_path.name, r.person_id, r.camera_id) for r in train] == [
        ("0000001.jpg", 5, 0),
        ("0000002.jpg", 5, 0),
        ("0000003.jpg", 9, 0),
    ]
    gallery = load_dataset("vehicleid", vehicleid, "gallery")
    query = load_dataset("vehicleid", vehicleid, "query")
    assert [record.person_id for record in gallery] == [21, 22, 23]
    assert {record.camera_id for record in gallery} == {1}
    assert [record.person_id for record in query] == [21, 21, 22]
    assert {record.camera_id for record in query} == {0}
    test = load_dataset("vehicleid", vehicleid, "test")
    assert [record.image_path for record in test] == [record.image_path for record in (*query, *gallery)]
    assert len(load_dataset("vehicleid", vehicleid, "all")) == 9
    medium = load_dataset("vehicleid", vehicleid, "test", test_size=1600)
    assert (len(medium), medium.label) == (2, "vehicleid [test_size=1600]")


def test_vehicleid_bad_options_and_lists(vehicleid: Path) -> None:
    with pytest.raises(ConfigurationError, match="test_size is 900; choose 800, 1600, 2400"):
        load_dataset("vehicleid", vehicleid, test_size=900)
    with pytest.raises(ConfigurationError, match="trial is -1"):
        load_dataset("vehicleid", vehicleid, trial=-1)
    with pytest.raises(DatasetError, match=r"test_list_2400\.txt: no such file"):
        load_dataset("vehicleid", vehicleid, test_size=2400)
    (vehicleid / "image" / "0000001.jpg").unlink()
    with pytest.raises(DatasetError, match=r"1 of 3 image files named in train_list\.txt are missing, .*0000001\.jpg"):
        load_dataset("vehicleid", vehicleid, "train")
    (vehicleid / "train_test_split" / "train_list.txt").write_text("../../secret 4\n")
    with pytest.raises(DatasetError, match=r"line 1: '\.\./\.\./secret' leaves the folder image/"):
        load_dataset("vehicleid", vehicleid, "train")


def test_trials_are_seeded_and_agree_with_the_loader(vehicleid: Path) -> None:
    test = load_dataset("vehicleid", vehicleid, "test")
    trials = [
        tuple(record.image_path.name for record in gallery) for _, gallery in vehicleid_trials(test, num_trials=12)
    ]
    again = [tuple(r.image_path.name for r in g) for _, g in vehicleid_trials(test, num_trials=12)]
    assert trials == again
    assert len(set(trials)) > 2  # 6 divisions are possible
    assert trials != [tuple(r.image_path.name for r in g) for _, g in vehicleid_trials(test, num_trials=12, seed=1)]
    for trial in (0, 5):
        loaded = load_dataset("vehicleid", vehicleid, "gallery", trial=trial)
        assert tuple(record.image_path.name for record in loaded) == trials[trial]
    with pytest.raises(ConfigurationError, match="num_trials is 0"):
        next(vehicleid_trials(test, num_trials=0))


def test_the_first_trials_never_change() -> None:
    """Published figures depend on the draw, so it is fixed here for good."""
    records = [PersonRecord(Path(f"/{index:02d}.jpg"), index, (), index // 5) for index in range(20)]
    drawn = [[record.image_path.stem for record in vehicleid_trial(records, trial)[1]] for trial in range(3)]
    assert drawn == [["04", "07", "14", "17"], ["02", "07", "13", "15"], ["03", "06", "13", "15"]]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    identities=st.lists(st.integers(0, 5), min_size=2, max_size=20).filter(lambda ids: len(set(ids)) < len(ids)),
    trial=st.integers(0, 10),
    order=st.randoms(use_true_random=False),
)
def test_a_trial_divides_the_images_whatever_their_order(identities: list[int], trial: int, order: object) -> None:
    records = [PersonRecord(Path(f"/{index:02d}.jpg"), index, (), person) for index, person in enumerate(identities)]
    queries, gallery = vehicleid_trial(records, trial)
    assert sorted(record.person_id for record in gallery) == sorted(set(identities))
    assert sorted(r.image_path for r in (*queries, *gallery)) == [record.image_path for record in records]
    shuffled = list(records)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert vehicleid_trial(shuffled, trial) == (queries, gallery)


def test_nothing_to_divide() -> None:
    with pytest.raises(DatasetError, match="a trial needs an identity with two images; 2 records have none"):
        vehicleid_trial([PersonRecord(Path(f"/{n}.jpg"), n, (), n) for n in range(2)], 0)

"""Folders of occluded images, and the annotation files beside them."""

from __future__ import annotations

import json

import pytest

from reid_zoo.data.occlusion import occluded_image_path
from reid_zoo.data.occlusion.annotation_rewriting import AnnotationRecord, annotation_files, renumber_identity
from reid_zoo.errors import ConfigurationError


@pytest.mark.parametrize(
    ("dataset", "path", "expected"),
    [
        ("cuhk-pedes", "imgs/cam_a/x.png", "imgs/cam_a_occlusion_new/x.png"),
        ("cuhk-pedes", "imgs/test_query/p1.jpg", "imgs/test_query_occlusion_new/p1.jpg"),
        ("cuhk-pedes", "imgs/CUHK03/cam_a.png", "imgs/CUHK03_occlusion_new/cam_a.png"),  # names of files do not count
        ("cuhk-pedes", "imgs/Market/cam_a/x.jpg", "imgs/Market/cam_a_occlusion_new/x.jpg"),  # cam_a comes first
        ("cuhk-pedes", "imgs/my_cam_a/x.jpg", "imgs/my_cam_a_occlusion_new/x.jpg"),  # whole names only
        ("cuhk-pedes", "imgs/cam_7/x.jpg", "imgs/cam_7_occlusion_new/x.jpg"),  # the drawn pedestrians' folders
        ("cuhk-pedes", "imgs/x.jpg", "imgs_occlusion_new/x.jpg"),
        ("icfg-pedes", "imgs/train/0001/x.jpg", "imgs/train_occlusion_new/0001/x.jpg"),
        ("icfg-pedes", "imgs/test/0001/train.jpg", "imgs/test_occlusion_new/0001/train.jpg"),
        ("rstpreid", "imgs/x.jpg", "imgs_occlusion_new/x.jpg"),
        ("rstpreid", "imgs/cam_a/x.jpg", "imgs_occlusion_new/cam_a/x.jpg"),
    ],
)
def test_where_the_occluded_image_lies(dataset: str, path: str, expected: str) -> None:
    assert occluded_image_path(dataset, path) == expected


def test_other_paths_and_sets_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not a path below imgs"):
        occluded_image_path("cuhk-pedes", "cam_a/x.png")
    with pytest.raises(ConfigurationError, match="no layout for 'market1501'"):
        occluded_image_path("market1501", "imgs/x.jpg")


def test_cuhk_identities_are_renumbered_without_gaps() -> None:
    kept = [renumber_identity("cuhk-pedes", number) for number in range(1, 13_004)]
    assert [number for number, label in enumerate(kept, 1) if label is None] == [1369, 4116, 6116]
    assert [label for label in kept if label is not None] == list(range(13_000))
    assert renumber_identity("cuhk-pedes", 4116, drop_single_image_ids=False) == 4115
    assert renumber_identity("icfg-pedes", 1369) == 1369


def records(*rows: tuple[str, int, int]) -> list[AnnotationRecord]:
    return [
        AnnotationRecord(f"p/{number}.jpg", split, person, tuple(f"caption {number} {c}" for c in range(captions)))
        for number, (split, person, captions) in enumerate(rows)
    ]


def test_images_with_different_numbers_of_captions() -> None:
    files = annotation_files("rstpreid", records(("train", 4, 1), ("train", 9, 2), ("train", 4, 3)))
    saved = json.loads(files["train_save.json"])
    assert saved["img_id"] == [4, 4, 4, 4, 9, 9]
    assert saved["img_path"] == ["imgs/p/0.jpg", *["imgs/p/2.jpg"] * 3, *["imgs/p/1.jpg"] * 2]
    assert saved["same_id_index"] == [[1, 2, 3], [0], [0], [0], [], []]
    assert (saved["max_same_id"], saved["min_same_id"]) == (3, 0)


def test_unknown_splits_become_val() -> None:
    files = annotation_files("rstpreid", records(("Train", 0, 1), ("dev", 1, 1), (" TEST ", 2, 1)))
    ids = {
        split: [item["id"] for item in json.loads(files[f"{split}_json.json"])] for split in ("train", "val", "test")
    }
    assert ids == {"train": [0], "val": [1], "test": [2]}


def test_icfg_test_limit_moves_the_rest_to_val() -> None:
    rows = records(("test", 0, 1), ("train", 7, 1), ("test", 1, 1), ("test", 1, 1))
    files = annotation_files("icfg-pedes", rows, icfg_test_limit=2)
    assert json.loads(files["test_data_save_by_id.json"]) == {"0": [0], "1": [1]}
    assert json.loads(files["val_data_save_by_id.json"]) == {"1": [0]}
    assert b"val_img_num: 1, " in files["data_message"]
    with pytest.raises(ConfigurationError, match="icfg_test_limit=2 is for icfg-pedes"):
        annotation_files("rstpreid", rows, icfg_test_limit=2)


def test_keeping_the_single_image_identities() -> None:
    rows = records(("train", 1369, 1), ("train", 1370, 1))
    dropped = json.loads(annotation_files("cuhk-pedes", rows)["train_save.json"])
    kept = json.loads(annotation_files("cuhk-pedes", rows, drop_single_image_ids=False)["train_save.json"])
    assert dropped["img_id"] == [1368]
    assert kept["img_id"] == [1368, 1369]

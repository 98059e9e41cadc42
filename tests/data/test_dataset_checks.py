"""`check_dataset`: what it counts, and every kind of problem it lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reid_zoo.data.dataset_checks import check_dataset
from reid_zoo.data.dataset_info import SplitCounts
from reid_zoo.errors import ConfigurationError, DatasetError
from tiny_benchmarks import MARKET, draw, write_cuhk, write_folders, write_msmt17


def test_counts_and_differences_of_a_sound_subset(tmp_path: Path) -> None:
    write_cuhk(tmp_path / "CUHK-PEDES")
    found = check_dataset("cuhk-pedes", tmp_path, read_images=True)
    assert found.ok
    assert found.counts == dict.fromkeys(("train", "val", "test"), SplitCounts(1, 2, 4))
    assert found.published["val"] == SplitCounts(1_000, 3_078, 6_158)
    assert len(found.differences) == 9
    assert found.num_images_read == 6
    assert check_dataset("cuhk-pedes", tmp_path).num_images_read == 0


def test_missing_repeated_unreadable_and_shared(tmp_path: Path) -> None:
    base = write_cuhk(tmp_path / "CUHK-PEDES", [("train", 1), ("val", 1), ("test", 3), ("test", 4)])
    (base / "imgs" / "cam_a" / "003_0.png").unlink()
    (base / "imgs" / "cam_a" / "004_1.png").write_bytes(b"not an image")
    found = check_dataset("cuhk-pedes", tmp_path, read_images=True)
    images = base / "imgs" / "cam_a"
    assert found.missing == (images / "003_0.png",)
    assert found.repeated == ((images / "001_0.png", 2), (images / "001_1.png", 2))
    assert found.shared_identities == ((1, ("train", "val")),)
    assert [path for path, _ in found.unreadable] == [images / "004_1.png"]
    assert found.problems == (
        f"missing image: {images / '003_0.png'}",
        f"image in 2 records: {images / '001_0.png'}",
        f"image in 2 records: {images / '001_1.png'}",
        "identity 1 is in train and val",
        f"unreadable image: {images / '004_1.png'}: not an image file, or a format that is not supported",
    )
    assert not found.ok


def test_the_repeated_row_of_the_released_icfg_file_is_no_problem(tmp_path: Path) -> None:
    base = tmp_path / "ICFG-PEDES"
    draw(base / "imgs" / "train" / "a.jpg")
    rows = [{"split": "train", "captions": ["One."], "file_path": "train/a.jpg", "id": person} for person in (0, 1)]
    (base / "ICFG-PEDES.json").write_text(json.dumps(rows))
    assert check_dataset("icfg-pedes", tmp_path).ok
    (base / "ICFG-PEDES.json").write_text(json.dumps([*rows, rows[0]]))
    assert check_dataset("icfg-pedes", tmp_path).repeated == ((base / "imgs" / "train" / "a.jpg", 3),)


def test_queries_and_gallery_share_people_and_must_have_a_match(tmp_path: Path) -> None:
    base = write_folders(tmp_path / "Market-1501-v15.09.15", MARKET)
    assert check_dataset("market-1501", tmp_path).ok
    for name in MARKET["bounding_box_test"][2:]:
        (base / "bounding_box_test" / name).unlink()
    draw(base / "bounding_box_test" / "0002_c1s1_000451_99.jpg")
    found = check_dataset("market-1501", tmp_path)
    assert found.shared_identities == ((2, ("train", "gallery")),)
    assert "no query has a match in the gallery (2 queries)" in found.others[0]


def test_msmt17_numbers_its_test_people_from_zero_again(tmp_path: Path) -> None:
    base = write_msmt17(tmp_path / "MSMT17")
    assert check_dataset("msmt17", tmp_path).ok
    apart = check_dataset("msmt17", tmp_path, combine_train_val=False)
    assert apart.ok  # the val list holds people of the train list
    assert apart.label == "msmt17 [combine_train_val=False]"
    for file in ("list_train.txt", "list_val.txt"):
        (base / file).write_text((base / file).read_text().replace(" 1\n", " 5\n"))
    gaps = check_dataset("msmt17", tmp_path).notes
    assert "the 2 training identities are not numbered 0...1, as those of the whole set are." in gaps


def test_retracted_sets_say_so(tmp_path: Path) -> None:
    write_folders(tmp_path / "DukeMTMC-reID", MARKET)
    with pytest.raises(ConfigurationError, match="is retracted"):
        check_dataset("dukemtmc-reid", tmp_path)
    notes = check_dataset("dukemtmc-reid", tmp_path, accept_retracted=True).notes
    assert notes[0].startswith("retracted: DukeMTMC was taken down")


def test_own_data_has_nothing_to_compare_with(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "own.jsonl").write_text(json.dumps({"image": "a.png", "captions": ["A man."]}))
    found = check_dataset("own", tmp_path, read_images=True)
    assert found.ok
    assert found.counts == {"all": SplitCounts(0, 1, 1)}
    assert found.published == {}
    assert found.differences == ()


def test_the_images_are_always_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="check_images does not apply here"):
        check_dataset("cuhk-pedes", tmp_path, check_images=False)


def test_a_bad_record_is_an_error(tmp_path: Path) -> None:
    base = write_cuhk(tmp_path / "CUHK-PEDES")
    (base / "reid_raw.json").write_text('[{"id": 1}]')
    with pytest.raises(DatasetError, match="record 0, field 'split': is missing"):
        check_dataset("cuhk-pedes", tmp_path)


def test_many_images_are_read_in_order(tmp_path: Path) -> None:
    for index in range(300):
        (tmp_path / f"{index:03d}.png").write_bytes(b"no")
    found = check_dataset("folder", tmp_path, read_images=True)
    assert [path.name for path, _ in found.unreadable] == [f"{index:03d}.png" for index in range(300)]

"""Market-1501, MSMT17 and the retracted Duke sets: layout, identities, cameras, and bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from reid_zoo.data.loading import load_dataset, stream_dataset
from reid_zoo.errors import ConfigurationError, DatasetError
from tiny_benchmarks import DUKE, MARKET, MSMT17, write_folders, write_msmt17


@pytest.fixture
def market(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "Market-1501-v15.09.15", MARKET)


@pytest.fixture
def msmt17(tmp_path: Path) -> Path:
    return write_msmt17(tmp_path / "MSMT17")


def test_market_identities_cameras_and_junk(market: Path) -> None:
    train = load_dataset("market-1501", market.parent, "train")
    assert [(r.image_path.name, r.person_id, r.camera_id, r.view_id) for r in train] == [
        ("0002_c1s1_000451_03.jpg", 2, 0, 0),
        ("0002_c6s1_000776_01.jpg", 2, 5, 0),
        ("0007_c3s3_077419_03.jpg", 7, 2, 0),
    ]
    assert train.person_labels() == {2: 0, 7: 1}
    gallery = load_dataset("market-1501", market.parent, "gallery")
    assert [record.person_id for record in gallery] == [0, 1, 3]  # junk is skipped, the background stays
    assert gallery.root == market


def test_test_is_queries_then_gallery(market: Path) -> None:
    test = load_dataset("market-1501", market, "test")
    assert [record.metadata["split"] for record in test] == ["query"] * 2 + ["gallery"] * 3
    assert [record.image_id for record in test] == list(range(5))
    assert [record.image_id for record in test.part("gallery")] == [0, 1, 2]
    assert list(test.part("query")) == list(load_dataset("market-1501", market, "query"))
    assert len(load_dataset("market-1501", market, "all")) == 8
    assert list(stream_dataset("market-1501", market, "test")) == list(test)


def test_only_the_file_name_is_parsed(tmp_path: Path) -> None:
    write_folders(tmp_path / "0099_c4" / "Market-1501-v15.09.15", MARKET)
    train = load_dataset("market-1501", tmp_path / "0099_c4", "train")
    assert [record.person_id for record in train] == [2, 2, 7]


def test_other_files_are_no_images(market: Path) -> None:
    (market / "query" / "Thumbs.db").touch()
    (market / "query" / "notes.txt").touch()
    assert len(load_dataset("market-1501", market, "query")) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("holiday.jpg", r"holiday\.jpg: is not named like an image of Market-1501 \(0002_c1s1_000451_03\.jpg\)"),
        ("1502_c1s1_000001_00.jpg", r"identity 1502 is outside 0\.\.\.1501"),
        ("-2_c1s1_000001_00.jpg", "identity -2 is outside"),
        ("0005_c7s1_000001_00.jpg", r"camera 7 is outside 1\.\.\.6"),
        ("0005_c0s1_000001_00.jpg", "camera 0 is outside"),
    ],
)
def test_file_of_another_kind(market: Path, name: str, message: str) -> None:
    (market / "bounding_box_train" / name).touch()
    with pytest.raises(DatasetError, match=message):
        load_dataset("market-1501", market, "train")


def test_wrong_root_and_half_downloads(tmp_path: Path, market: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere: no such folder; give the folder that contains Market-1501-v15"):
        load_dataset("market-1501", tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="is a file"):
        load_dataset("market-1501", tmp_path / "file")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(
        DatasetError, match=r"not in the layout of Market-1501: no images; looked for .*bounding_box_train"
    ):
        load_dataset("market-1501", tmp_path / "elsewhere")
    (market / "bounding_box_train").rename(tmp_path / "kept")
    with pytest.raises(DatasetError, match=r"bounding_box_train: no such folder; is the download complete\?"):
        load_dataset("market-1501", tmp_path, "train")
    (market / "bounding_box_train").mkdir()
    with pytest.raises(DatasetError, match=r"bounding_box_train: holds no \.jpg file"):
        load_dataset("market-1501", tmp_path, "train")
    for folder in ("query", "bounding_box_test", "bounding_box_train"):
        (market / folder).rename(tmp_path / f"{folder}_kept")
    with pytest.raises(DatasetError, match=r"Market-1501-v15.09.15: holds none of bounding_box_train, query"):
        load_dataset("market-1501", tmp_path)


def test_splits_that_are_not_there(market: Path) -> None:
    with pytest.raises(DatasetError, match="Market-1501 has no val split; use one of train, query, gallery, test, all"):
        load_dataset("market-1501", market, "val")
    with pytest.raises(ConfigurationError, match="Unknown split 'dev'"):
        load_dataset("market-1501", market, "dev")


def test_gallery_without_any_positive(market: Path) -> None:
    for name in ("0001_c2s1_000301_00.jpg", "0003_c2s1_000002_00.jpg"):
        (market / "bounding_box_test" / name).unlink()
    (market / "bounding_box_test" / "0001_c1s1_000301_00.jpg").touch()  # same camera as its query: no positive
    with pytest.raises(DatasetError, match=r"no query has a match in the gallery \(2 queries\)"):
        load_dataset("market-1501", market, "test")
    assert len(load_dataset("market-1501", market, "test", check_images=False)) == 4


@pytest.mark.parametrize(("name", "folder"), [("dukemtmc-reid", "DukeMTMC-reID"), ("occluded-duke", "Occluded_Duke")])
def test_retracted_sets_must_be_accepted(tmp_path: Path, name: str, folder: str) -> None:
    base = write_folders(tmp_path / "dukemtmcreid" / folder, DUKE)
    with pytest.raises(
        ConfigurationError, match=r"is retracted: .*accept_retracted=True \(--accept-retracted\)"
    ) as caught:
        load_dataset(name, tmp_path)
    assert "\n" not in str(caught.value)
    for root in (tmp_path, tmp_path / "dukemtmcreid", base):
        train = load_dataset(name, root, "train", accept_retracted=True)
        assert [(record.person_id, record.camera_id) for record in train] == [(1, 1), (7140, 7)]
        assert train.root == base
    assert len(load_dataset(name, tmp_path, "test", accept_retracted=True)) == 3


def test_msmt17_trains_on_both_lists(msmt17: Path) -> None:
    train = load_dataset("msmt17", msmt17.parent, "train")
    assert [(r.image_path.relative_to(msmt17).as_posix()[:20], r.person_id, r.camera_id) for r in train] == [
        ("train/0000/0000_000_", 0, 0),
        ("train/0001/0001_000_", 1, 14),
        ("train/0001/0001_001_", 1, 2),
    ]
    only_train = load_dataset("msmt17", msmt17, "train", combine_train_val=False)
    val = load_dataset("msmt17", msmt17, "val", combine_train_val=False)
    assert list(only_train) == list(train)[:2]
    assert [record.camera_id for record in val] == [2]
    assert val.label == "msmt17 [combine_train_val=False]"
    with pytest.raises(DatasetError, match="its val list is part of train; pass combine_train_val=False"):
        load_dataset("msmt17", msmt17, "val")


def test_msmt17_people_of_train_and_test_have_different_numbers_together(msmt17: Path) -> None:
    assert [record.person_id for record in load_dataset("msmt17", msmt17, "test")] == [0, 0, 1]
    everything = load_dataset("msmt17", msmt17, "all")
    assert [record.person_id for record in everything] == [0, 1, 1, 2, 2, 3]
    assert [record.metadata["split"] for record in everything] == ["train"] * 3 + ["query"] + ["gallery"] * 2


def test_msmt17_second_version(tmp_path: Path) -> None:
    base = write_msmt17(tmp_path / "MSMT17_V2", "mask_train_v2", "mask_test_v2")
    assert load_dataset("msmt17", tmp_path, "query")[0].image_path.parts[-3] == "mask_test_v2"
    write_msmt17(base)
    with pytest.raises(DatasetError, match="holds versions 1 and 2 of MSMT17; choose one with version='v1' or 'v2'"):
        load_dataset("msmt17", tmp_path)
    assert load_dataset("msmt17", tmp_path, "query", version="v1")[0].image_path.parts[-3] == "test"
    with pytest.raises(ConfigurationError, match="Unknown version 'v3'"):
        load_dataset("msmt17", tmp_path, version="v3")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0000/a.jpg", r"list_train\.txt: line 3 is '0000/a\.jpg', expected an image and a whole number"),
        ("0000/0000_000_01_a.jpg x", "line 3 is .*expected an image and a whole number"),
        ("../0000_000_01_a.jpg 1", r"line 3: '\.\./0000_000_01_a\.jpg' leaves the folder of the images"),
        ("/etc/0000_000_01_a.jpg 1", "line 3: .*leaves the folder"),
        ("0000/a.jpg 1", r"line 3: '0000/a\.jpg' has no camera, expected a name like"),
        ("0000/0000_000_16_a.jpg 1", r"line 3: camera 16 is outside 1\.\.\.15"),
    ],
)
def test_bad_line_of_a_list(msmt17: Path, line: str, message: str) -> None:
    with (msmt17 / "list_train.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DatasetError, match=message):
        load_dataset("msmt17", msmt17, "train")


def test_msmt17_half_downloaded(msmt17: Path) -> None:
    (msmt17 / "test" / MSMT17["list_query.txt"][0].split()[0]).unlink()
    with pytest.raises(
        DatasetError, match=r"1 of 3 image files named in list_query\.txt are missing, .*is the download"
    ):
        load_dataset("msmt17", msmt17, "test")
    (msmt17 / "list_query.txt").write_text(" \n")
    with pytest.raises(DatasetError, match=r"list_query\.txt: is empty"):
        load_dataset("msmt17", msmt17, "test")
    (msmt17 / "list_query.txt").write_bytes(b"caf\xe9 0")
    with pytest.raises(DatasetError, match=r"list_query\.txt: is not UTF-8 text \(byte 3\)"):
        load_dataset("msmt17", msmt17, "test")
    (msmt17 / "list_query.txt").unlink()
    with pytest.raises(DatasetError, match=r"list_query\.txt: no such file"):
        load_dataset("msmt17", msmt17, "test")
    (msmt17 / "test").rename(msmt17 / "x")
    (msmt17 / "train").rename(msmt17 / "y")
    with pytest.raises(DatasetError, match=r"has neither train/ and test/ nor mask_train_v2/"):
        load_dataset("msmt17", msmt17, "test")

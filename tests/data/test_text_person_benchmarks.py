"""The three text-based benchmarks: layout, records, and what the user reads when something is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from reid_zoo.data.loading import load_dataset, stream_dataset
from reid_zoo.data.records import PersonDataset
from reid_zoo.data.text_person_benchmarks import load_text_person_benchmark
from reid_zoo.errors import ConfigurationError, DatasetError

CUHK: list[dict[str, Any]] = [
    {"split": "train", "captions": ["A man in red.", "He wears red."], "file_path": "CUHK01/a.png", "id": 2},
    {"split": "train", "captions": ["A girl walks.", "Girl with a bag."], "file_path": "cam_a/b.png", "id": 1},
    {
        "split": "train",
        "captions": ["Man, black shoes.", "A tall man.", "Third one."],
        "file_path": "cam_b/c.png",
        "id": 2,
        "processed_tokens": [["man"], ["a", "tall", "man"], ["third"]],
    },
    {"split": "test", "captions": ["Test one.", "Test two."], "file_path": "x/d.png", "id": 5},
    {"split": "test", "captions": ["Woman A.", "Woman B."], "file_path": "x/e.png", "id": 6},
    {"split": "test", "captions": ["Same person.", "Again."], "file_path": "x/f.png", "id": 5},
    {"split": "val", "captions": ["Val.", "Val2."], "file_path": "x/v.png", "id": 4},
]

# Items of CFine's released code for these records, as (path, caption, identity - 1).
CFINE_ORDER: dict[str, list[tuple[str, str, int]]] = {
    "train": [
        ("CUHK01/a.png", "He wears red.", 1),
        ("CUHK01/a.png", "A man in red.", 1),
        ("cam_b/c.png", "Third one.", 1),
        ("cam_b/c.png", "A tall man.", 1),
        ("cam_b/c.png", "Man, black shoes.", 1),
        ("cam_a/b.png", "Girl with a bag.", 0),
        ("cam_a/b.png", "A girl walks.", 0),
    ],
    "val": [("x/v.png", "Val2.", 3), ("x/v.png", "Val.", 3)],
    "test": [
        ("x/d.png", "Test two.", 4),
        ("x/d.png", "Test one.", 4),
        ("x/f.png", "Again.", 4),
        ("x/f.png", "Same person.", 4),
        ("x/e.png", "Woman B.", 5),
        ("x/e.png", "Woman A.", 5),
    ],
}

ICFG: list[dict[str, Any]] = [
    {"split": "train", "captions": ["One."], "file_path": "test/0000/0000_004_07_0303noon_0456_1.jpg", "id": 0},
    {"split": "train", "captions": ["Two."], "file_path": "test/0000/0000_004_07_0303noon_0456_1.jpg", "id": 1},
    {"split": "test", "captions": ["Three."], "file_path": "train/0012/0012_001_15_0303noon_0001_0_ex.jpg", "id": 3102},
    {"split": "test", "captions": ["Four."], "file_path": "train/0012/odd.jpg", "id": 3102},
]

RSTP: list[dict[str, Any]] = [
    {"id": 0, "img_path": "0000_c14_0031.jpg", "captions": ["One.", "Two."], "split": "train"},
    {"id": 3701, "img_path": "3701_c1_0031.jpg", "captions": ["Three.", "Four."], "split": "val"},
    {"id": 3901, "img_path": "3901_c15_0031.jpg", "captions": ["Five.", "Six."], "split": "test"},
]


def write(root: Path, folder: str, file_name: str, records: Any) -> Path:
    """Write an annotation file with empty image files beside it, and return the data set's folder."""
    base = root / folder
    (base / "imgs").mkdir(parents=True, exist_ok=True)
    for record in records if isinstance(records, list) else []:
        relative = record.get("file_path", record.get("img_path")) if isinstance(record, dict) else None
        if isinstance(relative, str) and relative and ".." not in relative and not relative.startswith("/"):
            image = base / "imgs" / relative
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
    (base / file_name).write_text(json.dumps(records), encoding="utf-8")
    return base


@pytest.fixture
def cuhk(tmp_path: Path) -> Path:
    write(tmp_path, "CUHK-PEDES", "reid_raw.json", CUHK)
    return tmp_path


def items(dataset: PersonDataset) -> list[tuple[str, str, int]]:
    return [
        (item.record.image_path.relative_to(dataset.root / "imgs").as_posix(), item.caption, item.record.person_id - 1)
        for item in dataset.captioned_images()
    ]


def test_records_in_file_order(cuhk: Path) -> None:
    dataset = load_text_person_benchmark("cuhk-pedes", cuhk, "train")
    assert (dataset.name, dataset.split, dataset.root) == ("cuhk-pedes", "train", cuhk / "CUHK-PEDES")
    assert [record.image_id for record in dataset] == [0, 1, 2]
    assert [record.person_id for record in dataset] == [2, 1, 2]
    assert [record.camera_id for record in dataset] == [None] * 3
    assert [len(record.captions) for record in dataset] == [2, 2, 3]
    assert all(record.image_path.is_absolute() and record.image_path.is_file() for record in dataset)
    assert dataset.person_labels() == {1: 0, 2: 1}
    assert [record.metadata["split"] for record in dataset] == ["train"] * 3


def test_root_may_be_the_data_set_itself_or_relative(cuhk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = list(load_text_person_benchmark("cuhk-pedes", cuhk, "test"))
    assert list(load_text_person_benchmark("cuhk-pedes", cuhk / "CUHK-PEDES", "test")) == outer
    monkeypatch.chdir(cuhk)
    assert list(load_text_person_benchmark("cuhk-pedes", ".", "test")) == outer


def test_all_splits_at_once(cuhk: Path) -> None:
    dataset = load_text_person_benchmark("cuhk-pedes", cuhk, "all")
    assert [record.image_id for record in dataset] == list(range(7))
    assert [record.metadata["split"] for record in dataset] == [record["split"] for record in CUHK]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_order_of_the_released_cfine_code(cuhk: Path, split: str) -> None:
    dataset = load_dataset("cuhk-pedes", cuhk, split, order="cfine")
    assert items(dataset) == CFINE_ORDER[split]
    assert [record.image_id for record in dataset] == list(range(len(dataset)))


def test_split_comes_from_the_field_and_both_rows_of_one_path_stay(tmp_path: Path) -> None:
    write(tmp_path, "ICFG-PEDES", "ICFG_PEDES.json", ICFG)
    train = load_dataset("icfg-pedes", tmp_path, "train")
    assert [record.person_id for record in train] == [0, 1]
    assert train[0].image_path == train[1].image_path
    test = load_dataset("icfg-pedes", tmp_path, "test")
    assert [record.camera_id for record in (*train, *test)] == [6, 6, 14, None]


def test_hyphen_is_the_preferred_name(tmp_path: Path) -> None:
    write(tmp_path, "ICFG-PEDES", "ICFG_PEDES.json", ICFG)
    write(tmp_path, "ICFG-PEDES", "ICFG-PEDES.json", ICFG[:1])
    assert len(load_dataset("icfg-pedes", tmp_path, "train")) == 1


def test_rstpreid_names_its_paths_and_cameras_differently(tmp_path: Path) -> None:
    write(tmp_path, "RSTPReid", "data_captions.json", RSTP)
    dataset = load_dataset("rstpreid", tmp_path, "all")
    assert [record.camera_id for record in dataset] == [13, 0, 14]
    assert [record.person_id for record in dataset] == [0, 3701, 3901]
    assert dataset[0].image_path == tmp_path / "RSTPReid" / "imgs" / "0000_c14_0031.jpg"


def test_split_that_does_not_exist(tmp_path: Path) -> None:
    write(tmp_path, "ICFG-PEDES", "ICFG-PEDES.json", ICFG)
    with pytest.raises(DatasetError, match="ICFG-PEDES has no val split; use one of train, test, all"):
        load_dataset("icfg-pedes", tmp_path, "val")
    write(tmp_path, "CUHK-PEDES", "reid_raw.json", CUHK[:3])
    with pytest.raises(DatasetError, match=r"no record of split 'test' \(train: 3, val: 0, test: 0\)\.$"):
        load_dataset("cuhk-pedes", tmp_path, "test")


def test_unknown_names_are_refused(cuhk: Path) -> None:
    with pytest.raises(ConfigurationError, match="'dev'"):
        load_text_person_benchmark("cuhk-pedes", cuhk, "dev")
    with pytest.raises(ConfigurationError, match="'random'"):
        load_text_person_benchmark("cuhk-pedes", cuhk, "test", order="random")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="CUHK-PEDES has no split 'gallery'"):
        load_text_person_benchmark("cuhk-pedes", cuhk, "gallery")
    with pytest.raises(ConfigurationError, match=r"'market-1501'.*cuhk-pedes"):
        load_text_person_benchmark("market-1501", cuhk)


def test_layout_errors_say_what_is_missing_and_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere: no such folder.*contains CUHK-PEDES/"):
        load_dataset("cuhk-pedes", tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="is a file"):
        load_dataset("cuhk-pedes", tmp_path / "file")
    with pytest.raises(DatasetError) as caught:
        load_dataset("cuhk-pedes", tmp_path)
    for looked in (tmp_path / "reid_raw.json", tmp_path / "CUHK-PEDES" / "reid_raw.json"):
        assert str(looked) in str(caught.value)
    base = write(tmp_path, "CUHK-PEDES", "reid_raw.json", CUHK)
    shutil.rmtree(base / "imgs")
    with pytest.raises(DatasetError, match=r"imgs: no such folder.*reid_raw\.json needs its images there"):
        load_dataset("cuhk-pedes", tmp_path)
    (base / "reid_raw.json").rename(tmp_path / "kept.json")
    with pytest.raises(DatasetError, match=r"CUHK-PEDES: holds none of reid_raw\.json; is the download complete\?"):
        load_dataset("cuhk-pedes", tmp_path)
    (tmp_path / "kept.json").rename(base / "caption_all.json")
    with pytest.raises(DatasetError, match=r"caption_all\.json \(the raw release, which has no split field\)"):
        load_dataset("cuhk-pedes", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is not JSON \(line 1, column 1"),
        (b'[{"id": 1,', r"is not JSON \(line 1, column 11.*complete"),
        (b'{"id": 1}', "holds a JSON dict, expected an array"),
        (b"[]", "holds no record"),
        (b'["caf\xe9"]', r"is not UTF-8 text \(byte 5\)"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_annotation_file_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    base = write(tmp_path, "CUHK-PEDES", "reid_raw.json", [])
    (base / "reid_raw.json").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        load_dataset("cuhk-pedes", tmp_path)


def test_annotation_file_that_cannot_be_read(cuhk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(DatasetError, match=r"cannot be read \(Permission denied\)"):
        load_dataset("cuhk-pedes", cuhk)


ABSENT = object()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("split", ABSENT, "field 'split': is missing"),
        ("split", "dev", "field 'split': is 'dev', expected 'train', 'val' or 'test'"),
        ("split", 3, "field 'split': is 3"),
        ("id", ABSENT, "field 'id': is missing"),
        ("id", "7", "field 'id': is '7', expected a whole number"),
        ("id", True, "field 'id': is True"),
        ("id", 1.5, "field 'id': is 1.5"),
        ("captions", ABSENT, "field 'captions': is missing"),
        ("captions", "a man", "field 'captions': is 'a man', expected an array"),
        ("captions", ["a man", None], "field 'captions': entry 1 is None"),
        ("captions", ["a man", " \n"], "field 'captions': entry 1 is empty."),
        ("captions", ["&amp;nbsp; ...", "a man"], "entry 0 is empty after cleaning ('&amp;nbsp; ...' has no letter"),
        ("captions", [], "field 'captions': is empty, expected at least one string"),
        ("file_path", ABSENT, "field 'file_path or img_path': is missing"),
        ("file_path", "", "field 'file_path': is ''"),
        ("file_path", 4, "field 'file_path': is 4"),
        ("file_path", "./", "field 'file_path': is './'"),
        ("file_path", "../secret.png", "field 'file_path': '../secret.png' leaves the folder imgs/"),
        ("file_path", "a/..\\..\\b.png", "leaves the folder imgs/"),
        ("file_path", "/etc/a.png", "field 'file_path': '/etc/a.png' leaves the folder imgs/"),
        ("file_path", "C:\\a.png", "leaves the folder imgs/"),
        ("file_path", "a\0.png", "leaves the folder imgs/"),
    ],
)
def test_bad_record_is_named_by_number_and_field(tmp_path: Path, field: str, value: Any, message: str) -> None:
    bad = {name: content for name, content in CUHK[1].items() if name != field}
    if value is not ABSENT:
        bad[field] = value
    base = write(tmp_path, "CUHK-PEDES", "reid_raw.json", CUHK)
    (base / "reid_raw.json").write_text(json.dumps([CUHK[0], bad, *CUHK[2:]]))
    with pytest.raises(DatasetError) as caught:
        load_dataset("cuhk-pedes", tmp_path, "test")  # whichever split is asked for
    assert "record 1, " in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_record_that_is_no_object(tmp_path: Path) -> None:
    write(tmp_path, "CUHK-PEDES", "reid_raw.json", [*CUHK, 17])
    with pytest.raises(DatasetError, match="record 7 is 17, expected an object"):
        load_dataset("cuhk-pedes", tmp_path)


def test_upper_case_split_and_backslashes_are_understood(tmp_path: Path) -> None:
    base = write(tmp_path, "CUHK-PEDES", "reid_raw.json", CUHK)
    record = {**CUHK[3], "split": "Test", "file_path": "x\\d.png"}
    (base / "reid_raw.json").write_text(json.dumps([record]))
    assert load_dataset("cuhk-pedes", tmp_path)[0].image_path == base / "imgs" / "x" / "d.png"


def test_missing_images_are_counted_and_the_first_named(cuhk: Path) -> None:
    for name in ("x/d.png", "x/f.png"):
        (cuhk / "CUHK-PEDES" / "imgs" / name).unlink()
    with pytest.raises(
        DatasetError,
        match=r"2 of 3 image files named in reid_raw\.json are missing, for instance imgs/x/d\.png, imgs/x/f\.png;",
    ):
        load_dataset("cuhk-pedes", cuhk, "test")
    assert len(load_dataset("cuhk-pedes", cuhk, "test", check_images=False)) == 3
    assert len(load_dataset("cuhk-pedes", cuhk, "train")) == 3


def test_half_downloaded_file_names_the_record_where_it_breaks(cuhk: Path) -> None:
    file = cuhk / "CUHK-PEDES" / "reid_raw.json"
    text = file.read_text()
    file.write_text(text[: text.index("cam_b")])
    with pytest.raises(DatasetError, match=r"is not JSON \(line 1, .*in or after record 2; is the file complete\?"):
        load_dataset("cuhk-pedes", cuhk)
    file.write_text(text + "[]")
    with pytest.raises(DatasetError, match="Extra data"):
        load_dataset("cuhk-pedes", cuhk)
    file.write_text(text.replace("}, {", "} {", 1))
    with pytest.raises(DatasetError, match=r"Expecting ',' delimiter.*record 1;"):
        load_dataset("cuhk-pedes", cuhk)


def test_repeated_path_is_refused_unless_the_released_file_has_one(tmp_path: Path) -> None:
    write(tmp_path, "CUHK-PEDES", "reid_raw.json", [*CUHK, {**CUHK[1], "id": 9}])
    with pytest.raises(DatasetError, match=r"record 7, field 'file_path': 'cam_a/b\.png' is already in record 1"):
        load_dataset("cuhk-pedes", tmp_path, "test")
    assert len(load_dataset("cuhk-pedes", tmp_path, "train", allow_repeated_paths=True)) == 4
    write(tmp_path, "ICFG-PEDES", "ICFG-PEDES.json", ICFG)
    with pytest.raises(DatasetError, match=r"record 1, .* is already in record 0"):
        load_dataset("icfg-pedes", tmp_path, "train", allow_repeated_paths=False)


def test_stream_reads_record_by_record_and_again(cuhk: Path) -> None:
    stream = stream_dataset("cuhk-pedes", cuhk, "test")
    assert (stream.name, stream.split, stream.root) == ("cuhk-pedes", "test", cuhk / "CUHK-PEDES")
    assert list(stream) == list(stream) == list(load_dataset("cuhk-pedes", cuhk, "test"))
    write(cuhk, "CUHK-PEDES", "reid_raw.json", [*CUHK, {"id": 1}])
    records = iter(stream)
    assert [next(records).person_id for _ in range(3)] == [5, 6, 5]
    with pytest.raises(DatasetError, match="record 7, field 'split': is missing"):
        next(records)


def test_identities_with_one_image_can_be_left_out_as_mgcc_does(tmp_path: Path) -> None:
    ids = [1368, 1369, 1370, 4116, 4117, 6116, 6117]
    records = [{**CUHK[0], "file_path": f"x/{index}.png", "id": person} for index, person in enumerate(ids)]
    write(tmp_path, "CUHK-PEDES", "reid_raw.json", records)
    dataset = load_dataset("cuhk-pedes", tmp_path, "train", drop_single_image_ids=True)
    assert dataset.person_labels() == {1368: 0, 1370: 1, 4117: 2, 6117: 3}
    assert [record.image_id for record in dataset] == [0, 1, 2, 3]
    assert dataset.label == "cuhk-pedes [drop_single_image_ids]"
    with pytest.raises(ConfigurationError, match="drop_single_image_ids is for CUHK-PEDES, not for RSTPReid"):
        load_dataset("rstpreid", tmp_path, drop_single_image_ids=True)


def test_icfg_test_can_be_cut_as_in_mgccs_preprocessing_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, "ICFG-PEDES", "ICFG-PEDES.json", ICFG)
    test = load_dataset("icfg-pedes", tmp_path, "test", icfg_test_limit=1)
    val = load_dataset("icfg-pedes", tmp_path, "val", icfg_test_limit=1)
    assert [record.captions for record in (*test, *val)] == [("Three.",), ("Four.",)]
    assert test.label == val.label == "icfg-pedes [icfg_test_limit=1]"
    assert len(load_dataset("icfg-pedes", tmp_path, "train", icfg_test_limit=1)) == 2
    with pytest.raises(ConfigurationError, match="icfg_test_limit is 0"):
        load_dataset("icfg-pedes", tmp_path, icfg_test_limit=0)
    with pytest.raises(ConfigurationError, match="icfg_test_limit is for ICFG-PEDES"):
        load_dataset("cuhk-pedes", tmp_path, icfg_test_limit=3)


OCCLUDED = [
    ("occluded-cuhk-pedes", "Occluded-CUHK-PEDES", "reid_raw.json", CUHK[1], "imgs/cam_a_occlusion_new/b.png"),
    (
        "occluded-icfg-pedes",
        "ICFG-PEDES",
        "ICFG-PEDES.json",
        ICFG[0],
        "imgs/test_occlusion_new/0000/0000_004_07_0303noon_0456_1.jpg",
    ),
    ("occluded-rstpreid", "RSTPReid", "data_captions.json", RSTP[0], "imgs_occlusion_new/0000_c14_0031.jpg"),
]


@pytest.mark.parametrize(("name", "folder", "annotations", "record", "image"), OCCLUDED)
def test_occluded_images_lie_in_a_parallel_folder(
    tmp_path: Path, name: str, folder: str, annotations: str, record: dict[str, Any], image: str
) -> None:
    base = tmp_path / folder
    (base / image).parent.mkdir(parents=True)
    (base / image).touch()
    (base / annotations).write_text(json.dumps([record]))
    for root in (tmp_path, base):
        (loaded,) = load_dataset(name, root, "train")
        assert loaded.image_path == base / image
        assert loaded.person_id == record["id"]
    (base / image).unlink()
    with pytest.raises(DatasetError, match=f"1 of 1 image files named in {annotations} are missing, for instance imgs"):
        load_dataset(name, tmp_path, "train")


def test_annotations_may_name_the_occluded_image_itself(tmp_path: Path) -> None:
    record = {**CUHK[1], "file_path": "cam_a_occlusion_new/b.png"}
    base = write(tmp_path, "Occluded-CUHK-PEDES", "reid_raw.json", [record])
    (loaded,) = load_dataset("occluded-cuhk-pedes", tmp_path, "train")
    assert loaded.image_path == base / "imgs" / "cam_a_occlusion_new" / "b.png"

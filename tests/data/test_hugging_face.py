"""The bridge to Hugging Face `datasets`: round trips, columns of others, and what is refused."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from reid_zoo.data.hugging_face import from_hugging_face, to_hugging_face
from reid_zoo.data.loading import load_dataset
from reid_zoo.data.records import PersonDataset, PersonRecord
from reid_zoo.errors import ConfigurationError, DatasetError
from tiny_benchmarks import MARKET, draw, write_cuhk, write_folders


def test_without_the_package_the_error_names_it(cuhk: PersonDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ConfigurationError, match=r"needs the package 'datasets'; install it with `pip install reid-zoo\["
    ):
        cuhk.to_hugging_face()
    with pytest.raises(ConfigurationError, match="needs the package 'datasets'"):
        PersonDataset.from_hugging_face(None)


@pytest.fixture
def cuhk(tmp_path: Path) -> PersonDataset:
    return load_dataset("cuhk-pedes", write_cuhk(tmp_path / "CUHK-PEDES"), "all")


def test_round_trip_keeps_every_record(cuhk: PersonDataset) -> None:
    rows = cuhk.to_hugging_face()
    assert isinstance(rows.features["image"], datasets.Image)
    assert rows[0]["image"].size == (8, 16)
    assert rows[0]["captions"] == list(cuhk[0].captions)
    back = PersonDataset.from_hugging_face(rows, name="cuhk-pedes", split="all")
    assert list(back) == list(cuhk)
    assert (back.name, back.split) == ("cuhk-pedes", "all")


def test_round_trip_of_images_with_cameras_and_text_identities(tmp_path: Path) -> None:
    market = load_dataset("market-1501", write_folders(tmp_path / "m", MARKET), "test")
    assert list(from_hugging_face(to_hugging_face(market))) == list(market)
    mixed = [
        PersonRecord(market[0].image_path, 0, (), "a", None, {"height": 1.5, "seen": True}),
        PersonRecord(market[1].image_path, 1, (), None, 3, {"height": 2}),
    ]
    back = from_hugging_face(to_hugging_face(PersonDataset(mixed, name="x", split="all", root=tmp_path)))
    assert [(record.person_id, record.camera_id, dict(record.metadata)) for record in back] == [
        ("a", None, {"height": 1.5, "seen": True}),
        (None, 3, {"height": 2.0}),
    ]


def test_a_saved_set_holds_its_images_and_gives_them_back(cuhk: PersonDataset, tmp_path: Path) -> None:
    contents = [record.image_path.read_bytes() for record in cuhk]
    cuhk.to_hugging_face().save_to_disk(tmp_path / "rows")
    rows = datasets.load_from_disk(tmp_path / "rows")
    for record in cuhk:
        record.image_path.unlink()
    with pytest.raises(DatasetError, match="row 0, column 'image': holds the image itself; give image_folder"):
        from_hugging_face(rows)
    back = from_hugging_face(rows, image_folder=tmp_path / "written")
    assert [record.image_path.read_bytes() for record in back] == contents
    assert [record.captions for record in back] == [record.captions for record in cuhk]
    assert back.root == tmp_path / "written"


def test_one_sentence_per_row_becomes_one_record_per_image(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    rows = datasets.Dataset.from_dict(
        {
            "picture": [str(tmp_path / name) for name in ("a.png", "b.png", "a.png", "a.png")],
            "sentence": ["A man.", "A girl.", "He walks.", "Someone else."],
            "who": [1, 2, 1, 7],
            "height": [1.0, 2.0, 3.0, 4.0],
        }
    ).cast_column("picture", datasets.Image())
    people = from_hugging_face(rows, image_column="picture", caption_column="sentence", person_id_column="who")
    assert [(r.image_path.name, r.captions, r.person_id, r.image_id, r.metadata["height"]) for r in people] == [
        ("a.png", ("A man.", "He walks."), 1, 0, 1.0),
        ("b.png", ("A girl.",), 2, 1, 2.0),
        ("a.png", ("Someone else.",), 7, 2, 4.0),
    ]
    anonymous = from_hugging_face(rows, image_column="picture", caption_column=None, person_id_column=None)
    assert [(record.captions, record.person_id) for record in anonymous] == [((), None)] * 4


def test_images_without_a_name_get_one_by_their_format(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG")
    rows = datasets.Dataset.from_dict({"image": [{"bytes": buffer.getvalue(), "path": None}]})
    (record,) = from_hugging_face(rows.cast_column("image", datasets.Image()), image_folder=tmp_path)
    assert record.image_path.suffix == ".jpg"
    assert record.image_path.read_bytes() == buffer.getvalue()


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"picture": ["a.png"]}, {}, "has no column 'image'; it has picture"),
        ({"image": ["a.png"]}, {"caption_column": "text"}, "has no column 'text'"),
        ({"image": ["nowhere.png"]}, {}, r"row 0, column 'image': 'nowhere\.png': no such file"),
        ({"image": [None]}, {}, "row 0, column 'image': is None, expected an image or a path"),
        ({"image": ["a.png"], "captions": [[" ."]]}, {}, "row 0, column 'captions': ' .' is empty"),
        ({"image": ["a.png"], "captions": [3]}, {}, "row 0, column 'captions': is 3, expected a string or a list"),
        ({"image": ["a.png"], "person_id": [1.5]}, {}, "row 0, column 'person_id': is 1.5, expected a whole number"),
        ({"image": ["a.png"], "camera_id": ["x"]}, {}, "row 0, column 'camera_id': is 'x', expected a whole number"),
        ({"image": []}, {}, "has no rows"),
    ],
)
def test_bad_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: Any, options: Any, message: str) -> None:
    draw(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=message) as caught:
        from_hugging_face(datasets.Dataset.from_dict(columns), **options)
    assert "\n" not in str(caught.value)


def test_other_objects_are_refused(cuhk: PersonDataset) -> None:
    with pytest.raises(ConfigurationError, match="has splits; give one of them: 'train', 'test'"):
        from_hugging_face(datasets.DatasetDict({"train": cuhk.to_hugging_face(), "test": cuhk.to_hugging_face()}))
    with pytest.raises(ConfigurationError, match=r"list is not a datasets\.Dataset"):
        from_hugging_face([])


def test_metadata_that_no_column_can_hold(cuhk: PersonDataset) -> None:
    path = cuhk[0].image_path
    for metadata, message in (
        ([{"time": 1}, {"time": "noon"}], "metadata field 'time' has values of several kinds"),
        ([{"captions": 1}, {}], "a field of the metadata is named 'captions'"),
    ):
        records = [PersonRecord(path, index, (), 1, None, fields) for index, fields in enumerate(metadata)]
        with pytest.raises(DatasetError, match=message):
            to_hugging_face(PersonDataset(records, name="x", split="all", root=cuhk.root))

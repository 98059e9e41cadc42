"""A user's own data: folders, JSONL and CSV; the validator finds everything, the loader accepts nothing that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reid_zoo.data.caption_text import is_empty_caption
from reid_zoo.data.loading import load_dataset
from reid_zoo.data.own_data import load_own_data, validate_records
from reid_zoo.errors import ConfigurationError, DatasetError


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 8)).save(folder / name)


def jsonl(folder: Path, *records: Any, name: str = "records.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


def csv_file(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "records.csv"
    path.write_bytes(text.encode(encoding))
    return path


def problems(path: Path, **options: Any) -> list[str]:
    return [str(problem) for problem in validate_records(path, **options).problems]


def test_jsonl_records(tmp_path: Path) -> None:
    images(tmp_path, "a/1.png", "2.png")
    path = jsonl(
        tmp_path,
        {"image": "a/1.png", "captions": [" A man. ", "Grey coat."], "person_id": "p7", "camera_id": 0, "score": 1.5},
        "",
        {"image": str(tmp_path / "2.png"), "person_id": None, "indoor": True, "time": "2024-05-01"},
    )
    dataset = load_own_data(path)
    assert (dataset.name, dataset.root, len(dataset)) == ("own", tmp_path, 2)
    first, second = dataset
    assert first.image_path == tmp_path / "a" / "1.png"
    assert first.captions == ("A man.", "Grey coat.")
    assert (first.person_id, first.camera_id, dict(first.metadata)) == ("p7", 0, {"score": 1.5})
    assert second.image_path == tmp_path / "2.png"
    assert (second.captions, second.person_id, second.camera_id) == ((), None, None)
    assert dict(second.metadata) == {"indoor": True, "time": "2024-05-01"}


def test_csv_with_captions_in_one_cell_and_typed_columns(tmp_path: Path) -> None:
    images(tmp_path, "1.png", "2.png")
    path = csv_file(
        tmp_path,
        "\ufeffimage,captions,person_id,camera_id,height,indoor,time,code\r\n"
        '1.png,"A man, tall | grey coat",7,2,1.80,true,10:30,007\r\n'
        "\r\n"
        "2.png,,8,,2,FALSE,,A1\r\n",
    )
    first, second = load_own_data(path)
    assert first.captions == ("A man, tall", "grey coat")
    assert (first.person_id, first.camera_id) == (7, 2)
    assert dict(first.metadata) == {"height": 1.8, "indoor": True, "time": "10:30", "code": "007"}
    assert (second.captions, second.person_id, second.camera_id) == ((), 8, None)
    assert dict(second.metadata) == {"height": 2.0, "indoor": False, "code": "A1"}


def test_csv_with_caption_columns_and_text_identities(tmp_path: Path) -> None:
    images(tmp_path, "1.png", "2.png")
    path = csv_file(tmp_path, "image,caption_10,caption_2,person_id\n1.png,tenth,second,7\n2.png,,only | one,A7\n")
    first, second = load_own_data(path)
    assert first.captions == ("second", "tenth")
    assert second.captions == ("only | one",)  # the bar separates only in the column `captions`
    assert (first.person_id, second.person_id) == ("7", "A7")


def test_leading_zeros_and_long_codes_stay_text(tmp_path: Path) -> None:
    images(tmp_path, "1.png", "2.png")
    path = csv_file(tmp_path, f"image,person_id,code\n1.png,0007,{10**24}\n2.png,12,7\n")
    assert [record.person_id for record in load_own_data(path)] == ["0007", "12"]
    assert [record.metadata["code"] for record in load_own_data(path)] == [str(10**24), "7"]  # not rounded to a float


def test_splits(tmp_path: Path) -> None:
    images(tmp_path, "1.png", "2.png", "3.png")
    divided = jsonl(
        tmp_path, *({"image": f"{n}.png", "split": s} for n, s in ((1, "train"), (2, "test"), (3, "train")))
    )
    train = load_own_data(divided, "train")
    assert [(record.image_id, record.image_path.name) for record in train] == [(0, "1.png"), (1, "3.png")]
    assert [record.metadata["split"] for record in load_own_data(divided, "all")] == ["train", "test", "train"]
    with pytest.raises(DatasetError, match=r"no record of split 'val' \(train: 2, test: 1\)"):
        load_own_data(divided, "val")
    with pytest.raises(ConfigurationError, match="'dev'"):
        load_own_data(divided, "dev")
    whole = jsonl(tmp_path, {"image": "1.png"}, name="whole.jsonl")
    assert [len(load_own_data(whole, split)) for split in ("train", "val", "test", "all")] == [1] * 4


def test_queries_and_gallery_of_images_searched_by_images(tmp_path: Path) -> None:
    images(tmp_path, "1.png", "2.png", "3.png")
    path = jsonl(
        tmp_path,
        {"image": "1.png", "person_id": 1, "camera_id": 0, "view_id": 3, "split": "query"},
        {"image": "2.png", "person_id": 1, "camera_id": 1, "split": "gallery"},
        {"image": "3.png", "person_id": 2, "split": "train"},
    )
    test = load_own_data(path, "test")
    assert [(record.image_path.name, record.view_id) for record in test] == [("1.png", 3), ("2.png", None)]
    assert [record.image_path.name for record in load_own_data(path, "gallery")] == ["2.png"]
    assert [record.image_path.name for record in test.part("query")] == ["1.png"]
    with pytest.raises(DatasetError, match=r"own \(test\): no record of split 'train'"):
        test.part("train")


def test_gallery_without_any_match(tmp_path: Path) -> None:
    images(tmp_path, "1.png", "2.png")
    query, answer = {"image": "1.png", "split": "query"}, {"image": "2.png", "split": "gallery"}
    path = jsonl(tmp_path, {**query, "person_id": 1}, {**answer, "person_id": 2})
    with pytest.raises(DatasetError, match=r"no query has a match in the gallery \(1 queries\)"):
        load_own_data(path)
    assert len(load_own_data(path, check_images=False)) == 2
    assert len(load_own_data(path, "gallery")) == 1
    unlabelled = jsonl(tmp_path, query, answer, name="unlabelled.jsonl")
    assert len(load_own_data(unlabelled)) == 2


def test_folder_of_images(tmp_path: Path) -> None:
    images(tmp_path, "p10/a.png", "p9/2.png", "p9/deep/10.png")
    dataset = load_own_data(tmp_path, identities_from="folder")
    assert [(r.image_path.relative_to(tmp_path).as_posix(), r.person_id) for r in dataset] == [
        ("p9/2.png", "p9"),
        ("p9/deep/10.png", "p9"),
        ("p10/a.png", "p10"),
    ]
    assert [record.person_id for record in load_own_data(tmp_path)] == [None] * 3
    assert load_dataset("folder", tmp_path, "all").name == "folder"
    images(tmp_path, "stray.png")
    with pytest.raises(DatasetError, match=r"stray\.png: lies in no sub-folder"):
        load_own_data(tmp_path, identities_from="folder")


def test_kind_is_found_or_named(tmp_path: Path) -> None:
    images(tmp_path, "1.png", "2.png")
    assert len(load_dataset("own", tmp_path)) == 2  # no file of records: the folder's images
    for name in ("jsonl", "csv"):
        with pytest.raises(DatasetError, match=rf"holds no \.{name} file"):
            load_dataset(name, tmp_path)
    path = jsonl(tmp_path, {"image": "1.png"})
    assert len(load_dataset("own", tmp_path)) == len(load_dataset("jsonl", tmp_path)) == 1
    assert len(load_dataset("folder", tmp_path)) == 2
    csv_file(tmp_path, "image\n1.png\n")
    assert len(load_dataset("csv", tmp_path)) == 1
    with pytest.raises(DatasetError, match=r"more than one file of records \(records\.csv, records\.jsonl\)"):
        load_dataset("own", tmp_path)
    with pytest.raises(DatasetError, match=r"expected a \.csv file or a folder"):
        load_dataset("csv", path)
    with pytest.raises(DatasetError, match=r"1\.png: expected a \.jsonl or \.csv file or a folder"):
        load_own_data(tmp_path / "1.png")


def test_image_root(tmp_path: Path) -> None:
    images(tmp_path, "photos/1.png")
    (tmp_path / "lists").mkdir()
    path = jsonl(tmp_path / "lists", {"image": "1.png"})
    assert load_own_data(path, image_root=tmp_path / "photos")[0].image_path == tmp_path / "photos" / "1.png"
    assert validate_records(path, image_root=str(tmp_path / "photos")).ok
    with pytest.raises(DatasetError, match=r"nowhere: no such folder, given as image_root of records\.jsonl"):
        load_own_data(path, image_root=tmp_path / "nowhere")


def test_options_that_do_not_apply_are_refused(tmp_path: Path) -> None:
    images(tmp_path, "p/1.png")
    with pytest.raises(ConfigurationError, match="image_root="):
        load_own_data(tmp_path, image_root=tmp_path)
    with pytest.raises(ConfigurationError, match="image_root="):
        validate_records(tmp_path, image_root=tmp_path)
    with pytest.raises(ConfigurationError, match="identities_from is 'name'"):
        load_own_data(tmp_path, identities_from="name")  # type: ignore[arg-type]
    path = jsonl(tmp_path, {"image": "p/1.png"})
    with pytest.raises(ConfigurationError, match="identities_from='folder' does not apply"):
        load_own_data(path, identities_from="folder")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, "line 2, field 'image': is missing"),
        ({"image": ""}, "line 2, field 'image': is missing"),
        ({"image": 5}, "line 2, field 'image': is 5, expected a path"),
        ({"image": "a\0.png"}, "line 2, field 'image': is 'a\\x00.png', expected a path"),
        ({"image": "none.png"}, "line 2, field 'image': 'none.png': no such file in "),
        ({"image": "../1.png"}, "line 2, field 'image': '../1.png' lies outside "),
        ({"image": "/elsewhere/1.png"}, "line 2, field 'image': '/elsewhere/1.png' lies outside "),
        ({"image": "./1.png"}, "line 2, field 'image': './1.png' is already on line 1"),
        ({"captions": "A man."}, "line 2, field 'captions': is 'A man.', expected a list"),
        ({"captions": ["A man.", 3]}, "line 2, field 'captions': caption 2 is 3"),
        ({"captions": ["  "]}, "line 2, field 'captions': caption 1 is empty"),
        ({"caption": "A man."}, "line 2, field 'caption': unknown here"),
        ({"caption_1": "A man."}, "line 2, field 'caption_1': unknown here"),
        ({"person_id": 1.5}, "line 2, field 'person_id': is 1.5"),
        ({"person_id": True}, "line 2, field 'person_id': is True"),
        ({"person_id": " "}, "line 2, field 'person_id': is ' '"),
        ({"person_id": 2**70}, "line 2, field 'person_id': is 1180591620717411303424"),
        ({"person_id": "seven"}, "line 2, field 'person_id': is a text here but a number on line 1"),
        ({"camera_id": -1}, "line 2, field 'camera_id': is -1"),
        ({"camera_id": "2"}, "line 2, field 'camera_id': is '2'"),
        ({"split": "dev"}, "line 2, field 'split': is 'dev'"),
        ({"split": None}, "line 2, field 'split': is missing, but line 1 has it"),
        ({"extra": [1]}, "line 2, field 'extra': is [1]"),
        ({"extra": 2**64}, "line 2, field 'extra': is 18446744073709551616"),
        ({"extra": True}, "line 2, field 'extra': is true or false here but a number on line 1"),
    ],
)
def test_each_jsonl_problem(tmp_path: Path, record: dict[str, Any], expected: str) -> None:
    images(tmp_path, "1.png", "2.png")
    good = {"image": "1.png", "captions": ["A man."], "person_id": 1, "camera_id": 0, "split": "train", "extra": 2}
    second = {**good, "image": "2.png", **record}
    if record == {}:
        del second["image"]
    path = jsonl(tmp_path, good, second)
    found = problems(path)
    assert len(found) == 1
    assert found[0].startswith(expected)
    with pytest.raises(DatasetError) as caught:
        load_own_data(path)
    assert expected in str(caught.value)
    assert "more" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"image": ', "line 1: is not JSON (column "),
        ('{"image": "1.png", "x": NaN}', "line 1: is not usable JSON (NaN is not a value)"),
        ("[1]", "line 1: is an array, expected an object"),
        ("null", "line 1: is null, expected an object"),
        ("12", "line 1: is a number, expected an object"),
        ("[" * 100_000, "line 1: is not usable JSON"),
    ],
)
def test_line_that_is_no_object(tmp_path: Path, line: str, expected: str) -> None:
    assert problems(jsonl(tmp_path, line))[0].startswith(expected)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    images(tmp_path, "1.png")
    (tmp_path / "records.jsonl").write_bytes(b'{"image": "1.png"}\n{"image": "caf\xe9"}\n')
    assert problems(tmp_path / "records.jsonl") == ["line 2: is not UTF-8 text"]
    csv_path = csv_file(tmp_path, "image\n1.png\ncafé.png\n", "latin-1")
    assert problems(csv_path) == ["line 3: is not UTF-8 text; save the table as 'CSV UTF-8'"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["holds no record"]),
        ("image\n", ["holds no record"]),
        ("file;captions\n1.png;x\n", ["line 1, field 'image': there is no such column, only file;captions"]),
        ("image,x,x\n1.png,1,2\n", ["line 1, field 'x': two columns have this name"]),
        ("image,\n1.png,2\n", ["line 1: column 2 has no name"]),
        ("image,caption\n1.png,x\n", ["line 1, field 'caption': unknown here"]),
        ("image,captions,caption_1\n1.png,x,y\n", ["line 1, field 'caption_1': give captions either"]),
        ("image,a\n1.png\n2.png,1,2\n", ["line 2: has 1 cells, the header has 2", "line 3: has 3 cells"]),
        ('image,captions\n1.png,"two\nlines"\n2.png,"open\n', ["line 4: is not CSV (unexpected end of data)"]),
        ("image,captions\n1.png,a||b\n", ["line 2, field 'captions': caption 2 is empty"]),
        ("image,camera_id\n1.png,x\n2.png,1\n", ["line 2, field 'camera_id': is 'x'", "line 3, field 'camera_id'"]),
        ("image,split\n1.png,test\n2.png,\n", ["line 3, field 'split': is missing"]),
        (
            "image\n1.png\n1.png\n9.png\n",
            ["line 3, field 'image': '1.png' is already", "line 4, field 'image': '9.png'"],
        ),
    ],
)
def test_each_csv_problem(tmp_path: Path, text: str, expected: list[str]) -> None:
    images(tmp_path, "1.png", "2.png")
    found = problems(csv_file(tmp_path, text))
    assert len(found) == len(expected)
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(start)


def test_loader_gives_the_first_problem_and_counts_the_rest(tmp_path: Path) -> None:
    images(tmp_path, "1.png")
    path = jsonl(tmp_path, {"image": "1.png"}, {"image": "x.png", "camera_id": -1}, "nonsense", {"captions": [""]})
    with pytest.raises(DatasetError, match=r"line 2, field 'image'.*\(and 4 more; validate_records lists them all\)"):
        load_own_data(path)
    report = validate_records(path)
    assert not report.ok
    assert [problem.line for problem in report.problems] == [2, 2, 3, 4, 4]
    assert (report.path, report.num_records) == (path, 1)
    assert str(report).splitlines()[0].endswith("1 good records, 0 captions, 0 identities, 5 problem(s)")
    assert len(str(report).splitlines()) == 6


def test_missing_images_may_be_ignored(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"image": "later.png"})
    assert validate_records(path, check_images=False).ok
    assert load_own_data(path, check_images=False)[0].image_path == tmp_path / "later.png"


def test_reading_every_image_finds_the_broken_ones(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images(tmp_path, "1.png")
    (tmp_path / "2.png").write_bytes(b"")
    path = jsonl(tmp_path, {"image": "1.png", "captions": ["x"], "person_id": 1}, {"image": "2.png", "person_id": 2})
    assert validate_records(path).ok
    report = validate_records(path, read_images=True)
    assert [(p.line, p.field) for p in report.problems] == [(2, "image")]
    assert report.problems[0].message.endswith("2.png: the file is empty (0 bytes)")
    assert (report.num_records, report.num_captions, report.num_identities) == (1, 1, 1)
    assert capfd.readouterr().err == ""
    path.unlink()
    report = validate_records(tmp_path, read_images=True, progress=True)
    assert [(p.line, p.field) for p in report.problems] == [(None, None)]
    assert "Reading images" in capfd.readouterr().err


def test_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(tmp_path, {"image": "1.png"})

    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DatasetError, match=r"cannot be read \(Permission denied\)"):
        load_own_data(path)


TEXTS = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
    .map(str.strip)
    .filter(lambda text: not is_empty_caption(text))
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.tuples(
            st.lists(TEXTS.filter(lambda text: "|" not in text), max_size=3),
            st.integers(-(2**63), 2**63 - 1),
            st.none() | st.integers(0, 99),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_csv_and_jsonl_give_the_same_records(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    import csv

    folder = tmp_path_factory.mktemp("same")
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "captions", "person_id", "camera_id"])
        for index, (captions, person, camera) in enumerate(rows):
            writer.writerow([f"{index}.png", "|".join(captions), person, "" if camera is None else camera])
    path = jsonl(
        folder,
        *(
            {"image": f"{index}.png", "captions": captions, "person_id": person, "camera_id": camera}
            for index, (captions, person, camera) in enumerate(rows)
        ),
    )
    table = load_own_data(folder / "table.csv", check_images=False)
    assert list(table) == list(load_own_data(path, check_images=False))
    assert [list(record.captions) for record in table] == [captions for captions, _, _ in rows]

"""`load_dataset`: names, options, and what may be demanded of every record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import reid_zoo.data
from reid_zoo.data.loading import available_datasets, load_dataset, stream_dataset
from reid_zoo.errors import ConfigurationError, DatasetError


@pytest.fixture
def records(tmp_path: Path) -> Path:
    lines = [
        {"image": "a.png", "captions": ["A man."], "person_id": 1},
        {"image": "b.png", "captions": ["A girl."]},
        {"image": "c.png", "person_id": 2},
    ]
    for line in lines:
        (tmp_path / str(line["image"])).touch()
    (tmp_path / "records.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return tmp_path


@pytest.mark.parametrize(("typed", "known"), [("cuhk-pedse", "cuhk-pedes"), ("RSTP", "rstpreid"), ("json", "jsonl")])
def test_unknown_name_suggests_the_nearest(tmp_path: Path, typed: str, known: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Unknown data set '{typed}'; did you mean '{known}'\\?"):
        load_dataset(typed, tmp_path)


def test_unknown_name_without_neighbour_lists_all(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'zzzz'; Known: cuhk-pedes, icfg-pedes, rstpreid, occluded-cuhk-pedes"
    ):
        load_dataset("zzzz", tmp_path)


def test_names_ignore_case_and_underscores(records: Path) -> None:
    assert load_dataset("JSONL", records).name == "jsonl"
    with pytest.raises(DatasetError, match="not in the layout of CUHK-PEDES"):
        load_dataset("CUHK_PEDES", records)


def test_unknown_option_names_the_valid_ones(records: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'jsonl' has no option 'order'; it has check_images, identities_from"
    ):
        load_dataset("jsonl", records, order="cfine")


@pytest.mark.parametrize(
    ("name", "option", "value", "expected"),
    [
        ("vehicleid", "trial", "abc", "a whole number"),
        ("vehicleid", "test_size", True, "a whole number"),
        ("icfg-pedes", "icfg_test_limit", 1.5, "a whole number"),
        ("market-1501", "accept_retracted", "maybe", "true or false"),
        ("cuhk-pedes", "allow_repeated_paths", 3, "true or false"),
    ],
)
def test_option_of_a_wrong_type(tmp_path: Path, name: str, option: str, value: object, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Option {option} of data set '{name}' is .*, expected {expected}"):
        load_dataset(name, tmp_path, **{option: value})


def test_required_captions_and_identities(records: Path) -> None:
    assert len(load_dataset("own", records)) == 3
    with pytest.raises(DatasetError, match=r"record 2 \(.*c\.png\) has no caption"):
        load_dataset("own", records, require_captions=True)
    with pytest.raises(DatasetError, match=r"record 1 \(.*b\.png\) has no person_id"):
        load_dataset("own", records, require_identities=True)
    with pytest.raises(DatasetError, match=r"record 1 .*has no person_id"):
        load_dataset("own", records, require_captions=True, require_identities=True)


def test_every_entry_leads_to_a_loader(tmp_path: Path) -> None:
    names = [entry.name for entry in available_datasets()]
    assert len(set(names)) == len(names)
    for entry in available_datasets():
        assert entry.summary
        options = {"accept_retracted": True} if entry.info is not None and entry.info.retracted else {}
        with pytest.raises(DatasetError, match=r"no such"):
            load_dataset(entry.name, tmp_path / "nowhere", **options)
        with pytest.raises(DatasetError, match=r"no such"):
            stream_dataset(entry.name, tmp_path / "nowhere", **options)


def test_names_of_the_released_implementations_are_understood(tmp_path: Path) -> None:
    for alias, title in (("market1501", "Market-1501"), ("VehicleID", "VehicleID"), ("veri", "VeRi-776")):
        with pytest.raises(DatasetError, match=f"not in the layout of {title}"):
            load_dataset(alias, tmp_path)


def test_captions_cannot_be_demanded_of_a_set_without(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Market-1501 is an image-to-image data set without captions"):
        load_dataset("market-1501", tmp_path, require_captions=True)


def test_own_data_streams_too(records: Path) -> None:
    stream = stream_dataset("own", records, "all")
    assert [record.image_path.name for record in stream] == ["a.png", "b.png", "c.png"]
    assert len(stream.collect()) == 3


def test_public_names_resolve() -> None:
    for name in reid_zoo.data.__all__:
        assert getattr(reid_zoo.data, name) is not None
        assert name in dir(reid_zoo.data)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = reid_zoo.data.no_such_name


def test_importing_the_loaders_is_cheap() -> None:
    code = (
        "import sys, reid_zoo.data.loading, reid_zoo.data.own_data, reid_zoo.data.text_person_benchmarks, "
        "reid_zoo.data.vehicle_benchmarks; "
        "print([name for name in ('torch', 'torchvision', 'transformers', 'numpy', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

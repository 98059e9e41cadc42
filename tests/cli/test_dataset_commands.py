"""`reid-zoo datasets ...`: what is printed, what is wrong in one line, and exit statuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from PIL import Image

from reid_zoo.cli.dataset_commands import loader_options
from reid_zoo.errors import ConfigurationError
from tiny_benchmarks import DUKE, MARKET, write_cuhk, write_folders, write_vehicleid


class Run(Protocol):
    def __call__(self, *arguments: object) -> tuple[int, str, list[str]]: ...


@pytest.fixture
def run(run: Run) -> Run:
    """`run("check", ...)` → (exit status, stdout, stderr lines)."""
    return lambda *arguments: run("datasets", *arguments)


def test_list(run: Run) -> None:
    status, out, _ = run("list")
    assert status == 0
    assert "DukeMTMC-reID (retracted)" in out
    entries = {entry["name"]: entry for entry in json.loads(run("list", "--json")[1])["datasets"]}
    assert entries["market-1501"]["counts"]["train"] == {"identities": 751, "images": 12_936, "captions": None}
    assert entries["msmt17"]["num_cameras"] == 15
    assert entries["occluded-duke"]["retracted"].startswith("DukeMTMC was taken down")
    assert set(entries["own"]) == {"name", "summary"}


def test_check_says_ok_or_differs(run: Run, tmp_path: Path) -> None:
    people = [("train", person) for person in range(1, 4)]
    write_cuhk(tmp_path / "CUHK-PEDES", people)
    status, out, lines = run("check", "cuhk-pedes", tmp_path, "--images", "--no-progress")
    assert status == 0
    assert "6  differs (published: 34,054)" in out
    assert "6 images were read, 0 cannot be decoded" in out
    assert "sizes differ from the published ones; 0 problems" in out
    assert lines[0].startswith("note: 9 images have more than two captions")


def test_check_of_a_set_of_the_published_size(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reid_zoo.data import dataset_info

    tiny = {name: dataset_info.SplitCounts(1, 2, 4) for name in ("train", "val", "test")}
    info = dataset_info.BENCHMARKS["cuhk-pedes"]
    monkeypatch.setattr(dataset_info, "dataset_info", lambda _: replace(info, counts=tiny))
    write_cuhk(tmp_path / "CUHK-PEDES")
    status, out, _ = run("check", "cuhk-pedes", tmp_path)
    assert status == 0
    assert out.count("  OK") == 9
    assert "sizes are the published ones; 0 problems" in out


def test_check_with_problems_exits_with_one_line(run: Run, tmp_path: Path) -> None:
    base = write_cuhk(tmp_path / "CUHK-PEDES", [("train", 1), ("test", 1), *(("val", n) for n in range(2, 20))])
    for image in sorted((base / "imgs" / "cam_a").iterdir())[2:]:
        image.unlink()
    status, out, lines = run("check", "cuhk-pedes", tmp_path)
    assert status == 1
    assert out.count("missing image: ") == 20
    assert "... and 19 more; --json lists all" in out
    assert lines[-1] == f"reid-zoo: error: {tmp_path}: cuhk-pedes has 39 problems."
    status, out, lines = run("check", "cuhk-pedes", tmp_path, "--json")
    report = json.loads(out)
    assert status == 1
    assert not report["ok"]
    assert len(report["problems"]) == 39
    assert "identity 1 is in train and test" in report["problems"]
    assert report["splits"]["val"] == {"images": 36, "captions": 72, "identities": 18}
    assert any("11,003" in difference for difference in report["differences_from_published"])


def test_check_of_retracted_data_and_of_a_wrong_root(run: Run, tmp_path: Path) -> None:
    write_folders(tmp_path / "dukemtmcreid" / "DukeMTMC-reID", DUKE)
    status, out, lines = run("check", "dukemtmc-reid", tmp_path)
    assert (status, out, len(lines)) == (1, "", 1)
    assert "--accept-retracted" in lines[0]
    assert run("check", "dukemtmc-reid", tmp_path, "--accept-retracted")[0] == 0
    status, _, lines = run("check", "market-1501", tmp_path)
    assert (status, len(lines)) == (1, 1)
    assert "not in the layout of Market-1501" in lines[0]


def test_options_of_the_loader(run: Run, tmp_path: Path) -> None:
    write_vehicleid(tmp_path / "VehicleID_V1.0")
    status, out, _ = run("check", "vehicleid", tmp_path, "--set", "test_size=1600", "--json")
    assert status == 0
    assert json.loads(out)["label"] == "vehicleid [test_size=1600]"
    status, _, lines = run("check", "vehicleid", tmp_path, "--set", "test_siz=1600")
    assert (status, len(lines)) == (1, 1)
    assert "has no option 'test_siz'; it has check_images, seed, test_size, trial" in lines[0]
    assert loader_options(["views=ignore", "trial=3", "combine_train_val=false"], True) == {
        "accept_retracted": True,
        "views": "ignore",
        "trial": 3,
        "combine_train_val": False,
    }
    for bad in ("test_size", "=3", "a b=3", "a=[1"):
        with pytest.raises(ConfigurationError, match="--set"):
            loader_options([bad])


def test_show_draws_queries_and_gallery(run: Run, tmp_path: Path) -> None:
    write_folders(tmp_path / "Market-1501-v15.09.15", MARKET)
    sheet = tmp_path / "sheet.png"
    status, out, _ = run("show", "market-1501", tmp_path, "--sheet", sheet, "--people", 2, "--json")
    assert status == 0
    assert json.loads(out) == {"sheet": str(sheet), "split": "test", "people": 2, "images": 4}
    with Image.open(sheet) as picture:
        assert picture.height > 400  # two rows of tiles
    assert run("show", "market-1501", tmp_path, "--sheet", tmp_path / "sheet.doc")[0] == 1

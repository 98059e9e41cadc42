"""`reid-zoo occlude` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tiny_models import draw_people

Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_people(tmp_path_factory.mktemp("data"), identities=6, images=3)


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instances")
    for number, name in enumerate(("bench1", "kite1", "kite2")):
        Image.new("RGBA", (20, 12), (60 * number, 100, 200, 255)).save(folder / f"{name}.png")
    return folder


def test_make_continue_verify_rebuild(run: Run, data: Path, instances: Path, tmp_path: Path) -> None:
    shared = ("--data-root", data, "--instances", instances, "--no-progress")
    made = ("occlude", "--dataset", "cuhk-pedes", "--output", tmp_path / "a", "--fraction", "train=0.5,test=1", *shared)
    status, out, err = run(*made, "--seed", 2, "--json")
    assert (status, err) == (0, [])
    report = json.loads(out)
    folder = Path(report["folder"])
    assert folder == tmp_path / "a" / "Occluded-CUHK-PEDES"
    assert Path(report["manifest"]).is_file()
    assert report["images"] == report["written"] == 18
    assert report["occluded_by_split"]["test"] == 6
    assert "val" not in report["occluded_by_split"]

    status, out, err = run(*made, "--seed", 2)
    assert status == 0
    assert out.strip() == str(folder)
    assert err[-1].endswith("; 0 written in this run")

    status, out, _ = run("occlude", "--verify", folder)
    assert (status, out.strip()) == (0, "18 images are as the manifest says")

    status, out, _ = run("occlude", "--rebuild", folder, "--output", tmp_path / "b", *shared)
    assert status == 0
    again = Path(out.strip())
    assert {p.name: p.read_bytes() for p in folder.rglob("*.png")} == {
        p.name: p.read_bytes() for p in again.rglob("*.png")
    }

    next(folder.rglob("*.png")).write_bytes(b"changed")
    status, out, _ = run("occlude", "--verify", folder, "--json")
    assert status == 1
    assert json.loads(out)["ok"] is False
    status, out, err = run("occlude", "--verify", folder, "--data-root", data, "--instances", instances)
    assert status == 1
    assert out.startswith("changed: imgs/")
    assert err[-1].endswith("1 differences from the manifest.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs --data-root and --output, or --verify MANIFEST"),
        (("--data-root", "d", "--output", "o"), "needs --dataset"),
        (("--dataset", "market", "--data-root", "d", "--output", "o"), "'market'"),
        (("--dataset", "cuhk-pedes", "--data-root", "d", "--output", "o", "--fraction", "half"), "--fraction 'half'"),
        (("--dataset", "cuhk-pedes", "--data-root", "nowhere", "--output", "o"), "nowhere: no such folder"),
        (("--verify", "a", "--rebuild", "b"), "do not go together"),
        (("--rebuild", "a", "--dataset", "cuhk-pedes", "--data-root", "d", "--output", "o"), "leave --dataset out"),
        (("--verify", "nowhere"), "nowhere: no such file"),
    ],
)
def test_wrong_use_ends_in_one_line(
    run: Run, instances: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run("occlude", *arguments, "--instances", instances)
    assert status == 1
    assert out == ""
    assert len(err) == 1
    assert err[0].startswith("reid-zoo: error: ")
    assert message in err[0]
    assert list(tmp_path.iterdir()) == []


def test_help_names_paper_and_released_tool(run: Run) -> None:
    status, out, _ = run("occlude", "--help")
    assert status == 0
    assert all(word in out for word in ("--verify", "--instances", "first_of_run", "algorithm1", "released"))

"""The demo: every step, a rerun that continues, and a folder that is not its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from reid_zoo.cli import demo
from reid_zoo.cli.main import main

SMALL = demo.DemoSettings(identities=8, images_per_identity=4, test_identities=2, num_epochs=2, num_queries=2)


@pytest.fixture
def run(monkeypatch, capfd):
    monkeypatch.setattr(demo, "QUICK", SMALL)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reid-zoo", "demo", "--quick", "--no-progress", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0), *capfd.readouterr()
        return 0, *capfd.readouterr()

    return call


def test_the_demo_does_every_step_and_a_rerun_continues(run, tmp_path, monkeypatch):
    out = tmp_path / "demo"

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("reid_zoo.evaluation.protocols.encode_records", interrupt)
        status, _, err = run("--out", out)
    assert status == 130
    assert "run the same command again" in err
    status, text, err = run("--out", out)
    assert status == 0
    assert err.count("done before") == 2  # data and training
    for step in ("data", "model", "people.gallery", "report.json", "sheets/test_queries.png", "sheets/search_3.png"):
        assert (out / step).exists(), step
    report = json.loads((out / "report.json").read_text())
    assert set(report["metrics"]) == {"R1", "R5", "R10", "mAP", "mINP", "Rsum"}
    assert report["chance_R1"] == 50.0
    assert "measured by us" in report["label"]
    assert len(report["answers"]) == 3
    assert all(Path(hit["image"]).is_file() for answer in report["answers"] for hit in answer["hits"])
    assert "R1" in text
    assert str(out / "sheets") in text
    status, text, err = run("--out", out, "--json")
    assert status == 0
    assert json.loads(text)["metrics"] == report["metrics"]
    assert err.count("done before") == 5


def test_other_settings_and_foreign_folders_are_refused(run, tmp_path):
    out = tmp_path / "demo"
    out.mkdir()
    (out / "demo.json").write_text(json.dumps({"settings": {"seed": 1}, "steps": {}}))
    status, _, err = run("--out", out, "--seed", 2)
    assert status == 1
    assert "other settings" in err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    status, _, err = run("--out", tmp_path / "mine")
    assert status == 1
    assert "holds no demo" in err
    (out / "demo.json").write_text("{")
    status, _, err = run("--out", out)
    assert "damaged" in err

"""`reid-zoo train` for a method with two stages, and `reid-zoo recipes`."""

from __future__ import annotations

import json

import pytest

from reid_zoo.data import SyntheticPedestrians
from reid_zoo.training import ReIDTrainer
from small_runs import SMALL_SIZES
from tiny_benchmarks import DUKE, write_folders

SMALL = [
    f"model.vision_config={{{SMALL_SIZES}, patch_size: 8}}",
    f"model.text_config={{{SMALL_SIZES}}}",
    "image_size=[48, 32]",
    "optimization.num_epochs=1",
    "optimization.batch_size=4",
    "stage_one.num_epochs=1",
]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("people")
    SyntheticPedestrians(4, 2, val_identities=1, test_identities=1, image_size=(96, 32)).write(root, progress=False)
    return root


def settings(*more):
    return [part for field in (*SMALL, *more) for part in ("--set", field)]


def test_both_stages_are_one_command(run, people, tmp_path):
    command = [
        "train",
        "clip_reid-tiny",
        "--data-root",
        people,
        "--output",
        tmp_path / "m",
        "--no-progress",
        *settings(),
    ]
    status, out, err = run(*command, "--json")
    assert status == 0, err
    summary = json.loads(out)
    assert (summary["stage_one_steps"], summary["steps"]) == (1, 1)
    assert summary["evaluation_split"] == "val"
    assert set(summary["validation"]) == {"R1", "R5", "R10", "mAP", "mINP", "Rsum"}
    assert {"stage1", "model.safetensors", "recipe.yaml"} <= {path.name for path in (tmp_path / "m").iterdir()}
    status, out, _ = run(*command)  # everything is done: the last checkpoint is found, nothing is trained again
    assert status == 0
    assert "resumed from" in out
    assert "first stage: 1 steps" in out


def test_a_withdrawn_set_has_to_be_accepted(run, tmp_path):
    write_folders(tmp_path / "data" / "Occluded_Duke", DUKE)
    command = ["train", "clip_reid-tiny", "--data-root", tmp_path / "data", "--output", tmp_path / "m", "--no-progress"]
    command += ["--dataset", "occluded-duke", *settings("sampler.images_per_identity=2")]
    status, _, err = run(*command)
    assert status != 0
    (line,) = err
    assert "--accept-retracted" in line
    status, out, _ = run(*command, "--accept-retracted")
    assert status == 0
    assert "1 steps" in out


def test_recipes_are_listed_with_the_figures_they_aim_at(run):
    status, out, _ = run("recipes", "--json")
    assert status == 0
    recipes = {entry["name"]: entry for entry in json.loads(out)["recipes"]}
    entry = recipes["clip_reid-msmt17-vit-sie-olp"]
    assert entry["aims_at"] == "mAP 75.8, Rank-1 89.7, reported by the paper (Table 2)"
    assert (entry["method"], entry["dataset"], entry["stages"]) == ("clip_reid", "msmt17", 2)
    assert recipes["clip_reid-msmt17-vit-baseline"]["stages"] == 1
    status, out, _ = run("recipes")
    assert status == 0
    assert "irra-rstpreid" in out


@pytest.mark.parametrize(("step", "kept"), [(1, None), (2, "stage1/checkpoint-1"), (3, "stage1"), (4, "checkpoint-1")])
def test_an_interruption_says_what_is_kept(run, people, tmp_path, monkeypatch, step, kept):
    compute_loss, steps = ReIDTrainer.compute_loss, 0

    def interrupted(self, *arguments, **options):
        nonlocal steps
        steps += 1
        if steps == step:
            raise KeyboardInterrupt
        return compute_loss(self, *arguments, **options)

    monkeypatch.setattr(ReIDTrainer, "compute_loss", interrupted)
    more = settings("stage_one.num_epochs=2", "optimization.num_epochs=2", "evaluation.save_every_steps=1")
    command = ["train", "clip_reid-tiny", "--data-root", people, "--output", tmp_path / "m", "--no-progress", *more]
    status, _, err = run(*command)
    assert status == 130
    told = "there was no checkpoint yet" if kept is None else f"{tmp_path / 'm' / kept} is kept"
    assert told in err[-1]


def test_what_a_run_warns_of_is_seen(run, people, tmp_path):
    more = settings(
        "optimization.num_epochs=2", "evaluation.split=test", "evaluation.every_epochs=1", "evaluation.select_best=true"
    )
    command = ["train", "clip_reid-tiny", "--data-root", people, "--output", tmp_path / "m", "--no-progress", *more]
    status, _, err = run(*command)
    assert status == 0, err
    assert any(line.startswith("note: evaluation.split is test") for line in err)
    (last,) = (tmp_path / "m").glob("checkpoint-2")
    (last / "optimizer.pt").write_bytes(b"damaged")
    status, out, err = run(*command)
    assert status == 0, err
    assert any(f"note: {last} is passed over: optimizer.pt is not what was written" in line for line in err)
    assert "resumed from" in out

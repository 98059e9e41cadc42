"""Several processes of one training command speak with one voice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

import reid_zoo
from reid_zoo.cli import console
from reid_zoo.training.run_folder import LOCK_FILE
from small_runs import SMALL_TOWERS
from tiny_models import draw_people

SMALL = [
    *SMALL_TOWERS,
    "image_size=[48, 32]",
    "optimization.num_epochs=1",
    "optimization.batch_size=4",
    "optimization.logging_steps=1",
]
SECONDS = 240  # a hang is an error, not a wait


def launch(people, output):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "reid_zoo"]
    command += ["train", "dual_encoder-tiny", "--data-root", str(people), "--output", str(output), "--json"]
    command += [part for field in SMALL for part in ("--set", field)]
    variables = {
        "PYTHONPATH": str(Path(reid_zoo.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_two_processes_train_in_one_folder_and_say_everything_once(tmp_path):
    people = draw_people(tmp_path / "people")
    result = launch(people, tmp_path / "m")
    assert result.returncode == 0, result.stderr[-4000:]
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["steps"] == 3
    logged = [line for line in result.stderr.splitlines() if "step 2/3" in line]
    assert len(logged) == 1
    with FileLock(tmp_path / "m" / LOCK_FILE):  # another run is at work there
        result = launch(people, tmp_path / "m")
    assert result.returncode != 0
    errors = [line for line in result.stderr.splitlines() if line.startswith("reid-zoo: error:")]
    assert len(errors) == 1, result.stderr[-4000:]
    assert f"another run is training in {tmp_path / 'm'}" in errors[0]
    assert result.stdout == ""


def test_a_process_that_fails_alone_says_so_after_a_while(run, monkeypatch, tmp_path):
    monkeypatch.setattr(console, "_SECONDS_FOR_THE_FIRST_PROCESS", 0.2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    began = time.monotonic()
    status, _, err = run("train", "no-such-recipe", "--data-root", tmp_path, "--output", tmp_path / "m")
    assert time.monotonic() - began >= 0.2
    assert status == 1
    assert err[-1].startswith("reid-zoo: error: process 1: unknown recipe 'no-such-recipe'")


@pytest.mark.parametrize(
    ("rank", "size", "first"), [("0", "2", True), ("1", "2", False), ("1", "1", True), ("", "", True)]
)
def test_who_speaks(monkeypatch, rank, size, first):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    assert console.is_first_process() is first

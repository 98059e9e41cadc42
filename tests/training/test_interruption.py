"""A run that is killed ends, once it is started again, with the very weights of a run that was not."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from interrupted_training import STEPS, train_with_everything
from safetensors.torch import load_file

from reid_zoo.training import ReIDTrainer, checkpointing, load_recipe, train
from reid_zoo.training.checkpointing import last_complete_checkpoint, list_checkpoints
from tiny_models import draw_people

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")  # few captions make a small vocabulary


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Five people to train on, 20 captions."""
    return draw_people(tmp_path_factory.mktemp("people"), identities=8)


@pytest.fixture(scope="module")
def straight(people, tmp_path_factory):
    output = tmp_path_factory.mktemp("straight") / "model"
    assert train_with_everything(people, output).steps == STEPS
    return output


def everything(output):
    """The averaged weights of the end, and what the last checkpoint holds: weights, their average, optimiser."""
    checkpoint = output / f"checkpoint-{STEPS}"
    found = {f"final {name}": value for name, value in load_file(output / "model.safetensors").items()}
    for file in checkpoint.glob("*.safetensors"):
        found |= {f"{file.name} {name}": value for name, value in load_file(file).items()}
    states = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    return found | {f"optimizer {i} {name}": value for i, state in states.items() for name, value in state.items()}


def assert_same(one, other, hint):
    one, other = everything(one), everything(other)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == [], hint


def run_until_killed(people, output, step):
    command = [sys.executable, str(Path(__file__).with_name("interrupted_training.py")), str(people), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found = re.search(r"step +(\d+)/", line)
            if found and int(found[1]) >= step:
                process.kill()
                break
        process.stdout.read()
    assert process.returncode == -9


def test_killed_twice(people, straight, tmp_path):
    first = random.SystemRandom().randrange(1, 6)
    second = random.SystemRandom().randrange(7, 12)
    for step in (first, second):
        run_until_killed(people, tmp_path / "m", step)
        assert not (tmp_path / "m" / "model.safetensors").exists()
    summary = train_with_everything(people, tmp_path / "m")
    assert summary.resumed_from is not None
    assert summary.steps == STEPS
    assert_same(straight, tmp_path / "m", f"killed after steps {first} and {second}")


def interrupt(monkeypatch, owner, name, at):
    """Make the `at`th call raise instead."""
    calls, original = 0, getattr(owner, name)

    def interrupted(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize(
    ("step", "more"),
    [
        (5, ()),  # the checkpoint is that of step 4, in the middle of the first epoch
        (6, ("evaluation.save_every_steps=5",)),  # that of step 5, at the end of it
        (13, ("optimization.num_workers=1",)),  # which changes nothing, either
    ],
)
def test_interrupted_in_a_step(people, straight, tmp_path, monkeypatch, step, more):
    with monkeypatch.context() as patch:
        interrupt(patch, ReIDTrainer, "compute_loss", step)
        with pytest.raises(KeyboardInterrupt):
            train_with_everything(people, tmp_path / "m", *more)
    train_with_everything(people, tmp_path / "m", *more)
    assert_same(straight, tmp_path / "m", step)


@pytest.mark.parametrize("function", ["write_manifest", "save_epoch_memory"])
def test_interrupted_while_a_checkpoint_is_written(people, straight, tmp_path, monkeypatch, function):
    with monkeypatch.context() as patch:
        interrupt(patch, checkpointing, function, 3)
        with pytest.raises(KeyboardInterrupt):
            train_with_everything(people, tmp_path / "m")
    last = last_complete_checkpoint(tmp_path / "m")
    assert last is not None
    assert last.name == "checkpoint-4"
    assert not (tmp_path / "m" / "checkpoint-6").exists()
    train_with_everything(people, tmp_path / "m")
    assert_same(straight, tmp_path / "m", function)
    assert sorted(path.name for path in (tmp_path / "m").iterdir() if path.is_dir()) == [
        "checkpoint-14",
        "checkpoint-15",
    ]


def test_a_damaged_checkpoint_is_passed_over(people, straight, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, ReIDTrainer, "compute_loss", 8)
        with pytest.raises(KeyboardInterrupt):
            train_with_everything(people, tmp_path / "m")
    file = tmp_path / "m" / "checkpoint-6" / "optimizer.pt"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.warns(UserWarning, match=r"checkpoint-6 is passed over: optimizer\.pt is not what was written"):
        summary = train_with_everything(people, tmp_path / "m")
    assert summary.resumed_from == tmp_path / "m" / "checkpoint-4"
    assert_same(straight, tmp_path / "m", "damaged")


TWO_STAGES = [
    "model.vision_config={hidden_size: 16, intermediate_size: 16, num_hidden_layers: 2, num_attention_heads: 2, patch_size: 8}",
    "model.text_config={hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2}",
    "image_size=[48, 32]",
    "stage_one.num_epochs=2",
    "stage_one.batch_size=4",
    "stage_one.ema_decay=0.5",
    "optimization.num_epochs=2",
    "optimization.batch_size=4",
    "optimization.ema_decay=0.9",
    "evaluation.save_every_steps=2",
]


@pytest.fixture(scope="module")
def straight_stages(people, tmp_path_factory):
    output = tmp_path_factory.mktemp("stages") / "model"
    return output, train_two_stages(people, output)


def train_two_stages(people, output):
    return train(load_recipe("clip_reid-tiny", TWO_STAGES), data_root=people, output_dir=output, progress=False)


@pytest.mark.parametrize("stage", [1, 2])
def test_both_stages_go_on(people, straight_stages, tmp_path, monkeypatch, stage):
    straight, summary = straight_stages
    with monkeypatch.context() as patch:
        interrupt(patch, ReIDTrainer, "compute_loss", 4 if stage == 1 else summary.stage_one_steps + 4)
        with pytest.raises(KeyboardInterrupt):
            train_two_stages(people, tmp_path / "m")
    folder = tmp_path / "m" / "stage1" if stage == 1 else tmp_path / "m"
    assert [path.name for path in list_checkpoints(folder)] == ["checkpoint-2"]
    train_two_stages(people, tmp_path / "m")
    for file in ("model.safetensors", "stage1/model.safetensors"):
        one, other = load_file(straight / file), load_file(tmp_path / "m" / file)
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_the_run_has_a_state_of_every_kind(straight):
    checkpoint = straight / "checkpoint-14"  # step 4 of the last epoch
    memory = load_file(checkpoint / "epoch_memory_0.safetensors")
    assert memory["feature_calibration_loss:labels"].shape == (16,)  # 4 batches of 4
    assert (checkpoint / "averaged_weights.safetensors").is_file()

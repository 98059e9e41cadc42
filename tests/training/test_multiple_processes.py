"""Two processes train, step for step, like one process with the joint batch; every method, every kind of memory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from joint_batch_training import train_tiny_model
from safetensors.torch import load_file

import reid_zoo
from joint_batch_cases import JOINT_BATCH_CASES
from reid_zoo.models.cfine.modeling_cfine import Bottleneck
from reid_zoo.training import ReIDTrainer, ReIDTrainingArguments, load_recipe
from tiny_models import draw_people, tiny_model

TESTS = Path(__file__).parents[1]
# Relative to the largest value of a tensor. Towers are in float64 and agree to 1e-14; this is for sums of the losses in
# float32, in another order.
TOLERANCE = 1e-5
SECONDS = 300  # a hang is an error, not a wait

LAUNCH_CONFIG = """\
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
mixed_precision: 'no'
num_machines: 1
num_processes: 2
"""

pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")  # a dozen captions make a small vocabulary


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return draw_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def processes(people, tmp_path_factory):
    """Both processes' findings, and the folder they wrote to. One launch for all tests: importing takes longer than they do."""
    output = tmp_path_factory.mktemp("processes")
    config = output / "accelerate.yaml"
    config.write_text(LAUNCH_CONFIG, encoding="utf-8")
    paths = [str(Path(reid_zoo.__file__).parents[1]), str(TESTS)]
    command = ["-m", "accelerate.commands.launch", "--config_file", config, "--main_process_port", _free_port()]
    worker = [TESTS / "training" / "joint_batch_worker.py", output, people]
    result = subprocess.run(
        list(map(str, [sys.executable, *command, *worker])),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return [json.loads((output / f"process-{index}.json").read_text()) for index in range(2)], output


def assert_close(steps):
    for step in steps:
        for part, (deviation, tensor) in step.items():
            assert deviation < TOLERANCE, (part, tensor)


@pytest.mark.parametrize("case", JOINT_BATCH_CASES, ids=str)
@pytest.mark.parametrize("split", ["even", "uneven"])
def test_loss_gradients_and_next_state_are_those_of_the_joint_batch(processes, case, split):
    for found in processes[0]:
        steps = found["cases"][f"{case}, {split}"]
        assert len(steps) == (2 if case.variant == "history" else 1)
        assert_close(steps)


@pytest.mark.parametrize("case", ["cfine", "vfe_tps-ablations", "clip_reid"])
def test_cached_gradients_are_those_of_the_joint_batch_too(processes, case):
    for found in processes[0]:
        assert_close(found["cases"][f"{case}, in chunks"])


def test_without_gathering_every_process_has_negatives_of_its_own(processes):
    for found in processes[0]:
        first, second = found["losses without gathering"]
        assert first != second
        assert found["whole loss"] not in (pytest.approx(first, rel=1e-3), pytest.approx(second, rel=1e-3))


@pytest.mark.parametrize("case", ["vfe_tps", "vfe_tps-ablations", "mgcc-rank"])
def test_samples_of_the_joint_batch_are_the_same_on_all_processes(processes, case):
    for found in processes[0]:
        first, second = found["losses of draws"][case]
        assert first == second


def test_shared_and_own_draws(processes):
    for found in processes[0]:
        draws = found["draws"]
        assert draws["same"][0] == draws["same"][1]
        assert draws["own"][0] != draws["own"][1]
        for name in ("behind same", "behind own"):  # generators go on where they were
            assert draws[name][0] == draws[name][1]


def test_batches_that_do_not_fit_together_are_refused_by_all_processes(processes):
    for found in processes[0]:
        assert "do not fit together" in found["refusal"]
        assert "[[2, 3], [2, 4]]" in found["refusal"]


@pytest.mark.parametrize("gathers", [True, False])
def test_the_trainer_tells_the_model_whether_to_gather(tmp_path, gathers):
    arguments = ReIDTrainingArguments(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, gather_across_processes=gathers
    )
    trainer = ReIDTrainer(tiny_model(), arguments, optimization=load_recipe("cfine-tiny").optimization)
    assert trainer.model.gather_across_processes is gathers
    assert type(trainer.model.cfine.image_bottleneck) is Bottleneck  # one process has nothing to share


@pytest.mark.parametrize("case", ["mgcc", "clip_reid-sie-olp"])
def test_sharded_encoding_gives_the_features_of_all_items_in_order(processes, case):
    """With five, and with one, which is less than there are processes."""
    for found in processes[0]:
        assert len(found["sharded encoding"][case]) == (8 if case == "mgcc" else 4)
        for name, deviation in found["sharded encoding"][case].items():
            assert deviation < TOLERANCE, name


def test_a_model_that_does_not_gather_is_refused_unless_it_is_not_meant_to(processes):
    for found in processes[0]:
        refused, accepted = found["models that do not gather"]
        assert refused == (
            "Linear does not gather across processes: derive it from JointBatchMixin, or train with "
            "gather_across_processes=False."
        )
        assert accepted == ""


def test_a_whole_training_run_ends_like_that_of_one_process(processes, people, tmp_path):
    """Trainer, samplers, batch norms, logged terms and evaluation together."""
    found, output = processes
    alone = train_tiny_model(people, tmp_path, batch_size=6)
    one, two = load_file(tmp_path / "model.safetensors"), load_file(output / "trained" / "model.safetensors")
    assert one.keys() == two.keys()
    for name, value in one.items():
        # Float32's rounding errors grow from step to step; a bias that starts at 0 may be nothing else.
        tolerance = 1e-3 * float(value.abs().max()) + 1e-8
        torch.testing.assert_close(two[name], value, rtol=0, atol=tolerance, msg=name)
    for process in found:
        training = process["training"]
        assert training["metrics"] == pytest.approx(alone["metrics"])
        assert training["encoded images"] == alone["encoded images"] // 2
        assert [set(entry) for entry in training["logs"]] == [set(entry) for entry in alone["logs"]]
        for entry, expected in zip(training["logs"], alone["logs"], strict=True):
            assert entry == pytest.approx(expected, rel=1e-4)

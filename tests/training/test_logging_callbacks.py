"""What a run tells: lines on the console, and figures for whoever listens."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from reid_zoo.errors import ConfigurationError, MissingPackageError, RecipeError
from reid_zoo.training import ReIDTrainingArguments, load_recipe, train
from reid_zoo.training.logging_callbacks import LogLines, accumulation_note, check_report_to, wandb_run_of_its_own
from small_runs import SMALL_TOWERS
from tiny_models import draw_people

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")
GROUPS = (
    "optimization.parameter_groups=[{name: image, pattern: vision, learning_rate: 1.0e-3},"
    " {name: rest, learning_rate: 1.0e-4, weight_decay: 0.1, decay_vectors: false}]"
)
SMALL = [
    *SMALL_TOWERS,
    "model.config={loss_terms: [itc, sdm]}",
    "image_size=[48, 32]",
    "optimization.num_epochs=2",
    "optimization.batch_size=4",
    "optimization.logging_steps=1",
    "optimization.schedule={kind: epoch_linear}",
    "evaluation.every_epochs=2",
    GROUPS,
]


class Listener(TrainerCallback):
    """In place of an integration."""

    heard: ClassVar[list[dict]] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.heard.append(dict(logs))


def run(tmp_path, *overrides, log=None):
    people = draw_people(tmp_path / "people")
    recipe = load_recipe("dual_encoder-tiny", [*SMALL, *overrides])
    return train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False, log=log)


def test_everything_is_reported(tmp_path, monkeypatch):
    heard: list[dict] = []
    monkeypatch.setattr(Listener, "heard", heard)
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "listener", Listener)
    lines: list[str] = []
    run(tmp_path, "logging.report_to=[listener]", log=lines.append)
    steps = [logs for logs in heard if "loss" in logs]
    assert len(steps) == 6
    for logs in steps:
        assert {"loss_itc", "loss_sdm", "grad_norm", "learning_rate_image", "learning_rate_rest"} <= logs.keys()
        assert logs["grad_norm"] > 0
        assert logs["loss"] == pytest.approx(logs["loss_itc"] + logs["loss_sdm"], rel=1e-4)
    # the rates of the step that was made, not of the next one
    assert [logs["learning_rate_image"] for logs in steps] == pytest.approx([1e-3] * 3 + [5e-4] * 3)
    assert [logs["learning_rate_rest"] for logs in steps] == pytest.approx([1e-4] * 3 + [5e-5] * 3)
    assert any("eval_mAP" in logs for logs in heard)

    table = [line for line in lines if "loss" in line]
    assert len(table) == 6
    for cell in ("epoch  0.33 step 1/6", "loss ", "itc ", "sdm ", "grad norm ", "lr image 1.0e-03", "lr rest 1.0e-04"):
        assert cell in table[0]
    assert len({tuple(place for place, sign in enumerate(line) if sign == "|") for line in table}) == 1
    assert any("validation" in line and "R1" in line and "mAP" in line for line in lines)


def test_one_rate_is_logged_once():
    lines: list[str] = []
    state = SimpleNamespace(is_world_process_zero=True, global_step=7, max_steps=100)
    LogLines(lines.append).on_log(None, state, None, {"loss": 1.5, "learning_rate": 1e-4, "epoch": 0.5})
    assert lines == ["epoch  0.50 step   7/100 | loss   1.500 | lr 1.0e-04"]
    LogLines(None).on_log(None, state, None, {"loss": 1.5})


def test_tensorboard_gets_what_is_logged(tmp_path, monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    lines: list[str] = []
    run(tmp_path, "logging.report_to=[tensorboard]", log=lines.append)
    (folder,) = {file.parent for file in (tmp_path / "m").rglob("events.out.tfevents*")}
    events = EventAccumulator(str(folder)).Reload()
    found = {name: {event.step: event.value for event in events.Scalars(name)} for name in events.Tags()["scalars"]}
    terms = ("loss", "loss_itc", "loss_sdm", "grad_norm", "learning_rate_image", "learning_rate_rest")
    for name in terms:
        assert list(found[f"train/{name}"]) == [1, 2, 3, 4, 5, 6]
    for step, loss in found["train/loss"].items():
        assert loss == pytest.approx(found["train/loss_itc"][step] + found["train/loss_sdm"][step], rel=1e-4)
        cells = next(line for line in lines if f" step {step}/6 " in line).split(" | ")
        assert f"loss {loss:7.3f}" in cells  # the console's figures
        assert f"grad norm {found['train/grad_norm'][step]:8.2f}" in cells
    assert list(found["train/learning_rate_image"].values()) == pytest.approx([1e-3] * 3 + [5e-4] * 3)
    for name in ("R1", "R5", "R10", "mAP", "mINP"):
        assert 0 <= found[f"eval/{name}"][6] <= 100

    # the settings of the run, and no defaults of transformers beside them that nobody read
    (text,) = events.Tensors("args/text_summary")
    arguments = json.loads(text.tensor_proto.string_val[0])
    assert arguments["run_name"] == "dual_encoder-tiny"
    assert arguments["recipe"]["optimization"]["parameter_groups"][0]["learning_rate"] == 1e-3
    assert arguments["per_device_train_batch_size"] == 4
    assert not {"learning_rate", "weight_decay", "optim", "num_train_epochs"} & arguments.keys()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: False)
    with pytest.raises(MissingPackageError, match="pip install tensorboard"):
        run(tmp_path, "logging.report_to=[tensorboard]")


class Wandb(ModuleType):
    """As much of wandb as decides where figures go."""

    def __init__(self):
        super().__init__("wandb")
        self.run = None
        self.ended = []

    def finish(self, exit_code=0):
        self.ended.append((self.run, exit_code))
        self.run = None


@pytest.fixture
def wandb(monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def fail_in_a_run(module, name):
    with wandb_run_of_its_own(["wandb"]):
        module.run = name
        raise ValueError("not finite")


def test_a_wandb_run_ends_with_the_training_that_began_it(wandb):
    with wandb_run_of_its_own(["wandb"]):
        wandb.run = "first"
    with pytest.raises(ValueError, match="not finite"):
        fail_in_a_run(wandb, "second")
    assert wandb.ended == [("first", 0), ("second", 1)]


def test_a_wandb_run_of_the_caller_stays_open(wandb):
    wandb.run = "own"
    with wandb_run_of_its_own(["wandb"]):
        pass
    with pytest.raises(ValueError, match="not finite"):
        fail_in_a_run(wandb, "own")
    assert wandb.run == "own"
    assert wandb.ended == []


def test_unknown_integrations_are_refused():
    with pytest.raises(RecipeError, match="did you mean 'wandb'"):
        check_report_to(["wanddb"])


def test_accumulation_says_what_it_does_to_negatives(tmp_path):
    note = accumulation_note(32, 4)
    assert "4 batches of 32 make one optimiser step" in note
    assert "31 others each, not 127" in note
    assert "batch_size=128 and cached_gradients=32" in note
    lines: list[str] = []
    run(tmp_path, "optimization.gradient_accumulation_steps=3", log=lines.append)
    assert [line for line in lines if "accumulation" in line] == [accumulation_note(4, 3)]


def test_precisions_that_are_not_to_be_had(tmp_path):
    with pytest.raises(ConfigurationError, match="exclude each other"):
        ReIDTrainingArguments(output_dir=str(tmp_path), fp16=True, bf16=True)
    with pytest.raises(ConfigurationError, match="fp16 needs an accelerator"):
        ReIDTrainingArguments(output_dir=str(tmp_path), fp16=True, use_cpu=True)

"""What a run tells: lines on the console, and figures for whoever listens."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from reid_zoo.errors import ConfigurationError, MissingPackageError, RecipeError
from reid_zoo.training import ReIDTrainingArguments, load_recipe, train
from reid_zoo.training.logging_callbacks import LogLines, accumulation_note, check_report_to
from tiny_models import draw_people

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")
_SIZES = "hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2"
GROUPS = (
    "optimization.parameter_groups=[{name: image, pattern: vision, learning_rate: 1.0e-3},"
    " {name: rest, learning_rate: 1.0e-4, weight_decay: 0.1, decay_vectors: false}]"
)
SMALL = [
    f"model.vision_config={{{_SIZES}, patch_size: 8}}",
    f"model.text_config={{{_SIZES}, max_position_embeddings: 64}}",
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


TENSORBOARD = [True] if importlib.util.find_spec("tensorboard") is not None else []


@pytest.mark.parametrize("installed", [*TENSORBOARD, False])
def test_tensorboard(tmp_path, monkeypatch, installed):
    if installed:
        run(tmp_path, "logging.report_to=[tensorboard]")
        assert list((tmp_path / "m").rglob("events.out.tfevents*"))
        return
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: False)
    with pytest.raises(MissingPackageError, match="pip install tensorboard"):
        run(tmp_path, "logging.report_to=[tensorboard]")


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

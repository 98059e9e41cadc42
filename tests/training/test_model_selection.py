"""Selection by a named metric, early stopping, and what is said about the test split."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file

from reid_zoo.errors import CheckpointError, RecipeError
from reid_zoo.evaluation import RetrievalMetrics
from reid_zoo.training import ReIDTrainer, load_recipe, train
from reid_zoo.training.recipe import SELECTION_METRICS, EvaluationSettings
from small_runs import SMALL_TOWERS, interrupted_at
from tiny_models import draw_people

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")
SMALL = [
    *SMALL_TOWERS,
    "image_size=[48, 32]",
    "optimization.num_epochs=6",
    "optimization.batch_size=4",
    "evaluation.every_epochs=1",
    "evaluation.save_every_epochs=4",
]
STEPS = 3  # of an epoch


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return draw_people(tmp_path_factory.mktemp("people"))


def run(people, output, *overrides):
    return train(
        load_recipe("dual_encoder-tiny", [*SMALL, *overrides]), data_root=people, output_dir=output, progress=False
    )


def script(monkeypatch, **figures):
    """Make the evaluations give these figures, one after the other."""
    evaluations = [dict(zip(figures, values, strict=True)) for values in zip(*figures.values(), strict=True)]
    given = iter(evaluations)

    def evaluate(self, *arguments, **options):
        values = {f"eval_{name}": value for name, value in next(given).items()}
        self.log(dict(values))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        return values

    monkeypatch.setattr(ReIDTrainer, "evaluate", evaluate)


def interrupt(monkeypatch, people, output, options, *, step):
    """Train until the `step`th optimiser step raises."""
    with interrupted_at(monkeypatch, step):
        run(people, output, *options)


def assert_kept(output, step):
    kept, best = load_file(output / "model.safetensors"), load_file(output / f"checkpoint-{step}" / "model.safetensors")
    assert all(torch.equal(kept[name], best[name]) for name in kept)


@pytest.mark.parametrize(("metric", "epoch"), [("R1", 2), ("mAP", 3)])
def test_the_best_by_the_named_metric_is_kept_wherever_it_falls(people, tmp_path, monkeypatch, metric, epoch):
    figures = {"R1": [10, 90, 20, 30, 40, 50, 0], "mAP": [10, 20, 90, 30, 40, 50, 0]}
    script(monkeypatch, **figures)
    run(people, tmp_path / "m", "evaluation.select_best=true", f"evaluation.metric={metric}")
    assert_kept(tmp_path / "m", epoch * STEPS)
    state = json.loads((tmp_path / "m" / f"checkpoint-{6 * STEPS}" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "m" / f"checkpoint-{epoch * STEPS}")
    assert state["best_metric"] == 90


def test_training_stops_when_it_does_not_get_better(people, tmp_path, monkeypatch):
    script(monkeypatch, R1=[10, 20, 15, 20, 90, 90, 90])
    summary = run(people, tmp_path / "m", "evaluation.select_best=true", "evaluation.patience=2")
    assert summary.steps == 4 * STEPS
    assert_kept(tmp_path / "m", 2 * STEPS)


def test_without_selection_the_last_model_is_kept(people, tmp_path, monkeypatch):
    script(monkeypatch, R1=[20, 15, 10, 90, 90, 90, 90])
    assert run(people, tmp_path / "m", "evaluation.patience=2", "evaluation.save_every_epochs=1").steps == 3 * STEPS
    assert_kept(tmp_path / "m", 3 * STEPS)


def test_patience_goes_on_counting_after_an_interruption(people, tmp_path, monkeypatch):
    options = ["evaluation.select_best=true", "evaluation.patience=3", "evaluation.save_every_epochs=1"]
    script(monkeypatch, R1=[20, 15, 10, 5, 90, 90, 90])
    interrupt(monkeypatch, people, tmp_path / "m", options, step=3 * STEPS + 2)
    assert run(people, tmp_path / "m", *options).steps == 4 * STEPS
    assert_kept(tmp_path / "m", STEPS)


BEST_IS_FIRST = ["evaluation.select_best=true", "evaluation.save_every_epochs=1", "optimization.num_epochs=4"]


@pytest.mark.parametrize("average", ["0", "0.9"])
def test_the_best_is_found_in_a_folder_that_was_moved(people, tmp_path, monkeypatch, average):
    options = [*BEST_IS_FIRST, f"optimization.ema_decay={average}"]
    script(monkeypatch, R1=[90, 10, 20, 30, 90])
    run(people, tmp_path / "straight", *options)
    script(monkeypatch, R1=[90, 10, 20, 30, 90, 90])
    interrupt(monkeypatch, people, tmp_path / "m", options, step=4 * STEPS)
    (tmp_path / "m").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    run(people, "moved", *options)  # reached by a relative path, too
    monkeypatch.chdir("/")
    run(people, tmp_path / "moved", *options)  # nothing is left to be done, and nothing to be saved
    straight, moved = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "moved"))
    assert all(torch.equal(straight[name], moved[name]) for name in straight)
    last = load_file(tmp_path / "moved" / f"checkpoint-{4 * STEPS}" / "model.safetensors")
    assert not all(torch.equal(moved[name], last[name]) for name in moved)


def test_a_best_checkpoint_that_is_gone_is_said(people, tmp_path, monkeypatch):
    script(monkeypatch, R1=[90, 10, 20, 30, 90])
    run(people, tmp_path / "m", *BEST_IS_FIRST)
    shutil.rmtree(tmp_path / "m" / f"checkpoint-{STEPS}")
    with pytest.raises(CheckpointError, match=rf"checkpoint-{STEPS}, the best checkpoint so far, .* does not exist"):
        run(people, tmp_path / "m", *BEST_IS_FIRST)


def test_the_best_of_an_older_checkpoint_is_kept_as_well(people, tmp_path, monkeypatch):
    script(monkeypatch, R1=[50, 10, 90, 20])
    options = [*BEST_IS_FIRST, "optimization.num_epochs=3"]
    run(people, tmp_path / "m", *options)
    kept = load_file(tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / f"checkpoint-{3 * STEPS}" / "model.safetensors").write_bytes(b"damaged")
    script(monkeypatch, R1=[90, 20])
    with pytest.warns(UserWarning, match="is passed over"):
        run(people, tmp_path / "m", *options)
    again = load_file(tmp_path / "m" / "model.safetensors")
    assert all(torch.equal(kept[name], again[name]) for name in kept)


@pytest.mark.parametrize("select", ["true", "false"])
def test_a_run_that_was_stopped_early_takes_no_further_step(people, tmp_path, monkeypatch, select):
    """A run killed behind the last checkpoint, before the model is saved, looks just the same."""
    options = [f"evaluation.select_best={select}", "evaluation.patience=1", "evaluation.save_every_epochs=1"]
    script(monkeypatch, R1=[90, 10, 90])
    assert run(people, tmp_path / "m", *options).steps == 2 * STEPS
    first = load_file(tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / "model.safetensors").unlink()
    script(monkeypatch, R1=[90])  # only that of the final model
    assert run(people, tmp_path / "m", *options).steps == 2 * STEPS
    again = load_file(tmp_path / "m" / "model.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_checkpoints_every_few_steps(people, tmp_path):
    run(people, tmp_path / "m", "evaluation.save_every_steps=4", "optimization.num_epochs=3")
    assert sorted(path.name for path in (tmp_path / "m").glob("checkpoint-*")) == ["checkpoint-8", "checkpoint-9"]


def test_no_resume_starts_over(people, tmp_path):
    run(people, tmp_path / "m", "optimization.num_epochs=2", "evaluation.save_every_epochs=1")
    recipe = load_recipe("dual_encoder-tiny", [*SMALL, "optimization.num_epochs=1"])
    train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False, resume=False)
    assert [path.name for path in (tmp_path / "m").glob("checkpoint-*")] == [f"checkpoint-{STEPS}"]


def test_selection_on_the_test_split_is_said(people, tmp_path, monkeypatch):
    script(monkeypatch, R1=[20, 15])
    options = ["evaluation.split=test", "evaluation.select_best=true", "optimization.num_epochs=1"]
    with pytest.warns(UserWarning, match=r"evaluation\.split is test: .* flatters R1"):
        run(people, tmp_path / "m", *options)
    script(monkeypatch, R1=[20, 15])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "evaluation.split")
        run(people, tmp_path / "n", options[0], options[2])


@pytest.mark.parametrize("field", ["select_best=true", "patience=1"])
def test_selection_needs_evaluations(people, tmp_path, field):
    with pytest.raises(RecipeError, match=r"needs evaluation\.every_epochs"):
        run(people, tmp_path / "m", "evaluation.every_epochs=0", f"evaluation.{field}")


def test_metrics_are_those_of_the_evaluation():
    assert {name for name in SELECTION_METRICS if not isinstance(getattr(RetrievalMetrics, name), property)} == set()
    with pytest.raises(RecipeError, match=r"evaluation\.metric is 'r1'"):
        EvaluationSettings(metric="r1")

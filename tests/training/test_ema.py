"""Averaged weights: the formula, what is evaluated, saved and selected."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from reid_zoo import ReIDModel, ReIDProcessor
from reid_zoo.data import load_dataset
from reid_zoo.encoding import PersonEncoder
from reid_zoo.errors import CheckpointError, ConfigurationError
from reid_zoo.evaluation import evaluate_model
from reid_zoo.training import ReIDTrainer, load_recipe, train
from reid_zoo.training.ema import WeightAverage
from small_runs import SMALL_TOWERS
from tiny_models import draw_people

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")
SMALL = [
    *SMALL_TOWERS,
    "image_size=[48, 32]",
    "optimization.num_epochs=2",
    "optimization.batch_size=4",
    "optimization.ema_decay=0.7",
    "evaluation.every_epochs=1",
    "evaluation.save_every_epochs=1",
]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return draw_people(tmp_path_factory.mktemp("people"), identities=8)


def run(people, output, *overrides):
    return train(
        load_recipe("dual_encoder-tiny", [*SMALL, *overrides]), data_root=people, output_dir=output, progress=False
    )


def test_the_average_follows_its_formula():
    model, average, decay = torch.nn.Linear(3, 2), WeightAverage(0.9), 0.9
    model.bias.requires_grad_(False)
    average.start(model)
    assert list(average.weights) == ["weight"]
    expected = model.weight.detach().double().clone()
    for _ in range(5):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        average.update(model)
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
    torch.testing.assert_close(average.weights["weight"].double(), expected, rtol=1e-6, atol=1e-6)  # float32
    own = model.weight.detach().clone()
    with average.applied(model):
        assert torch.equal(model.weight, average.weights["weight"])
    assert torch.equal(model.weight, own)


def test_after_training_the_model_has_the_average():
    model, average = torch.nn.Linear(3, 2), WeightAverage(0.5)
    average.start(model)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    average.update(model)
    average.on_train_end(None, None, None, model=model)
    torch.testing.assert_close(model.weight, before + 0.5)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(ConfigurationError, match="ema_decay"):
        WeightAverage(decay)


def test_the_average_of_another_run_is_refused(tmp_path):
    average = WeightAverage(0.9)
    average.start(torch.nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match="without ema_decay"):
        average.load(tmp_path)
    average.save(tmp_path)
    average.start(torch.nn.Linear(2, 2, bias=False))
    with pytest.raises(CheckpointError, match="another model"):
        average.load(tmp_path)


def test_the_average_is_what_is_evaluated_and_saved(people, tmp_path):
    summary = run(people, tmp_path / "m")
    saved = load_file(tmp_path / "m" / "model.safetensors")
    last = tmp_path / "m" / f"checkpoint-{summary.steps}"
    average, own = load_file(last / "averaged_weights.safetensors"), load_file(last / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in average.items())
    assert not all(torch.equal(own[name], value) for name, value in average.items())
    model, processor = ReIDModel.from_pretrained(tmp_path / "m"), ReIDProcessor.from_pretrained(tmp_path / "m")
    again = evaluate_model(PersonEncoder(model, processor), load_dataset("cuhk-pedes", people, "val"), progress=False)
    assert again.as_dict() == pytest.approx(summary.metrics)


def test_evaluation_sees_the_average(people, tmp_path, monkeypatch):
    seen = []
    original = PersonEncoder.encode_texts

    def looking(self, texts):
        seen.append({name: value.detach().clone() for name, value in self.model.named_parameters()})
        return original(self, texts)

    monkeypatch.setattr(PersonEncoder, "encode_texts", looking)
    summary = run(people, tmp_path / "m")
    average = load_file(tmp_path / "m" / f"checkpoint-{summary.steps}" / "averaged_weights.safetensors")
    for evaluated in seen[-2:]:  # after the second epoch, and at the end
        towers = {f"dual_encoder.{name}": value for name, value in evaluated.items()}
        assert towers.keys() == average.keys()
        assert all(torch.equal(value, towers[name]) for name, value in average.items())


def test_the_best_average_is_kept(people, tmp_path, monkeypatch):
    ranks = iter([80.0, 30.0, 80.0])

    def evaluate(self, *arguments, **options):
        values = {"eval_R1": next(ranks)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        return values

    monkeypatch.setattr(ReIDTrainer, "evaluate", evaluate)
    summary = run(people, tmp_path / "m", "evaluation.select_best=true")
    kept = load_file(tmp_path / "m" / "model.safetensors")
    best, last = (
        load_file(tmp_path / "m" / f"checkpoint-{step}" / "averaged_weights.safetensors")
        for step in (summary.steps // 2, summary.steps)
    )
    assert all(torch.equal(kept[name], value) for name, value in best.items())
    assert not all(torch.equal(kept[name], value) for name, value in last.items())

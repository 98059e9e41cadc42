"""A training run: every term is logged, an interrupted run goes on exactly, the best checkpoint is kept."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from reid_zoo import CFineConfig, ReIDModel, ReIDProcessor
from reid_zoo.data import load_dataset
from reid_zoo.encoding import PersonEncoder
from reid_zoo.errors import ConfigurationError, RecipeError
from reid_zoo.evaluation import evaluate_model
from reid_zoo.training import ReIDTrainer, ReIDTrainingArguments, build_model, load_recipe, train
from small_runs import interrupted_at
from tiny_models import draw_people, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")  # a dozen captions make a small vocabulary

SMALL = [
    "model.vision_config={hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2, patch_size: 8}",
    "model.text_config={hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2,"
    " max_position_embeddings: 64}",
    "optimization.num_epochs=3",
    "optimization.batch_size=4",
    "optimization.logging_steps=2",
    "evaluation.save_every_epochs=1",
]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Three people to train on (6 images, 12 captions), one to validate, two to test."""
    return draw_people(tmp_path_factory.mktemp("people"))


def recipe(*overrides):
    return load_recipe("cfine-tiny", [*SMALL, *overrides])


def run(people, output, *overrides, **options):
    return train(recipe(*overrides), data_root=people, output_dir=output, progress=False, **options)


@pytest.fixture(scope="module")
def finished(people, tmp_path_factory):
    output = tmp_path_factory.mktemp("finished") / "model"
    lines: list[str] = []
    return output, run(people, output, log=lines.append), lines


def history(folder):
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def test_every_term_of_the_loss_is_logged(finished):
    output, summary, lines = finished
    assert summary.steps == 9
    logs = [entry for entry in history(output / "checkpoint-9") if "loss" in entry]
    assert [entry["step"] for entry in logs] == [2, 4, 6, 8]
    weights = recipe().model.config
    for entry in logs:
        terms = {name.removeprefix("loss_"): value for name, value in entry.items() if name.startswith("loss_")}
        assert {"cmpm", "cmpc", "triplet", "diversity_image", "diversity_text", "cmpm_low", "cmpc_middle"} <= set(terms)
        diversity = 0.2 * (terms["diversity_image"] + terms["diversity_text"])
        total = terms["cmpm"] + terms["cmpc"] + diversity + weights["triplet_weight"] * terms["triplet"]
        assert entry["loss"] == pytest.approx(total, rel=1e-4)  # the Trainer rounds the loss it logs
    assert any("step 2/9" in line and "triplet" in line for line in lines)


def test_the_result_is_a_folder_that_loads_and_its_metrics_can_be_repeated(people, finished):
    output, summary, _ = finished
    encoder = PersonEncoder(ReIDModel.from_pretrained(output), ReIDProcessor.from_pretrained(output))
    records = load_dataset("cuhk-pedes", people, "val")
    assert evaluate_model(encoder, records, progress=False).as_dict() == pytest.approx(summary.metrics)
    assert (output / "recipe.yaml").is_file()


def test_the_same_seed_gives_the_same_model_and_another_one_does_not(people, finished, tmp_path):
    run(people, tmp_path / "again")
    run(people, tmp_path / "other", seed=1)
    first, again, other = (
        load_file(folder / "model.safetensors") for folder in (finished[0], tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_an_interrupted_run_goes_on_to_the_very_same_model(people, finished, tmp_path, monkeypatch):
    with interrupted_at(monkeypatch, 6):  # in the second of three epochs, after the checkpoint of the first
        run(people, tmp_path / "m")
    assert not (tmp_path / "m" / "model.safetensors").exists()
    summary = run(people, tmp_path / "m")
    assert summary.resumed_from == tmp_path / "m" / "checkpoint-3"
    assert summary.steps == 9
    straight, resumed = load_file(finished[0] / "model.safetensors"), load_file(tmp_path / "m" / "model.safetensors")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_checkpoints_of_another_recipe_are_not_continued(people, finished):
    with pytest.raises(RecipeError, match="other settings"):
        run(people, finished[0], "optimization.num_epochs=4")


def test_the_best_checkpoint_is_kept(people, tmp_path, monkeypatch):
    ranks = iter([30.0, 80.0, 50.0, 80.0])

    def evaluate(self, *arguments, **options):
        values = {"eval_R1": next(ranks)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        self.log(dict(values))
        return values

    monkeypatch.setattr(ReIDTrainer, "evaluate", evaluate)
    run(people, tmp_path / "m", "evaluation.every_epochs=1", "evaluation.select_best=true")
    best, last = (load_file(tmp_path / "m" / f"checkpoint-{step}" / "model.safetensors") for step in (6, 9))
    kept = load_file(tmp_path / "m" / "model.safetensors")
    assert all(torch.equal(kept[name], best[name]) for name in kept)
    assert not all(torch.equal(kept[name], last[name]) for name in kept)


@pytest.mark.parametrize("option", ["gradient_checkpointing=true", "bf16=true", "cache_images=false"])
def test_options_of_a_run(people, tmp_path, option):
    assert run(people, tmp_path / "m", f"optimization.{option}", "optimization.num_epochs=1").steps == 3


def test_accumulated_batches_make_one_step(people, tmp_path):
    summary = run(people, tmp_path / "m", "optimization.gradient_accumulation_steps=3", "optimization.num_epochs=2")
    assert summary.steps == 2


def test_a_trainer_that_is_to_evaluate_needs_the_processor(people, tmp_path):
    optimization = recipe().optimization
    arguments = ReIDTrainingArguments(output_dir=str(tmp_path), report_to="none")
    records = load_dataset("cuhk-pedes", people, "val")
    with pytest.raises(ConfigurationError, match="processing_class"):
        ReIDTrainer(tiny_model(), arguments, optimization=optimization, eval_dataset=records)
    with pytest.raises(ConfigurationError, match="eval_dataset"):
        ReIDTrainer(tiny_model(), arguments, optimization=optimization).evaluate()


def test_a_recipe_takes_a_preset_and_changes_it(people):
    records = load_dataset("cuhk-pedes", people, "train")
    overrides = [
        "model.vision_config={num_hidden_layers: 1}",
        "model.config={triplet_weight: 3}",
        "image_size=[64, 32]",
    ]
    model, processor = build_model(load_recipe("cfine-tiny", overrides), records)
    tiny = CFineConfig.from_preset("tiny")
    assert model.config.vision_config.num_hidden_layers == 1
    assert model.config.vision_config.hidden_size == tiny.vision_config.hidden_size
    assert model.config.vision_config.image_size == [64, 32]
    assert processor.image_size == (64, 32)
    assert model.config.text_config.hidden_size == tiny.text_config.hidden_size
    assert (model.config.triplet_weight, model.config.max_text_length) == (3, tiny.max_text_length)
    assert model.config.num_classes == 3
    with pytest.raises(ConfigurationError, match="unknown preset 'tinny'; did you mean 'tiny'"):
        build_model(load_recipe("cfine-tiny", ["model.preset=tinny"]), records)


def test_positions_start_as_wide_as_the_preset_says(people):
    model, _ = build_model(load_recipe("cfine-tiny"), load_dataset("cuhk-pedes", people, "train"))
    embeddings = model.vision_tower.embeddings
    # 49 × 128 draws: the sample deviation is within 4 % of the true one
    assert embeddings.position_embedding.std().item() == pytest.approx(0.5, rel=0.04)
    assert embeddings.class_embedding.std().item() == pytest.approx(0.08, rel=0.3)

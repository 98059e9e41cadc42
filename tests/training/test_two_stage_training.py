"""CLIP-ReID's training: prompts first, then the image tower against them; the same after any interruption."""

from __future__ import annotations

import json
import shutil
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from reid_zoo import ReIDModel, ReIDProcessor
from reid_zoo.data import load_dataset
from reid_zoo.encoding import PersonEncoder
from reid_zoo.errors import CheckpointError, ConfigurationError, DatasetError, RecipeError
from reid_zoo.models.clip_reid.modeling_clip_reid import CLIPReIDForTraining
from reid_zoo.training import ReIDTrainer, build_model, load_recipe, running, train
from reid_zoo.training.image_evaluation import evaluate_images
from reid_zoo.training.prompt_stage import cache_image_features
from small_runs import interrupted_at

torch.set_num_threads(1)

_SIZES = "hidden_size: 16, intermediate_size: 16, num_hidden_layers: 2, num_attention_heads: 2"
SMALL = [
    f"model.vision_config={{{_SIZES}, patch_size: 8}}",
    f"model.text_config={{{_SIZES}}}",
    "dataset=market-1501",
    "image_size=[32, 16]",
    "sampler.images_per_identity=2",
    "optimization.num_epochs=2",
    "optimization.batch_size=4",
    "optimization.logging_steps=1",
    "stage_one.num_epochs=2",
    "stage_one.batch_size=8",
    "stage_one.logging_steps=1",
    "evaluation.save_every_steps=3",
    "evaluation.split=test",
]
PROMPTS = "prompt_learner.context"
PEOPLE, IMAGES = 5, 4  # to train on: 20 images, 10 groups of 2


def draw_market(root):
    """Market-1501's folders with images of noise: 5 people with 4 images by 3 cameras to train on, 2 to search for."""
    random = np.random.default_rng(0)

    def draw(folder, person, camera, index):
        path = root / "Market-1501-v15.09.15" / folder / f"{person:04d}_c{camera}s1_{index:06d}_00.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (32, 16, 3), dtype=np.uint8)).save(path)

    for person in range(1, 1 + PEOPLE):
        for index in range(IMAGES):
            draw("bounding_box_train", person * 2, 1 + index % 3, index)
    for person in (1, 3):
        draw("query", person, 1, 0)
        for camera in (1, 2, 3):
            draw("bounding_box_test", person, camera, camera)
    return root


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return draw_market(tmp_path_factory.mktemp("market"))


def recipe(*overrides):
    return load_recipe("clip_reid-tiny", [*SMALL, *overrides])


def run(market, output, *overrides, **options):
    return train(recipe(*overrides), data_root=market, output_dir=output, progress=False, **options)


@pytest.fixture(scope="module")
def finished(market, tmp_path_factory):
    output = tmp_path_factory.mktemp("finished") / "model"
    lines: list[str] = []
    return output, run(market, output, log=lines.append), lines


def weights(folder):
    return load_file(folder / "model.safetensors")


def initial(market):
    built = recipe()
    torch.manual_seed(built.seed)
    return build_model(built, load_dataset("market-1501", market, "train"))


def test_one_command_trains_both_stages(finished, market):
    output, summary, lines = finished
    steps_of_stage_one = 2 * 3  # 20 images in batches of 8: the incomplete one is used too
    assert summary.stage_one_steps == steps_of_stage_one
    assert len([line for line in lines if line.startswith("stage 1: ")]) == steps_of_stage_one
    assert summary.epochs == 2
    assert summary.steps == len([line for line in lines if "triplet" in line])
    assert "i2t" in lines[0]
    assert "t2i" in lines[0]
    model, processor = ReIDModel.from_pretrained(output), ReIDProcessor.from_pretrained(output)
    assert processor.tokenizer is None
    assert model.config.num_classes == PEOPLE
    # Evaluated on query against gallery, without images of the query's camera.
    test = load_dataset("market-1501", market, "test")
    metrics = evaluate_images(PersonEncoder(model, processor), test, progress=False)
    assert metrics.num_queries == 2
    assert metrics.as_dict() == pytest.approx(summary.metrics)


def test_each_stage_has_a_wandb_run_of_its_own(market, tmp_path, monkeypatch):
    wandb = ModuleType("wandb")
    wandb.run = None
    runs: dict[str, list[int]] = {}

    class Reporter(TrainerCallback):
        """Opens a run only where there is none, as transformers does."""

        def on_train_begin(self, args, state, control, **kwargs):
            wandb.run = wandb.run or args.run_name

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in logs:
                runs.setdefault(wandb.run, []).append(state.global_step)

    wandb.finish = lambda: setattr(wandb, "run", None)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", Reporter)
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: True)
    summary = run(market, tmp_path / "model", "logging.report_to=[wandb]")
    assert runs == {
        "clip_reid-tiny-stage1": [*range(1, summary.stage_one_steps + 1)],
        "clip_reid-tiny": [*range(1, summary.steps + 1)],
    }
    assert wandb.run is None


def test_the_prompts_of_stage_one_are_those_of_stage_two(finished, market):
    output, _, _ = finished
    model, _ = initial(market)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, last = weights(output / "stage1"), weights(output)
    assert {name for name in first if not torch.equal(first[name], before[name])} == {PROMPTS}
    assert torch.equal(first[PROMPTS], last[PROMPTS])
    trained = {name for name in last if not torch.equal(first[name], last[name])}
    assert {"classifier.weight", "clip_reid.visual_projection.weight", "clip_reid.bottleneck.running_mean"} <= trained
    assert not any(name.startswith(("prompt_learner.", "text_")) for name in trained)
    model = CLIPReIDForTraining.from_pretrained(output)
    labels = torch.arange(PEOPLE)
    expected = CLIPReIDForTraining.from_pretrained(output / "stage1").prompt_features(labels)
    assert torch.equal(model.compute_class_text_features(), expected.detach())


def test_stage_two_classifies_by_the_texts_of_the_learned_prompts(market, tmp_path, monkeypatch):
    """What the loss compares images with is computed from the prompts that stage one ended with."""
    used = []
    compute = CLIPReIDForTraining.compute_class_text_features

    def remember(self):
        used.append(self.prompt_learner.context.detach().clone())
        return compute(self)

    monkeypatch.setattr(CLIPReIDForTraining, "compute_class_text_features", remember)
    run(market, tmp_path / "m")
    assert len(used) == 1, "once, before the first step"
    assert torch.equal(used[0], weights(tmp_path / "m" / "stage1")[PROMPTS])


def test_averaged_prompts_are_handed_over_as_they_were_saved(finished, market, tmp_path):
    run(market, tmp_path / "m", "stage_one.ema_decay=0.5")
    first, last = weights(tmp_path / "m" / "stage1"), weights(tmp_path / "m")
    assert torch.equal(first[PROMPTS], last[PROMPTS])
    assert not torch.equal(first[PROMPTS], weights(finished[0] / "stage1")[PROMPTS])


def test_image_features_are_those_of_retrieval_without_augmentation(market):
    model, processor = initial(market)
    records = load_dataset("market-1501", market, "train")
    model.train()
    features = cache_image_features(model, records, processor, batch_size=3)
    assert features.shape == (PEOPLE * IMAGES, model.config.projection_dim)
    images = [Image.open(record.image_path) for record in records]
    expected = model.eval().get_image_features(**processor(images=images, return_tensors="pt"))
    torch.testing.assert_close(features, expected.granularities["feat_proj"].detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("killed_at", [1, 4, 7, 10])
def test_a_run_interrupted_in_either_stage_ends_with_the_very_same_weights(
    finished, market, tmp_path, monkeypatch, killed_at
):
    """Steps 1 and 4: in the first stage, before and behind a checkpoint; step 7: the first of the second; step 10 later."""
    output = tmp_path / "m"
    with interrupted_at(monkeypatch, killed_at):
        run(market, output)
    assert not (output / "model.safetensors").exists()
    assert (output / "stage1" / "learned.json").exists() == (killed_at > 6)
    lines: list[str] = []
    summary = run(market, output, log=lines.append)
    repeated = len([line for line in lines if line.startswith("stage 1: ")])
    assert repeated == {1: 6, 4: 3, 7: 0, 10: 0}[killed_at]
    assert (summary.resumed_from is not None) == (killed_at == 10)
    assert summary.stage_one_steps == 6
    straight, resumed = weights(finished[0]), weights(output)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def copied(finished, tmp_path):
    """A run that was stopped in its second stage."""
    output = tmp_path / "m"
    shutil.copytree(finished[0], output)
    return output


def test_other_prompts_than_the_learned_ones_are_refused(finished, market, tmp_path):
    output = copied(finished, tmp_path)
    file = output / "stage1" / "model.safetensors"
    changed = load_file(file)
    changed[PROMPTS] += 1e-3
    save_file(changed, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"prompt_learner\.context .* not what the first stage learned"):
        run(market, output)


def test_a_second_stage_with_prompts_of_another_run_is_refused(finished, market, tmp_path, monkeypatch):
    output = copied(finished, tmp_path)
    note = json.loads((output / "stage1" / "learned.json").read_text())
    shutil.rmtree(output / "stage1")
    (output / "recipe.yaml").write_text((output / "recipe.yaml").read_text().replace("seed: 42", "seed: 7"))
    run(market, tmp_path / "other", seed=7)
    shutil.copytree(tmp_path / "other" / "stage1", output / "stage1")
    assert json.loads((output / "stage1" / "learned.json").read_text())["sha256"] != note["sha256"]
    with pytest.raises(CheckpointError, match="the folder mixes two runs"):
        run(market, output, seed=7)


def test_a_damaged_first_stage_is_named(finished, market, tmp_path):
    output = copied(finished, tmp_path)
    (output / "stage1" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="cannot read what the first stage left in"):
        run(market, output)


def test_starting_over_learns_the_prompts_again(finished, market, tmp_path):
    output = copied(finished, tmp_path)
    lines: list[str] = []
    run(market, output, resume=False, log=lines.append)
    assert any(line.startswith("stage 1: ") for line in lines)


@pytest.mark.parametrize("mode", ["baseline", "one_stage"])
def test_variants_with_one_stage(market, tmp_path, mode):
    built = recipe(f"model.config={{training_mode: {mode}}}", "stage_one=null")
    torch.manual_seed(built.seed)
    model, _ = build_model(built, load_dataset("market-1501", market, "train"))
    lines: list[str] = []
    summary = train(built, data_root=market, output_dir=tmp_path / "m", progress=False, log=lines.append)
    assert summary.stage_one_steps is None
    assert not (tmp_path / "m" / "stage1").exists()
    terms = {"id", "triplet"} | ({"i2t_in_batch", "t2i_in_batch"} if mode == "one_stage" else set())
    history = json.loads((summary.output_dir / f"checkpoint-{summary.steps}" / "trainer_state.json").read_text())
    logged = {name.removeprefix("loss_") for entry in history["log_history"] for name in entry if "loss_" in name}
    assert logged == terms
    after = weights(tmp_path / "m")
    assert (PROMPTS in after) == (mode == "one_stage")
    if mode == "one_stage":
        assert not torch.equal(after[PROMPTS], model.prompt_learner.context)


def test_contexts_trained_at_once_have_a_rate_of_their_own():
    """CLIP-ReID spec, section 7."""
    groups = {
        group.name: group for group in load_recipe("clip_reid-msmt17-vit-one-stage").optimization.parameter_groups
    }
    assert (groups["prompts"].learning_rate, groups["prompts"].weight_decay) == (3.5e-4, 1e-4)


def test_cameras_reach_the_side_information(market, tmp_path, monkeypatch):
    seen = []
    forward = CLIPReIDForTraining.forward

    def remember(self, *arguments, **inputs):
        seen.append(inputs.get("camera_ids"))
        return forward(self, *arguments, **inputs)

    monkeypatch.setattr(CLIPReIDForTraining, "forward", remember)
    run(market, tmp_path / "m", "model.config={sie_camera: true}")
    model = ReIDModel.from_pretrained(tmp_path / "m")
    assert model.config.num_cameras == 3
    assert model.side_information.shape == (3, 16)
    first_stage, second_stage = seen[:6], seen[6:]
    assert all(cameras is None for cameras in first_stage), "stage one has no side information"
    assert {int(camera) for cameras in second_stage for camera in cameras} == {0, 1, 2}


def test_side_information_that_the_records_lack_is_named(market, tmp_path):
    path = tmp_path / "mine.jsonl"
    images = sorted((market / "Market-1501-v15.09.15" / "bounding_box_train").iterdir())
    path.write_text("".join(json.dumps({"image": image.name, "person_id": image.name[:4]}) + "\n" for image in images))
    options = ["dataset=jsonl", f"dataset_options={{image_root: {images[0].parent}}}", "evaluation.split=val"]
    with pytest.raises(
        DatasetError, match=r"0002_c1s1_000000_00\.jpg has no camera_id, which model\.config\.sie_camera"
    ):
        run(path, tmp_path / "m", *options, "model.config={sie_camera: true}")
    summary = run(path, tmp_path / "m", *options)
    assert summary.metrics is None, "the data is not divided: there is nothing to validate on"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stage_one=null"], "has two stages, but the recipe says nothing of stage_one"),
        (["model.config={training_mode: baseline}"], "has one stage, but the recipe has stage_one"),
        (["optimization.batch_size=5"], "a batch of 5 images per process is not made of at least 2 identities with 2"),
        (["optimization.batch_size=2"], "a batch of 2 images per process is not made of"),
        (["optimization.batch_size=12"], "takes 6 identities with 2 images each, but the training data has only 5"),
        (["sampler.images_per_identity=1"], "images_per_identity is 1, but must be at least 2"),
        (["sampler.kind=pairs"], "sampler.kind is 'pairs', but must be one of"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(market, tmp_path, overrides, message):
    with pytest.raises((RecipeError, ConfigurationError), match=message) as caught:
        run(market, tmp_path / "m", *overrides)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_the_second_stage_is_found_before_the_first(market, tmp_path):
    lines: list[str] = []
    groups = "[{name: a, pattern: nowhere, learning_rate: 1}, {name: b, learning_rate: 1}]"
    overrides = [f"optimization.parameter_groups={groups}", "stage_one.cache_images=true"]
    with pytest.raises(RecipeError, match=r"parameter group 'a' .* matches no parameter"):
        run(market, tmp_path / "m", *overrides, log=lines.append)
    assert not (tmp_path / "m" / "stage1").exists()
    assert lines == ["recipe field stage_one.cache_images has no effect: every image is read once."]


def test_workers_of_the_first_stage_read_images_and_nothing_else(market, tmp_path, monkeypatch):
    workers = []

    def remember(model, records, processor, *, batch_size, num_workers):
        workers.append(num_workers)
        return cache_image_features(model, records, processor, batch_size=batch_size)

    def forward(self, *arguments, **options):
        workers.append(self.args.dataloader_num_workers)
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "cache_image_features", remember)
    monkeypatch.setattr(ReIDTrainer, "compute_loss", forward)
    with pytest.raises(KeyboardInterrupt):
        run(market, tmp_path / "m", "stage_one.num_workers=3")
    assert workers == [3, 0]


def test_identities_are_needed(market, tmp_path):
    images = market / "Market-1501-v15.09.15" / "bounding_box_train"
    with pytest.raises(DatasetError, match="has no person_id, which is needed here; give every record one"):
        run(images, tmp_path / "m", "dataset=folder", "evaluation.split=val")


def test_a_folder_per_person_is_enough(market, tmp_path):
    for image in (market / "Market-1501-v15.09.15" / "bounding_box_train").iterdir():
        folder = tmp_path / "people" / image.name[:4]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / image.name)
    options = ["dataset=folder", "dataset_options.identities_from=folder", "evaluation.split=val"]
    run(tmp_path / "people", tmp_path / "m", *options)
    assert ReIDModel.from_pretrained(tmp_path / "m").config.num_classes == PEOPLE


def test_a_wrong_root_a_method_that_needs_captions_and_a_withdrawn_set_are_refused(market, tmp_path):
    with pytest.raises(DatasetError, match="Market-1501"):
        run(tmp_path, tmp_path / "m")
    text = load_recipe("cfine-tiny", ["dataset=market-1501"])
    with pytest.raises(DatasetError, match="image-to-image data set without captions"):
        train(text, data_root=market, output_dir=tmp_path / "m", progress=False)
    withdrawn = load_recipe("clip_reid-occluded-duke-vit")
    with pytest.raises(ConfigurationError, match="--accept-retracted"):
        train(withdrawn, data_root=market, output_dir=tmp_path / "m", progress=False)
    with pytest.raises(ConfigurationError, match="has no option 'accept'"):
        run(market, tmp_path / "m", "dataset_options={accept: true}")


def test_a_set_without_queries_is_evaluated_with_random_galleries(finished, market):
    encoder = PersonEncoder(ReIDModel.from_pretrained(finished[0]), ReIDProcessor.from_pretrained(finished[0]))
    training = load_dataset("market-1501", market, "train")
    metrics = evaluate_images(encoder, training, progress=False)
    assert len(metrics.trials) == 10
    assert {trial.num_queries for trial in metrics.trials} == {PEOPLE * (IMAGES - 1)}

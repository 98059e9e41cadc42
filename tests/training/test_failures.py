"""Training that cannot go on says why in one line, and leaves the last good checkpoint."""

from __future__ import annotations

import re
from inspect import signature
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from reid_zoo.data import load_dataset
from reid_zoo.encoding import PersonEncoder
from reid_zoo.errors import RecipeError, TrainingError
from reid_zoo.models.dual_encoder.modeling_dual_encoder import DualEncoderForTraining
from reid_zoo.training import load_recipe, train
from reid_zoo.training.checkpointing import checkpoint_damage, last_complete_checkpoint
from reid_zoo.training.failures import FiniteLoss, explained_memory_errors, memory_advice, sample_names
from reid_zoo.training.sample_tracing import SAMPLE_INDICES, TracedDataset, TracingCollator
from small_runs import SMALL_TOWERS
from tiny_models import draw_people

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")
SMALL = [
    *SMALL_TOWERS,
    "model.config={loss_terms: [itc, sdm]}",
    "image_size=[48, 32]",
    "optimization.num_epochs=2",
    "optimization.batch_size=4",
    "evaluation.save_every_steps=2",
]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return draw_people(tmp_path_factory.mktemp("people"), identities=8)


def run(people, output, *overrides):
    return train(
        load_recipe("dual_encoder-tiny", [*SMALL, *overrides]), data_root=people, output_dir=output, progress=False
    )


def spoil(monkeypatch, at, change):
    """Change the output of the `at`th forward pass in training."""
    forward, calls = DualEncoderForTraining.forward, 0

    def spoiled(self, **batch):
        nonlocal calls
        outputs = forward(self, **batch)
        calls += self.training
        return change(outputs) if calls == at and self.training else outputs

    # transformers asks the model for its arguments
    spoiled.__signature__ = signature(forward)
    monkeypatch.setattr(DualEncoderForTraining, "forward", spoiled)


def with_nan_in_sdm(outputs):
    outputs.loss_terms["sdm"] = outputs.loss_terms["sdm"] * float("nan")
    outputs.loss = outputs.loss + outputs.loss_terms["sdm"]
    return outputs


@pytest.mark.parametrize(
    ("batch", "accumulated", "step", "checkpoint"),
    [(4, 1, 4, 2), (8, 2, 5, 4)],  # 5 batches are an epoch: 5 steps, or 3
)
def test_a_loss_that_is_no_number_names_term_batch_and_checkpoint(
    people, tmp_path, monkeypatch, batch, accumulated, step, checkpoint
):
    spoil(monkeypatch, batch, with_nan_in_sdm)
    options = [f"optimization.gradient_accumulation_steps={accumulated}", "optimization.num_epochs=4"]
    with pytest.raises(TrainingError) as raised:
        run(people, tmp_path / "m", *options)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"training stopped in step {step}: the loss term 'sdm' is nan for the batch of ")
    names = {str(record.image_path) for record in load_dataset("cuhk-pedes", people, "train")}
    listed = message.split("for the batch of ")[1].split(";")[0].split(", ")
    assert len(listed) == 4
    assert set(listed) <= names
    assert f"The last good checkpoint is {tmp_path / 'm' / f'checkpoint-{checkpoint}'}." in message
    last = last_complete_checkpoint(tmp_path / "m")
    assert last is not None
    assert message.endswith(f"begin with its weights in another output folder: --set model.start_from={last}.")
    assert last.name == f"checkpoint-{checkpoint}"
    assert checkpoint_damage(last) is None


def test_the_advice_after_a_loss_that_is_no_number_can_be_followed(people, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        spoil(patch, 4, with_nan_in_sdm)
        with pytest.raises(TrainingError) as raised:
            run(people, tmp_path / "m")
    lower = "optimization.parameter_groups=[{name: all, learning_rate: 1e-6}]"
    with pytest.raises(RecipeError, match=r"learning_rate was .*, is 1e-06; .*use another output folder"):
        run(people, tmp_path / "m", lower)
    advised = re.findall(r"--set (\S+)\.$", str(raised.value))
    run(people, tmp_path / "lower", lower, *advised, "optimization.num_epochs=1")
    began, ended = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "m" / "checkpoint-2", tmp_path / "lower")
    )
    for name, value in began.items():
        # five steps of Adam, each of at most about its learning rate of 1e-6, and rounding errors of weights about 1
        torch.testing.assert_close(ended[name], value, rtol=0, atol=2e-5, msg=name)


def test_an_infinite_total_alone_is_found(people, tmp_path, monkeypatch):
    def overflow(outputs):
        outputs.loss = outputs.loss * float("inf")
        return outputs

    spoil(monkeypatch, 1, overflow)
    with pytest.raises(
        TrainingError, match=r"step 1: the loss term 'total' is inf .* There is no checkpoint of this run"
    ):
        run(people, tmp_path / "m")


def test_weights_that_are_not_finite_are_not_saved(people, tmp_path, monkeypatch):
    def zero_with_nan_gradient(outputs):
        outputs.loss = outputs.loss + torch.sqrt(outputs.loss * 0)  # 0, but infinity times 0 backward
        return outputs

    spoil(monkeypatch, 4, zero_with_nan_gradient)  # a checkpoint is due after this very step
    with pytest.raises(TrainingError, match=r"stopped after step 4: the weights '.*' are not finite .*checkpoint-2\."):
        run(people, tmp_path / "m")
    assert not (tmp_path / "m" / "checkpoint-4").exists()


def test_several_wrong_terms_are_all_named():
    guard = FiniteLoss()
    terms = {"a": torch.tensor(float("nan")), "b": torch.tensor(1.0), "c": torch.tensor(float("-inf"))}
    guard.remember(torch.tensor(float("nan")), terms, lambda: [f"sample {i}" for i in range(10)])
    with pytest.raises(
        TrainingError, match=r"'a' is nan, 'c' is -inf for the batch of sample 0, .* sample 7 and 2 more;"
    ):
        guard.on_pre_optimizer_step(SimpleNamespace(output_dir="nowhere"), SimpleNamespace(global_step=0), None)
    guard.on_pre_optimizer_step(SimpleNamespace(output_dir="nowhere"), SimpleNamespace(global_step=0), None)


def test_out_of_memory_says_what_to_lower(people, tmp_path, monkeypatch):
    def out_of_memory(outputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    spoil(monkeypatch, 2, out_of_memory)
    with pytest.raises(TrainingError) as raised:
        run(people, tmp_path / "m")
    message = str(raised.value)
    assert "\n" not in message
    for setting in (
        "batch of 4",
        "cached_gradients=1",
        "gradient_checkpointing=true",
        "batch_size",
        "accumulation_steps",
    ):
        assert setting in message


def test_evaluation_that_runs_out_of_memory_names_its_own_setting(people, tmp_path, monkeypatch):
    def out_of_memory(self, images, *arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(PersonEncoder, "encode_images", out_of_memory)
    with pytest.raises(
        TrainingError, match=r"^out of memory while evaluating 64 at a time: lower evaluation\.batch_size\.$"
    ):
        run(people, tmp_path / "m", "evaluation.every_epochs=1")


def test_the_processor_runs_out_of_memory_too():
    settings = load_recipe("dual_encoder-tiny").optimization
    advice = memory_advice(8, settings)
    with pytest.raises(TrainingError, match="out of memory with a batch of 8"), explained_memory_errors(advice):
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="shape"), explained_memory_errors(advice):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_advice_is_only_what_can_still_be_lowered():
    lowest = SimpleNamespace(cached_gradients=1, gradient_checkpointing=True)
    assert memory_advice(1, lowest) == "out of memory with a batch of 1: take smaller images or a smaller model."
    some = SimpleNamespace(cached_gradients=8, gradient_checkpointing=True)
    assert "lower optimization.cached_gradients (it is 8" in memory_advice(32, some)
    assert "gradient_checkpointing" not in memory_advice(32, some)
    first = memory_advice(8, some, "stage_one")
    assert "lower stage_one.cached_gradients" in first
    assert "optimization" not in first
    whole = memory_advice(8, SimpleNamespace(cached_gradients=0, gradient_checkpointing=False))
    stays, leaves = whole.split(", and the run goes on from its last checkpoint; or ")
    assert "cached_gradients=2" in stays
    assert "gradient_checkpointing=true" in stays
    assert leaves.startswith("lower optimization.batch_size")
    assert "another output folder" in leaves


def test_batches_say_which_samples_they_are_made_of():
    class Items(list):
        title = "numbers"

    dataset = TracedDataset(Items({"value": value} for value in range(10)))
    collate = TracingCollator(lambda items: {"values": torch.tensor([item["value"] for item in items])})
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, collate_fn=collate, sampler=[3, 1, 7, 5], num_workers=1)
    batch = next(iter(loader))
    assert batch[SAMPLE_INDICES].tolist() == batch["values"].tolist() == [3, 1, 7, 5]
    assert dataset.title == "numbers"
    assert TracedDataset([1, 2])[0] == 1
    assert TracingCollator(sum)([1, 2]) == 3
    assert sample_names(object(), [3]) == ["sample 3"]

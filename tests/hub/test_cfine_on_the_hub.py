"""Models travel over the Hub's protocol with the real client: push, load, cache, offline, revisions, errors."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from reid_zoo import CFineForTraining, CFineModel, PersonEncoder, ReIDModel, ReIDModelForTraining, ReIDProcessor
from reid_zoo.errors import CheckpointError
from tiny_models import save_tiny_model, tiny_model, tiny_processor

NAME = "org/cfine-cuhk"
SENTENCE = "a woman in a red coat with a black backpack"


@pytest.fixture
def pushed(hub_client):
    model, processor = tiny_model(), tiny_processor()
    model.push_to_hub(NAME)
    processor.push_to_hub(NAME)
    return model


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert set(first) == set(second)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_push_and_load_are_bit_exact(pushed, hub_client):
    files = hub_client.repository(NAME).files()
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= set(files)
    assert_same_weights(ReIDModel.from_pretrained(NAME), pushed.cfine)
    assert_same_weights(ReIDModelForTraining.from_pretrained(NAME), pushed)
    assert type(AutoModel.from_pretrained(NAME)) is CFineModel
    assert type(CFineForTraining.from_pretrained(NAME)) is CFineForTraining
    processor = ReIDProcessor.from_pretrained(NAME)
    assert type(AutoProcessor.from_pretrained(NAME)) is ReIDProcessor
    expected, found = tiny_processor()(text=SENTENCE), processor(text=SENTENCE)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert processor.max_text_length == tiny_processor().max_text_length


def test_the_inference_model_can_be_pushed_and_trained_further(hub_client):
    model = tiny_model()
    model.cfine.push_to_hub("org/inference")
    again = ReIDModelForTraining.from_pretrained("org/inference")
    assert_same_weights(again.cfine, model.cfine)
    assert torch.isfinite(again.cmpc_loss.weight).all()


def test_the_second_load_downloads_nothing(pushed, hub_client):
    ReIDModel.from_pretrained(NAME)
    downloads = list(hub_client.downloads)
    assert "model.safetensors" in downloads
    ReIDModel.from_pretrained(NAME)
    assert hub_client.downloads == downloads


def test_offline_the_cache_is_enough(pushed, hub_client):
    encoder = PersonEncoder.from_pretrained(NAME)
    hub_client.stop()
    again = PersonEncoder.from_pretrained(NAME, local_files_only=True)
    assert encoder.identity.matches(again.identity)
    assert again.name == NAME
    code = f"from reid_zoo import ReIDModel; print(type(ReIDModel.from_pretrained({NAME!r})).__name__)"
    environment = hub_client.environment(offline=True)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "CFineModel", done.stderr[-2000:]


def test_revisions_are_pinned(pushed, hub_client):
    first = hub_client.repository(NAME).resolve("main").oid
    other = tiny_model(seed=1)
    other.push_to_hub(NAME)
    assert_same_weights(ReIDModel.from_pretrained(NAME), other.cfine)
    assert_same_weights(ReIDModel.from_pretrained(NAME, revision=first), pushed.cfine)
    assert PersonEncoder.from_pretrained(NAME, revision=first).identity.revision == first


def test_what_is_not_there_is_said_in_one_line(hub_client, tmp_path):
    with pytest.raises(CheckpointError, match="org/nothing") as caught:
        ReIDModel.from_pretrained("org/nothing")
    assert "\n" not in str(caught.value)
    hub_client.create_repository("org/bert", {"config.json": b'{"model_type": "bert"}'})
    with pytest.raises(CheckpointError, match=r"org/bert holds a 'bert' model.*cfine"):
        ReIDModel.from_pretrained("org/bert")
    save_tiny_model(tmp_path / "m")
    hub_client.create_repository("org/no-processor", {"config.json": (tmp_path / "m" / "config.json").read_bytes()})
    with pytest.raises(CheckpointError, match="processor"):
        ReIDProcessor.from_pretrained("org/no-processor")
    with pytest.raises(CheckpointError, match="org/no-processor"):
        ReIDModel.from_pretrained("org/no-processor")

"""Every method travels over the Hub's protocol: pushed as trained, loaded for inference and for training."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from contract_cases import CASES, SENTENCES, build_case, photos
from reid_zoo import ReIDModel, ReIDModelForTraining

NAME = "org/person-retrieval"


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return set(first) == set(second) and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("case", [case for case in CASES if not case.variant], ids=str)
def test_push_and_load_are_bit_exact(case, hub_client, tmp_path):
    built = build_case(case, tmp_path)
    built.training.push_to_hub(NAME)
    built.processor.push_to_hub(NAME)
    files = hub_client.repository(NAME).files()
    assert {"config.json", "model.safetensors", "processor_config.json"} <= set(files)
    for load in (ReIDModel.from_pretrained, AutoModel.from_pretrained):
        loaded = load(NAME)
        assert type(loaded) is case.method.model_class
        assert same_weights(loaded, built.model)
    assert same_weights(ReIDModelForTraining.from_pretrained(NAME), built.training)
    given = {"images": photos(2)} | ({"text": list(SENTENCES)} if case.has_text else {})
    found = AutoProcessor.from_pretrained(NAME)(**given)
    assert all(torch.equal(found[name], expected) for name, expected in built.processor(**given).items())

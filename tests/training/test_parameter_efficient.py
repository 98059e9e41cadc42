"""Low-rank adapters: what is trained, what is saved, and that the merged model is the trained one."""

from __future__ import annotations

import importlib

import pytest
import torch
from safetensors.torch import load_file

from joint_batch_cases import JOINT_BATCH_CASES, build_joint_batch_case
from reid_zoo import ReIDModel
from reid_zoo.errors import CheckpointError, ConfigurationError, MissingPackageError
from reid_zoo.models.encoders.attention import MultiHeadAttention
from reid_zoo.training import ReIDTrainer, load_recipe, train
from reid_zoo.training.checkpointing import last_complete_checkpoint
from reid_zoo.training.parameter_efficient import (
    LowRankSettings,
    add_low_rank_adapters,
    has_adapters,
    merged_state_dict,
)
from small_runs import SMALL_TOWERS, interrupted_at
from tiny_models import draw_people, tiny_model

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:a sentence of")
METHODS = {case.model_type: case for case in reversed(JOINT_BATCH_CASES) if case.fields.get("backbone") != "rn50"}
SMALL = [
    *SMALL_TOWERS,
    "image_size=[48, 32]",
    "optimization.num_epochs=2",
    "optimization.batch_size=4",
    "optimization.lora={rank: 2, alpha: 4}",
    "evaluation.save_every_steps=2",
]


def draw(model):
    """Adapters begin as zero: give them something to add."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_" in name:
                value.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("name", sorted(METHODS))
def test_towers_are_frozen_and_the_rest_is_trained(name, tmp_path):
    model, batch = build_joint_batch_case(METHODS[name], tmp_path)
    before = {key for key, value in model.named_parameters() if value.requires_grad}
    towers = [model.vision_tower] + ([model.text_tower] if model.supports_text else [])
    inside = {id(value) for tower in towers for value in tower.parameters()}
    outside = {key for key in before if id(model.get_parameter(key)) not in inside}
    with torch.no_grad():
        expected = model.train()(**batch).loss
    chosen = add_low_rank_adapters(model, LowRankSettings(rank=2))
    assert chosen == add_low_rank_adapters(model, LowRankSettings(rank=3))  # has some already
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    assert {key for key in trained if ".lora_" not in key} == outside
    assert len([key for key in trained if ".lora_" in key]) == 2 * len(chosen)
    with torch.no_grad():  # B is zero
        torch.testing.assert_close(model(**batch).loss, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_merged_weights_are_the_same_model(name, tmp_path):
    model, batch = build_joint_batch_case(METHODS[name], tmp_path)
    plain, _ = build_joint_batch_case(METHODS[name], tmp_path)
    draw(model)
    unchanged = plain.eval()(**batch).loss
    add_low_rank_adapters(model, LowRankSettings(rank=2))
    draw(model)
    found = model.eval()(**batch)
    plain.load_state_dict(merged_state_dict(model))
    merged = plain(**batch)
    # float64, but losses make float32 of features; tokens are selected by what the adapters add, too
    torch.testing.assert_close(merged.loss, found.loss, rtol=1e-5, atol=1e-6)
    assert abs((merged.loss - unchanged).item()) > 1e-3
    if found.image_features is not None and found.image_features.token_indices is not None:
        assert torch.equal(merged.image_features.token_indices, found.image_features.token_indices)


def test_attention_rows_and_cross_attention_see_the_adapter():
    attention = MultiHeadAttention(tiny_model().config.vision_config, 32, 2).double().eval()
    peft = importlib.import_module("peft")
    states, memory = torch.randn(2, 5, 32).double(), torch.randn(2, 7, 32).double()
    holder = torch.nn.ModuleDict({"attention": attention})
    before = attention.class_token_row(states)
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["in_proj"]), holder)
    draw(holder)
    row, crossed = attention.class_token_row(states), attention(states, memory)
    assert not torch.allclose(row, before)
    plain = MultiHeadAttention(attention.config, 32, 2).double().eval()
    plain.load_state_dict({name.removeprefix("attention."): value for name, value in merged_state_dict(holder).items()})
    torch.testing.assert_close(plain.class_token_row(states), row)
    torch.testing.assert_close(plain(states, memory), crossed)


def test_patterns_choose_the_layers():
    model = tiny_model()
    chosen = add_low_rank_adapters(model, LowRankSettings(patterns=(r"vision.*\.in_proj$",)))
    assert len(chosen) == 2  # layers
    assert all(name.endswith("self_attn.in_proj") for name in chosen)
    with pytest.raises(
        ConfigurationError, match=r"no linear layer .* has a name with nowhere; there are, for example, cfine"
    ):
        add_low_rank_adapters(tiny_model(), LowRankSettings(patterns=("nowhere",)))


def test_without_the_package_the_extra_is_named(monkeypatch):
    original = importlib.import_module

    def missing(name, *arguments):
        if name == "peft":
            raise ImportError(name)
        return original(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingPackageError, match=r"reid-zoo\[peft\]"):
        add_low_rank_adapters(tiny_model(), LowRankSettings())


def test_a_run_leaves_a_model_that_loads_and_the_adapter(tmp_path, monkeypatch):
    people = draw_people(tmp_path / "people", identities=8)
    trained = []
    original = ReIDTrainer.save_model

    def saving(self, *arguments, **options):
        trained.append(self.model)
        original(self, *arguments, **options)

    monkeypatch.setattr(ReIDTrainer, "save_model", saving)
    recipe = load_recipe("dual_encoder-tiny", SMALL)
    train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False)
    model = ReIDModel.from_pretrained(tmp_path / "m").eval()
    assert not has_adapters(model)
    with pytest.raises(CheckpointError, match="low-rank adapters; load the run's folder"):
        ReIDModel.from_pretrained(last_complete_checkpoint(tmp_path / "m"))
    pixels = torch.randn(2, 3, 48, 32)
    found = trained[-1].eval().get_image_features(pixels).embeds
    torch.testing.assert_close(model.get_image_features(pixels).embeds, found, rtol=1e-4, atol=1e-5)  # float32

    peft = importlib.import_module("peft")
    adapter = load_file(tmp_path / "m" / "adapter" / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.dual_encoder.") for name in adapter)
    base = type(trained[-1])(trained[-1].config)
    state = {name.replace(".base_layer.", "."): value for name, value in trained[-1].state_dict().items()}
    base.load_state_dict({name: value for name, value in state.items() if ".lora_" not in name})
    with_adapter = peft.PeftModel.from_pretrained(base.eval(), str(tmp_path / "m" / "adapter"))
    torch.testing.assert_close(with_adapter.get_image_features(pixels).embeds, found, rtol=1e-5, atol=1e-6)


def test_an_interrupted_run_with_adapters_goes_on(tmp_path, monkeypatch):
    people = draw_people(tmp_path / "people", identities=8)
    recipe = load_recipe("dual_encoder-tiny", [*SMALL, "optimization.ema_decay=0.5"])
    train(recipe, data_root=people, output_dir=tmp_path / "straight", progress=False)
    with interrupted_at(monkeypatch, 4):
        train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False)
    assert train(recipe, data_root=people, output_dir=tmp_path / "m", progress=False).resumed_from is not None
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        one, other = load_file(tmp_path / "straight" / file), load_file(tmp_path / "m" / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)

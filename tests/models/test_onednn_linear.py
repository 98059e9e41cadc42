"""Linear layers and 1×1 convolutions by oneDNN."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional

from reid_zoo.models import onednn_linear
from reid_zoo.models.onednn_linear import OneDNNLinear, OneDNNPointwise, onednn_is_faster, use_onednn
from reid_zoo.training import ReIDTrainer, ReIDTrainingArguments, load_recipe
from tiny_models import tiny_model

torch.set_num_threads(1)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # another order of summation


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 50, 24), (130, 24), (2, 3, 24)])  # the last one: too few rows, torch's own
def test_values_and_gradients_are_torchs(shape, bias):
    torch.manual_seed(0)
    layer, states = OneDNNLinear(24, 16, bias=bias), torch.randn(shape, requires_grad=True)
    assert layer.takes_onednn(states) == (torch.backends.mkldnn.is_available() and states.numel() >= 64 * 24)
    results = layer(states), functional.linear(states, layer.weight, layer.bias)
    torch.testing.assert_close(*results, **CLOSE)
    weights = torch.linspace(-1, 1, results[0].numel()).view_as(results[0])
    found, expected = (
        torch.autograd.grad((result * weights).sum(), [states, *layer.parameters()]) for result in results
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_strided_inputs_and_frozen_weights():
    torch.manual_seed(0)
    layer = OneDNNLinear(24, 16)
    layer.weight.requires_grad_(False)
    states = torch.randn(24, 100, requires_grad=True)
    layer(states.T).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(states.grad, layer.weight.sum(dim=0)[:, None].expand(24, 100), **CLOSE)


def test_other_precisions_are_torchs():
    layer = OneDNNLinear(24, 16)
    states = torch.randn(100, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(states).dtype == torch.bfloat16
    assert layer.double()(states.double()).dtype == torch.float64


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("bias", "stride"), [(True, 1), (False, 2)])
def test_values_and_gradients_of_pointwise_convolutions_are_torchs(bias, stride, channels_last):
    torch.manual_seed(0)
    layer, maps = OneDNNPointwise(24, 16, 1, stride=stride, bias=bias), torch.randn(2, 24, 6, 4)
    maps = maps.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    maps.requires_grad_()
    assert layer.takes_onednn(maps) == (torch.backends.mkldnn.is_available() and channels_last)
    results = layer(maps), functional.conv2d(maps, layer.weight, layer.bias, stride=stride)
    torch.testing.assert_close(*results, **CLOSE)
    weights = torch.linspace(-1, 1, results[0].numel()).view_as(results[0])
    found, expected = (torch.autograd.grad((result * weights).sum(), [maps, *layer.parameters()]) for result in results)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_only_plain_pointwise_convolutions_are_turned():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3), nn.Conv1d(4, 4, 1))
    use_onednn(model)
    assert [type(module) for module in model] == [OneDNNPointwise, nn.Conv2d, nn.Conv1d]


def test_plain_layers_are_turned_in_place_and_adapters_left_alone():
    class Adapter(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), Adapter(4, 4))
    state, parameters = model.state_dict(), list(model.parameters())
    use_onednn(model)
    assert [type(module) for module in model] == [OneDNNLinear, nn.LayerNorm, Adapter]
    assert model.state_dict().keys() == state.keys()
    assert all(now is then for now, then in zip(model.parameters(), parameters, strict=True))
    use_onednn(model)  # again: nothing happens
    assert type(model[0]) is OneDNNLinear


def test_models_can_be_copied_and_stored():
    model = nn.Sequential(nn.Linear(24, 16))
    use_onednn(model)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    states = torch.randn(100, 24)
    for other in (copy.deepcopy(model), torch.load(stored, weights_only=False)):
        torch.testing.assert_close(other(states), model(states), rtol=0, atol=0)


@pytest.mark.parametrize(("processor", "expected"), [("AuthenticAMD", True), ("GenuineIntel", False)])
def test_only_processors_of_amd_are_better_off(monkeypatch, tmp_path, processor, expected):
    for name in ("mkl", "mkldnn"):
        monkeypatch.setattr(f"torch.backends.{name}.is_available", lambda: True)
    described = tmp_path / "cpuinfo"
    monkeypatch.setattr(onednn_linear, "Path", lambda name: described)
    monkeypatch.setattr(onednn_linear.platform, "processor", lambda: f"AMD64 Family 25 Model 1, {processor}")
    onednn_is_faster.cache_clear()
    try:
        assert onednn_is_faster() is expected  # elsewhere than on Linux
        described.write_text(f"processor : 0\nvendor_id : {processor}\n")
        onednn_is_faster.cache_clear()
        assert onednn_is_faster() is expected
        monkeypatch.setattr("torch.backends.mkl.is_available", lambda: False)
        onednn_is_faster.cache_clear()
        assert onednn_is_faster() is False
    finally:
        onednn_is_faster.cache_clear()


@pytest.mark.parametrize("faster", [True, False])
def test_the_trainer_takes_it_where_it_is_faster(tmp_path, monkeypatch, faster):
    monkeypatch.setattr("reid_zoo.training.trainer.onednn_is_faster", lambda: faster)
    arguments = ReIDTrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    model = tiny_model()
    ReIDTrainer(model, arguments, optimization=load_recipe("cfine-tiny").optimization)
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.Linear)}
    assert kinds == {OneDNNLinear if faster else nn.Linear}

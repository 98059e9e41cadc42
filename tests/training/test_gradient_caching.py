"""Cached gradients: the loss and the gradients of the whole batch, in the memory of a chunk."""

from __future__ import annotations

import weakref
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from joint_batch_cases import JOINT_BATCH_CASES, build_joint_batch_case
from reid_zoo.errors import ConfigurationError
from reid_zoo.training import gradient_caching
from reid_zoo.training.gradient_caching import cached_gradients

torch.set_num_threads(1)
CHUNK = 2


class MemoryMeter(TorchDispatchMode):
    """Largest number of bytes in tensors made inside of the context that live at the same time."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def _forget(self, key, size):
        self.known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result


def step(model, batch, chunk_size, meter=None):
    model.zero_grad()
    torch.manual_seed(3)
    with cached_gradients(model, chunk_size), meter or nullcontext():
        outputs = model(**batch)
        outputs.loss.backward()
    return outputs, {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("case", JOINT_BATCH_CASES, ids=lambda case: f"{case.model_type}-{case.variant}")
def test_loss_and_gradients_are_those_of_the_whole_batch(case, tmp_path):
    model, batch = build_joint_batch_case(case, tmp_path)
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if getattr(model.config, "backbone", "") == "rn50":
        with pytest.raises(ConfigurationError, match="CLIPResNet"), cached_gradients(model, CHUNK):
            pass
        return
    whole, expected = step(model, batch, 0)
    forget = getattr(model, "begin_epoch", None)
    if forget is not None:
        forget()
    model.load_state_dict(state)  # running statistics of batch norms moved on
    cached, gradients = step(model, batch, CHUNK)
    for name, value in whole.loss_terms.items():
        torch.testing.assert_close(cached.loss_terms[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert gradients.keys() == expected.keys()
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():  # numbers are only added in another order
        torch.testing.assert_close(gradients[name], value, rtol=1e-5, atol=1e-5 * largest, msg=name)


def dual_encoder(tmp_path, layers=6):
    case = next(case for case in JOINT_BATCH_CASES if case.model_type == "dual_encoder" and case.variant == "all")
    model, batch = build_joint_batch_case(case, tmp_path)
    config = model.config
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = layers
    torch.manual_seed(0)
    model = type(model)(config).train()
    many = {name: value.repeat(4, *[1] * (value.dim() - 1)) for name, value in batch.items()}
    return model, {name: value.float() if value.is_floating_point() else value for name, value in many.items()}


def test_memory_is_that_of_a_chunk(tmp_path):
    model, batch = dual_encoder(tmp_path)
    peaks = {}
    for chunk_size in (0, 4):
        meter = MemoryMeter()
        step(model, batch, chunk_size, meter)
        peaks[chunk_size] = meter.peak
    # gradients and the outputs of the towers take the rest, and are the same in both
    assert peaks[4] < 0.5 * peaks[0]


def test_dropout_is_drawn_once_for_both_passes(tmp_path, monkeypatch):
    model, batch = dual_encoder(tmp_path, layers=1)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.5
    _, gradients = step(model, batch, 4)

    def remembered(forward, *arguments, use_reentrant, **named):
        return forward(*arguments, **named)

    monkeypatch.setattr(gradient_caching, "checkpoint", remembered)  # the same chunks, and no second pass
    _, expected = step(model, batch, 4)
    for name, value in expected.items():  # only the order of the chunks differs when gradients are added
        torch.testing.assert_close(gradients[name], value, rtol=1e-5, atol=1e-6, msg=name)
    _, whole = step(model, batch, 0)  # other draws
    assert not all(torch.allclose(gradients[name], value, rtol=1e-3) for name, value in whole.items())


def test_everything_is_as_it_was_afterwards(tmp_path):
    model, batch = dual_encoder(tmp_path, layers=1)
    tower = model.vision_tower
    calls = []
    tower.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    layers = []
    tower.layers[0].register_forward_pre_hook(lambda module, inputs: layers.append(len(inputs[0])))
    size = len(batch["person_labels"])
    with cached_gradients(model, 10):
        model(**batch)
        assert (calls, layers) == ([size], [10] * (size // 10) + ([size % 10] if size % 10 else []))
        model.eval()
        model(**batch)
        assert layers[-1] == size  # nothing to save in evaluation mode
    model.train()
    model(**batch)
    assert layers[-1] == size
    assert "forward" not in vars(tower)


def test_a_negative_size_is_refused(tmp_path):
    model, _ = dual_encoder(tmp_path, layers=1)
    with pytest.raises(ConfigurationError, match="cached_gradients is -1"), cached_gradients(model, -1):
        pass

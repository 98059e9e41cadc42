"""Batch norms of several processes; how two processes share statistics is tested in `training/test_multiple_processes.py`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from reid_zoo.models import joint_batch_norm
from reid_zoo.models.joint_batch_norm import JointBatchNorm, convert_batch_norms


def model(**options) -> nn.Sequential:
    torch.manual_seed(0)
    built = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, **options), nn.Flatten(), nn.BatchNorm1d(4 * 36))
    built[1].weight.data.uniform_()
    built[3].bias.requires_grad_(False)
    return built


def images(seed: int = 1) -> torch.Tensor:
    return 5 + 3 * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_conversion_keeps_weights_names_and_what_is_frozen():
    plain = model()
    converted = copy.deepcopy(plain)
    parameters = list(converted.parameters())
    convert_batch_norms(converted)
    assert [type(part) for part in converted] == [nn.Conv2d, JointBatchNorm, nn.Flatten, JointBatchNorm]
    assert all(new is old for new, old in zip(converted.parameters(), parameters, strict=True))
    assert not converted[3].bias.requires_grad
    assert converted.state_dict().keys() == plain.state_dict().keys()
    first = converted[1]
    convert_batch_norms(converted)  # once is enough
    assert converted[1] is first


def test_one_process_notices_nothing():
    plain = model()
    converted = copy.deepcopy(plain)
    convert_batch_norms(converted)
    for training in (True, False):
        plain.train(training), converted.train(training)
        assert torch.equal(plain(images()), converted(images()))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, converted.state_dict()[name]), name


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": None}, {"track_running_stats": False}, {"affine": False, "eps": 0.1}],
    ids=lambda options: "-".join(options) or "default",
)
def test_the_formula_is_that_of_a_batch_norm(options, monkeypatch):
    """Of two processes with nothing on the second one."""
    plain = model(**options) if "affine" not in options else nn.Sequential(nn.BatchNorm2d(3, **options))
    converted = copy.deepcopy(plain)
    convert_batch_norms(converted)
    monkeypatch.setattr(joint_batch_norm, "num_processes", lambda: 2)
    monkeypatch.setattr(joint_batch_norm, "sum_over_processes", lambda *tensors: tensors)
    for seed in (1, 2):
        inputs = [images(seed).requires_grad_() for _ in range(2)]
        outputs = plain(inputs[0]), converted(inputs[1])
        # Variances in one or two passes: 1e-5 of values around 1, and of gradients that nearly cancel.
        torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-5)
        for output in outputs:
            output.square().sum().mul(output.detach()[0].sum()).backward()
        largest = float(inputs[0].grad.abs().max())
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=0, atol=1e-4 * max(1.0, largest))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(converted.state_dict()[name], value, rtol=0, atol=1e-5 * max(1, value.abs().max()))
    plain.eval(), converted.eval()
    torch.testing.assert_close(converted(images()), plain(images()), rtol=0, atol=1e-5)


def test_an_input_without_channels_is_refused(monkeypatch):
    norm = JointBatchNorm(3)
    monkeypatch.setattr(joint_batch_norm, "num_processes", lambda: 2)
    with pytest.raises(ValueError, match="at least 2 axes"):
        norm(torch.zeros(3))

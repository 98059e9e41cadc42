"""Activation and linear layer that keep less for the backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN

from reid_zoo.models.encoders.activated_linear import activated_linear, activation_function
from reid_zoo.models.onednn_linear import OneDNNLinear

torch.set_num_threads(1)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # another order of summation
BATCH, LENGTH, WIDTH, OUTPUT = 4, 20, 24, 16


def inputs(seed: int = 0) -> Tensor:
    return 2 * torch.randn(BATCH, LENGTH, WIDTH, generator=torch.Generator().manual_seed(seed))


def layer(kind: type[nn.Linear] = nn.Linear, bias: bool = True) -> nn.Linear:
    torch.manual_seed(1)
    return kind(WIDTH, OUTPUT, bias=bias)


def gradients(result: Tensor, hidden: Tensor, linear: nn.Linear) -> list[Tensor]:
    weights = torch.linspace(-1, 1, result.numel()).view_as(result)
    total = (result * weights).sum()
    return list(torch.autograd.grad(total, [hidden, *linear.parameters()], retain_graph=True))


@pytest.mark.parametrize("kind", [nn.Linear, OneDNNLinear])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["quick_gelu", "gelu"])
def test_values_and_gradients_are_those_of_the_two_modules(name, bias, kind):
    linear, hidden = layer(kind, bias), inputs().requires_grad_()
    result = activated_linear(hidden, activation_function(name), linear)
    expected = functional.linear(ACT2FN[name](hidden), linear.weight, linear.bias)
    torch.testing.assert_close(result, expected, **CLOSE)
    for found, wanted in zip(gradients(result, hidden, linear), gradients(expected, hidden, linear), strict=True):
        torch.testing.assert_close(found, wanted, **CLOSE)


def test_nothing_but_what_the_activation_got_is_kept():
    linear, hidden, kept = layer(), inputs().requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        activated_linear(hidden, activation_function("quick_gelu"), linear)
    assert sorted(tensor.numel() for tensor in kept) == sorted([hidden.numel(), linear.weight.numel()])


def test_only_what_is_trained_gets_a_gradient():
    linear, hidden = layer().requires_grad_(False), inputs().requires_grad_()
    activated_linear(hidden, activation_function("quick_gelu"), linear).sum().backward()
    assert hidden.grad is not None and linear.weight.grad is None
    linear, hidden = layer(), inputs()
    activated_linear(hidden, activation_function("quick_gelu"), linear).sum().backward()
    assert hidden.grad is None and linear.weight.grad is not None


def test_gradients_are_the_same_with_checkpointing():
    linear, hidden = layer(), inputs().requires_grad_()
    activation = activation_function("quick_gelu")
    plain = gradients(activated_linear(hidden, activation, linear), hidden, linear)
    again = checkpoint(lambda states: activated_linear(states, activation, linear), hidden, use_reentrant=False)
    for found, wanted in zip(gradients(again, hidden, linear), plain, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_mixed_precision_gives_gradients_in_the_precision_of_the_weights():
    linear, hidden = layer(), inputs().to(torch.bfloat16).requires_grad_()
    assert linear.weight.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        result = activated_linear(hidden, activation_function("quick_gelu"), linear)
    assert result.dtype == torch.bfloat16
    exact = hidden.detach().float().requires_grad_()
    expected = gradients(activated_linear(exact, activation_function("quick_gelu"), linear), exact, linear)
    assert [found.dtype for found in gradients(result, hidden, linear)] == [torch.bfloat16, torch.float32, torch.float32]
    for found, wanted in zip(gradients(result, hidden, linear), expected, strict=True):
        # Eight bits per factor: a few hundredths of the largest entry.
        assert (found.float() - wanted).abs().max() < 0.03 * wanted.abs().max()


class Doubling(nn.Linear):
    """Stands for an adapter around the layer."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_adapters_hooks_and_replaced_forwards_are_called():
    hidden, activation = inputs().requires_grad_(), activation_function("quick_gelu")
    plain = activated_linear(hidden, activation, layer())
    torch.testing.assert_close(activated_linear(hidden, activation, layer(Doubling)), 2 * plain, **CLOSE)
    hooked = layer()
    hooked.register_forward_hook(lambda module, given, output: 3 * output)
    torch.testing.assert_close(activated_linear(hidden, activation, hooked), 3 * plain, **CLOSE)
    replaced = layer()
    replaced.forward = lambda states: 4 * functional.linear(states, replaced.weight, replaced.bias)  # type: ignore[method-assign]
    torch.testing.assert_close(activated_linear(hidden, activation, replaced), 4 * plain, **CLOSE)

"""Activation and linear layer that keep less for the backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN

from reid_zoo.models.encoders.activated_linear import activated_linear, activation_function, normed_linear
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


def layer_norm() -> nn.LayerNorm:
    torch.manual_seed(2)
    norm = nn.LayerNorm(WIDTH, eps=1e-3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("kind", [nn.Linear, OneDNNLinear])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_behind_a_layer_norm(bias, kind):
    linear, norm, states = layer(kind, bias), layer_norm(), inputs().requires_grad_()
    result = normed_linear(states, norm, linear)
    expected = functional.linear(norm(states), linear.weight, linear.bias)
    torch.testing.assert_close(result, expected, **CLOSE)
    weights = torch.linspace(-1, 1, result.numel()).view_as(result)
    wanted = [states, *norm.parameters(), *linear.parameters()]
    pairs = zip(*(torch.autograd.grad((output * weights).sum(), wanted) for output in (result, expected)), strict=True)
    for found, reference in pairs:
        torch.testing.assert_close(found, reference, rtol=1e-5, atol=1e-4)  # sums over 80 rows


def test_nothing_but_what_the_norm_got_is_kept():
    linear, norm, states, kept = layer(), layer_norm(), inputs().requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        normed_linear(states, norm, linear)
    rows = BATCH * LENGTH  # mean and deviation of each
    expected = [states.numel(), linear.weight.numel(), WIDTH, WIDTH, rows, rows]
    assert sorted(tensor.numel() for tensor in kept) == sorted(expected)


@pytest.mark.parametrize("frozen", ["norm", "linear", "states"])
def test_frozen_parts_get_no_gradient(frozen):
    parts = {"linear": layer(), "norm": layer_norm(), "states": inputs().requires_grad_()}
    parts[frozen].requires_grad_(False)
    normed_linear(parts["states"], parts["norm"], parts["linear"]).square().sum().backward()
    found = {
        "linear": parts["linear"].weight.grad,
        "norm": parts["norm"].weight.grad,
        "states": parts["states"].grad,
    }
    assert [name for name, gradient in found.items() if gradient is None] == [frozen]


def test_mixed_precision_behind_a_layer_norm():
    linear, norm, states = layer(), layer_norm(), inputs().requires_grad_()
    parameters = [states, *norm.parameters(), *linear.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        result = normed_linear(states, norm, linear)
    assert result.dtype == torch.bfloat16
    found = torch.autograd.grad(result.float().square().sum(), parameters)
    expected = torch.autograd.grad(
        functional.linear(norm(states), linear.weight, linear.bias).square().sum(), parameters
    )
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        # Eight bits per factor: a few hundredths of the largest entry.
        assert (one - other).abs().max() < 0.03 * other.abs().max()


def test_only_what_is_trained_gets_a_gradient():
    linear, hidden = layer().requires_grad_(False), inputs().requires_grad_()
    activated_linear(hidden, activation_function("quick_gelu"), linear).sum().backward()
    assert hidden.grad is not None
    assert linear.weight.grad is None
    linear, hidden = layer(), inputs()
    activated_linear(hidden, activation_function("quick_gelu"), linear).sum().backward()
    assert hidden.grad is None
    assert linear.weight.grad is not None


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
    assert [found.dtype for found in gradients(result, hidden, linear)] == [
        torch.bfloat16,
        torch.float32,
        torch.float32,
    ]
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
    norm, hooked_norm = layer_norm(), layer_norm()
    hooked_norm.register_forward_hook(lambda module, given, output: 0 * output)
    assert torch.equal(normed_linear(hidden, hooked_norm, layer()), layer().bias.expand(BATCH, LENGTH, -1))
    doubled = normed_linear(hidden, norm, layer(Doubling))
    torch.testing.assert_close(doubled, 2 * normed_linear(hidden, norm, layer()), **CLOSE)

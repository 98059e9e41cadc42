"""Linear layers behind an activation or a layer norm that keep less for the backward pass.

A linear layer keeps its input, which the activation or the norm before it computed from what it keeps itself. Here one step
of the backward pass does both, and computes the cheap one again: of each pair only the first tensor is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ..onednn_linear import OneDNNLinear, product

__all__ = [
    "Activation",
    "ExactGELU",
    "QuickGELU",
    "activated_linear",
    "activation_function",
    "differentiates",
    "is_plain",
    "normed_linear",
]

_SLOPE = 1.702


class QuickGELU(nn.Module):
    """x·σ(1.702 x), by one kernel that keeps one tensor for the backward pass."""

    def forward(self, states: Tensor) -> Tensor:
        """Element by element."""
        return functional.silu(states * _SLOPE).div_(_SLOPE)

    def gradient(self, states: Tensor, of_output: Tensor) -> Tensor:
        """Gradient with respect to `states`, given that with respect to the output."""
        return torch.ops.aten.silu_backward(of_output, states * _SLOPE)


class ExactGELU(nn.Module):
    """x·Φ(x)."""

    def forward(self, states: Tensor) -> Tensor:
        """Element by element."""
        return functional.gelu(states)

    def gradient(self, states: Tensor, of_output: Tensor) -> Tensor:
        """Gradient with respect to `states`, given that with respect to the output."""
        return torch.ops.aten.gelu_backward(of_output, states)


Activation = QuickGELU | ExactGELU


def activation_function(name: str) -> Activation:
    """`"quick_gelu"` or `"gelu"`."""
    kinds: dict[str, type[Activation]] = {"quick_gelu": QuickGELU, "gelu": ExactGELU}
    return kinds[name]()


class _ActivatedLinear(torch.autograd.Function):
    """`linear(activation(hidden))` of 2-dimensional states; the activation is computed again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation, by_onednn: bool
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.activation, ctx.by_onednn = activation, by_onednn
        return product(activation(hidden), weight, bias, by_onednn=by_onednn)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        for_hidden, for_weight, for_bias, _, _ = ctx.needs_input_grad
        of_hidden = None
        if for_hidden:
            of_activated = product(gradient, weight.T.to(gradient.dtype), by_onednn=ctx.by_onednn)
            of_hidden = ctx.activation.gradient(hidden, of_activated.to(hidden.dtype))
            del of_activated
        of_weight = None
        if for_weight:
            activated = ctx.activation(hidden).to(gradient.dtype)
            of_weight = product(gradient.T, activated.T, by_onednn=ctx.by_onednn).to(weight.dtype)
        of_bias = gradient.sum(dim=0).to(weight.dtype) if for_bias else None
        return of_hidden, of_weight, of_bias, None, None


class _NormedLinear(torch.autograd.Function):
    """`linear(layer_norm(states))` of 2-dimensional states; the normalised states are computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        by_onednn: bool,
    ) -> Tensor:
        normed, mean, deviation = torch.native_layer_norm(states, norm_weight.shape, norm_weight, norm_bias, eps)
        ctx.save_for_backward(states, norm_weight, norm_bias, mean, deviation, weight)
        ctx.eps, ctx.by_onednn = eps, by_onednn
        return product(normed, weight, bias, by_onednn=by_onednn)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, norm_weight, norm_bias, mean, deviation, weight = ctx.saved_tensors
        for_states, for_norm_weight, for_norm_bias, for_weight, for_bias, _, _ = ctx.needs_input_grad
        of_states = of_norm_weight = of_norm_bias = of_weight = None
        if for_weight:
            normed = torch.native_layer_norm(states, norm_weight.shape, norm_weight, norm_bias, ctx.eps)[0]
            normed = normed.to(gradient.dtype)
            of_weight = product(gradient.T, normed.T, by_onednn=ctx.by_onednn).to(weight.dtype)
            del normed
        if for_states or for_norm_weight or for_norm_bias:
            of_normed = product(gradient, weight.T.to(gradient.dtype), by_onednn=ctx.by_onednn)
            of_states, of_norm_weight, of_norm_bias = torch.ops.aten.native_layer_norm_backward(
                of_normed.to(states.dtype),
                states,
                norm_weight.shape,
                mean,
                deviation,
                norm_weight,
                norm_bias,
                [for_states, for_norm_weight, for_norm_bias],
            )
        of_bias = gradient.sum(dim=0).to(weight.dtype) if for_bias else None
        return of_states, of_norm_weight, of_norm_bias, of_weight, of_bias, None, None


def is_plain(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether calling the module does what its class says, and nothing else."""
    return not (
        type(module) not in kinds
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or "forward" in vars(module)  # replaced, for instance by offloading
    )


def differentiates() -> bool:
    """Whether what is kept for the backward pass matters: gradients are on, and nothing is being compiled or exported."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def activated_linear(hidden: Tensor, activation: Activation, linear: nn.Module) -> Tensor:
    """`linear(activation(hidden))`, without keeping the activation for the backward pass where that is possible.

    It is where `linear` is a plain linear layer: not inside of an adapter, without hooks, neither compiled nor exported.

    Args:
        hidden: `(..., D)`.
        activation: Element-wise, without parameters or randomness.
        linear: D → E.

    Returns:
        `(..., E)`.
    """
    if not (differentiates() and is_plain(linear, nn.Linear, OneDNNLinear)):
        result: Tensor = linear(activation(hidden))
        return result
    assert isinstance(linear, nn.Linear)
    by_onednn = isinstance(linear, OneDNNLinear) and linear.takes_onednn(hidden)
    flat: Tensor = _ActivatedLinear.apply(hidden.flatten(0, -2), linear.weight, linear.bias, activation, by_onednn)
    return flat.view(*hidden.shape[:-1], linear.out_features)


def normed_linear(states: Tensor, norm: nn.LayerNorm, linear: nn.Module) -> Tensor:
    """`linear(norm(states))`, without keeping the normalised states; conditions as of [`activated_linear`].

    Args:
        states: `(..., D)`.
        norm: Layer norm over the last axis.
        linear: D → E.

    Returns:
        `(..., E)`.
    """
    if not (
        differentiates()
        and is_plain(linear, nn.Linear, OneDNNLinear)
        and is_plain(norm, nn.LayerNorm)
        and norm.weight is not None
        and norm.bias is not None
        and norm.weight.shape == states.shape[-1:]
        and norm.weight.dtype == states.dtype
    ):
        result: Tensor = linear(norm(states))
        return result
    assert isinstance(linear, nn.Linear)
    by_onednn = isinstance(linear, OneDNNLinear) and linear.takes_onednn(states)
    flat: Tensor = _NormedLinear.apply(
        states.flatten(0, -2), norm.weight, norm.bias, linear.weight, linear.bias, norm.eps, by_onednn
    )
    return flat.view(*states.shape[:-1], linear.out_features)

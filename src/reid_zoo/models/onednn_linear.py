"""Linear layers and 1×1 convolutions by oneDNN, for training on processors on which torch's own matrix product is slow.

In single precision torch multiplies dense matrices with MKL, which reaches about half of oneDNN's speed on AMD's processors.
Values differ from torch's own as sums in another order do.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["OneDNNLinear", "OneDNNPointwise", "onednn_is_faster", "product", "use_onednn"]

_FEWEST_ROWS = 64  # below, bringing the matrices into oneDNN's form takes as long as the product


@functools.cache
def onednn_is_faster() -> bool:
    """Whether single-precision products are better left to oneDNN here: MKL on a processor of AMD."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    described = Path("/proc/cpuinfo")
    text = described.read_text(errors="replace") if described.is_file() else platform.processor()
    return "AuthenticAMD" in text


def product(rows: Tensor, columns: Tensor, bias: Tensor | None = None, *, by_onednn: bool) -> Tensor:
    """`rows @ columns.T + bias` for `(M, K)` rows and `(N, K)` columns: by oneDNN, or by torch under its autocast."""
    if not by_onednn:
        return functional.linear(rows, columns, bias)
    return functional.linear(
        rows.to_mkldnn(), columns.to_mkldnn(), None if bias is None else bias.to_mkldnn()
    ).to_dense()


class _Linear(torch.autograd.Function):
    """A linear map whose three products are oneDNN's; keeps what torch's own keeps."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(states, weight)
        return product(states, weight, bias, by_onednn=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        for_states, for_weight, for_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.T, by_onednn=True) if for_states else None,
            product(gradient.T, states.T, by_onednn=True) if for_weight else None,
            gradient.sum(dim=0) if for_bias else None,
        )


class OneDNNLinear(nn.Linear):
    """A linear layer that is computed by oneDNN where that is faster, and by torch everywhere else.

    Torch's own product is taken for few rows, other precisions, other devices, autocast, and while compiling or exporting.
    """

    def takes_onednn(self, input: Tensor) -> bool:
        """Whether this input is left to oneDNN."""
        return (
            torch.backends.mkldnn.is_available()
            and input.device.type == "cpu"
            and input.dtype == self.weight.dtype == torch.float32
            and input.numel() >= _FEWEST_ROWS * self.in_features
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
        )

    def forward(self, input: Tensor) -> Tensor:
        """`(..., in_features)` → `(..., out_features)`."""
        if not self.takes_onednn(input):
            return super().forward(input)
        flat: Tensor = _Linear.apply(input.reshape(-1, self.in_features), self.weight, self.bias)
        return flat.view(*input.shape[:-1], self.out_features)


class OneDNNPointwise(nn.Conv2d):
    """A 1×1 convolution that is computed by oneDNN also where torch takes MKL: with one thread and few images.

    Only of maps whose channels lie next to each other; others oneDNN would have to copy.
    """

    # Torch leaves every dilated convolution to oneDNN, and one cell cannot be drawn apart.
    dilation_for_onednn: ClassVar[tuple[int, int]] = (2, 2)

    def takes_onednn(self, input: Tensor) -> bool:
        """Whether this input is left to oneDNN by force."""
        return (
            torch.backends.mkldnn.is_available()
            and input.device.type == "cpu"
            and input.dtype == torch.float32
            and input.is_contiguous(memory_format=torch.channels_last)
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
        )

    def forward(self, input: Tensor) -> Tensor:
        """`(B, in_channels, h, w)` → `(B, out_channels, h', w')`."""
        if not self.takes_onednn(input):
            return super().forward(input)
        dilation = self.dilation_for_onednn
        return functional.conv2d(input, self.weight, self.bias, self.stride, self.padding, dilation, self.groups)


def use_onednn(model: nn.Module) -> None:
    """Turn plain linear layers into [`OneDNNLinear`] and plain 1×1 convolutions into [`OneDNNPointwise`], in place.

    Weights and names stay.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDNNLinear
        elif type(module) is nn.Conv2d and module.kernel_size == (1, 1) and module.padding_mode == "zeros":
            module.__class__ = OneDNNPointwise

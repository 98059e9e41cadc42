"""Batch norms with the statistics of the joint batch of several processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..distributed import num_processes, sum_over_processes

__all__ = ["JointBatchNorm", "convert_batch_norms"]


class JointBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batch of all processes, on any device and for any number of axes behind the channels.

    torch's own `SyncBatchNorm` does the same, faster, but not on the processor. Variances are of centred values, in a second
    pass. Processes may have batches of different sizes. In evaluation mode, and with one process, a plain batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"a batch norm needs at least 2 axes, but got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """`(B, C, ...)` → `(B, C, ...)`."""
        if num_processes() == 1 or not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(input.dim())]
        values = input if input.dtype == torch.float64 else input.float()
        total, count = sum_over_processes(values.sum(axes), values.new_tensor(values.numel() / values.shape[1]))
        mean = total / count
        centred = values - mean.view(shape)
        (squares,) = sum_over_processes(centred.square().sum(axes))
        variance = squares / count
        self._update_running_statistics(mean.detach(), squares.detach() / (count - 1))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def convert_batch_norms(model: nn.Module) -> None:
    """Give every batch norm inside of `model` the statistics of all processes, in place; weights and names stay.

    On an accelerator they become torch's `SyncBatchNorm`, on the processor, which that does not support,
    [`JointBatchNorm`]. Those that are neither trained nor update their running statistics are converted too, which changes
    nothing.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, JointBatchNorm | nn.SyncBatchNorm):
                continue
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, _converted(child))


def _converted(norm: nn.modules.batchnorm._BatchNorm) -> nn.Module:
    tensors = [*norm.parameters(), *norm.buffers()]
    on_accelerator = bool(tensors) and tensors[0].device.type == "cuda"
    new_class = nn.SyncBatchNorm if on_accelerator else JointBatchNorm
    with torch.device("meta"):
        converted = new_class(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    converted._parameters = dict(norm._parameters)  # the same objects: optimisers and frozen biases keep them
    converted._buffers = dict(norm._buffers)
    converted.train(norm.training)
    return converted

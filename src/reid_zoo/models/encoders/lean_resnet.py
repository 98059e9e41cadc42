"""open_clip's modified ResNet, keeping about a third as much for the backward pass.

A convolution keeps its input, and the batch norm behind it the input of its own: two large maps. Here a chain of
convolutions, batch norms and activations keeps its input and what each larger convolution but the last computed. 1×1
convolutions and the last one are computed again; everything else follows from the statistics of the batch element by element.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from open_clip.modified_resnet import Bottleneck, ModifiedResNet  # heavy: import this module where it is needed
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ..onednn_linear import OneDNNPointwise
from .activated_linear import differentiates, is_plain

__all__ = ["LeanBottleneck", "LeanResNet", "Link", "chain"]

_PART = 2**18  # values of a map that are worked on at once


class Link(NamedTuple):
    """A convolution and what follows it, in this order."""

    convolution: nn.Conv2d
    norm: nn.BatchNorm2d
    activation: nn.ReLU | None = None
    pool: nn.AvgPool2d | nn.Identity | None = None

    @property
    def is_plain(self) -> bool:
        """Whether all of it is as open_clip built it, and the batch norm takes its statistics from the batch."""
        convolution, norm, activation, pool = self
        return (
            is_plain(convolution, nn.Conv2d, OneDNNPointwise)
            and (convolution.bias, convolution.groups, convolution.padding_mode) == (None, 1, "zeros")
            and is_plain(norm, nn.BatchNorm2d)
            and (activation is None or is_plain(activation, nn.ReLU))
            and (pool is None or is_plain(pool, nn.AvgPool2d, nn.Identity))
            and norm.training
            and norm.running_mean is not None
            and norm.weight is not None
            and norm.momentum is not None
            and norm.weight.dtype in (torch.float32, torch.float64)  # as its statistics, which are used again
        )

    def convolve(self, states: Tensor, kernel: Tensor) -> Tensor:
        """The convolution, in the precision of `states`."""
        return functional.conv2d(states, kernel.to(states.dtype), None, *self.geometry(states))

    def geometry(self, states: Tensor) -> tuple[Any, Any, Any]:
        """Stride, padding and dilation."""
        convolution = self.convolution
        dilation = convolution.dilation
        if isinstance(convolution, OneDNNPointwise) and convolution.takes_onednn(states):
            dilation = OneDNNPointwise.dilation_for_onednn
        return convolution.stride, convolution.padding, dilation

    def activate(self, normed: Tensor) -> Tensor:
        """The activation, in place."""
        return normed if self.activation is None else normed.relu_()

    def leave(self, activated: Tensor) -> Tensor:
        """The pooling."""
        return activated if self.pool is None else self.pool(activated)

    def reenter(self, of_left: Tensor, activated: Tensor) -> Tensor:
        """Gradient of the normalised map, given that of what left."""
        if isinstance(self.pool, nn.AvgPool2d):
            size = [self.pool.kernel_size, self.pool.kernel_size]
            of_left = torch.ops.aten.avg_pool2d_backward(of_left, activated, size, size, [0, 0], False, True, None)
        return of_left if self.activation is None else torch.ops.aten.threshold_backward(of_left, activated, 0)


class _Kept(NamedTuple):
    """Of one link, for the backward pass."""

    kernel: Tensor
    weight: Tensor
    bias: Tensor
    mean: Tensor
    inverse_deviation: Tensor
    convolved: Tensor | None = None

    def normed(self, convolved: Tensor, *, in_place: bool = False) -> Tensor:
        """Batch norm with these statistics."""
        slope = self.inverse_deviation * self.weight
        offset = torch.addcmul(self.bias, self.mean, slope, value=-1)
        result = convolved if in_place else torch.empty_like(convolved)
        return torch.addcmul(_by_channel(offset), convolved, _by_channel(slope), out=result)

    def norm_gradients(self, of_normed: Tensor, convolved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """With respect to the convolved map, the weight and the bias."""
        count = convolved.numel() // len(self.mean)
        mean = _by_channel(self.mean)
        of_bias, of_weight = torch.zeros_like(self.bias), torch.zeros_like(self.weight)
        for part, of_part in zip(_parts(convolved), _parts(of_normed), strict=True):
            of_bias += _channel_sums(of_part)
            of_weight += _channel_sums((part - mean).mul_(of_part))
        of_weight *= self.inverse_deviation
        slope = self.inverse_deviation * self.weight
        along, offset = slope * self.inverse_deviation * of_weight / -count, slope * of_bias / -count
        of_convolved = torch.empty_like(convolved)
        for result, part, of_part in zip(_parts(of_convolved), _parts(convolved), _parts(of_normed), strict=True):
            varying = torch.addcmul(_by_channel(offset), part - mean, _by_channel(along))
            torch.addcmul(varying, of_part, _by_channel(slope), out=result)
        return of_convolved, of_weight, of_bias


def _by_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def _parts(maps: Tensor) -> tuple[Tensor, ...]:
    # What one step computes of a part is still in the processor's cache for the next, and takes little memory.
    return maps.split(max(1, _PART // maps[0].numel()))


def _channel_sums(maps: Tensor) -> Tensor:
    # Torch's sum goes in cascades; its batch norm adds up one row after the other, which costs two digits in this layout.
    return maps.sum(dim=(0, 2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))


def _statistics(convolved: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation of every channel; updates the running ones."""
    count = convolved.numel() // convolved.shape[1]
    if count == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {convolved.shape}")
    mean = _channel_sums(convolved).div_(count)
    squares = [_channel_sums((part - _by_channel(mean)).square_()) for part in _parts(convolved)]
    variance = torch.stack(squares).sum(dim=0).div_(count)
    assert norm.num_batches_tracked is not None and norm.running_mean is not None and norm.running_var is not None
    assert norm.momentum is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.mul_(1 - norm.momentum).add_(mean, alpha=norm.momentum)
    norm.running_var.mul_(1 - norm.momentum).add_(variance, alpha=norm.momentum * count / (count - 1))
    return mean, variance.add_(norm.eps).rsqrt_()


def _enter(
    place: int, states: Tensor, links: tuple[Link, ...], kept: list[_Kept]
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """What entered a link, behind what the convolution and the activation before it gave."""
    if place == 0:
        return None, None, states
    below, link = kept[place - 1], links[place - 1]
    convolved = below.convolved
    if convolved is None:
        convolved = link.convolve(_enter(place - 1, states, links, kept)[2], below.kernel)
    activated = link.activate(below.normed(convolved))
    return convolved, activated, link.leave(activated)


class _Chain(torch.autograd.Function):
    """Links one after the other; the parameters are kernel, weight and bias of each."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, links: tuple[Link, ...], *parameters: Tensor) -> Tensor:
        kept: list[Tensor | None] = []
        current = states
        for place, link in enumerate(links):
            kernel, weight, bias = parameters[3 * place : 3 * place + 3]
            convolved = link.convolve(current, kernel)
            here = _Kept(kernel, weight, bias, *_statistics(convolved, link.norm))
            is_kept = kernel.shape[-1] > 1 and place < len(links) - 1
            current = link.leave(link.activate(here.normed(convolved, in_place=not is_kept)))
            kept += here._replace(convolved=convolved) if is_kept else here
            del convolved
        ctx.links = links
        ctx.save_for_backward(states, *kept)
        return current

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, *saved = ctx.saved_tensors
        for_states, _, *wanted = ctx.needs_input_grad
        links, size = ctx.links, len(_Kept._fields)
        kept = [_Kept(*saved[start : start + size]) for start in range(0, len(saved), size)]
        gradients: list[Tensor | None] = []
        convolved = activated = None
        for place in reversed(range(len(links))):
            link, here = links[place], kept[place]
            convolved_below, activated_below, entering = _enter(place, states, links, kept)
            if convolved is None:  # of the last link
                convolved = link.convolve(entering, here.kernel)
                activated = link.activate(here.normed(convolved))
            gradient = link.reenter(gradient, activated)
            gradient, of_weight, of_bias = here.norm_gradients(gradient, convolved)
            goes_on, for_kernel = for_states or any(wanted[: 3 * place]), wanted[3 * place]
            gradient, of_kernel, _ = torch.ops.aten.convolution_backward(
                gradient,
                entering,
                here.kernel.to(entering.dtype),
                None,
                *link.geometry(entering),
                False,
                [0, 0],
                1,
                [goes_on, for_kernel, False],
            )
            gradients = [of_kernel.to(here.kernel.dtype) if for_kernel else None, of_weight, of_bias, *gradients]
            convolved, activated = convolved_below, activated_below
            if not goes_on:
                gradients = [*[None] * 3 * place, *gradients]
                break
        return gradient if for_states else None, None, *gradients


def chain(states: Tensor, *links: Link) -> Tensor:
    """The links one after the other, keeping little for the backward pass where that is possible.

    It is on the processor, where every module is what open_clip built, without hooks, and every batch norm is in training
    mode; neither compiled nor exported.

    Args:
        states: `(B, C, h, w)`.
        links: At least one.

    Returns:
        `(B, C', h', w')` of the last link.
    """
    if not (differentiates() and states.device.type == "cpu" and all(link.is_plain for link in links)):
        for link in links:
            for module in link:
                states = states if module is None else module(states)
        return states
    parameters = [p for link in links for p in (link.convolution.weight, link.norm.weight, link.norm.bias)]
    precision = parameters[0].dtype
    if torch.is_autocast_enabled("cpu"):
        precision = torch.get_autocast_dtype("cpu")
    result: Tensor = _Chain.apply(states.to(precision), links, *parameters)
    return result


class LeanBottleneck(Bottleneck):
    """open_clip's block: three links and a shortcut, which keeps only its input."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` → `(B, C', h', w')`."""
        result = chain(
            x,
            Link(self.conv1, self.bn1, self.act1),
            Link(self.conv2, self.bn2, self.act2, self.avgpool),
            Link(self.conv3, self.bn3),
        )
        shortcut = x
        if self.downsample is not None:
            pool, convolution, norm = self.downsample
            shortcut = chain(pool(x), Link(convolution, norm))
        result += shortcut
        activated: Tensor = self.act3(result)
        return activated


class LeanResNet(ModifiedResNet):
    """open_clip's trunk of lean blocks; the names of its weights are the same."""

    def _make_layer(self, planes: int, blocks: int, stride: int = 1) -> nn.Sequential:
        layer: nn.Sequential = super()._make_layer(planes, blocks, stride)
        for block in layer:
            block.__class__ = LeanBottleneck
        return layer

    def stem(self, x: Tensor) -> Tensor:
        """`(B, 3, H, W)` → `(B, C, H/4, W/4)`."""
        return chain(
            x,
            Link(self.conv1, self.bn1, self.act1),
            Link(self.conv2, self.bn2, self.act2),
            Link(self.conv3, self.bn3, self.act3, self.avgpool),
        )

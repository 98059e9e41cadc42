r"""The joint batch of several processes: gathering with gradient, so that N processes train like one with N times the batch.

With N data-parallel processes every process r computes features f_r of its own samples. The losses of this zoo compare the
samples of a batch with each other, so each process gathers the features of all of them and computes the loss of the joint
batch, L(f_1 … f_N). Every process gets the same value.

**Gradients.** DistributedDataParallel, FSDP and DeepSpeed all *average* gradients over the processes. What process r calls
its gradient is the derivative of the sum of all processes' losses with respect to its own copy of the weights, because
the backward pass of a gathered tensor *sums* what every process sends back: with u_r for what arrives at f_r,

.. math:: u_r = \sum_s \partial L_s / \partial f_r = N\, \partial L / \partial f_r

Weights θ behind the features then get

.. math:: \frac1N \sum_r \Big(\frac{\partial f_r}{\partial \theta}\Big)^{\!\top} u_r
    = \sum_r \Big(\frac{\partial f_r}{\partial \theta}\Big)^{\!\top} \frac{\partial L}{\partial f_r} = \frac{dL}{d\theta}

and weights that are used after gathering (a classifier, say) get the full ∂L/∂θ on every process, whose average is itself.
So no loss is ever scaled. The same holds for `sum_over_processes`, whose backward pass sums as well, and for anything in
between, such as a matrix of which each process computes its own rows before they are gathered, or batch norms with joint
statistics. If the processes' losses should differ (by a random draw), the result is still the exact gradient of their mean.

**Order.** Rows are gathered in the order of the processes: the joint batch is the concatenation of the processes' batches.

**Unequal batches** are padded on the way and cut afterwards. Everything but the first axis has to be equal.

All functions do nothing with one process. With more they are collective: every process has to call them, in one order. They
use the default process group, in which all processes have to be data parallel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from .errors import ConfigurationError

__all__ = [
    "JointBatchMixin",
    "gather_batch",
    "num_processes",
    "own_draws_on_every_process",
    "process_index",
    "same_draws_on_all_processes",
    "sum_over_processes",
]


def num_processes() -> int:
    """Processes that train together; 1 without a process group."""
    initialised = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if initialised else 1


def process_index() -> int:
    """Number of this process among them, from 0."""
    return torch.distributed.get_rank() if num_processes() > 1 else 0


class _Gather(torch.autograd.Function):
    """`(S, ...)` of each of N processes → `(N, S, ...)`; backward, the gradients of all processes are summed."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(num_processes())]
        torch.distributed.all_gather(parts, tensor)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total[process_index()]


class _Sum(torch.autograd.Function):
    """Sum of a tensor over the processes; backward, the gradients of all processes are summed."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


def gather_batch(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Tensors of the samples of this process → tensors of the samples of all processes, with gradient.

    Args:
        tensors: `(B, ...)` each, with the same B on this process; of any type. `None` stays `None`, and has to be so on all
            processes.

    Returns:
        As many tensors, `(ΣB, ...)`; with one process the very same ones.

    Raises:
        ConfigurationError: On every process, if axes other than the first differ between processes.
    """
    if num_processes() == 1:
        return tensors
    given = [tensor for tensor in tensors if tensor is not None]
    if not given:
        return tensors
    sizes = _common_shapes(given)
    longest = max(sizes)
    return tuple(None if tensor is None else _gather_rows(tensor, sizes, longest) for tensor in tensors)


def _common_shapes(tensors: list[Tensor]) -> list[int]:
    """Batch size of every process; refuses tensors that do not fit behind each other."""
    own = torch.tensor([size for tensor in tensors for size in tensor.shape], device=tensors[0].device)
    found = [torch.empty_like(own) for _ in range(num_processes())]
    torch.distributed.all_gather(found, own)
    shapes = [shape.tolist() for shape in found]
    first_axes, position = [], 0
    for tensor in tensors:
        first_axes.append(position)
        position += tensor.dim()
    for other in shapes:
        wrong = [axis for axis in range(position) if axis not in first_axes and other[axis] != shapes[0][axis]]
        uneven = {other[axis] for axis in first_axes}
        if wrong or len(uneven) > 1:
            raise ConfigurationError(
                f"the processes' batches do not fit together: the sizes of the gathered tensors are {shapes}; pad images and "
                "sentences to one size on all processes, or train with gather_across_processes=False."
            )
    return [shape[0] for shape in shapes]


def _gather_rows(tensor: Tensor, sizes: list[int], longest: int) -> Tensor:
    if tensor.dtype == torch.bool:  # not every backend moves truth values
        return _gather_rows(tensor.to(torch.uint8), sizes, longest).bool()
    missing = longest - len(tensor)
    if missing:
        tensor = torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])
    gathered: Tensor = _Gather.apply(tensor.contiguous())
    if min(sizes) == longest:
        return gathered.flatten(0, 1)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])


def sum_over_processes(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Sum of each tensor over all processes, with gradient; the same shapes and types.

    What a mean over a different number of items per process needs: `total, count = sum_over_processes(total, count)`.
    Numbers travel in float64, in which counts of masked pixels are exact.
    """
    if num_processes() == 1:
        return tensors
    flat = torch.cat([tensor.double().reshape(-1) for tensor in tensors])
    total: Tensor = _Sum.apply(flat)
    parts = total.split([tensor.numel() for tensor in tensors])
    return tuple(part.view_as(tensor).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True))


def same_draws_on_all_processes(device: torch.device) -> AbstractContextManager[None]:
    """Context in which all processes draw the same, from a seed that the first one draws: for what is drawn for all.

    torch's generators are put back afterwards. With one process nothing happens.

    Args:
        device: Where the draws are made, beside the processor.
    """
    if num_processes() == 1:
        return nullcontext()
    seed = _draw_seed().to(device)
    torch.distributed.broadcast(seed, src=0)
    return _seeded(int(seed), device)


def own_draws_on_every_process(device: torch.device) -> AbstractContextManager[None]:
    """Context in which every process draws something else: for what is drawn for its own samples.

    Trainers give all processes the same seed, so without this they would draw the same masks. Otherwise as
    [`same_draws_on_all_processes`], but not a collective call.
    """
    if num_processes() == 1:
        return nullcontext()
    return _seeded(int(_draw_seed()) + process_index(), device)


def _draw_seed() -> Tensor:
    return torch.randint(2**62, (1,))


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([] if device.type == "cpu" else [device]):
        torch.manual_seed(seed)
        yield


class JointBatchMixin:
    """For training models: what their losses compare is the joint batch of all processes.

    Attributes:
        gather_across_processes: Whether it is (default true). If not, every process has negatives, means and draws of its
            own, and training with N processes is not that of one with N times the batch. While it is true and several
            processes train, `forward` is a collective call: every process has to make it. Loss terms, accuracies,
            logits, similarities and correspondences of its output are then those of the joint batch, the image and text
            features those of the process's own samples.
    """

    gather_across_processes: bool = True

    def gather_batch(self, *tensors: Tensor | None) -> tuple[Any, ...]:
        """[`gather_batch`], if switched on."""
        return gather_batch(*tensors) if self.gather_across_processes else tensors

    def sum_over_processes(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """[`sum_over_processes`], if switched on."""
        return sum_over_processes(*tensors) if self.gather_across_processes else tensors

    def same_draws(self, device: torch.device) -> AbstractContextManager[None]:
        """[`same_draws_on_all_processes`], if switched on: for draws on gathered tensors."""
        return same_draws_on_all_processes(device) if self.gather_across_processes else nullcontext()

"""Exact losses and gradients of large batches in the memory of small ones.

Losses that compare the samples of a batch need the features of all of them at once, but not what the towers computed on the
way. As in GradCache (L. Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021) the
towers run twice: first in chunks that keep nothing but their outputs and the state of the random generators, then, when the
gradients with respect to these outputs are known, chunk by chunk again, from the same random states, to send them on to the
weights.

Here it is not the method's loss that is cut in two but every tower (and every other module that treats samples one by one):
its forward pass runs as checkpointed chunks. So it works for every loss of the zoo, those on tokens included, with any number
of processes, and what comes behind the towers sees the whole batch: batch norms, memories, draws.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import BertModel

from ..errors import ConfigurationError
from ..models.cfine.modeling_cfine import GlobalLocalDecoder
from ..models.encoders.clip_text_transformer import CLIPTextTransformer
from ..models.encoders.cross_modal_encoder import CrossModalEncoder
from ..models.encoders.vision_transformer import VisionTransformer

__all__ = ["cached_gradients", "in_chunks"]

# What treats every sample on its own, and takes the memory.
_PER_SAMPLE = (VisionTransformer, CLIPTextTransformer, BertModel, CrossModalEncoder, GlobalLocalDecoder)
# Arguments of theirs that are tensors, but not of one sample each.
_SHARED_ARGUMENTS = frozenset({"mask_token"})


@contextmanager
def cached_gradients(model: nn.Module, chunk_size: int) -> Iterator[None]:
    """Context in which a model in training mode sends at most `chunk_size` samples through its towers at a time.

    The loss and the gradients of a batch are those without it, but for the order in which numbers are added, and for draws
    inside of the towers (dropout), which are made chunk by chunk. Each tower costs a second forward pass.

    Args:
        model: A training model of the zoo.
        chunk_size: Samples at a time; 0 for all of them.

    Raises:
        ConfigurationError: If the size is negative, or the model has batch norms in its image tower: their statistics are
            those of the whole batch, so there is no way to compute one chunk after the other.
    """
    if chunk_size < 0:
        raise ConfigurationError(f"cached_gradients is {chunk_size}, but must be a number of samples, or 0 for none.")
    if chunk_size == 0:
        yield
        return
    modules = _outermost(model)
    for tower in _image_towers(model):
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in tower.modules()):
            raise ConfigurationError(
                f"cached_gradients cannot be used with {type(tower).__name__}, whose batch norms need the whole batch at once; "
                "use gradient_accumulation_steps, which changes the loss, or a vision transformer."
            )
    if not modules:
        raise ConfigurationError(
            f"cached_gradients finds no tower in {type(model).__name__} that takes samples one by one."
        )
    for module in modules:
        module.forward = in_chunks(module, chunk_size)
    try:
        yield
    finally:
        for module in modules:
            del module.forward  # the method of the class shows again


def _outermost(model: nn.Module) -> list[Any]:
    inner: set[int] = set()
    found: list[Any] = []
    for module in model.modules():
        if isinstance(module, _PER_SAMPLE) and id(module) not in inner:
            found.append(module)
            inner |= {id(child) for child in module.modules()}
    return found


def _image_towers(model: nn.Module) -> list[nn.Module]:
    tower = getattr(model, "vision_tower", None)
    return [tower] if isinstance(tower, nn.Module) else []


def in_chunks(module: nn.Module, chunk_size: int) -> Callable[..., Any]:
    """The forward pass of a module in checkpointed chunks of the batch.

    Args:
        module: Treats samples one by one. Its tensor arguments have the batch as their first axis, or length 1 there.
        chunk_size: Samples at a time.

    Returns:
        A function with the arguments and the output of `module.forward`. Without gradients, in evaluation mode or for a
        batch that is no larger than a chunk it is that very method.
    """
    forward = module.forward

    @functools.wraps(forward)
    def chunked(*args: Any, **kwargs: Any) -> Any:
        sizes = [len(value) for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.dim() > 0]
        batch = sizes[0] if sizes else 0
        if batch <= chunk_size or not module.training or not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        parts = []
        for start in range(0, batch, chunk_size):
            rows = slice(start, min(start + chunk_size, batch))
            some = [_take(value, rows, batch) for value in args]
            named = {
                name: value if name in _SHARED_ARGUMENTS else _take(value, rows, batch)
                for name, value in kwargs.items()
            }
            parts.append(checkpoint(forward, *some, use_reentrant=False, **named))
        return _join(parts)

    return chunked


def _take(value: Any, rows: slice, batch: int) -> Any:
    if not isinstance(value, Tensor) or value.dim() == 0 or (len(value) == 1 != batch):
        return value
    return value[rows]


def _join(parts: list[Any]) -> Any:
    """Outputs of the chunks → the output of the batch."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)
    if isinstance(first, Mapping):  # the outputs of transformers' models are
        build: Any = type(first)
        return build(**{name: _join([part[name] for part in parts]) for name in first})
    if isinstance(first, tuple | list):
        return type(first)(_join(list(members)) for members in zip(*parts, strict=True))
    return first

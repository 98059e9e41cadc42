"""Full precision in the middle of mixed-precision training: scores and losses are computed in float32.

Under `torch.autocast` every matrix product has the lower precision, also that of float32 tensors. Eight bits are too few
for similarities that a temperature of 0.02 multiplies by 50.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["full_precision", "in_full_precision"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_HALF = (torch.float16, torch.bfloat16)


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Context in which autocast is off on that device; what is computed has the precision of its operands."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def in_full_precision(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorator: autocast is off inside, and half-precision tensors among the arguments arrive in float32.

    Tensors may also stand in a tuple. Those inside of other objects decide the device if there are no others, but are
    passed on as they are.
    """

    @functools.wraps(function)
    def compute(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        device = next((tensor.device for tensor in _tensors((args, kwargs))), torch.device("cpu"))
        with full_precision(device):
            return function(
                *(_in_float32(value) for value in args),
                **{name: _in_float32(value) for name, value in kwargs.items()},
            )

    return compute


def _in_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    return tuple(_in_float32(part) for part in value) if type(value) is tuple else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))

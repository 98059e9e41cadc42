"""What a conversion did with every key of an official checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..checkpoint_files import unwrap
from ..errors import CheckpointError

__all__ = ["ConversionReport", "naming_missing_weights"]


@contextmanager
def naming_missing_weights() -> Iterator[None]:
    """Turn the `KeyError` for a weight that a size is read from into a `CheckpointError` that names it."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"the checkpoint lacks weights that its sizes are read from: {error.args[0]}.") from error


@dataclass
class ConversionReport:
    """Report of one conversion.

    Attributes:
        method: Model type.
        num_converted: Number of official tensors that went into the model.
        left_out: Official key → why it was not needed.
        newly_initialised: Our keys that the checkpoint has no weights for.
        upcast: Official keys stored in half precision, converted to float32.
    """

    method: str
    num_converted: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    newly_initialised: list[str] = field(default_factory=list)
    upcast: list[str] = field(default_factory=list)

    def leave_out(self, key: str, reason: str) -> None:
        """Note that an official key is not needed."""
        self.left_out[key] = reason

    def read_network(self, content: Mapping[str, Any]) -> dict[str, Tensor]:
        """The network's tensors of a checkpoint in float32, without wrapping and `module.`; what is beside them is noted."""
        state, beside = unwrap(content)
        for key in beside:
            self.leave_out(key, "not part of the network")
        return self.to_float32(state)

    def count_converted(self, state: Mapping[str, Tensor]) -> None:
        """Note how many of the network's tensors were not left out."""
        self.num_converted = sum(key not in self.left_out for key in state)

    def to_float32(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors with floating-point ones in float32; half precision is noted."""
        converted = {}
        for key, value in state.items():
            if value.is_floating_point() and value.dtype.itemsize < 4:
                self.upcast.append(key)
            converted[key] = value.float() if value.is_floating_point() else value
        return converted

    def lines(self) -> list[str]:
        """The report as text, one line each."""
        lines = [f"{self.method}: {self.num_converted} official tensors converted"]
        lines += [f"left out: {key} ({reason})" for key, reason in self.left_out.items()]
        lines += [f"newly initialised: {key}" for key in self.newly_initialised]
        if self.upcast:
            lines.append(f"{len(self.upcast)} tensors stored in half precision were converted to float32")
        return lines

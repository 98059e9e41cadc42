"""Reading the weights of a TorchScript archive, such as OpenAI's CLIP files, without executing anything in it.

`torch.load` refuses such archives when it is told not to execute code, and `torch.jit.load` builds the program that they
hold. Here only the tensors are taken out: the pickle is read with a list of the few names it may mention, and every module
becomes an empty object that just holds its attributes.
"""

from __future__ import annotations

import io
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["is_torchscript_archive", "read_torchscript_archive"]

_STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
_CLASS = re.compile(r"^class (\w+)\(Module\):\n((?:  .*\n)*)", re.MULTILINE)
_STATE = re.compile(r"^  __(?:parameters|buffers)__ = \[(.*)\]$", re.MULTILINE)


def is_torchscript_archive(file: Path) -> bool:
    """Whether a file is a TorchScript archive rather than a checkpoint saved by `torch.save`."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.split("/")[1:] == ["constants.pkl"] for name in archive.namelist())


def read_torchscript_archive(file: Path) -> dict[str, Tensor]:
    """Parameters and buffers by name, as the `state_dict` of the program would have them.

    Args:
        file: The archive.

    Raises:
        pickle.UnpicklingError: If the archive mentions anything that is neither a module nor a tensor.
        KeyError: If a part of the archive is missing.
    """
    with zipfile.ZipFile(file) as archive:
        root = archive.namelist()[0].split("/")[0]
        byte_order = f"{root}/byteorder"
        if byte_order in archive.namelist() and archive.read(byte_order).decode().strip() != sys.byteorder:
            raise pickle.UnpicklingError("it was written on a machine of another byte order")
        module = _Reader(archive, root).load()
        return dict(_tensors(module, _state_names(archive, root), ""))


class _Module:
    """A module of the program: its attributes, and the name of its class."""

    class_name: str = ""


class _Reader(pickle.Unpickler):
    """Knows modules and tensors, and nothing that could execute anything."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return type(name, (_Module,), {"class_name": f"{module}.{name}"})
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle":  # typed lists and the like
            return _value_alone
        raise pickle.UnpicklingError(f"it mentions {module}.{name}, which no weights need")

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"it holds a {kind}")
        if key not in self.storages:
            content = bytearray(self.archive.read(f"{self.root}/data/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=dtype) if count else torch.empty(0, dtype=dtype)
        return self.storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _value_alone(value: Any = None, *_: Any) -> Any:
    return value


def _state_names(archive: zipfile.ZipFile, root: str) -> dict[str, set[str]]:
    """Class → names of its own parameters and buffers; other tensors are constants of the program."""
    found: dict[str, set[str]] = {}
    prefix = f"{root}/code/"
    for entry in archive.namelist():
        if entry.startswith(prefix) and entry.endswith(".py"):
            module = entry.removeprefix(prefix).removesuffix(".py").replace("/", ".")
            for name, body in _CLASS.findall(archive.read(entry).decode("utf-8")):
                found[f"{module}.{name}"] = {
                    key for names in _STATE.findall(body) for key in re.findall(r'"(.*?)"', names)
                }
    return found


def _tensors(module: Any, names: Mapping[str, set[str]], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for key, value in vars(module).items():
        if isinstance(value, Tensor) and key in names.get(module.class_name, ()):
            yield prefix + key, value
        elif isinstance(value, _Module):
            yield from _tensors(value, names, f"{prefix}{key}.")

"""A memory-mapped float16 matrix of all vectors of a table, for exact search.

The matrix is derived data: it can be deleted at any time and comes back from the table. It lies in two files and a
description that is replaced at once:

    matrix.json              token of the table's version, rows, size, file names, checksums
    vectors-<name>.f16       (rows, D) float16, row-major, little-endian
    rows-<name>.i64          (rows, 2) int64: id, revision

A row's revision changes with its content, so comparing (id, revision) pairs with the table's shows what has changed:
rows that were only added are appended to the files, anything else writes new files. A lock keeps two processes from
writing at once; readers of an older state keep their mapping. Where the directory cannot be written, the matrix is
kept in memory instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import GalleryError
from .durability import write_durably
from .exact_search import BLOCK_ROWS

__all__ = ["ExactMatrix", "TableReader"]

_DESCRIPTION = "matrix.json"
_FORMAT = 1
_COPY_ROWS = 16384


class TableReader:
    """How the matrix reads its table, at one snapshot.

    Args:
        token: Text that changes with every change of the table.
        rows: Gives all (id, revision) pairs, (N, 2) int64, in the table's order.
        vectors: Gives, for the ids passed or for all with `None`, batches of (ids (n,), vectors (n, D) float16).
    """

    def __init__(
        self,
        token: str,
        rows: Callable[[], np.ndarray],
        vectors: Callable[[np.ndarray | None], Iterator[tuple[np.ndarray, np.ndarray]]],
    ) -> None:
        self.token = token
        self.rows = rows
        self.vectors = vectors


class ExactMatrix:
    """The vectors of a table, in ascending order of id, as one mapped array.

    Args:
        directory: Where the files lie; made when needed.
        embedding_size: Length D of a vector.
    """

    def __init__(self, directory: Path, embedding_size: int) -> None:
        self._directory = directory
        self._size = embedding_size
        self._token: str | None = None
        self._rows = np.empty((0, 2), np.int64)
        self._vectors: np.ndarray = np.empty((0, embedding_size), np.float16)
        self._description: dict[str, Any] | None = None
        self._norm = 0.0
        self.last_update = "none"
        """What the last `update` did: "current", "loaded", "appended", "rebuilt" or "in memory"."""

    @property
    def ids(self) -> np.ndarray:
        """(rows,) int64, ascending."""
        return self._rows[:, 0]

    @property
    def vectors(self) -> np.ndarray:
        """(rows, D) float16, in the order of `ids`."""
        return self._vectors

    def close(self) -> None:
        """Lets go of the mapped files."""
        self._token, self._description = None, None
        self._rows = np.empty((0, 2), np.int64)
        self._vectors = np.empty((0, self._size), np.float16)

    @property
    def largest_norm(self) -> float:
        """Length of the longest vector."""
        return self._norm

    # ------------------------------------------------------------------------------------------------------ reading

    def blocks(self, ids: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of (ids, vectors) of all rows, or of the rows with these ids (ascending); for `exact_top_k`."""
        own = self.ids
        if ids is None:
            for start in range(0, len(own), BLOCK_ROWS):
                yield own[start : start + BLOCK_ROWS], self._vectors[start : start + BLOCK_ROWS]
            return
        positions = np.searchsorted(own, ids)
        for start in range(0, len(positions), BLOCK_ROWS):
            chosen = positions[start : start + BLOCK_ROWS]
            yield own[chosen], self._vectors[chosen]

    # ----------------------------------------------------------------------------------------------------- updating

    def update(self, table: TableReader) -> None:
        """Brings the matrix to the table's snapshot."""
        if self._token == table.token:
            self.last_update = "current"
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with self._lock():
                self._update_files(table)
        except OSError:
            # read-only or full file system: exactness does not depend on the files
            self._update_in_memory(table)
        self._token = table.token

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        from filelock import FileLock

        with FileLock(self._directory / "lock"):
            yield

    def _update_files(self, table: TableReader) -> None:
        if self._load() and self._description is not None and self._description["token"] == table.token:
            self.last_update = "loaded"
            return
        wanted = _by_id(table.rows())
        have = self._rows
        added = len(wanted) - len(have)
        if self._description is not None and added >= 0 and np.array_equal(wanted[: len(have)], have):
            self._append(table, wanted[len(have) :])
            self.last_update = "appended"
        else:
            self._rebuild(table, wanted)
            self.last_update = "rebuilt"

    def _path(self, kind: str, name: str) -> Path:
        return self._directory / (f"vectors-{name}.f16" if kind == "vectors" else f"rows-{name}.i64")

    def _load(self) -> bool:
        """Maps what the description says; `False`, and nothing mapped, where a file is missing or damaged."""
        try:
            description = json.loads((self._directory / _DESCRIPTION).read_text("utf-8"))
            if description["format"] != _FORMAT or description["embedding_size"] != self._size:
                raise ValueError("another format")
            if self._description is not None and description == self._description:
                return True
            rows, name = int(description["rows"]), str(description["name"])
            norm = float(description["largest_norm"])
            pairs = _map(self._path("rows", name), np.int64, rows, 2)
            vectors = _map(self._path("vectors", name), np.float16, rows, self._size)
            if zlib.crc32(_bytes(pairs)) != description["rows_crc32"]:
                raise ValueError("damaged rows")
            if zlib.crc32(_bytes(vectors)) != description["vectors_crc32"]:
                raise ValueError("damaged vectors")
        except (OSError, ValueError, KeyError, TypeError):
            self.close()
            return False
        self._rows, self._vectors, self._description, self._norm = pairs, vectors, description, norm
        return True

    def _append(self, table: TableReader, new: np.ndarray) -> None:
        assert self._description is not None
        description = dict(self._description, token=table.token)
        if len(new):
            name, old_rows = str(description["name"]), int(description["rows"])
            vectors = _collect(table, new[:, 0], self._size)
            for kind, data in (("rows", new), ("vectors", vectors)):
                raw = _bytes(np.ascontiguousarray(data))
                # behind the rows of the description there may be those of an append that was cut off
                with open(self._path(kind, name), "r+b") as file:
                    file.truncate(old_rows * data.shape[1] * data.itemsize)
                    file.seek(0, os.SEEK_END)
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())
                description[f"{kind}_crc32"] = zlib.crc32(raw, description[f"{kind}_crc32"])
            description["rows"] = old_rows + len(new)
            description["largest_norm"] = max(float(description["largest_norm"]), _largest_norm(vectors))
        self._publish(description)

    def _rebuild(self, table: TableReader, wanted: np.ndarray) -> None:
        self.close()
        name = uuid.uuid4().hex[:12]
        path = self._path("vectors", name)
        try:
            with open(path, "wb") as file:
                file.truncate(len(wanted) * self._size * 2)
            checksum, norm = zlib.crc32(b""), 0.0
            if len(wanted):
                target = np.memmap(path, np.float16, "r+", shape=(len(wanted), self._size))
                _fill(target, table, wanted[:, 0])
                target.flush()
                checksum, norm = zlib.crc32(_bytes(target)), _largest_norm(target)
                del target
            with open(self._path("rows", name), "wb") as file:
                file.write(_bytes(wanted))
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            for kind in ("rows", "vectors"):
                self._path(kind, name).unlink(missing_ok=True)
            raise
        self._publish(
            {
                "format": _FORMAT,
                "token": table.token,
                "embedding_size": self._size,
                "rows": len(wanted),
                "name": name,
                "rows_crc32": zlib.crc32(_bytes(wanted)),
                "vectors_crc32": checksum,
                "largest_norm": norm,
            }
        )
        self._remove_others(name)

    def _publish(self, description: dict[str, Any]) -> None:
        write_durably(self._directory / _DESCRIPTION, json.dumps(description, indent=1).encode())
        rows, name = int(description["rows"]), str(description["name"])
        self._rows = _map(self._path("rows", name), np.int64, rows, 2)
        self._vectors = _map(self._path("vectors", name), np.float16, rows, self._size)
        self._description, self._norm = description, float(description["largest_norm"])

    def _remove_others(self, name: str) -> None:
        for path in self._directory.iterdir():
            if path.suffix in (".f16", ".i64") and not path.stem.endswith(name):
                with contextlib.suppress(OSError):  # Windows keeps files that another process has mapped
                    path.unlink()

    def _update_in_memory(self, table: TableReader) -> None:
        self.close()
        wanted = _by_id(table.rows())
        self._vectors = _collect(table, wanted[:, 0], self._size, everything=True)
        self._rows, self._norm = wanted, _largest_norm(self._vectors)
        self.last_update = "in memory"


def _by_id(pairs: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pairs[np.argsort(pairs[:, 0], kind="stable")])


def _map(path: Path, dtype: Any, rows: int, width: int) -> np.ndarray:
    if path.stat().st_size < rows * width * np.dtype(dtype).itemsize:
        raise ValueError(f"{path} is too short")
    if rows == 0:
        return np.empty((0, width), dtype)
    # "c" (private, copy on write) like "r" reads only; torch takes arrays that are marked writable without a warning
    return np.asarray(np.memmap(path, dtype, "c", shape=(rows, width)))


def _largest_norm(vectors: np.ndarray) -> float:
    largest = 0.0
    for start in range(0, len(vectors), _COPY_ROWS):
        block = vectors[start : start + _COPY_ROWS].astype(np.float64)
        largest = max(largest, float(np.sqrt(np.einsum("ij,ij->i", block, block).max())))
    return largest


def _bytes(array: np.ndarray) -> memoryview:
    return array.data.cast("B") if array.size else memoryview(b"")


def _collect(table: TableReader, ids: np.ndarray, size: int, *, everything: bool = False) -> np.ndarray:
    vectors = np.zeros((len(ids), size), np.float16)
    _fill(vectors, table, ids, everything=everything or len(ids) > _COPY_ROWS)
    return vectors


def _fill(target: np.ndarray, table: TableReader, ids: np.ndarray, *, everything: bool = True) -> None:
    """Puts each vector of the table at the place of its id in `ids` (ascending)."""
    filled = 0
    for batch_ids, batch in table.vectors(None if everything else ids):
        positions = np.searchsorted(ids, batch_ids)
        inside = positions < len(ids)
        inside[inside] = ids[positions[inside]] == batch_ids[inside]
        target[positions[inside]] = batch[inside]
        filled += int(inside.sum())
    if filled != len(ids):
        raise GalleryError(f"the table gave {filled} of {len(ids)} vectors; it changed while it was read")

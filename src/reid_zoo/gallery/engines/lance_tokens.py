"""Tokens for late interaction in a Lance table of their own, so that coarse search never reads them.

Columns: `id` and `revision` (int64), `tokens` (fixed-size list of Z·D float16), `mask` (fixed-size list of Z bool). One
read of 2000 entries of 15 × 512 values (31 MB) takes about as long as copying them.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...errors import GalleryError
from .base import TokenShape, TokenStore
from .durability import fsync_path
from .lance_table import ID_CHUNK, LanceTable, id_condition, open_table
from .storage_errors import storage_errors

__all__ = ["LanceTokens"]

_TABLE = "tokens"
_MOST_FRAGMENTS = 256
"""Commits after which small files are merged; a merge writes all tokens again, so it must be rare."""

_KEEP_VERSIONS = timedelta(minutes=5)


class LanceTokens(LanceTable, TokenStore):
    """A `TokenStore` in the directory of a `LanceStore`: `tokens.lance`. Several processes may use it at once."""

    def __init__(self, uri: str, table: Any, *, present_is_synced: bool = True) -> None:
        super().__init__(uri, _TABLE, table, present_is_synced=present_is_synced)
        self._shape = _read_shape(table.schema, Path(uri))

    @staticmethod
    def exists(uri: str) -> bool:
        """Whether there is such a table in a directory; one that a killed process began to make is none."""
        return any((Path(uri) / f"{_TABLE}.lance" / "_versions").glob("*.manifest"))

    @classmethod
    def open(cls, uri: str) -> Self:
        """Opens the table of a directory.

        Raises:
            GalleryError: If there is none, or it is damaged or not one of reid_zoo.
        """
        return cls(uri, open_table(uri, _TABLE))

    @classmethod
    def open_or_create(cls, uri: str, shape: TokenShape) -> Self:
        """Opens the table of a directory, or makes an empty one for entries of that size.

        Raises:
            GalleryError: If the table is damaged, or cannot be made.
        """
        import lancedb

        if cls.exists(uri):
            return cls.open(uri)
        with storage_errors(uri, f"create the table '{_TABLE}.lance'"):
            shutil.rmtree(Path(uri) / f"{_TABLE}.lance", ignore_errors=True)  # what a killed process began to make
            table = lancedb.connect(uri).create_table(_TABLE, schema=_table_schema(shape))
        made = cls(uri, table, present_is_synced=False)
        made._sync.sync()
        fsync_path(uri)
        return made

    @property
    def shape(self) -> TokenShape:
        """See `TokenStore.shape`."""
        return self._shape

    def close(self) -> None:
        """See `TokenStore.close`."""
        with self._lock:
            self._closed = True
            self._table = None

    def append(self, ids: np.ndarray, revisions: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> None:
        """See `TokenStore.append`."""
        rows = _arrow_rows(ids, revisions, tokens, mask, self._shape)
        self._commit("write tokens", lambda: self._table.add(rows))
        with contextlib.suppress(GalleryError):  # the entries are safe; housekeeping can wait for a better moment
            if self._read("count files", self._num_fragments) >= _MOST_FRAGMENTS:
                self.optimize()

    def _num_fragments(self) -> int:
        return int(self._table.stats()["fragment_stats"]["num_fragments"])

    def read(self, ids: np.ndarray, revisions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `TokenStore.read`."""
        count, width = self._shape.count, self._shape.width
        order = np.argsort(revisions)
        sorted_revisions = revisions[order]

        def operation() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            found = np.zeros(len(ids), bool)
            tokens = np.zeros((len(ids), count, width), np.float16)
            mask = np.zeros((len(ids), count), bool)
            for start in range(0, len(ids), ID_CHUNK):
                query = self._table.search().where(id_condition(ids[start : start + ID_CHUNK]))
                for batch in query.select(["id", "revision", "tokens", "mask"]).to_batches(ID_CHUNK):
                    given = batch.column("revision").to_numpy()
                    places = np.searchsorted(sorted_revisions, given).clip(max=len(order) - 1)
                    chosen = np.flatnonzero(sorted_revisions[places] == given)  # others are of another version
                    rows = order[places[chosen]]
                    tokens[rows] = _values(batch, "tokens").reshape(-1, count, width)[chosen]
                    mask[rows] = _values(batch, "mask").reshape(-1, count)[chosen]
                    found[rows] = True
            return found, tokens, mask

        return self._read("read tokens", operation)

    def keys(self) -> np.ndarray:
        """See `TokenStore.keys`."""

        def operation() -> np.ndarray:
            parts = [np.empty((0, 2), np.int64)]
            for batch in self._table.search().select(["id", "revision"]).to_batches(65536):
                parts.append(np.stack([batch.column("id").to_numpy(), batch.column("revision").to_numpy()], axis=1))
            return np.concatenate(parts)

        return self._read("read tokens", operation)

    def delete(self, revisions: np.ndarray) -> None:
        """See `TokenStore.delete`."""
        for start in range(0, len(revisions), ID_CHUNK):

            def operation(chosen: np.ndarray = revisions[start : start + ID_CHUNK]) -> None:
                self._table.delete(id_condition(chosen, "revision"))

            self._commit("delete tokens", operation)

    def optimize(self, *, reclaim: bool = False) -> None:
        """See `TokenStore.optimize`."""

        def operation() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about zero retention, which the caller has chosen
                self._table.optimize(cleanup_older_than=timedelta(0) if reclaim else _KEEP_VERSIONS)

        self._commit("optimize tokens", operation)


def _table_schema(shape: TokenShape) -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("revision", pa.int64(), nullable=False),
            pa.field("tokens", pa.list_(pa.float16(), shape.count * shape.width), nullable=False),
            pa.field("mask", pa.list_(pa.bool_(), shape.count), nullable=False),
        ]
    )


def _read_shape(schema: Any, uri: Path) -> TokenShape:
    """The size of the entries of an existing table.

    Raises:
        GalleryError: If the table was not made by reid_zoo.
    """
    try:
        values, count = schema.field("tokens").type.list_size, schema.field("mask").type.list_size
        shape = TokenShape(count, values // count)
        if [(field.name, field.type) for field in schema] != [(f.name, f.type) for f in _table_schema(shape)]:
            raise ValueError("other columns")
    except (KeyError, AttributeError, ValueError, ZeroDivisionError) as error:
        raise GalleryError(
            f"{uri}: its table '{_TABLE}.lance' was not written by reid_zoo ({error}); index into a new path"
        ) from error
    return shape


def _arrow_rows(ids: np.ndarray, revisions: np.ndarray, tokens: np.ndarray, mask: np.ndarray, shape: TokenShape) -> Any:
    import pyarrow as pa

    wanted = (len(ids), shape.count, shape.width)
    if tokens.shape != wanted or mask.shape != wanted[:2]:
        raise GalleryError(f"tokens have shape {tokens.shape} and their mask {mask.shape}; wanted {wanted}")
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(tokens, np.float16)
    if not np.isfinite(half).all():
        raise GalleryError("a token has a value that is NaN, infinite or too large for float16")
    return pa.table(
        [
            pa.array(np.asarray(ids, np.int64)),
            pa.array(np.asarray(revisions, np.int64)),
            pa.FixedSizeListArray.from_arrays(pa.array(half.reshape(-1)), shape.count * shape.width),
            pa.FixedSizeListArray.from_arrays(pa.array(mask.reshape(-1)), shape.count),
        ],
        schema=_table_schema(shape),
    )


def _values(batch: Any, name: str) -> np.ndarray:
    values: np.ndarray = batch.column(name).flatten().to_numpy(zero_copy_only=False)
    return values

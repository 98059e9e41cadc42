"""The embedded engine: one LanceDB table per gallery, with an exact search in front of it.

What LanceDB leaves to its user is done here (and in `lance_table`): fsync of new files after a commit, retries of
commits that conflict with another process, compaction and removal of old versions, and exact search at the speed of a
matrix product. The tokens of late-interaction methods are a second table, see `lance_tokens`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...errors import GalleryError
from ..filters import Filter
from .base import (
    ColumnType,
    GalleryStore,
    RowBatch,
    SearchResult,
    StoreCapabilities,
    StoreSchema,
    StoreStats,
    TokenShape,
    TokenStore,
    check_column_name,
    check_filter,
)
from .durability import fsync_path
from .exact_matrix import ExactMatrix, TableReader
from .exact_search import dot_scores, exact_top_k
from .lance_schema import REVISION, arrow_field, arrow_rows, read_schema, table_name, table_schema, to_batch
from .lance_sql import compile_filter, quote_name
from .lance_table import ID_CHUNK, LanceTable, id_condition, open_table
from .lance_tokens import LanceTokens
from .storage_errors import storage_errors

__all__ = ["LanceStore"]

_TABLE = "table"
_VECTOR_INDEX = "vector_idx"
_ALL_PARTITIONS = 1_000_000
"""More partitions than any index has: all are searched, so that a filter cannot lose answers."""

_INDEX_BITS = 4
"""Per value of a vector: a quarter of float16. 1 bit lost answers among unstructured vectors."""

_REFINE = 10
"""Candidates per answer that an approximate search scores exactly, and how many there are at least."""

_LEAST_CANDIDATES = 500


class LanceStore(LanceTable, GalleryStore):
    """A `GalleryStore` in a local directory. Several processes may use it at once.

    Args:
        uri: The directory; the table is `table.lance` in it, the derived matrix `matrix`.
        table: The opened LanceDB table.
        matrix_bytes: Largest size of the float16 matrix for exact search. Beyond it, `optimize` builds an IVF_RQ index
            and searches of more rows than this are approximate.
        optimize_every: Number of commits after which `upsert` compacts the table by itself.
        keep_versions: How long replaced files stay for other processes that still read them.
    """

    def __init__(
        self,
        uri: str,
        table: Any,
        *,
        matrix_bytes: int,
        optimize_every: int,
        keep_versions: timedelta,
        present_is_synced: bool = True,
    ) -> None:
        super().__init__(uri, _TABLE, table, present_is_synced=present_is_synced)
        self._matrix_bytes = matrix_bytes
        self._optimize_every = optimize_every
        self._keep_versions = keep_versions
        self._schema = read_schema(table.schema, self._uri)
        self._matrix = ExactMatrix(self._uri / "matrix", self._schema.embedding_size)

    # ----------------------------------------------------------------------------------------------- life of a store

    @classmethod
    def create(cls, uri: str, schema: StoreSchema, **options: Any) -> Self:
        """Makes an empty table in a directory, which may exist; options as of `open`.

        Raises:
            GalleryError: If there is a table already, or the directory cannot be written.
        """
        import lancedb

        settings = _settings(options)
        for name in schema.columns:
            check_column_name(name)
        if (Path(uri) / f"{_TABLE}.lance").exists():
            raise GalleryError(f"{uri}: there is a table already")
        with storage_errors(uri, "create the table"):
            table = lancedb.connect(uri).create_table(_TABLE, schema=table_schema(schema))
        store = cls(uri, table, **settings, present_is_synced=False)
        store.flush()
        fsync_path(uri)
        return store

    @classmethod
    def open(cls, uri: str, **options: Any) -> Self:
        """Opens the table of a directory.

        Args:
            uri: The directory.
            **options: `matrix_bytes` (2 GB), `optimize_every` (64 commits), `keep_versions` (5 minutes).

        Raises:
            GalleryError: If there is no table, or it is damaged or not one of reid_zoo.
        """
        return cls(uri, open_table(uri, _TABLE), **_settings(options))

    def close(self) -> None:
        """Compacts if there were commits since the last time, and lets go of the files."""
        with self._lock:
            if self._closed:
                return
            try:
                if self._commits > 1:
                    with contextlib.suppress(GalleryError):  # housekeeping: on a full disk, closing must still work
                        self.optimize()
            finally:
                self._closed = True
                self._matrix.close()
                self._table = None

    @property
    def schema(self) -> StoreSchema:
        """Identity of the model and the columns, as of the last operation."""
        return self._schema

    def capabilities(self) -> StoreCapabilities:
        """Exact up to the byte budget, several processes, durable, with tokens."""
        return StoreCapabilities(exact=False, multiprocess=True, durable=True, token_vectors=True)

    def token_store(self, make: TokenShape | None = None) -> TokenStore | None:
        """See `GalleryStore.token_store`; a table of its own, read only by searches that compare tokens."""
        if make is None and not LanceTokens.exists(str(self._uri)):
            return None
        return LanceTokens.open(str(self._uri)) if make is None else LanceTokens.open_or_create(str(self._uri), make)

    def _loaded(self) -> None:
        self._schema = read_schema(self._table.schema, self._uri)

    # ----------------------------------------------------------------------------------------------------- writing

    def add_columns(self, columns: Mapping[str, ColumnType]) -> None:
        """See `GalleryStore.add_columns`."""

        def operation() -> None:
            existing = self._schema.columns
            for name, kind in columns.items():
                if name in existing and existing[name] is not kind:
                    raise GalleryError(
                        f"column '{name}' holds {existing[name]} values and cannot become {kind}; "
                        "convert the values or use another column name"
                    )
            for name in columns:
                check_column_name(name)
            new = {name: kind for name, kind in columns.items() if name not in existing}
            if new:
                self._table.add_columns([arrow_field(name, kind) for name, kind in new.items()])

        self._commit("add columns", operation)

    def upsert(self, ids: np.ndarray, vectors: np.ndarray, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
        """See `GalleryStore.upsert`."""
        if len(ids) == 0:
            return

        def operation() -> None:
            rows = arrow_rows(ids, vectors, columns, self._schema, self._table.schema)
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(rows)

        self._commit("write rows", operation)
        if self._commits >= self._optimize_every:
            self._commits = 0
            with contextlib.suppress(GalleryError):  # the rows are safe; housekeeping can wait for a better moment
                self.optimize()

    def delete(self, *, ids: Sequence[int] | np.ndarray | None = None, where: Filter | None = None) -> int:
        """See `GalleryStore.delete`."""
        if (ids is None) == (where is None):
            raise GalleryError("delete: give either ids or a filter")
        if where is not None:
            return self._commit("delete rows", lambda: int(self._table.delete(self._compiled(where)).num_deleted_rows))
        chosen = np.unique(np.asarray(ids, np.int64))
        deleted = 0
        for start in range(0, len(chosen), ID_CHUNK):
            condition = id_condition(chosen[start : start + ID_CHUNK])

            def operation(condition: str = condition) -> int:
                return int(self._table.delete(condition).num_deleted_rows)

            deleted += self._commit("delete rows", operation)
        return deleted

    def flush(self) -> None:
        """See `GalleryStore.flush`; every commit is synced already, so this finds little to do."""
        with storage_errors(self._uri, "flush"):
            self._sync.sync()

    def optimize(self, *, reclaim: bool = False) -> None:
        """Compacts small files, removes old versions, and builds or extends the index of a table over the budget.

        Args:
            reclaim: Remove all old versions instead of those older than the store's setting. Another process that is
                reading has to start again, which it does by itself except in the middle of a `scan`.
        """
        keep = timedelta(0) if reclaim else self._keep_versions

        def operation() -> None:
            self._update_index()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about zero retention, which the caller has chosen
                self._table.optimize(cleanup_older_than=keep)

        self._commit("optimize", operation)
        self._commits = 0

    def _update_index(self) -> None:
        rows = self._table.count_rows()
        if self._vector_bytes(rows) <= self._matrix_bytes:
            return
        statistics = self._table.index_stats(_VECTOR_INDEX)
        if statistics is not None and statistics.num_unindexed_rows <= rows // 2:
            return  # `optimize` adds the new rows to the index; only growth by half makes new partitions worth it
        from lancedb.index import IvfRq

        config = IvfRq(distance_type=self._index_distance(), num_bits=_INDEX_BITS)
        self._table.create_index("vector", config=config, name=_VECTOR_INDEX, replace=True)

    def _index_distance(self) -> str:
        # of unit vectors both rank alike, but the compressed codes estimate "l2" better: 3000 random vectors of 256
        # values, 1 bit, 10 candidates per answer gave 82 % of the true answers against 68 % with "dot"
        return "l2" if self._schema.normalized else "dot"

    # ----------------------------------------------------------------------------------------------------- reading

    def _compiled(self, where: Filter | None) -> str | None:
        if where is None:
            return None
        check_filter(where, self._schema.columns)
        return compile_filter(where, self._schema.columns)

    def _vector_bytes(self, rows: int) -> int:
        return rows * self._schema.embedding_size * 2

    def count(self, where: Filter | None = None) -> int:
        """See `GalleryStore.count`."""
        return self._read("count rows", lambda: int(self._table.count_rows(self._compiled(where))))

    def get(
        self, ids: Sequence[int] | np.ndarray, *, columns: Sequence[str] | None = None, vectors: bool = False
    ) -> RowBatch:
        """See `GalleryStore.get`."""
        asked = np.asarray(ids, np.int64).reshape(-1)
        distinct = np.unique(asked)

        def operation() -> RowBatch:
            names = self._names(columns)
            parts = [
                to_batch(part, names, vectors)
                for start in range(0, max(len(distinct), 1), ID_CHUNK)
                for part in self._query(id_condition(distinct[start : start + ID_CHUNK]), names, vectors, ID_CHUNK)
            ]
            return _concatenate(parts, names, self._schema.embedding_size if vectors else None)

        found = self._read("read rows", operation)
        order = np.argsort(found.ids)
        places = np.searchsorted(found.ids, asked, sorter=order)
        exists = places < len(order)
        exists[exists] = found.ids[order[places[exists]]] == asked[exists]
        chosen = order[places[exists]]
        return RowBatch(
            found.ids[chosen],
            {name: values[chosen] for name, values in found.columns.items()},
            None if found.vectors is None else found.vectors[chosen],
        )

    def _names(self, columns: Sequence[str] | None) -> list[str]:
        if columns is None:
            return list(self._schema.columns)
        unknown = [name for name in columns if name not in self._schema.columns]
        if unknown:
            raise GalleryError(f"{self._uri}: no column '{unknown[0]}'; there are: {', '.join(self._schema.columns)}")
        return list(columns)

    def _query(self, condition: str | None, names: Sequence[str], vectors: bool, batch_size: int) -> Iterator[Any]:
        query = self._table.search()
        if condition is not None:
            query = query.where(condition)
        # a mapping of output names to expressions keeps any column name apart from Lance's own syntax
        wanted = ["id", *(["vector"] if vectors else []), *names]
        return iter(query.select({name: quote_name(name) for name in wanted}).to_batches(batch_size))

    def scan(
        self,
        *,
        where: Filter | None = None,
        columns: Sequence[str] | None = None,
        vectors: bool = False,
        batch_size: int = 8192,
    ) -> Iterator[RowBatch]:
        """See `GalleryStore.scan`."""

        def start() -> tuple[list[str], Iterator[Any]]:
            names = self._names(columns)
            return names, self._query(self._compiled(where), names, vectors, batch_size)

        names, batches = self._read("scan", start)
        while True:
            with storage_errors(self._uri, "scan"):
                batch = next(batches, None)
            if batch is None:
                return
            yield to_batch(batch, names, vectors)

    def search(self, queries: np.ndarray, top_k: int, *, where: Filter | None = None) -> SearchResult:
        """See `GalleryStore.search`."""
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self._schema.embedding_size:
            raise GalleryError(
                f"queries of shape {queries.shape} do not fit; wanted (number, {self._schema.embedding_size})"
            )
        if top_k < 1:
            raise GalleryError(f"top_k is {top_k}; it must be at least 1")

        def operation() -> SearchResult:
            condition = self._compiled(where)
            if self._vector_bytes(self._table.count_rows()) <= self._matrix_bytes:
                return self._search_matrix(queries, top_k, condition)
            matching = self._table.count_rows(condition)
            candidates = max(top_k * _REFINE, _LEAST_CANDIDATES)
            few = self._vector_bytes(matching) <= self._matrix_bytes or matching <= candidates
            if not few and self._table.index_stats(_VECTOR_INDEX) is not None:
                return self._search_index(queries, top_k, condition)
            blocks = ((part.ids, part.vectors) for part in self._vector_batches(condition))
            return SearchResult(*exact_top_k(blocks, queries, top_k), exact=True)

        return self._read("search", operation)

    def _vector_batches(self, condition: str | None) -> Iterator[Any]:
        for batch in self._query(condition, [], True, 8192):
            yield to_batch(batch, [], True)

    def _search_matrix(self, queries: np.ndarray, top_k: int, condition: str | None) -> SearchResult:
        self._matrix.update(
            TableReader(
                f"{table_name(self._table.schema)} version {self._table.version}", self._revisions, self._vectors_of
            )
        )
        chosen = None if condition is None else np.sort(self._ids(condition))
        blocks = self._matrix.blocks(chosen)
        return SearchResult(*exact_top_k(blocks, queries, top_k, largest_norm=self._matrix.largest_norm), exact=True)

    def _search_index(self, queries: np.ndarray, top_k: int, condition: str | None) -> SearchResult:
        """Approximate: candidates from the compressed vectors of every partition, then exact scores of the best."""
        ids = np.full((len(queries), top_k), -1, np.int64)
        scores = np.full((len(queries), top_k), -np.inf, np.float32)
        refine = max(_REFINE, -(-_LEAST_CANDIDATES // top_k))
        for row, query in enumerate(queries):
            search = self._table.search(query, vector_column_name="vector").distance_type(self._index_distance())
            search = search.nprobes(_ALL_PARTITIONS).refine_factor(refine).limit(top_k)
            search = search.select(["id", "vector", "_distance"])
            if condition is not None:
                search = search.where(condition, prefilter=True)
            found = _concatenate(
                [to_batch(part, [], True) for part in search.to_arrow().to_batches()], [], queries.shape[1]
            )
            assert found.vectors is not None
            found_scores = dot_scores(np.broadcast_to(query, found.vectors.shape), found.vectors)
            best = np.lexsort((found.ids, -found_scores))
            ids[row, : len(best)], scores[row, : len(best)] = found.ids[best], found_scores[best]
        return SearchResult(ids, scores, exact=False)

    def _ids(self, condition: str) -> np.ndarray:
        parts = [to_batch(batch, [], False).ids for batch in self._query(condition, [], False, 65536)]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _revisions(self) -> np.ndarray:
        parts = [np.empty((0, 2), np.int64)]
        for batch in self._query(None, [REVISION], False, 65536):
            parts.append(np.stack([batch.column("id").to_numpy(), batch.column(REVISION).to_numpy()], axis=1))
        return np.concatenate(parts)

    def _vectors_of(self, ids: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if ids is None:
            conditions: list[str | None] = [None]
        else:
            conditions = [id_condition(ids[start : start + ID_CHUNK]) for start in range(0, len(ids), ID_CHUNK)]
        for condition in conditions:
            for batch in self._vector_batches(condition):
                yield batch.ids, batch.vectors

    def stats(self) -> StoreStats:
        """See `GalleryStore.stats`; `bytes` counts every file of the directory, old versions and the matrix included."""

        def operation() -> StoreStats:
            rows = int(self._table.count_rows())
            index = self._table.index_stats(_VECTOR_INDEX)
            size = 0
            for path in self._uri.rglob("*"):
                with contextlib.suppress(OSError):
                    size += path.stat().st_size if path.is_file() else 0
            return StoreStats(
                rows=rows,
                bytes=size,
                unindexed_rows=0 if index is None else int(index.num_unindexed_rows),
                version=str(self._table.version),
                details={
                    "search": "exact" if self._vector_bytes(rows) <= self._matrix_bytes or index is None else "IVF_RQ",
                    "matrix": self._matrix.last_update,
                },
            )

        return self._read("count rows", operation)


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    settings = {"matrix_bytes": 2_000_000_000, "optimize_every": 64, "keep_versions": timedelta(minutes=5)}
    unknown = set(options) - set(settings)
    if unknown:
        raise GalleryError(f"unknown option '{min(unknown)}' of the gallery's store; there are: {', '.join(settings)}")
    return {**settings, **options}


def _concatenate(parts: Sequence[RowBatch], names: Sequence[str], size: int | None) -> RowBatch:
    """Joins batches; `size` is that of the vectors, `None` without vectors."""
    ids = np.concatenate([np.empty(0, np.int64), *(part.ids for part in parts)])
    columns = {name: np.concatenate([np.empty(0, object), *(part.columns[name] for part in parts)]) for name in names}
    vectors = None
    if size is not None:
        empty = np.empty((0, size), np.float16)
        vectors = np.concatenate([empty, *(part.vectors for part in parts if part.vectors is not None)])
    return RowBatch(ids, columns, vectors)

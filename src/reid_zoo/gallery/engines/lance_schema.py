"""Arrow form of a gallery's schema and rows, as the Lance table stores them.

Columns: `id` (int64), `vector` (fixed-size list of float16), `_revision` (int64, random for each commit: it tells a
replaced row from an unchanged one), then the metadata. The schema's own metadata carries the model's identity.
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import GalleryError
from ...model_identity import ModelIdentity
from .base import ColumnType, RowBatch, StoreSchema, column_values

__all__ = [
    "REVISION",
    "arrow_field",
    "arrow_rows",
    "read_schema",
    "table_name",
    "table_schema",
    "to_batch",
]

REVISION = "_revision"
_KEY = b"reid_zoo"
_OWN_COLUMNS = ("id", "vector", REVISION)


def _arrow_type(kind: ColumnType) -> Any:
    import pyarrow as pa

    return {
        ColumnType.INT: pa.int64(),
        ColumnType.FLOAT: pa.float64(),
        ColumnType.STRING: pa.string(),
        ColumnType.BOOL: pa.bool_(),
        ColumnType.STRINGS: pa.list_(pa.string()),
    }[kind]


def arrow_field(name: str, kind: ColumnType) -> Any:
    """The Arrow field of a metadata column."""
    import pyarrow as pa

    return pa.field(name, _arrow_type(kind))


def table_schema(schema: StoreSchema) -> Any:
    """The Arrow schema of a new table, with a name of its own that no other table has."""
    import pyarrow as pa

    attributes = {"identity": schema.identity.to_dict(), "normalized": schema.normalized, "table": uuid.uuid4().hex}
    return pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("vector", pa.list_(pa.float16(), schema.embedding_size), nullable=False),
            pa.field(REVISION, pa.int64(), nullable=False),
            *(arrow_field(name, kind) for name, kind in schema.columns.items()),
        ],
        metadata={_KEY: json.dumps(attributes).encode()},
    )


def _attributes(arrow_schema: Any) -> dict[str, Any]:
    return dict(json.loads((arrow_schema.metadata or {})[_KEY]))


def table_name(arrow_schema: Any) -> str:
    """The name that `table_schema` gave the table."""
    return str(_attributes(arrow_schema)["table"])


def read_schema(arrow_schema: Any, uri: Path) -> StoreSchema:
    """The schema of an existing table.

    Raises:
        GalleryError: If the table was not made by reid_zoo.
    """
    kinds = {str(_arrow_type(kind)): kind for kind in ColumnType}
    try:
        attributes = _attributes(arrow_schema)
        return StoreSchema(
            identity=ModelIdentity.from_dict(attributes["identity"]),
            columns={field.name: kinds[str(field.type)] for field in arrow_schema if field.name not in _OWN_COLUMNS},
            normalized=bool(attributes["normalized"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise GalleryError(
            f"{uri}: its table was not written by reid_zoo ({error!r}); index into a new path"
        ) from error


def arrow_rows(
    ids: np.ndarray,
    vectors: np.ndarray,
    columns: Mapping[str, Sequence[Any] | np.ndarray],
    schema: StoreSchema,
    arrow_schema: Any,
) -> Any:
    """Rows of an `upsert` as an Arrow table of the table's full schema.

    Raises:
        GalleryError: If something does not fit the schema.
    """
    import pyarrow as pa

    ids = np.asarray(ids)
    vectors = np.asarray(vectors)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or (ids < 0).any() or len(np.unique(ids)) != len(ids):
        raise GalleryError("ids must be non-negative whole numbers, no two of them equal")
    if vectors.shape != (len(ids), schema.embedding_size):
        raise GalleryError(f"vectors have shape {vectors.shape}; wanted {(len(ids), schema.embedding_size)}")
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(vectors, np.float16)
    if not np.isfinite(half).all():
        raise GalleryError("a vector has a value that is NaN, infinite or too large for float16")
    unknown = [name for name in columns if name not in schema.columns]
    if unknown:
        raise GalleryError(f"no column '{unknown[0]}'; add it first")
    data: dict[str, Any] = {
        "id": pa.array(ids.astype(np.int64)),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(half.reshape(-1)), schema.embedding_size),
        REVISION: pa.array(np.full(len(ids), secrets.randbits(62), np.int64)),
    }
    for name, kind in schema.columns.items():
        values = columns.get(name)
        if values is not None and len(values) != len(ids):
            raise GalleryError(f"column '{name}' has {len(values)} values for {len(ids)} rows")
        plain = [None] * len(ids) if values is None else column_values(name, kind, values)
        data[name] = pa.array(plain, _arrow_type(kind))
    return pa.table([data[field.name] for field in arrow_schema], schema=arrow_schema)


def to_batch(batch: Any, names: Sequence[str], vectors: bool) -> RowBatch:
    """A record batch of a query as numpy columns."""
    columns = {}
    for name in names:
        values = np.empty(batch.num_rows, object)
        for row, value in enumerate(batch.column(name).to_pylist()):
            values[row] = tuple(value) if isinstance(value, list) else value
        columns[name] = values
    matrix = None
    if vectors:
        column = batch.column("vector")
        matrix = column.flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, column.type.list_size)
    return RowBatch(batch.column("id").to_numpy(), columns, matrix)

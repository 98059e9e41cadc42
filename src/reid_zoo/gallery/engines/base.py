"""The boundary between a gallery and the engine that keeps it: `GalleryStore`, columnar and batch-first.

Nothing outside `gallery/engines/` knows which engine it talks to. Rows have a non-negative int64 id chosen by the
caller, one float16 vector, and typed metadata columns of which every value may be missing. Scores are inner products,
larger is better. Filters cross the boundary as trees (`gallery.filters`), never as an engine's own language.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from ...errors import FilterError, GalleryError
from ...model_identity import ModelIdentity
from ..filters import And, Eq, Filter, In, Not, Or, field_names

__all__ = [
    "ColumnType",
    "GalleryStore",
    "RowBatch",
    "SearchResult",
    "StoreCapabilities",
    "StoreSchema",
    "StoreStats",
    "TokenShape",
    "TokenStore",
    "check_column_name",
    "check_filter",
    "column_values",
]


class ColumnType(StrEnum):
    """Type of a metadata column. Every value may also be missing (`None`)."""

    INT = "int"
    """64-bit signed integer."""
    FLOAT = "float"
    """float64; NaN is stored as missing, -0.0 as 0.0."""
    STRING = "str"
    BOOL = "bool"
    STRINGS = "list of str"
    """Several sentences, for example captions; a filter can only ask whether they are missing."""


@dataclass(frozen=True, slots=True)
class StoreSchema:
    """What the rows of a store are.

    Attributes:
        identity: The model that every vector comes from; its `embedding_size` is the length of a vector.
        columns: Metadata columns in order, without `id` and the vector.
        normalized: Whether every vector has unit length.
    """

    identity: ModelIdentity
    columns: Mapping[str, ColumnType] = field(default_factory=dict)
    normalized: bool = True

    @property
    def embedding_size(self) -> int:
        """Length of a vector."""
        return self.identity.embedding_size


@dataclass(frozen=True, slots=True)
class StoreCapabilities:
    """What an engine can do beyond what every one must.

    Attributes:
        exact: Whether search always gives the exact answer at any size.
        multiprocess: Whether several processes may read and write one store at the same time.
        durable: Whether an acknowledged `upsert` survives the end of the process by any means, `kill -9` included.
        token_vectors: Whether several vectors per row can be stored for late interaction (`GalleryStore.token_store`).
        max_top_k: Largest `top_k` of a search, `None` for no limit.
    """

    exact: bool
    multiprocess: bool
    durable: bool
    token_vectors: bool = False
    max_top_k: int | None = None


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Size of a store.

    Attributes:
        rows: Number of rows.
        bytes: Bytes it occupies, 0 where the engine cannot tell.
        unindexed_rows: Rows not yet in the engine's vector index, where it has one.
        version: Changes with every change of the rows.
        details: Further facts, by engine.
    """

    rows: int
    bytes: int
    unindexed_rows: int
    version: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows in columnar form.

    Attributes:
        ids: (N,) int64.
        columns: Name → (N,) object array of `int`, `float`, `str`, `bool`, `tuple[str, ...]` or `None`.
        vectors: (N, D) float16, or `None` where they were not asked for.
    """

    ids: np.ndarray
    columns: Mapping[str, np.ndarray]
    vectors: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Answers to a batch of Q queries, best first; k is `top_k`, or the number of rows that match where it is smaller.

    Attributes:
        ids: (Q, k) int64; -1 pads the row of a query for which an approximate search found fewer.
        scores: (Q, k) float32: inner product of the query and the stored float16 vector; -inf at padding.
        exact: Whether these are certain to be the k best.
    """

    ids: np.ndarray
    scores: np.ndarray
    exact: bool


@dataclass(frozen=True, slots=True)
class TokenShape:
    """Size of the tokens of every image: `count` Z vectors of `width` D values."""

    count: int
    width: int


class TokenStore(ABC):
    """The tokens of a gallery's images, beside the table of vectors; only ever appended to and deleted from.

    An entry belongs to a row id and a *revision*, a random number that the row names as its own. So entries are written
    before the row that needs them and no reader takes those of another version of the row; entries that no row names are
    harmless. Errors as of `GalleryStore`.
    """

    @property
    @abstractmethod
    def shape(self) -> TokenShape:
        """Size of every entry."""

    @abstractmethod
    def close(self) -> None:
        """Frees what the store holds; may be called twice."""

    @abstractmethod
    def append(self, ids: np.ndarray, revisions: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> None:
        """Adds entries, which are visible to every later `read` and durable when it returns.

        Args:
            ids: (N,) int64 row ids.
            revisions: (N,) int64, unlike all others.
            tokens: (N, Z, D) of any float type, finite; rounded to float16.
            mask: (N, Z) bool, true where there is a token.

        Raises:
            GalleryError: If a shape or a value does not fit; nothing is written then.
        """

    @abstractmethod
    def read(self, ids: np.ndarray, revisions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Entries by row id and revision, in the order asked for.

        Args:
            ids: (N,) int64 row ids.
            revisions: (N,) int64.

        Returns:
            found (N,) bool, and of all N: tokens (N, Z, D) float16 and mask (N, Z) bool, zero where not found.
        """

    @abstractmethod
    def keys(self) -> np.ndarray:
        """(N, 2) int64: row id and revision of every entry."""

    @abstractmethod
    def delete(self, revisions: np.ndarray) -> None:
        """Deletes the entries with these revisions; those that do not exist are passed over."""

    @abstractmethod
    def optimize(self, *, reclaim: bool = False) -> None:
        """As of `GalleryStore.optimize`."""


class GalleryStore(ABC):
    """A durable table of vectors and metadata with exact or approximate search.

    Implementations also have the class methods `create(uri, schema, **options)` and `open(uri, **options)`. All
    methods raise `GalleryError` for what the user can mend (disk full, a damaged table, an unreachable server).
    """

    @classmethod
    @abstractmethod
    def create(cls, uri: str, schema: StoreSchema, **options: Any) -> Self:
        """Makes an empty store at a place that has none."""

    @classmethod
    @abstractmethod
    def open(cls, uri: str, **options: Any) -> Self:
        """Opens an existing store."""

    @abstractmethod
    def close(self) -> None:
        """Frees what the store holds; may be called twice."""

    @property
    @abstractmethod
    def schema(self) -> StoreSchema:
        """Identity of the model and the columns, as they are now."""

    @abstractmethod
    def capabilities(self) -> StoreCapabilities:
        """What this engine can do."""

    def token_store(self, make: TokenShape | None = None) -> TokenStore | None:
        """The store of the rows' tokens; a caller keeps it and closes it.

        Args:
            make: Make an empty one of this size where there is none.

        Returns:
            The store; `None` where there is none and `make` is not given.

        Raises:
            GalleryError: If it is damaged, or the engine cannot store tokens.
        """
        if make is not None:
            raise GalleryError(f"the engine {type(self).__name__} cannot store tokens for late interaction")
        return None

    @abstractmethod
    def add_columns(self, columns: Mapping[str, ColumnType]) -> None:
        """Adds metadata columns; existing rows have no value in them. A column that exists with the same type is fine.

        Raises:
            GalleryError: If a column exists with another type.
        """

    @abstractmethod
    def upsert(self, ids: np.ndarray, vectors: np.ndarray, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
        """Inserts rows, replacing those whose id exists; repeating the call changes nothing.

        When it returns, the rows are visible to every later search and survive the death of the process.

        Args:
            ids: (N,) non-negative int64, no two equal.
            vectors: (N, D) of any float type, finite; rounded to float16.
            columns: Column name → N values; columns left out are missing in these rows.

        Raises:
            GalleryError: If a shape, an id, a column or a value does not fit the schema; nothing is written then.
        """

    @abstractmethod
    def delete(self, *, ids: Sequence[int] | np.ndarray | None = None, where: Filter | None = None) -> int:
        """Deletes the rows with these ids, or those that match; exactly one of the two is given.

        Returns:
            Number of rows deleted; ids that do not exist are passed over.
        """

    @abstractmethod
    def count(self, where: Filter | None = None) -> int:
        """Number of rows, or of those that match."""

    @abstractmethod
    def get(
        self, ids: Sequence[int] | np.ndarray, *, columns: Sequence[str] | None = None, vectors: bool = False
    ) -> RowBatch:
        """Rows by id, in the order asked for. Ids that do not exist are left out, which `RowBatch.ids` shows.

        Args:
            ids: The ids; an id asked for twice comes twice.
            columns: Metadata columns wanted, `None` for all.
            vectors: Whether the vectors are wanted.
        """

    @abstractmethod
    def search(self, queries: np.ndarray, top_k: int, *, where: Filter | None = None) -> SearchResult:
        """The `top_k` rows of largest inner product with each query; of equal scores, the smaller id comes first.

        Args:
            queries: (Q, D) float32.
            top_k: At least 1; more than there are rows gives them all.
            where: Only rows that match; a filter never loses answers, whatever the number of rows that match.
        """

    @abstractmethod
    def scan(
        self,
        *,
        where: Filter | None = None,
        columns: Sequence[str] | None = None,
        vectors: bool = False,
        batch_size: int = 8192,
    ) -> Iterator[RowBatch]:
        """All rows, or those that match, of one snapshot, in batches and in no particular order."""

    @abstractmethod
    def flush(self) -> None:
        """Forces everything acknowledged to stable storage, so that it also survives a power failure."""

    @abstractmethod
    def optimize(self, *, reclaim: bool = False) -> None:
        """Compacts files, brings the index up to date and frees the space of old versions; rows stay as they are.

        Args:
            reclaim: Free all that can be freed now, even if that makes readers in other processes start again.
        """

    @abstractmethod
    def stats(self) -> StoreStats:
        """Rows, bytes, unindexed rows and version."""


# ------------------------------------------------------------------------------- checks that every engine shares

RESERVED_COLUMNS = frozenset({"id", "vector"})
"""Names that a metadata column cannot have."""


def check_column_name(name: object) -> None:
    """Checks that a metadata column can have this name on every engine.

    Names that start with `_` are for the gallery's own bookkeeping; they are hidden from users and cannot be filtered.

    Raises:
        GalleryError: If it is no text, empty, reserved, or holds a dot, a backtick or a control character.
    """
    if not isinstance(name, str) or not name or not name.isprintable() or "." in name or "`" in name:
        raise GalleryError(
            f"{name!r} cannot be the name of a metadata column: it must be text without dots, backticks and line breaks"
        )
    if name in RESERVED_COLUMNS:
        raise GalleryError(f"'{name}' cannot be the name of a metadata column: the gallery uses it itself; rename it")


_TYPE_NAMES = {ColumnType.INT: "whole number", ColumnType.FLOAT: "number", ColumnType.STRING: "string"}


def column_values(name: str, kind: ColumnType, values: Sequence[Any] | np.ndarray) -> list[Any]:
    """The values of a column as plain Python values of its type.

    NumPy scalars become Python ones, whole numbers in a float column become floats, NaN becomes `None` and -0.0
    becomes 0.0, so that every engine compares them alike.

    Raises:
        GalleryError: If a value has another type or does not fit in 64 bits; the message names the column.
    """
    result: list[Any] = []
    for value in values:
        if isinstance(value, np.generic):
            value = value.item()
        if value is None:
            result.append(None)
            continue
        if kind is ColumnType.FLOAT and isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value)
            result.append(None if number != number else number + 0.0)
            continue
        if kind is ColumnType.STRINGS and isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            result.append(tuple(value))
            continue
        fits = (
            (kind is ColumnType.STRING and isinstance(value, str))
            or (kind is ColumnType.BOOL and isinstance(value, bool))
            or (kind is ColumnType.INT and isinstance(value, int) and not isinstance(value, bool))
        )
        if not fits:
            raise GalleryError(
                f"column '{name}' holds {kind} values, but got {value!r} ({type(value).__name__}); "
                "convert the value or use another column name"
            )
        if kind is ColumnType.INT and not -(2**63) <= value < 2**63:
            raise GalleryError(f"column '{name}': {value} does not fit a 64-bit integer")
        result.append(value)
    return result


def check_filter(condition: Filter, columns: Mapping[str, ColumnType]) -> None:
    """Checks that every field exists and is compared with values of its type. `id` is a field too.

    Raises:
        FilterError: Naming the field, and the known fields or its type.
    """
    known: Mapping[str, ColumnType] = MappingProxyType({"id": ColumnType.INT, **columns})
    for name in sorted(field_names(condition)):
        if name not in known or name.startswith("_"):
            names = ", ".join(sorted(column for column in known if not column.startswith("_")))
            raise FilterError(f"where: unknown field '{name}'; this gallery has: {names}")
    _check_types(condition, known)


def _check_types(condition: Filter, known: Mapping[str, ColumnType]) -> None:
    if isinstance(condition, And | Or):
        for part in condition.parts:
            _check_types(part, known)
        return
    if isinstance(condition, Not):
        _check_types(condition.part, known)
        return
    kind = known[condition.field]
    values: tuple[Any, ...]
    if isinstance(condition, Eq):
        values = (condition.value,)
    elif isinstance(condition, In):
        values = condition.values
    else:
        values = (condition.low, condition.high)
        if kind is ColumnType.BOOL:
            raise FilterError(f"where: '{condition.field}' is true or false and has no order; use = TRUE or = FALSE")
    for value in values:
        if value is None:
            continue
        if kind is ColumnType.STRINGS:
            raise FilterError(f"where: '{condition.field}' is a {kind}; only IS NULL and IS NOT NULL work on it")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = {
            ColumnType.INT: is_number,
            ColumnType.FLOAT: is_number,
            ColumnType.STRING: isinstance(value, str),
            ColumnType.BOOL: isinstance(value, bool),
        }[kind]
        if not fits:
            wanted = _TYPE_NAMES.get(kind, "truth value (TRUE or FALSE)")
            raise FilterError(f"where: '{condition.field}' is compared with {value!r}, but it holds a {wanted}")

"""Filter trees in the SQL dialect of Lance (DataFusion).

Names go between backticks and strings between single quotes with quotes doubled, so nothing a user types is ever read
as SQL. Lance refuses a fraction against an integer column and the smallest int64 as a literal; both are rewritten here
into conditions that are equal in value. Negations are pushed down to the comparisons: DataFusion simplifies, for
example, `x IN (0) AND x IN (1)` to false also where x is missing, which is harmless until a NOT makes it true.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..filters import And, Eq, Filter, In, Not, Or, Range
from .base import ColumnType

__all__ = ["compile_filter", "quote_name"]

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def quote_name(name: str) -> str:
    """A column name as Lance reads it literally. Names have no backtick; `gallery.filters` sees to that."""
    return f"`{name}`"


def compile_filter(condition: Filter, columns: Mapping[str, ColumnType], *, negated: bool = False) -> str:
    """A condition that is true on exactly the rows on which `evaluate(condition, row)` is.

    On the others it may be false or unknown, whichever of the two `evaluate` gives.

    Args:
        condition: A filter that `check_filter` has accepted.
        columns: Types of the columns, `id` included or not.
        negated: Compile `Not(condition)`.
    """
    if isinstance(condition, And | Or):
        joined = (" AND " if isinstance(condition, And) is not negated else " OR ").join(
            compile_filter(part, columns, negated=negated) for part in condition.parts
        )
        return f"({joined})"
    if isinstance(condition, Not):
        return compile_filter(condition.part, columns, negated=not negated)
    name = quote_name(condition.field)
    if isinstance(condition, Eq) and condition.value is None:
        return f"({name} IS {'NOT ' if negated else ''}NULL)"
    comparison = _comparison(name, columns.get(condition.field, ColumnType.INT), condition)
    return f"({name} IS NOT NULL AND NOT {comparison})" if negated else comparison


def _comparison(name: str, kind: ColumnType, condition: Eq | In | Range) -> str:
    if isinstance(condition, Eq):
        return _equal(name, kind, condition.value)
    if isinstance(condition, In):
        return "(" + " OR ".join(_in_parts(name, kind, condition.values)) + ")"
    return _range(name, kind, condition)


def _never(name: str) -> str:
    return f"({name} <> {name})"  # false, and unknown where the value is missing


def _always(name: str) -> str:
    return f"({name} = {name})"  # true, and unknown where the value is missing


def _in_parts(name: str, kind: ColumnType, values: tuple[Any, ...]) -> list[str]:
    if kind is ColumnType.INT:
        values = tuple(int(value) for value in values if float(value).is_integer() and _fits(value))
        if not values:
            return [_never(name)]
    return [f"{name} IN ({', '.join(_literal(kind, value) for value in values)})"]


def _fits(value: Any) -> bool:
    return _INT64_MIN <= value <= _INT64_MAX


def _equal(name: str, kind: ColumnType, value: Any) -> str:
    if kind is ColumnType.INT and not (float(value).is_integer() and _fits(value)):
        return _never(name)
    return f"({name} = {_literal(kind, value)})"


def _range(name: str, kind: ColumnType, condition: Range) -> str:
    parts = []
    if condition.low is not None:
        parts.append(_bound(name, kind, ">=" if condition.include_low else ">", condition.low))
    if condition.high is not None:
        parts.append(_bound(name, kind, "<=" if condition.include_high else "<", condition.high))
    return f"({' AND '.join(parts)})"


def _bound(name: str, kind: ColumnType, operator: str, value: Any) -> str:
    if kind is ColumnType.INT and isinstance(value, float):
        if value > _INT64_MAX or value < _INT64_MIN:
            return _always(name) if (operator[0] == "<") == (value > 0) else _never(name)
        if not value.is_integer():
            value, operator = (math.floor(value), "<=") if operator[0] == "<" else (math.ceil(value), ">=")
    return f"({name} {operator} {_literal(kind, value)})"


def _literal(kind: ColumnType, value: Any) -> str:
    if kind is ColumnType.BOOL:
        return "TRUE" if value else "FALSE"
    if kind is ColumnType.STRING:
        return "'" + value.replace("'", "''") + "'"
    if kind is ColumnType.FLOAT:
        return f"CAST('{float(value) + 0.0!r}' AS DOUBLE)"
    value = int(value)
    return "(-9223372036854775807 - 1)" if value == _INT64_MIN else str(value)

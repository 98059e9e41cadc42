"""Filters over the metadata of a gallery: a small typed tree, and the `where` expression that is parsed into it.

    where="camera_id = 3 AND time >= '2024-05-01'"

Grammar, lowest precedence first (keywords in any case):

    expression := conjunction ("OR" conjunction)*
    conjunction := negation ("AND" negation)*
    negation   := "NOT" negation | "(" expression ")" | comparison
    comparison := field ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") value
                | field ["NOT"] "IN" "(" value ("," value)* ")"
                | field ["NOT"] "BETWEEN" value "AND" value
                | field "IS" ["NOT"] "NULL"
    field      := a name of letters, digits and _, or any other name between backticks
    value      := number | 'string' | "string" | TRUE | FALSE      (a quote inside a string is doubled)

Null semantics are those of SQL, on every store: a comparison with a missing value is neither true nor false but
unknown, NOT unknown is unknown, and a row is an answer only where the whole expression is true. So `camera_id != 3` and
`NOT camera_id = 3` both leave out images without a camera; `IS NULL` finds them. NaN is stored as null.

Strings compare by code point, which orders ISO 8601 times correctly; a number in a float column compares as float64.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import FilterError

__all__ = [
    "And",
    "Eq",
    "Filter",
    "FilterValue",
    "In",
    "Not",
    "Or",
    "Range",
    "evaluate",
    "field_names",
    "format_field",
    "format_filter",
    "parse_filter",
]

FilterValue = str | int | float | bool

_MAX_DEPTH = 64
"""Nesting that a filter may have; engines and Python's own stack need a limit."""

_MAX_DIGITS = 400
"""Longest number; every float64 and every 64-bit integer is shorter."""

_KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "TRUE", "FALSE"})
_PLAIN_NAME = re.compile(r"[^\W\d]\w*\Z")
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def _check_field(field: object) -> None:
    if not isinstance(field, str) or not field or "`" in field:
        raise FilterError(f"filter: {field!r} is not a field name; give a non-empty string without backticks")


def _check_value(field: str, value: object) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise FilterError(f"filter on '{field}': {value!r} is not valid Unicode text") from None
    elif isinstance(value, bool):
        return
    elif isinstance(value, int):
        if not _INT64_MIN <= value <= _INT64_MAX:
            raise FilterError(f"filter on '{field}': {value} does not fit a 64-bit integer")
    elif not isinstance(value, float) or not math.isfinite(value):
        raise FilterError(f"filter on '{field}': {value!r} is not a string, a finite number or a truth value")


@dataclass(frozen=True, slots=True)
class Eq:
    """`field = value`; with `value=None`, `field IS NULL`."""

    field: str
    value: FilterValue | None

    def __post_init__(self) -> None:
        _check_field(self.field)
        if self.value is not None:
            _check_value(self.field, self.value)


@dataclass(frozen=True, slots=True)
class In:
    """`field IN (values)`: equal to one of at least one value."""

    field: str
    values: tuple[FilterValue, ...]

    def __post_init__(self) -> None:
        _check_field(self.field)
        if not isinstance(self.values, tuple) or not self.values:
            raise FilterError(f"filter on '{self.field}': IN needs a tuple of at least one value")
        for value in self.values:
            _check_value(self.field, value)


@dataclass(frozen=True, slots=True)
class Range:
    """`low <= field <= high`, one bound possibly absent.

    With both bounds the range includes them (`BETWEEN`); an exclusive bound stands alone, two of them are an `And`.
    """

    field: str
    low: FilterValue | None = None
    high: FilterValue | None = None
    include_low: bool = True
    include_high: bool = True

    def __post_init__(self) -> None:
        _check_field(self.field)
        if self.low is None and self.high is None:
            raise FilterError(f"filter on '{self.field}': a range needs at least one bound")
        for bound in (self.low, self.high):
            if bound is not None:
                _check_value(self.field, bound)
        if self.low is not None and self.high is not None:
            if not (self.include_low and self.include_high):
                raise FilterError(
                    f"filter on '{self.field}': a range with two bounds includes both; join two ranges with And instead"
                )
        elif (self.low is None and not self.include_low) or (self.high is None and not self.include_high):
            raise FilterError(f"filter on '{self.field}': a bound that is absent cannot be exclusive")


def _check_parts(name: str, parts: object) -> None:
    if not isinstance(parts, tuple) or len(parts) < 2 or not all(isinstance(part, Filter) for part in parts):
        raise FilterError(f"filter: {name} needs a tuple of at least two filters")


@dataclass(frozen=True, slots=True)
class And:
    """True where every part is."""

    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        _check_parts("And", self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    """True where at least one part is."""

    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        _check_parts("Or", self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    """True where the part is false (not where it is unknown)."""

    part: Filter

    def __post_init__(self) -> None:
        if not isinstance(self.part, Filter):
            raise FilterError("filter: Not needs one filter")


Filter = Eq | In | Range | And | Or | Not


def field_names(condition: Filter) -> set[str]:
    """Every field that the filter reads."""
    if isinstance(condition, And | Or):
        return set().union(*(field_names(part) for part in condition.parts))
    return field_names(condition.part) if isinstance(condition, Not) else {condition.field}


# ------------------------------------------------------------------------------------------------------- evaluation


def evaluate(condition: Filter, row: Mapping[str, Any]) -> bool | None:
    """The filter's value on one row, in SQL's three-valued logic: the meaning that every store must reproduce.

    Args:
        condition: The filter.
        row: Field name → value; a missing field counts as null.

    Returns:
        `True`, `False`, or `None` for unknown. Only rows with `True` are answers.
    """
    if isinstance(condition, Not):
        result = evaluate(condition.part, row)
        return None if result is None else not result
    if isinstance(condition, And | Or):
        decisive = isinstance(condition, Or)  # one such part decides, whatever the others are
        results = [evaluate(part, row) for part in condition.parts]
        if decisive in results:
            return decisive
        return None if None in results else not decisive
    stored = row.get(condition.field)
    if isinstance(condition, Eq) and condition.value is None:
        return stored is None
    if stored is None:
        return None
    if isinstance(condition, Eq):
        return bool(stored == _as_type_of(stored, condition.value))
    if isinstance(condition, In):
        return any(stored == _as_type_of(stored, value) for value in condition.values)
    above = below = True
    if condition.low is not None:
        low = _as_type_of(stored, condition.low)
        above = stored >= low if condition.include_low else stored > low
    if condition.high is not None:
        high = _as_type_of(stored, condition.high)
        below = stored <= high if condition.include_high else stored < high
    return bool(above and below)


def _as_type_of(stored: Any, value: Any) -> Any:
    return float(value) if isinstance(stored, float) else value


# ------------------------------------------------------------------------------------------------------- formatting


def format_filter(condition: Filter) -> str:
    """The `where` expression of a filter: `parse_filter(format_filter(f)) == f`."""
    if isinstance(condition, And | Or):
        return (" AND " if isinstance(condition, And) else " OR ").join(
            f"({format_filter(part)})" if isinstance(part, And | Or) else format_filter(part)
            for part in condition.parts
        )
    if isinstance(condition, Not):
        # always with parentheses: `NOT x IN (...)` and `x NOT IN (...)` are one tree, and this form is never ambiguous
        return f"NOT ({format_filter(condition.part)})"
    field = format_field(condition.field)
    if isinstance(condition, Eq):
        return f"{field} IS NULL" if condition.value is None else f"{field} = {_format_value(condition.value)}"
    if isinstance(condition, In):
        return f"{field} IN ({', '.join(_format_value(value) for value in condition.values)})"
    if condition.low is not None and condition.high is not None:
        return f"{field} BETWEEN {_format_value(condition.low)} AND {_format_value(condition.high)}"
    if condition.low is not None:
        return f"{field} {'>=' if condition.include_low else '>'} {_format_value(condition.low)}"
    assert condition.high is not None  # Range has at least one bound
    return f"{field} {'<=' if condition.include_high else '<'} {_format_value(condition.high)}"


def format_field(name: str) -> str:
    """A field name as it is written in an expression: between backticks where it is not a plain name."""
    return name if _PLAIN_NAME.match(name) and name.upper() not in _KEYWORDS else f"`{name}`"


def _format_value(value: FilterValue) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return repr(value)


# ---------------------------------------------------------------------------------------------------------- parsing


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # "name", "field" (backticks), "value", "operator", "end"
    text: str
    position: int  # 1-based column of the first character
    value: FilterValue | None = None


_LEXER = re.compile(
    r"""\s*(?:
        (?P<string>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<field>`[^`]+`)
      | (?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
      | (?P<name>[^\W\d]\w*)
      | (?P<operator><=|>=|<>|!=|==|[=<>(),])
    )""",
    re.VERBOSE,
)


def _tokens(text: str) -> Iterable[_Token]:
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _LEXER.match(text, position)
        if match is None:
            start = end - len(text[position:end].lstrip())
            character = text[start]
            if character in "'\"`":
                raise FilterError(f"where: the quote {character} at position {start + 1} is never closed")
            raise FilterError(f"where: unexpected {_shorten(text[start:])} at position {start + 1}")
        kind = str(match.lastgroup)
        raw = match.group(kind)
        start = match.start(kind) + 1
        if kind == "string":
            quote = raw[0]
            yield _Token("value", raw, start, raw[1:-1].replace(quote * 2, quote))
        elif kind == "number":
            integral = re.fullmatch(r"[+-]?[0-9]+", raw) is not None
            if len(raw) > _MAX_DIGITS:
                raise FilterError(f"where: the number at position {start} has more than {_MAX_DIGITS} characters")
            yield _Token("value", raw, start, int(raw) if integral else float(raw))
        elif kind == "field":
            yield _Token("field", raw[1:-1], start)
        elif kind == "name" and raw.upper() in ("TRUE", "FALSE"):
            yield _Token("value", raw, start, raw.upper() == "TRUE")
        else:
            yield _Token(kind, raw, start)
        position = match.end()
    yield _Token("end", "", len(text) + 1)


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 20 else text[:20] + "…")


class _Parser:
    """Recursive descent over the grammar at the top of this module."""

    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.index = 0
        self.depth = 0

    @property
    def current(self) -> _Token:
        return self.tokens[self.index]

    def advance(self) -> _Token:
        token = self.current
        self.index += 1
        return token

    def expected(self, what: str) -> NoReturn:
        token = self.current
        if token.kind == "end":
            found = "the expression ends"
        else:
            found = f"there is {_shorten(token.text)}"
        raise FilterError(f"where: expected {what} at position {token.position}, but {found}")

    def is_word(self, *words: str) -> bool:
        return self.current.kind == "name" and self.current.text.upper() in words

    def is_operator(self, *operators: str) -> bool:
        return self.current.kind == "operator" and self.current.text in operators

    def take_word(self, word: str) -> None:
        if not self.is_word(word):
            self.expected(word)
        self.advance()

    def take_operator(self, operator: str, what: str) -> None:
        if not self.is_operator(operator):
            self.expected(what)
        self.advance()

    def take_value(self) -> FilterValue:
        if self.current.kind != "value":
            self.expected("a number, a quoted string, TRUE or FALSE")
        value = self.advance().value
        assert value is not None  # tokens of kind "value" carry one
        return value

    def parse(self) -> Filter:
        if self.current.kind == "end":
            raise FilterError("where: the expression is empty; write for example camera_id = 3")
        result = self.expression()
        if self.current.kind != "end":
            self.expected("AND, OR or the end of the expression")
        return result

    def expression(self) -> Filter:
        parts = [self.conjunction()]
        while self.is_word("OR"):
            self.advance()
            parts.append(self.conjunction())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def conjunction(self) -> Filter:
        parts = [self.negation()]
        while self.is_word("AND"):
            self.advance()
            parts.append(self.negation())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def negation(self) -> Filter:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise FilterError(f"where: more than {_MAX_DEPTH} nested parentheses at position {self.current.position}")
        if self.is_word("NOT"):
            self.advance()
            result: Filter = Not(self.negation())
        elif self.is_operator("("):
            self.advance()
            result = self.expression()
            self.take_operator(")", "AND, OR or )")
        else:
            result = self.comparison()
        self.depth -= 1
        return result

    def comparison(self) -> Filter:
        token = self.current
        if token.kind != "field" and (token.kind != "name" or token.text.upper() in _KEYWORDS):
            self.expected("a field name, NOT or (")
        field = self.advance().text
        if self.is_operator("=", "=="):
            self.advance()
            return Eq(field, self.take_value())
        if self.is_operator("!=", "<>"):
            self.advance()
            return Not(Eq(field, self.take_value()))
        if self.is_operator("<", "<="):
            inclusive = self.advance().text == "<="
            return Range(field, high=self.take_value(), include_high=inclusive)
        if self.is_operator(">", ">="):
            inclusive = self.advance().text == ">="
            return Range(field, low=self.take_value(), include_low=inclusive)
        if self.is_word("IS"):
            self.advance()
            negated = self.is_word("NOT")
            if negated:
                self.advance()
            self.take_word("NULL")
            return Not(Eq(field, None)) if negated else Eq(field, None)
        negated = self.is_word("NOT")
        if negated:
            self.advance()
        if self.is_word("IN"):
            self.advance()
            result: Filter = In(field, self.value_list())
        elif self.is_word("BETWEEN"):
            self.advance()
            low = self.take_value()
            self.take_word("AND")
            result = Range(field, low, self.take_value())
        else:
            self.expected("IN or BETWEEN" if negated else "a comparison (=, !=, <, <=, >, >=, IN, BETWEEN, IS)")
        return Not(result) if negated else result

    def value_list(self) -> tuple[FilterValue, ...]:
        self.take_operator("(", "(")
        values = [self.take_value()]
        while self.is_operator(","):
            self.advance()
            values.append(self.take_value())
        self.take_operator(")", ", or )")
        return tuple(values)


def parse_filter(where: str) -> Filter:
    """Parses a `where` expression.

    Args:
        where: The expression, e.g. `"camera_id = 3 AND time >= '2024-05-01'"`; the grammar is at the top of this module.

    Returns:
        The filter tree. Whether its fields exist is checked against a gallery, not here.

    Raises:
        FilterError: If the expression is empty or wrong; the message gives the position (1-based) and what is expected.
    """
    return _Parser(where).parse()

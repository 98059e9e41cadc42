"""Checks of names, choices and numbers, with the one wording that every error of the zoo uses."""

from __future__ import annotations

import difflib
import functools
import math
import numbers
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from .errors import ConfigurationError, ReIDZooError

__all__ = [
    "Count",
    "OneOf",
    "RegularExpression",
    "Rule",
    "Within",
    "check_choice",
    "check_rule",
    "check_settings",
    "check_values",
    "unknown_name_message",
]


def unknown_name_message(kind: str, name: str, known: Iterable[str]) -> str:
    """`"unknown KIND 'NAME'; did you mean 'NEAREST'? Known: ..."`, the one wording for a name that does not exist."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    suggestion = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {kind} {name!r}{suggestion} Known: {', '.join(names)}."


def check_choice(owner: str, name: str, value: object, choices: Iterable[object]) -> None:
    """Raise `ConfigurationError` unless `value` is one of `choices`."""
    check_rule(owner, name, value, OneOf(*choices))


def check_rule(owner: str, name: str, value: object, rule: Rule) -> None:
    """Raise `ConfigurationError` unless `value` follows a rule."""
    problem = rule.problem(value)
    if problem is not None:
        raise ConfigurationError(f"{owner}.{name} is {value!r}, but {problem}.")


class Rule(Protocol):
    """What a value has to be; written into the type of a field, as `Annotated[float, Within(0)]`."""

    def problem(self, value: Any) -> str | None:
        """What the value must be instead, `"must be ..."`; `None` if it is right."""
        ...


@dataclass(frozen=True, slots=True)
class Within:
    """Finite numbers of an interval.

    Attributes:
        low: Lower end, which belongs to it.
        high: Upper end, likewise; infinite for none, but infinity itself is never allowed.
        open_low: The lower end does not belong to it.
        open_high: The upper end does not belong to it.
    """

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def problem(self, value: Any) -> str | None:
        """See [`Rule`]."""
        above = value > self.low if self.open_low else value >= self.low  # no number is neither
        below = value < self.high if self.open_high or math.isinf(self.high) else value <= self.high
        if above and below:
            return None
        if not (self.open_low or self.open_high or math.isinf(self.high)):
            return f"must lie between {self.low} and {self.high}"
        low = f"must be {'above' if self.open_low else 'at least'} {self.low}"
        if math.isinf(self.high):
            return f"{low} and finite" if value == math.inf else low
        return f"{low} and {'below' if self.open_high else 'at most'} {self.high}"


class OneOf:
    """One of a few values.

    Args:
        choices: The values.
    """

    def __init__(self, *choices: object) -> None:
        self.choices = choices

    def problem(self, value: Any) -> str | None:
        """See [`Rule`]."""
        if value in self.choices:
            return None
        return f"must be one of {', '.join(repr(choice) for choice in self.choices)}"


@dataclass(frozen=True, slots=True)
class Count:
    """So many values.

    Attributes:
        number: Their number.
        meaning: What they are: `"[height, width]"`.
    """

    number: int
    meaning: str

    def problem(self, value: Any) -> str | None:
        """See [`Rule`]."""
        return None if len(value) == self.number else f"must be {self.meaning}"


@dataclass(frozen=True, slots=True)
class RegularExpression:
    """A regular expression that compiles."""

    def problem(self, value: Any) -> str | None:
        """See [`Rule`]."""
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            return f"must be a regular expression ({error})"
        return None


def check_values(kind: type, values: Mapping[str, Any], prefix: str, error: type[ReIDZooError]) -> None:
    """Check values against the types and the rules that a settings class declares.

    What is in a mapping, or in a field that is a settings class itself, is left to its own checks.

    Args:
        kind: The settings class, a dataclass.
        values: Name of a field → value.
        prefix: What the message says before the name of a field.
        error: What is raised, in one line: field, value, and what is allowed.
    """
    hints = _annotated_fields(kind)
    for name, value in values.items():
        for where, found, problem in _problems(hints[name], value, name):
            shown = list(found) if isinstance(found, tuple) else found
            raise error(f"{prefix}{where} is {shown!r}, but {problem}.")


def check_settings(settings: Any, prefix: str, error: type[ReIDZooError] = ConfigurationError) -> None:
    """`check_values` for a whole object, to be called from its `__post_init__`."""
    kind: type = type(settings)
    check_values(kind, {name: getattr(settings, name) for name in _annotated_fields(kind)}, prefix, error)


@functools.cache
def _annotated_fields(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _problems(hint: Any, value: Any, where: str) -> Iterator[tuple[str, Any, str]]:
    """(field, its value, what it must be) of everything that is wrong, the type before the rules."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        found = False
        for problem in _problems(arguments[0], value, where):
            found = True
            yield problem
        for rule in () if found or value is None else arguments[1:]:
            if (wrong := rule.problem(value)) is not None:
                yield where, value, wrong
    elif origin in (types.UnionType, typing.Union):
        if value is not None:
            yield from _problems(next(each for each in arguments if each is not type(None)), value, where)
    elif origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            yield where, value, "must be a sequence"
            return
        for index, item in enumerate(value):
            yield from _problems(arguments[0], item, f"{where}[{index}]")
    else:
        accepted = _NUMBERS.get(hint, origin or hint)
        if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
            yield where, value, f"must be of type {accepted.__name__ if hint not in _NUMBERS else hint.__name__}"


_NUMBERS: dict[Any, type] = {int: numbers.Integral, float: numbers.Real}

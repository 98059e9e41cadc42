"""Checks of names and choices, with the one wording that every error of the zoo uses."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .errors import ConfigurationError

__all__ = ["check_choice", "unknown_name_message"]


def unknown_name_message(kind: str, name: str, known: Iterable[str]) -> str:
    """`"unknown KIND 'NAME'; did you mean 'NEAREST'? Known: ..."`, the one wording for a name that does not exist."""
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    suggestion = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {kind} {name!r}{suggestion} Known: {', '.join(names)}."


def check_choice(owner: str, name: str, value: object, choices: Iterable[object]) -> None:
    """Raise `ConfigurationError` unless `value` is one of `choices`."""
    options = list(choices)
    if value not in options:
        raise ConfigurationError(
            f"{owner}.{name} is {value!r}, but must be one of {', '.join(repr(option) for option in options)}."
        )

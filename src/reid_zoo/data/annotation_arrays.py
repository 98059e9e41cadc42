"""Reading a large JSON array of objects one object at a time.

The benchmarks' annotation files are one array of tens of thousands of objects, of which a loader needs a quarter of the
fields. Decoding element by element keeps one object in memory instead of all of them, and a damaged or cut-off file is
reported with the number of the record where it breaks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DatasetError

__all__ = ["iterate_json_array"]

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def iterate_json_array(path: Path) -> Iterator[Any]:
    """Yield the elements of the JSON array that a file holds, in order.

    Args:
        path: The file, UTF-8, with or without byte order mark.

    Yields:
        The elements, of whatever type they are.

    Raises:
        DatasetError: If the file cannot be read, is not UTF-8, holds something other than an array or an empty one, or
            is no JSON from some place on (names line, column and record).
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not UTF-8 text (byte {error.start}).") from None
    position = _skip_space(text, 0)
    if text[position : position + 1] != "[":
        _refuse_non_array(path, text)
    position = _skip_space(text, position + 1)
    if text[position : position + 1] == "]":
        raise DatasetError(f"{path}: holds no record.")
    number = 0
    while True:
        try:
            element, position = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise _not_json(path, text, error.pos, error.msg, number) from None
        except RecursionError:
            raise DatasetError(f"{path}: is nested too deeply to be an annotation file.") from None
        yield element
        number += 1
        position = _skip_space(text, position)
        follower = text[position : position + 1]
        if follower == "]":
            break
        if follower != ",":
            raise _not_json(path, text, position, "Expecting ',' delimiter", number)
        position = _skip_space(text, position + 1)
    rest = _skip_space(text, position + 1)
    if rest != len(text):
        raise _not_json(path, text, rest, "Extra data", number)


def _skip_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _refuse_non_array(path: Path, text: str) -> None:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise _not_json(path, text, error.pos, error.msg, 0) from None
    except RecursionError:
        raise DatasetError(f"{path}: is nested too deeply to be an annotation file.") from None
    raise DatasetError(f"{path}: holds a JSON {type(value).__name__}, expected an array with one object per image.")


def _not_json(path: Path, text: str, position: int, problem: str, number: int) -> DatasetError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return DatasetError(
        f"{path}: is not JSON (line {line}, column {column}: {problem}), in or after record {number}; "
        "is the file complete?"
    )

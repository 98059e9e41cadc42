"""JSONL and CSV files of image records: text to raw fields, with every problem collected by line.

The format is described in `own_data`. Nothing here looks at the meaning of a field beyond what CSV needs to become
typed values.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DatasetError

__all__ = ["CAPTION_SEPARATOR", "INT64", "RawRecord", "ReportProblem", "ValidationProblem", "read_csv", "read_jsonl"]

CAPTION_SEPARATOR = "|"
"""Stands between two captions in one CSV cell."""

INT64 = range(-(2**63), 2**63)
"""Whole numbers that a table of records can hold."""

_CAPTION_COLUMN = re.compile(r"caption_([0-9]+)")
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")
_DECIMAL_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?|-?\.[0-9]+([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class ValidationProblem:
    """One thing that is wrong with a file of records.

    Attributes:
        line: 1-based line of the file where the record starts, `None` if the problem is not on one line.
        field: Name of the field, `None` if the problem is not in one field.
        message: What is wrong, without line and field.
    """

    line: int | None
    field: str | None
    message: str

    def __str__(self) -> str:
        place = [f"line {self.line}"] if self.line is not None else []
        place += [f"field '{self.field}'"] if self.field is not None else []
        return f"{', '.join(place)}: {self.message}" if place else self.message


ReportProblem = Callable[[int | None, str | None, str], None]
"""Called with line, field and message of a problem."""


@dataclass(frozen=True, slots=True)
class RawRecord:
    """Fields of one record as the file gives them, with the line it starts on."""

    line: int
    fields: dict[str, Any]


def read_jsonl(path: Path, report: ReportProblem) -> list[RawRecord]:
    """Read a file with one JSON object per line.

    Args:
        path: The file, UTF-8; empty lines are passed over.
        report: Called for every line that is not an object.

    Returns:
        The objects, without the fields that are null.

    Raises:
        DatasetError: If the file cannot be read at all.
    """
    records = []
    for line, content in enumerate(_read_bytes(path).split(b"\n"), 1):
        if not content.strip():
            continue
        try:
            item = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
        except UnicodeDecodeError:
            report(line, None, "is not UTF-8 text")
        except json.JSONDecodeError as error:
            report(line, None, f"is not JSON (column {error.colno}: {error.msg})")
        except (ValueError, RecursionError) as error:
            report(line, None, f"is not usable JSON ({error})")
        else:
            if isinstance(item, dict):
                fields = {name: value for name, value in item.items() if value is not None}
                for name in fields:
                    if name == "caption" or _CAPTION_COLUMN.fullmatch(name):
                        report(line, name, "unknown here; put all captions into a list named 'captions'")
                records.append(RawRecord(line, fields))
            else:
                report(line, None, f"is {_kind(item)}, expected an object with the field 'image'")
    return records


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a value")


def _kind(item: object) -> str:
    return {list: "an array", str: "a string", bool: "true or false", type(None): "null"}.get(type(item), "a number")


def read_csv(path: Path, report: ReportProblem) -> list[RawRecord]:
    """Read a comma-separated file whose first row names the fields.

    Args:
        path: The file, UTF-8; empty rows are passed over.
        report: Called for a bad header and for every row that does not fit it.

    Returns:
        The rows, typed by column, without the fields whose cell is empty.

    Raises:
        DatasetError: If the file cannot be read at all.
    """
    content = _read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        report(content.count(b"\n", 0, error.start) + 1, None, "is not UTF-8 text; save the table as 'CSV UTF-8'")
        return []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    start = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            report(start, None, f"is not CSV ({error}); the rest of the file was not read")
            break
        if any(cell.strip() for cell in row):
            rows.append((start, [cell.strip() for cell in row]))
        start = reader.line_num + 1
    if not rows:
        return []
    (header_line, header), body = rows[0], rows[1:]
    if not _check_header(header_line, header, report):
        return []
    whole = []
    for line, cells in body:
        if len(cells) == len(header):
            whole.append((line, cells))
        else:
            report(line, None, f"has {len(cells)} cells, the header has {len(header)}")
    columns = {
        name: _typed_column(name, [cells[index] for _, cells in whole])
        for index, name in enumerate(header)
        if name != "captions" and not _CAPTION_COLUMN.fullmatch(name)
    }
    records = []
    for index, (line, cells) in enumerate(whole):
        fields = {name: values[index] for name, values in columns.items() if values[index] is not None}
        captions = _row_captions(header, cells)
        if captions:
            fields["captions"] = captions
        records.append(RawRecord(line, fields))
    return records


def _check_header(line: int, header: Sequence[str], report: ReportProblem) -> bool:
    problems: list[tuple[str | None, str]] = []
    if "image" not in header:
        columns = ", ".join(header[:8])
        problems.append(("image", f"there is no such column, only {columns} (columns are separated by commas)"))
    problems += [(name, "two columns have this name") for name in sorted({n for n in header if header.count(n) > 1})]
    if "" in header:
        problems.append((None, f"column {list(header).index('') + 1} has no name"))
    numbered = [name for name in header if _CAPTION_COLUMN.fullmatch(name)]
    if "captions" in header and numbered:
        problems.append((numbered[0], "give captions either in one column 'captions' or in columns caption_1, ..."))
    if "caption" in header:
        problems.append(("caption", "unknown here; name the column 'captions' or 'caption_1'"))
    for name, message in problems:
        report(line, name, message)
    return not problems


def _row_captions(header: Sequence[str], cells: Sequence[str]) -> list[str]:
    if "captions" in header:
        cell = cells[list(header).index("captions")]
        return [caption.strip() for caption in cell.split(CAPTION_SEPARATOR)] if cell else []
    numbered = [(_CAPTION_COLUMN.fullmatch(name), cell) for name, cell in zip(header, cells, strict=True)]
    found = sorted((int(match.group(1)), cell) for match, cell in numbered if match and cell)
    return [cell for _, cell in found]


def _typed_column(name: str, cells: Sequence[str]) -> list[Any]:
    """Give all cells of a column one type, so that `7` and `A7` in one column are both text."""
    filled = [cell for cell in cells if cell]
    convert: Callable[[str], Any] = str
    if name in ("image", "split"):
        pass
    elif all(_WHOLE_NUMBER.fullmatch(cell) for cell in filled):
        if all(len(cell) <= 20 and int(cell) in INT64 for cell in filled):  # longer codes stay text, digit by digit
            convert = int
    elif name in ("person_id", "camera_id", "view_id"):
        pass
    elif all(_DECIMAL_NUMBER.fullmatch(cell) for cell in filled):
        convert = float
    elif all(cell.lower() in ("true", "false") for cell in filled):
        convert = _is_true
    return [convert(cell) if cell else None for cell in cells]


def _is_true(cell: str) -> bool:
    return cell.lower() == "true"


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}).") from None

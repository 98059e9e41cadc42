"""What all commands share: how results, notes and errors are printed."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "Interrupted",
    "describe_error",
    "error",
    "is_first_process",
    "leave_errors_to_the_first_process",
    "note",
    "print_json",
    "print_table",
    "quiet_libraries",
    "say",
    "show_warnings_as_notes",
    "write_any_text",
]

_NOTES_OF_ONE_KIND = 3
_SECONDS_FOR_THE_FIRST_PROCESS = 10.0


class Interrupted(Exception):
    """Ctrl-C, with a line about what was kept; `KeyboardInterrupt` itself does not get its text through typer."""


def say(text: str) -> None:
    """A line about progress, on stderr (stdout is for results)."""
    print(text, file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Something the user should know, on stderr."""
    say(f"note: {text}")


def is_first_process() -> bool:
    """Whether this process speaks for all of those that a launcher (`accelerate launch`, `torchrun`) started together."""
    return _process_index() == 0


def leave_errors_to_the_first_process() -> None:
    """Wait, in any other process, before an error is printed.

    Mostly all processes fail alike: the first one says so, and the launcher ends the others meanwhile. If only this one has
    failed, it is still there afterwards, and has to say so itself.
    """
    if not is_first_process():
        time.sleep(_SECONDS_FOR_THE_FIRST_PROCESS)


def _process_index() -> int:
    index, count = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    return int(index) if index.isdigit() and count.isdigit() and int(count) > 1 else 0


def error(text: str) -> None:
    """Why a command failed: one line on stderr; of several processes, see `leave_errors_to_the_first_process`."""
    leave_errors_to_the_first_process()
    process = "" if is_first_process() else f"process {_process_index()}: "
    say(f"reid-zoo: error: {process}" + " ".join(text.split()))


def describe_error(failure: BaseException) -> str:
    """The text of an error for the user; those of the operating system without their number."""
    if isinstance(failure, MemoryError):
        return "out of memory; use a smaller --batch-size."
    if type(failure).__module__ == "builtins" and isinstance(failure, OSError) and failure.strerror:
        place = f"{failure.filename}: " if failure.filename is not None else ""
        return f"{place}{failure.strerror}"
    return str(failure) or type(failure).__name__


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, readable where the terminal's encoding allows it."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    print(json.dumps(value, ensure_ascii=not is_unicode, default=str), flush=True)


def write_any_text() -> None:
    """Let stdout and stderr print every text: what their encoding lacks becomes an escape, not an exception."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # replaced streams may not have it
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout; square brackets in titles and cells are plain text."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        *(Column(name, overflow="fold") for name in columns), title=Text(title) if title else None, title_justify="left"
    )
    for row in rows:
        table.add_row(*(Text(f"{cell:.4f}" if isinstance(cell, float) else str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 160
    Console(width=width).print(table)


def show_warnings_as_notes() -> None:
    """Print a warning of ours as one line, at most three of a kind; others (of libraries, of further processes) are left out."""
    shown: Counter[type[Warning]] = Counter()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if not category.__module__.startswith("reid_zoo") or not is_first_process():
            return
        shown[category] += 1
        if shown[category] <= _NOTES_OF_ONE_KIND:
            note(" ".join(str(message).split()))
        elif shown[category] == _NOTES_OF_ONE_KIND + 1:
            note("more notes of this kind are not shown.")

    warnings.showwarning = show


def quiet_libraries() -> None:
    """Keep libraries' own progress bars and log lines off the terminal."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1")
    if "transformers" in sys.modules:  # the variable is read when it is imported
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()

"""What all commands share: how results, notes and errors are printed."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["error", "note", "print_json", "print_table", "quiet_libraries", "say", "show_warnings_as_notes"]


def say(text: str) -> None:
    """A line about progress, on stderr (stdout is for results)."""
    print(text, file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Something the user should know, on stderr."""
    say(f"note: {text}")


def error(text: str) -> None:
    """Why a command failed: one line on stderr."""
    say("reid-zoo: error: " + " ".join(text.split()))


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row))
    width = None if sys.stdout.isatty() else 160
    Console(width=width).print(table)


def show_warnings_as_notes() -> None:
    """Print a warning of ours as one line; others (of libraries) are left out."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if category.__module__.startswith("reid_zoo"):
            note(str(message))

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

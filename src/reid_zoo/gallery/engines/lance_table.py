"""One LanceDB table of a directory, with what LanceDB leaves to its user: retries of commits, fsync, one-line errors."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...errors import GalleryError, ReIDZooError
from .durability import DirectorySync
from .storage_errors import storage_errors

__all__ = ["ID_CHUNK", "LanceTable", "id_condition", "open_table"]

ID_CHUNK = 2000
"""Ids in one condition of a query."""

_ATTEMPTS = 12

_CONFLICT = re.compile(
    r"commit conflict|concurrent (modification|commit|writer)|retryable|please retry|preempted", re.IGNORECASE
)
_VANISHED = re.compile(r"not found|does not exist|no such file", re.IGNORECASE)

Result = TypeVar("Result")


def open_table(uri: str, name: str) -> Any:
    """Opens the table `name.lance` of a directory.

    Raises:
        GalleryError: If there is none, or it is damaged.
    """
    import lancedb

    if not (Path(uri) / f"{name}.lance").is_dir():
        raise GalleryError(f"{uri}: the table '{name}.lance' is missing; the gallery is damaged, index again")
    with storage_errors(uri, f"open the table '{name}.lance'"):
        return lancedb.connect(uri).open_table(name)


def id_condition(ids: np.ndarray, column: str = "id") -> str:
    """A condition that is true for the rows with these ids."""
    return f"{column} IN ({', '.join(map(str, ids.tolist()))})" if len(ids) else "FALSE"


class LanceTable:
    """An opened table, and how to read and change it when other processes do the same.

    Args:
        uri: The directory.
        name: Name of the table, which is `name.lance` in the directory.
        table: The opened LanceDB table.
        present_is_synced: Whether the files that are there need no fsync.
    """

    def __init__(self, uri: str, name: str, table: Any, *, present_is_synced: bool = True) -> None:
        self._uri = Path(uri)
        self._table = table
        self._lock = threading.RLock()
        self._commits = 0
        self._closed = False
        self._sync = DirectorySync(self._uri / f"{name}.lance", present_is_synced=present_is_synced)

    def _loaded(self) -> None:
        """Called with every version of the table that is moved to."""

    def _refresh(self) -> None:
        """Moves to the newest version, which another process may have written."""
        if self._closed:
            raise GalleryError(f"{self._uri}: this gallery is closed; open it again")
        self._table.checkout_latest()
        self._loaded()

    def _commit(self, action: str, operation: Callable[[], Result]) -> Result:
        """Runs a writing operation, again where another process was faster, and makes its files durable."""
        with self._lock, storage_errors(self._uri, action):
            for attempt in range(_ATTEMPTS):
                self._refresh()
                try:
                    result = operation()
                    break
                except (OSError, RuntimeError, ValueError) as error:
                    lost_race = _CONFLICT.search(str(error)) and not isinstance(error, ReIDZooError)
                    if not lost_race or attempt == _ATTEMPTS - 1:
                        raise
                    time.sleep(random.uniform(0, 0.02 * 2**attempt))
            self._sync.sync()
            self._commits += 1
            self._loaded()
            return result

    def _read(self, action: str, operation: Callable[[], Result]) -> Result:
        """Runs a reading operation on the newest version, again if another process has removed that one meanwhile."""
        with self._lock, storage_errors(self._uri, action):
            for attempt in range(_ATTEMPTS):
                self._refresh()
                version = self._table.version
                try:
                    return operation()
                except (OSError, RuntimeError, ValueError) as error:
                    if isinstance(error, ReIDZooError) or attempt == _ATTEMPTS - 1:
                        raise
                    self._table.checkout_latest()
                    if self._table.version == version or not _VANISHED.search(str(error)):
                        raise
            raise AssertionError("unreachable")

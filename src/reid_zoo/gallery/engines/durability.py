"""Making files survive a power failure: fsync of what a commit has written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["DirectorySync", "fsync_path", "write_durably"]


def fsync_path(path: str | os.PathLike[str]) -> None:
    """Forces a file, or the entries of a directory, to stable storage.

    A path that has gone meanwhile is passed over (another process cleaned up); so are directories on Windows, which
    cannot be opened.
    """
    if os.name == "nt" and os.path.isdir(path):
        return
    try:
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Replaces a file at once: after a crash it has either the old content or the new one, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


class DirectorySync:
    """Syncs the files that appeared below a directory since the last call.

    For engines that never change a file once it is committed (Lance): files seen before need no second fsync.

    Args:
        root: The directory.
        present_is_synced: Whether the files that are there now need no sync.
    """

    def __init__(self, root: Path, *, present_is_synced: bool = True) -> None:
        self._root = root
        self._known = {path for path, _ in self._files()} if present_is_synced else set()

    def _files(self) -> Iterator[tuple[str, str]]:
        for folder, _, names in os.walk(self._root):
            for name in names:
                yield os.path.join(folder, name), folder

    def sync(self) -> list[str]:
        """Syncs new files, then the directories that hold them, up to the root.

        Returns:
            The files synced.
        """
        present: set[str] = set()
        new: list[str] = []
        folders = {str(self._root)}
        for path, folder in self._files():
            present.add(path)
            if path not in self._known:
                new.append(path)
                folders.add(folder)
        for path in new:
            fsync_path(path)
        for folder in sorted(folders, key=len, reverse=True):
            fsync_path(folder)
        self._known = present
        return new

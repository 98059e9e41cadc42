"""What storage can refuse, in one line for the user: disk full, no permission, a damaged table."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import traceback
from collections.abc import Iterator

from ...errors import GalleryError, ReIDZooError

__all__ = ["storage_errors"]

_NO_SPACE = re.compile(r"os error (28|27|122)\b|no space left|disk quota|file too large", re.IGNORECASE)
_ENGINE = re.compile(r"lance|invalid (user )?input|os error|object ?store|datafusion|arrow", re.IGNORECASE)
_NO_PERMISSION = re.compile(r"os error (13|30|1)\b|permission denied|read-only file system", re.IGNORECASE)
_SOURCE_LOCATION = re.compile(r",? /[^ ]*\.rs:\d+(:\d+)?")  # LanceDB appends its own source file


@contextlib.contextmanager
def storage_errors(uri: str | os.PathLike[str], action: str) -> Iterator[None]:
    """Turns what LanceDB and the operating system raise inside the context into a `GalleryError` of one line.

    LanceDB wraps errors of the operating system in `RuntimeError` and `ValueError`; only their text tells which it was.

    Args:
        uri: The place the message names.
        action: What was being done, to complete "could not ...".

    Raises:
        GalleryError: For errors of the operating system and of LanceDB; others pass unchanged.
    """
    try:
        yield
    except ReIDZooError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        text = " ".join(str(error).split())
        if not isinstance(error, OSError) and not _from_engine(error, text):
            raise  # a mistake in a program, not a state of the table
        if number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) or _NO_SPACE.search(text):
            raise GalleryError(
                f"{uri}: no space left on the device (could not {action}); everything committed so far is kept: "
                "free some space and run the same command again"
            ) from error
        if number in (errno.EACCES, errno.EROFS, errno.EPERM) or _NO_PERMISSION.search(text):
            raise GalleryError(f"{uri}: no permission to {action}; check the owner of the directory") from error
        raise GalleryError(f"{uri}: could not {action}: {_SOURCE_LOCATION.sub('', text)[:300]}") from error


def _from_engine(error: Exception, text: str) -> bool:
    """Whether an error came up in LanceDB or Arrow, by its text or by the code it went through."""
    if _ENGINE.search(text):
        return True
    return any(
        str(frame.f_globals.get("__name__", "")).partition(".")[0] in ("lancedb", "pyarrow")
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )

"""The errors of the data directory. Damage itself is `haptera.errors.CorruptionError`.

The errors that a program tells apart stand in `haptera.errors`, which needs none of the packages of this layer.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from haptera.errors import (
    DirectoryInUse,
    ForeignArchive,
    MissingKey,
    NewerFormat,
    OutdatedCopy,
    StorageError,
    WrongKey,
)

__all__ = [
    "DirectoryInUse",
    "DiskFailed",
    "DiskFull",
    "ForeignArchive",
    "MissingKey",
    "NewerFormat",
    "OutdatedCopy",
    "WrongKey",
    "failing",
    "holder_of",
    "translate",
    "translated",
]

# EFBIG: a limit on the size of files (ulimit -f), met like a full disk where space is reserved. EMFILE, ENFILE: the
# limits on open files, met where a file is made; the disk is whole, and descriptors come back.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})


class DiskFull(StorageError):
    """The disk, a quota, or a limit on the size or the number of open files is used up. Nothing was written; the call
    may be tried again. `number` is the errno that says which of them.
    """

    def __init__(self, message: str, number: int = errno.ENOSPC) -> None:
        super().__init__(message)
        self.number = number


class DiskFailed(StorageError):
    """A call to the operating system failed.

    If it was a write, the log takes no more writes until it is opened again.
    """


def holder_of(pid: int | None) -> str:
    """Name the process that took the lock, with help to find it."""
    if pid is None:
        return "another process"
    if pid == os.getpid():
        return f"this process ({pid}), which has opened it already"
    if pid == os.getppid():
        return f"process {pid}, the parent of this one"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return f"process {pid}, which is not visible here: it runs in another container, or left a child that holds on"
    except (OSError, OverflowError):
        pass  # another user's process, or a number that is none
    return f"process {pid}"


@contextlib.contextmanager
def translated(file: str, action: str) -> Iterator[None]:
    """Turn an OSError within the block into DiskFull or DiskFailed that names `file` and `action`."""
    try:
        yield
    except OSError as error:
        raise translate(error, file, action) from error


@contextlib.contextmanager
def failing(file: str, action: str) -> Iterator[None]:
    """Turn an OSError within the block into DiskFailed, a full disk too: something may have been written already."""
    try:
        yield
    except OSError as error:
        raise DiskFailed(_message(error, file, action)) from error


def translate(error: OSError, file: str, action: str) -> StorageError:
    """The DiskFull or DiskFailed that stands for `error`."""
    message = _message(error, file, action)
    return DiskFull(message, error.errno) if error.errno in _FULL else DiskFailed(message)


def _message(error: OSError, file: str, action: str) -> str:
    return f"{file}: cannot {action}: {error.strerror or error}"

"""What can go wrong with the data directory. Damage itself is `haptera.errors.CorruptionError`."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from haptera.errors import StorageError

__all__ = [
    "DirectoryInUse",
    "MissingKey",
    "NewerFormat",
    "StorageFailed",
    "StorageFull",
    "WrongKey",
    "failing",
    "translate",
    "translated",
]

# EFBIG: a limit on the size of files (ulimit -f), met like a full disk where space is reserved.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class StorageFull(StorageError):
    """The disk, a quota or the limit on a file's size is used up. Nothing was written; the call may be tried again."""


class StorageFailed(StorageError):
    """A call to the operating system failed.

    If it was a write, the log takes no more writes until it is opened again.
    """


class DirectoryInUse(StorageError):
    """Another process holds the data directory.

    `path` is the data directory, `pid` the other process's id, or None where it could not be read.
    """

    def __init__(self, path: str, pid: int | None) -> None:
        super().__init__(f"{path}: the data directory is in use by {_holder(pid)}")
        self.path = path
        self.pid = pid


def _holder(pid: int | None) -> str:
    """Name the process that took the lock, with what helps to find it."""
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


class NewerFormat(StorageError):
    """A file was written by a newer version. `file` names it, `found` and `supported` are format versions."""

    def __init__(self, file: str, found: int, supported: int) -> None:
        super().__init__(f"{file}: format {found} is newer than this version can read ({supported})")
        self.file = file
        self.found = found
        self.supported = supported


class WrongKey(StorageError):
    """A file was encrypted under another data key. `file` names it, `expected` and `actual` are key ids in hex."""

    def __init__(self, file: str, expected: str, actual: str) -> None:
        super().__init__(f"{file}: encrypted under the data key {expected}, but the key file holds {actual}")
        self.file = file
        self.expected = expected
        self.actual = actual


class MissingKey(StorageError):
    """There is a log but no key file to read it with. `file` is where the key file should be."""

    def __init__(self, file: str) -> None:
        super().__init__(f"{file}: the key file is missing, and the log beside it cannot be read without it")
        self.file = file


@contextlib.contextmanager
def translated(file: str, action: str) -> Iterator[None]:
    """Turn an OSError within the block into StorageFull or StorageFailed that names `file` and `action`."""
    try:
        yield
    except OSError as error:
        raise translate(error, file, action) from error


@contextlib.contextmanager
def failing(file: str, action: str) -> Iterator[None]:
    """Turn an OSError within the block into StorageFailed, a full disk too: something may have been written already."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(_message(error, file, action)) from error


def translate(error: OSError, file: str, action: str) -> StorageError:
    """The StorageFull or StorageFailed that stands for `error`."""
    kind = StorageFull if error.errno in _FULL else StorageFailed
    return kind(_message(error, file, action))


def _message(error: OSError, file: str, action: str) -> str:
    return f"{file}: cannot {action}: {error.strerror or error}"

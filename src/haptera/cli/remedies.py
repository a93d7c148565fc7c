"""The next step behind each refusal of a data directory, a backup or an archive: a line under the error."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from haptera.errors import (
    CorruptionError,
    DamagedBackup,
    DirectoryInUse,
    ForeignArchive,
    MissingKey,
    NewerFormat,
    OutdatedCopy,
    WrongKey,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The three places that a master key is given from.
GIVE_MASTER_KEY: Final = "with --master-key-file FILE, HAPTERA_MASTER_KEY or --master-key-command COMMAND"

RESTORE_BACKUP: Final = "`haptera restore FILE --data-dir NEW` of a backup"


def remedy(error: BaseException, path: str) -> str:
    """The next step for an error that was met while a command worked on ``path``; empty where the error says it.

    ``path`` is a data directory, or the file of a backup.
    """
    steps = [*_steps(error, path), *getattr(error, "__notes__", [])]  # a note says what the failure leaves behind
    return "; ".join(steps)


def salvaged(directory: str) -> str:
    """How a store is brought back of a damaged directory."""
    return (
        f"`haptera storage salvage {directory} --target NEW` makes a store of what is whole; "
        f"{RESTORE_BACKUP} brings back all of it"
    )


def _steps(error: BaseException, path: str) -> Iterator[str]:
    from haptera.node import ApplyFailed, NothingWhole

    is_directory = os.path.isdir(path)
    match error:
        case DirectoryInUse():
            yield "stop that process first, or take another directory"
        case NothingWhole():
            yield f"{RESTORE_BACKUP} brings back what it holds"
        case DamagedBackup():
            yield "take another backup; `haptera backup verify FILE` checks one"
        case CorruptionError() if is_directory:
            yield f"`haptera storage verify {path}` names every fault; {salvaged(path)}"
        case CorruptionError():
            yield "the archive's file of that name is damaged; without --archive-dir the backup alone is read"
        case WrongKey() if error.kind != "data key" or error.hint:
            yield from _of_wrong_key(error)
        case MissingKey() if os.path.basename(error.file) != "keys":
            yield f"give the master key of the node {GIVE_MASTER_KEY}"
        case WrongKey() | MissingKey():
            yield f"bring back the file `keys` of this directory from a copy of it; {RESTORE_BACKUP} needs none of it"
        case NewerFormat():
            yield "use the version of Haptera that wrote it, or a later one"
        case OutdatedCopy():
            yield f"bring back the whole directory as it was at one moment; {salvaged(path)}"
        case ApplyFailed():
            yield f"start the version of Haptera that wrote it; {salvaged(path)}"
        case ForeignArchive():
            yield f"name the archive of node {error.expected}"
        case _:
            yield from _of_system(error.__cause__ if isinstance(error.__cause__, OSError) else error)


def _of_wrong_key(error: WrongKey) -> Iterator[str]:
    """The next step where a master key is another one, or a further one is needed, which the error then names."""
    if error.kind == "master key":
        yield f"give the master key {error.expected} {GIVE_MASTER_KEY}"
    elif error.kind == "archive master key":
        yield "give master keys that the node had with --archive-master-key-file, and no other"


def _of_system(error: BaseException) -> Iterator[str]:
    """The next step where the operating system refuses."""
    if not isinstance(error, OSError):
        return
    if error.errno in {errno.EACCES, errno.EPERM}:
        yield "run the command as the user that owns the directory, as the node does"
    elif error.errno == errno.EROFS:
        yield "mount the disk so that it can be written, or take a directory on another one"
    elif error.errno in {errno.ENOSPC, errno.EDQUOT}:
        yield "make room on the disk, or take a directory on another one"

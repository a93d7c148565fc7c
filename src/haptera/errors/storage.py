"""Errors of a data directory: it cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.errors.base import HapteraError

if TYPE_CHECKING:
    from haptera.errors.code_table import Outcome


class StorageError(HapteraError):
    """A data directory cannot be opened, or can no longer be written."""

    name: str = "STORAGE_ERROR"
    outcome: Outcome = "not_applied"


class CorruptionError(StorageError):
    """Stored bytes differ from the written ones. They are never served.

    `file` and `offset` (bytes from its beginning) say where; `expected` and `actual` what should be there and what is.
    """

    name: str = "CORRUPTION_ERROR"

    def __init__(self, file: str, offset: int, expected: object, actual: object) -> None:
        self.file = file
        self.offset = offset
        self.expected = expected
        self.actual = actual
        super().__init__(file, offset, expected, actual)

    def __str__(self) -> str:
        return f"{self.file} is damaged at byte {self.offset}: expected {self.expected}, found {self.actual}"


class DamagedBackup(CorruptionError):
    """A backup is damaged, incomplete or no backup. `file` names it; the rest is as `CorruptionError` has it."""

    name: str = "BACKUP_INVALID"


class ForeignArchive(StorageError):
    """The directory of an archive belongs to another node. `path` is the directory, `expected` and `actual` are the
    ids of nodes in hex.
    """

    name: str = "FOREIGN_ARCHIVE"

    def __init__(self, path: str, expected: str, actual: str) -> None:
        super().__init__(f"{path}: the archive of node {actual}, and this is node {expected}")
        self.path = path
        self.expected = expected
        self.actual = actual


class DirectoryInUse(StorageError):
    """Another process holds the data directory.

    `path` is the data directory, `pid` the other process's id, or None where it could not be read.
    """

    name: str = "DIRECTORY_IN_USE"

    def __init__(self, path: str, pid: int | None, holder: str = "another process") -> None:
        super().__init__(f"{path}: the data directory is in use by {holder}")
        self.path = path
        self.pid = pid


class OutdatedCopy(StorageError):
    """The log ends before the newest snapshot: a copy of it from an earlier time was put in its place.

    `file` is the log, `expected` the segment that must follow the snapshot, `actual` what is there.
    """

    name: str = "OUTDATED_COPY"

    def __init__(self, file: str, expected: str, actual: str) -> None:
        super().__init__(f"{file}: an older copy, which ends before the newest snapshot: no {expected}, but {actual}")
        self.file = file
        self.expected = expected
        self.actual = actual


class NewerFormat(StorageError):
    """A file was written by a newer version. `file` names it, `found` and `supported` are format versions."""

    name: str = "NEWER_FORMAT"

    def __init__(self, file: str, found: int, supported: int) -> None:
        super().__init__(f"{file}: format {found} is newer than this version can read ({supported})")
        self.file = file
        self.found = found
        self.supported = supported


class WrongKey(StorageError):
    """A file was encrypted under another key: a segment under a data key that the keyring does not hold, or the keyring
    under another master key. `kind` is "data key", "master key" or, for a key that was given for the archive alone,
    "archive master key".

    `file` names the file; `expected` are the ids in hex of the keys that open it, `actual` those of the keys at hand.
    `hint` says which further key would help, if that is known.
    """

    name: str = "WRONG_KEY"

    def __init__(self, file: str, expected: str, actual: str, kind: str = "data key", hint: str = "") -> None:
        held = "the keyring holds" if kind == "data key" else "the one given is"
        super().__init__(f"{file}: encrypted under the {kind} {expected}, but {held} {actual}{hint and f'; {hint}'}")
        self.file = file
        self.expected = expected
        self.actual = actual
        self.kind = kind
        self.hint = hint


class MissingKey(StorageError):
    """A key is missing: the keyring of a log, or the master key of a keyring or a backup. `file` is the keyring, the
    file in which a master key would be, or the backup.
    """

    name: str = "MISSING_KEY"

    def __init__(
        self, file: str, reason: str = "the key file is missing, and the log beside it cannot be read without it"
    ) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file

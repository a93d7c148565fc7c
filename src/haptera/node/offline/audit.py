"""The verification of an audit log from its files alone (spec/audit.md, section 5)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from haptera.errors import StorageError
from haptera.node.audit.chain import Head
from haptera.node.audit.chain_check import ChainCheck, Fault
from haptera.node.audit.found_files import AUDIT_DIRECTORY, find_files, pieces
from haptera.node.offline.verify import rehearse
from haptera.storage import DataDirectory, OverlayFileSystem, translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.node.config import NodeConfig
    from haptera.storage import FileSystem

__all__ = ["AuditVerification", "audit_folder", "noted_head", "verify_audit"]

#: Times that the log is read where a node removes files of it meanwhile.
_ATTEMPTS: Final = 3


class AuditVerification(Struct, frozen=True):
    """The result of `verify_audit`.

    ``first`` and ``head`` are those of the lines that are there, ``first`` 0 and ``head`` None without any. ``torn`` is
    the end of the last file where that is no whole line, and ``unknown`` are the heads whose lines are not there any
    more, so that nothing is known about them.
    """

    path: str
    files: int
    lines: int
    first: int
    head: Head | None
    faults: list[Fault]
    omitted: int
    torn: Fault | None
    unknown: list[Head]

    @property
    def sound(self) -> bool:
        """Whether the chain is whole, and has every head that could be compared."""
        return not self.faults


def verify_audit(fs: FileSystem, path: str, heads: Sequence[Head] = ()) -> AuditVerification:
    """Check every line of the audit log of a data directory, or of a folder of its files.

    ``heads`` are lines that must be in it. Changes nothing and takes no lock, so a node may run. Raises StorageError
    where there is no audit log, and where its files cannot be read.
    """
    folder = audit_folder(fs, path)
    for attempt in range(_ATTEMPTS):
        try:
            with translated(folder, "read the audit log"):
                return _verify(fs, folder, heads)
        except StorageError as error:
            # Retention has removed a file between the listing and its turn.
            if attempt == _ATTEMPTS - 1 or not isinstance(error.__cause__, FileNotFoundError):
                raise
    raise AssertionError("the last attempt returns or raises")


def noted_head(fs: FileSystem, config: NodeConfig) -> Head | None:
    """Return the head of the audit log that the store of a data directory has noted in its log, if it has noted one.

    Changes nothing and takes no lock. Needs the master key, and as much memory as the node. Raises the errors of
    `haptera.storage` for a directory that a node would not open, and StorageError where there is none.
    """
    view = OverlayFileSystem(fs)
    try:
        DataDirectory.open(view, config.data_dir, create=False).close()  # else a start would make a store
    finally:
        view.close()
    start = rehearse(fs, config)
    if start.error is not None:
        raise start.error
    return start.audit_head


def audit_folder(fs: FileSystem, path: str) -> str:
    """The folder with the files: that of a data directory, or the path itself, for files that were copied."""
    for folder in (os.path.join(path, AUDIT_DIRECTORY), path):
        with translated(folder, "list the audit log"):
            try:
                if find_files(fs, folder):
                    return folder
            except (FileNotFoundError, NotADirectoryError):
                pass
    raise StorageError(f"{path}: there is no audit log; a node makes it with the first line that it records")


def _verify(fs: FileSystem, folder: str, heads: Sequence[Head]) -> AuditVerification:
    found = find_files(fs, folder)
    check = ChainCheck(heads)
    for first, path in found.items():
        check.begin_file(path, first)
        file = fs.open(path, "r")
        try:
            for piece in pieces(file):
                if piece.ended:
                    check.add_line(piece.data, piece.end)
                else:
                    check.add_rest(piece.data, last=first == max(found))
        finally:
            file.close()
    check.end()
    return AuditVerification(
        path=folder,
        files=len(found),
        lines=check.lines,
        first=check.first or 0,
        head=check.head if check.lines else None,
        faults=check.faults,
        omitted=check.omitted,
        torn=check.torn,
        unknown=check.unknown,
    )

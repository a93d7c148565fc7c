"""The lines of an audit log for people who look for some of them (spec/audit.md, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.node.audit.chain import read_line
from haptera.node.audit.found_files import find_files, pieces
from haptera.node.offline.audit import audit_folder
from haptera.storage import translated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.storage import FileSystem

__all__ = ["audit_lines"]

_decoder: Final = msgspec.json.Decoder(dict[str, Any])


def audit_lines(fs: FileSystem, path: str) -> Iterator[dict[str, Any] | None]:
    """The fields of each line of the audit log of a data directory, or of a folder of its files, oldest first.

    None stands for a line that is not as a log writes it. The chain is not checked, and bytes behind the last line are
    passed over. Changes nothing and takes no lock. Raises StorageError where there is no audit log, and where its files
    cannot be read.
    """
    folder = audit_folder(fs, path)
    with translated(folder, "read the audit log"):
        for file_path in find_files(fs, folder).values():
            try:
                file = fs.open(file_path, "r")
            except FileNotFoundError:
                continue  # retention has removed it meanwhile
            try:
                for piece in pieces(file):
                    if piece.ended:
                        yield _fields(piece.data)
            finally:
                file.close()


def _fields(line: bytes) -> dict[str, Any] | None:
    if read_line(line) is None:
        return None
    try:
        return _decoder.decode(line)
    except (ValueError, RecursionError):  # anyone can make the check of a line
        return None

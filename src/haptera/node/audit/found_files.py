"""The files of an audit log (spec/audit.md, section 4): their names, and their lines one after the other."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from haptera.node.audit.chain import LINE_SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.storage import File, FileSystem

__all__ = ["AUDIT_DIRECTORY", "FilePiece", "file_name", "find_files", "pieces"]

#: The folder of the audit log in a data directory.
AUDIT_DIRECTORY: Final = "audit"

_NAME: Final = re.compile(r"([0-9]{16})\.jsonl", re.ASCII)
_READ_SIZE: Final = 256 * 1024


class FilePiece(NamedTuple):
    """A line without its end, the offset behind it, and whether it ends there or the file does."""

    data: bytes
    end: int
    ended: bool


def file_name(first: int) -> str:
    """The name of the file that begins with the line of this sequence: names sort as their lines do."""
    return f"{first:016d}.jsonl"


def find_files(fs: FileSystem, path: str) -> dict[int, str]:
    """The paths of the files by their first sequences, in order. Raises OSError; FileNotFoundError without a folder."""
    found = {}
    for name in fs.listdir(path):
        match = _NAME.fullmatch(name)
        if match is not None:
            found[int(match[1])] = os.path.join(path, name)
    return dict(sorted(found.items()))


def pieces(file: File) -> Iterator[FilePiece]:
    """The lines of a file, then the bytes behind the last one, if there are some.

    Memory holds one line: more than the largest is given in pieces, as if a line ended there. Raises OSError.
    """
    offset, end, kept = 0, 0, b""
    while data := file.pread(_READ_SIZE, offset):
        offset += len(data)
        lines = (kept + data).split(b"\n")
        kept = lines.pop()
        for line in lines:
            end += len(line) + 1
            yield FilePiece(line, end, True)
        while len(kept) > LINE_SIZE_MAX:
            end += LINE_SIZE_MAX
            yield FilePiece(kept[:LINE_SIZE_MAX], end, True)
            kept = kept[LINE_SIZE_MAX:]
    if kept:
        yield FilePiece(kept, end + len(kept), False)

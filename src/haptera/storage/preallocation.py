"""Disk space for segments: files of their whole size, before they have a header and a name.

The space of a segment is reserved before anything else is done for it, so a full disk is met where nothing is half
done, and not by a record. One more file, the *reserve*, is kept for a full disk: an entry that frees space is written
to it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from haptera.storage.directory import segment_name
from haptera.storage.errors import DiskFailed, DiskFull, failing, translate, translated
from haptera.storage.filesystem import TEMPORARY, create_anew, read_file
from haptera.storage.segment_format import SEGMENT_HEADER_SIZE

if TYPE_CHECKING:
    from haptera.storage.filesystem import File, FileSystem
    from haptera.storage.segment_format import SegmentHeader

__all__ = ["Reserve", "Space", "allocate"]

RESERVE_NAME: Final = "reserve"


@dataclass(frozen=True, slots=True)
class Space:
    """An open file of zeros that is to become a segment, with its present path and its size in bytes."""

    file: File
    path: str
    size: int


def allocate(fs: FileSystem, log_path: str, number: int, size: int, replaced: SegmentHeader | None) -> Space:
    """Reserve the space of a segment with this number, which has no file yet but an empty one with the header
    `replaced`.

    Raises DiskFull (nothing is left behind) or DiskFailed.
    """
    name = segment_name(number)
    final = os.path.join(log_path, name)
    path = final + TEMPORARY
    with translated(path, "create the segment"):
        found = read_file(fs, final, SEGMENT_HEADER_SIZE) if name in fs.listdir(log_path) else None
        if found != (None if replaced is None else replaced.encode()):
            raise DiskFailed(f"{final}: cannot create the segment, because another process has made it")
        file = create_anew(fs, path)
    try:
        file.allocate(size)
    except OSError as error:
        file.close()
        failure = translate(error, path, "reserve space for a segment")
        if isinstance(failure, DiskFull):
            with failing(path, "remove the segment for which there is no space"):
                fs.unlink(path)
                fs.sync_directory(log_path)
        raise failure from error
    return Space(file, path, size)


class Reserve:
    """The reserve of one log, of ``size`` bytes; none with 0.

    It is made when there is room, and is gone when it has become a segment.

    A crash may leave less of it, because it is synced only when it becomes a segment: then it is made again.
    """

    def __init__(self, fs: FileSystem, log_path: str, size: int) -> None:
        self._fs = fs
        self._path = os.path.join(log_path, RESERVE_NAME)
        self._size = size
        self._there = False

    @property
    def size(self) -> int:
        """Bytes that it has now."""
        return self._size if self._there else 0

    def fill(self) -> None:
        """Make it, if it is not there and the disk has room. A failure to make it is no error."""
        if not self._size or self._there or self._open() is not None:
            return
        with contextlib.suppress(OSError):
            file = create_anew(self._fs, self._path)
            try:
                file.allocate(self._size)
                self._there = True
            except OSError:
                self._fs.unlink(self._path)
            finally:
                file.close()

    def take(self, size: int) -> Space | None:
        """The reserve as the space of a segment, if it is there and has this many bytes."""
        if size > self._size:
            return None
        file = self._open(keep=True)
        self._there = False
        return None if file is None else Space(file, self._path, self._size)

    def _open(self, *, keep: bool = False) -> File | None:
        """The file, if it is there and whole; closed again, unless it is to be kept."""
        with contextlib.suppress(OSError):
            file = self._fs.open(self._path, "r+")
            self._there = file.size() == self._size
            if not (self._there and keep):
                file.close()
            return file if self._there else None
        return None

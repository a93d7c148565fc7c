"""Makes segments, appends records to them and seals them (storage-format 5).

The order of the system calls is the promise: each line that syncs names the call that must not come before it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from haptera.storage.directory import segment_name
from haptera.storage.errors import DiskFailed, DiskFull, failing, translate, translated
from haptera.storage.filesystem import TEMPORARY, create_anew, read_file
from haptera.storage.segment import SEGMENT_HEADER_SIZE, LogEntry, RecordCipher, SegmentHeader

if TYPE_CHECKING:
    from haptera.storage.data_key import DataKey
    from haptera.storage.filesystem import File, FileSystem

__all__ = ["SegmentWriter", "remove_segment", "seal"]

#: Bytes behind the last record that are written as zeros, once for all records that will take their place. A file
#: system keeps reserved space apart from written space, and an append that crosses from one into the other makes it
#: sync its own journal too: a third of the time of an append. 256 KiB add half a millisecond to one append in hundreds.
ZEROED_AHEAD = 256 * 1024

_ZEROS = bytes(ZEROED_AHEAD)


class SegmentWriter:
    """The segment that is appended to. After any error but DiskFull from `create`, it must not be used again."""

    def __init__(self, file: File, path: str, header: SegmentHeader, key: DataKey) -> None:
        self.path = path
        self.header = header
        self.offset = SEGMENT_HEADER_SIZE
        self._file = file
        self._codec = RecordCipher(header, key)
        self._zeroed = SEGMENT_HEADER_SIZE  # the end of the space that was written before

    @classmethod
    def create(
        cls, fs: FileSystem, log_path: str, header: SegmentHeader, key: DataKey, *, replaced: SegmentHeader | None
    ) -> SegmentWriter:
        """Make a segment, ready and durable, in place of the empty one whose header is `replaced`, if there is one.

        Raises DiskFull (all is as it was) or DiskFailed.
        """
        name = segment_name(header.number)
        path = os.path.join(log_path, name)
        temporary = path + TEMPORARY
        with translated(path, "create the segment"):
            found = read_file(fs, path, SEGMENT_HEADER_SIZE) if name in fs.listdir(log_path) else None
            if found != (None if replaced is None else replaced.encode()):
                raise DiskFailed(f"{path}: cannot create the segment, because another process has made it")
            file = create_anew(fs, temporary)
        try:
            _allocate(fs, log_path, temporary, file, header.capacity)
            with failing(path, "write the segment's header"):
                file.pwrite(header.encode(), 0)
                file.fsync()  # a segment must not have its name before it has its header and its whole size
                fs.rename(temporary, path)
                fs.sync_directory(log_path)  # and a record must not be there before that
        except BaseException:
            file.close()
            raise
        return cls(file, path, header, key)

    @property
    def tag(self) -> bytes:
        """The last record's tag."""
        return self._codec.tag

    def has_room(self, size: int) -> bool:
        """Whether a record of `size` bytes fits.

        The last byte is never used: a sealed segment is shorter than one that is not.
        """
        return self.offset + size < self.header.capacity

    def append(self, entry: LogEntry) -> None:
        """Write one record, durable on return unless the segment's durability is "os". Raises DiskFailed."""
        record = self._codec.encode(entry)
        assert self.has_room(len(record))
        end = self.offset + len(record)
        with failing(self.path, "append to the log"):
            if end > self._zeroed and self.header.synced:
                self._write_zeros(end)
            self._file.pwrite(record, self.offset)
            if self.header.synced:
                self._file.fdatasync()
        self.offset = end

    def _write_zeros(self, start: int) -> None:
        """Write zeros over the space of the records behind the next one, which reads as zeros already."""
        self._zeroed = min(start + ZEROED_AHEAD, self.header.capacity)
        self._file.pwrite(_ZEROS[: self._zeroed - start], start)

    def seal(self) -> None:
        """Cut the segment to its records and close it. Raises DiskFailed."""
        with failing(self.path, "seal the segment"):
            seal(self._file, self.offset, data_synced=self.header.synced)
        self.close()

    def close(self) -> None:
        """Close the file and leave it as it is."""
        self._file.close()


def seal(file: File, size: int, *, data_synced: bool) -> None:
    """Cut a segment to its records, durably; the next one may be created after that. Raises OSError."""
    if not data_synced:
        file.fdatasync()  # the short size says "whole": it must not be durable before the records
    file.truncate(size)
    file.fsync()


def create_empty(
    fs: FileSystem, log_path: str, header: SegmentHeader, key: DataKey, *, replaced: SegmentHeader | None
) -> None:
    """Make a segment that is never written to, as `SegmentWriter.create` does."""
    SegmentWriter.create(fs, log_path, header, key, replaced=replaced).close()


def remove_segment(fs: FileSystem, log_path: str, path: str) -> None:
    """Remove a segment, or what was to become one, durably. Raises OSError."""
    fs.unlink(path)
    fs.sync_directory(log_path)


def _allocate(fs: FileSystem, log_path: str, path: str, file: File, capacity: int) -> None:
    """Reserve the disk space, so that a full disk is met here, where nothing is half done, and not by a record."""
    try:
        file.allocate(capacity)
    except OSError as error:
        failure = translate(error, path, "reserve space for a segment")
        if isinstance(failure, DiskFull):
            with failing(path, "remove the segment for which there is no space"):
                remove_segment(fs, log_path, path)
        raise failure from error

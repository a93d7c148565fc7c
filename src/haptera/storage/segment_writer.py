"""Makes segments, appends records to them and seals them (storage-format 5).

The order of the system calls is the promise: each line that syncs names the call that must not come before it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from haptera.storage.directory import segment_name
from haptera.storage.errors import failing
from haptera.storage.preallocation import allocate
from haptera.storage.segment_format import SEGMENT_HEADER_SIZE, LogEntry, RecordCipher, SegmentHeader

if TYPE_CHECKING:
    from haptera.storage.data_key import DataKey
    from haptera.storage.filesystem import File, FileSystem
    from haptera.storage.preallocation import Space

__all__ = ["PreparedRecord", "SegmentWriter", "remove_segment", "seal"]

#: Bytes behind the last record that are written as zeros, once for all records that will take their place. A file
#: system keeps reserved space apart from written space, and an append that crosses from one into the other makes it
#: sync its own journal too: a third of the time of an append. 256 KiB add half a millisecond to one append in hundreds.
ZEROED_AHEAD = 256 * 1024

_ZEROS = bytes(ZEROED_AHEAD)


class PreparedRecord(NamedTuple):
    """A record that is encrypted and has its place: ``data`` is to be written to ``file`` at ``offset``.

    It is ``entry``'s. Once it is made, nothing else may be written to the log before `Log.finish`.
    """

    entry: LogEntry
    data: bytes
    file: File
    offset: int
    synced: bool

    def write(self) -> None:
        """Write it, durable on return unless the segment's durability is "os". Raises OSError."""
        self.file.pwrite(self.data, self.offset)
        if self.synced:
            self.file.fdatasync()

    def attempt(self) -> BaseException | None:
        """Write it as `write` does, and return the error, if there was one, for `Log.finish`."""
        try:
            self.write()
        except BaseException as error:  # any of them leaves the same doubt
            return error
        return None


class SegmentWriter:
    """The segment that is appended to. After any error it must not be used again."""

    def __init__(self, file: File, path: str, header: SegmentHeader, key: DataKey) -> None:
        self.path = path
        self.header = header
        self.offset: int = SEGMENT_HEADER_SIZE
        self._file = file
        self._codec = RecordCipher(header, key)
        self._zeroed = SEGMENT_HEADER_SIZE  # the end of the space that was written before

    @classmethod
    def create(cls, fs: FileSystem, log_path: str, header: SegmentHeader, key: DataKey, space: Space) -> SegmentWriter:
        """Make a segment of its space, ready and durable. Raises DiskFailed."""
        path = os.path.join(log_path, segment_name(header.number))
        file = space.file
        assert header.capacity == space.size
        try:
            with failing(path, "write the segment's header"):
                file.pwrite(header.encode(), 0)
                file.fsync()  # a segment must not have its name before it has its header and its whole size
                fs.rename(space.path, path)
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
        record = self.prepare(entry)
        size = len(record.data)
        with failing(self.path, "append to the log"):
            if not self.has_zeros(size):
                self._write_zeros(self.offset + size)
            record.write()
        self.written(record)

    def has_zeros(self, size: int) -> bool:
        """Whether a record of `size` bytes has space that was written before; in durability "os" it needs none."""
        return self.offset + size <= self._zeroed or not self.header.synced

    def prepare(self, entry: LogEntry) -> PreparedRecord:
        """Make the next record, which must be written or be the last of the segment. There must be room for it."""
        data = self._codec.encode(entry)
        assert self.has_room(len(data))
        return PreparedRecord(entry, data, self._file, self.offset, self.header.synced)

    def written(self, record: PreparedRecord) -> None:
        """Note that a record that was made by `prepare` is durable."""
        self.offset = record.offset + len(record.data)

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
    """Make a segment that is never written to. Raises DiskFull (all is as it was) or DiskFailed."""
    space = allocate(fs, log_path, header.number, header.capacity, replaced)
    SegmentWriter.create(fs, log_path, header, key, space).close()


def remove_segment(fs: FileSystem, log_path: str, path: str) -> None:
    """Remove a segment, or what was to become one, durably. Raises OSError."""
    fs.unlink(path)
    fs.sync_directory(log_path)

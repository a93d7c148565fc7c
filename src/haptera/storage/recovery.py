"""Recovery of a log: finds its segments, reads them in order, and leaves the last one sealed.

The rules are in the text of `haptera.storage.log`. `haptera.node.recovery` rebuilds the state from the entries.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from haptera.errors import CorruptionError
from haptera.storage.directory import segment_name, segment_number
from haptera.storage.errors import NewerFormat, failing, translated
from haptera.storage.reader import SegmentReader
from haptera.storage.segment import LOG_FORMAT, NO_TAG, SEGMENT_HEADER_SIZE, LogEntry, SegmentHeader, format_of
from haptera.storage.writer import remove_segment, seal

if TYPE_CHECKING:
    from haptera.storage.data_key import DataKey
    from haptera.storage.filesystem import File, FileSystem
    from haptera.storage.keyring import Keyring

__all__ = ["LogEnd", "Progress", "Recovery", "Replay", "Segment"]

#: on_progress(entries, bytes_done, bytes_total), called for each few MiB that are replayed, and at the end.
Progress = Callable[[int, int, int], None]

FIRST_SEGMENT: Final = 1


@dataclass(slots=True)
class Recovery:
    """The findings of a replay: entries and the bytes they take, and the torn tail it cut off: `torn_bytes` of `file`
    from `offset`, or none.
    """

    entries: int = 0
    bytes: int = 0
    torn_bytes: int = 0
    file: str | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that holds entries. `size_bytes` counts its header and its records."""

    number: int
    path: str
    first_index: int
    size_bytes: int


@dataclass(slots=True)
class LogEnd:
    """Where a log ends: its last entry, its sealed segments, and the chain that the next one continues."""

    index: int = 0
    term: int = 0
    time_ms: int = 0
    tag: bytes = NO_TAG
    next_number: int = FIRST_SEGMENT
    sealed: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class _Found:
    """A segment file as it was found at opening."""

    number: int
    path: str
    size: int
    header: SegmentHeader
    key: DataKey


class Replay:
    """Reads a log from its beginning. After `entries`, `end` is where the log goes on and `recovery` says what was
    found.

    Raises CorruptionError (a segment is missing or its header damaged), WrongKey, NewerFormat, DiskFailed.
    """

    def __init__(self, fs: FileSystem, log_path: str, keyring: Keyring, on_progress: Progress | None) -> None:
        self.recovery = Recovery()
        self.end = LogEnd()
        self._fs = fs
        self._path = log_path
        self._on_progress = on_progress
        with translated(log_path, "open the log"):
            self._found = _find_segments(fs, log_path, keyring)

    def entries(self) -> Iterator[LogEntry]:
        """Every entry, oldest first, once. At its end a torn tail has been cut off, and the last segment is sealed."""
        bytes_total = sum(found.size for found in self._found)
        bytes_done = 0
        for found in self._found:
            with failing(found.path, "recover the segment"):
                yield from self._replay_segment(found, bytes_done, bytes_total)
            bytes_done += found.size
        self._found = []

    def _replay_segment(self, found: _Found, bytes_done: int, bytes_total: int) -> Iterator[LogEntry]:
        last = found is self._found[-1]
        end = self.end
        self._check_header(found)
        file = self._fs.open(found.path, "r+" if last else "r")
        try:
            if last:
                file.drop_cache()  # after a failed sync the cache may hold bytes that the disk does not
            reader = SegmentReader(file, found.path, found.size, found.header, found.key)

            def progress(count: int, offset: int) -> None:
                if self._on_progress is not None:
                    self._on_progress(self.recovery.entries + count, bytes_done + offset, bytes_total)

            yield from reader.entries(end.term, end.time_ms, progress)
            torn = reader.finish(last)
            self._take(found, reader, torn)
            if last:
                self._repair(file, reader)
        finally:
            file.close()

    def _check_header(self, found: _Found) -> None:
        header, next_index = found.header, self.end.index + 1
        if header.previous_tag != self.end.tag:
            raise CorruptionError(found.path, 0, "a header that continues the segment before", "another segment's tag")
        if header.first_index != next_index:
            raise CorruptionError(
                found.path, 0, f"a segment from index {next_index}", f"from index {header.first_index}"
            )

    def _take(self, found: _Found, reader: SegmentReader, torn: int) -> None:
        """Go on after the segment that has been read."""
        recovery, end = self.recovery, self.end
        if torn:
            recovery.torn_bytes, recovery.file, recovery.offset = torn, found.path, reader.offset
        end.next_number = found.number
        if reader.count:
            end.index, end.term, end.time_ms, end.tag = reader.index, reader.term, reader.time_ms, reader.tag
            end.sealed.append(Segment(found.number, found.path, found.header.first_index, reader.offset))
            end.next_number += 1
            recovery.entries += reader.count
            recovery.bytes += reader.offset

    def _repair(self, file: File, reader: SegmentReader) -> None:
        """Leave the last segment sealed, or gone if it holds nothing."""
        with failing(reader.path, "seal the segment"):
            if reader.count:
                seal(file, reader.offset, data_synced=False)
            else:
                remove_segment(self._fs, self._path, reader.path)


def _find_segments(fs: FileSystem, log_path: str, keyring: Keyring) -> list[_Found]:
    """The segments of a log, in order. Raises CorruptionError, WrongKey, NewerFormat."""
    numbers = []
    for name in fs.listdir(log_path):
        number = segment_number(name)
        if number is not None:
            numbers.append(number)
    numbers.sort()
    for expected, number in enumerate(numbers, FIRST_SEGMENT):
        if number != expected:
            raise CorruptionError(os.path.join(log_path, segment_name(expected)), 0, "a segment", "no file")
    return [_read_header(fs, log_path, number, keyring) for number in numbers]


def _read_header(fs: FileSystem, log_path: str, number: int, keyring: Keyring) -> _Found:
    path = os.path.join(log_path, segment_name(number))
    file = fs.open(path, "r")
    try:
        size = file.size()
        data = file.pread(SEGMENT_HEADER_SIZE, 0)
    finally:
        file.close()
    header = SegmentHeader.decode(data)
    if header is None:
        short = size < SEGMENT_HEADER_SIZE
        raise CorruptionError(
            path, 0, "a segment header and its CRC-32C", f"{size} bytes in all" if short else data[:16].hex()
        )
    if format_of(data) > LOG_FORMAT:
        raise NewerFormat(path, format_of(data), LOG_FORMAT)
    if format_of(data) < LOG_FORMAT or header.number != number or size > header.capacity:
        raise CorruptionError(
            path, 0, f"segment {number} of at most {header.capacity} bytes", f"segment {header.number} of {size} bytes"
        )
    return _Found(number, path, size, header, keyring.key_of(path, header.key_id))

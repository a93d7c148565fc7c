"""The segment files of a log as they are found: their numbers, their headers, and what the headers say of the entries.

Nothing here reads a record, but for the header of a segment's first one, or changes a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haptera.errors import CorruptionError
from haptera.storage.directory import segment_name, segment_number
from haptera.storage.errors import NewerFormat
from haptera.storage.segment_format import (
    LOG_FORMAT,
    RECORD_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    RecordCipher,
    SegmentHeader,
    format_of,
)

if TYPE_CHECKING:
    from haptera.storage.data_key import DataKey
    from haptera.storage.filesystem import FileSystem
    from haptera.storage.keyring import Keyring

__all__ = [
    "FoundSegment",
    "Segment",
    "find_segments",
    "missing_segment",
    "read_segment_header",
    "segment_numbers",
    "segments_of",
]


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that holds entries, from `first_index` to `last_index`. `size_bytes` counts its header and its records.

    No entry of it is later than `last_time_ms` (Unix milliseconds), nor is any after it earlier. It is the last entry's
    time, but for a segment from before the point that the log was opened from: there it may be the time of the entry
    after that, because no record of such a segment is read.
    """

    number: int
    path: str
    first_index: int
    last_index: int
    last_time_ms: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """A segment file as it was found: its size, its header, and the time of its first entry, or None without one."""

    number: int
    path: str
    size: int
    header: SegmentHeader
    key: DataKey
    first_time_ms: int | None


def segment_numbers(fs: FileSystem, log_path: str) -> list[int]:
    """The numbers of the segments in a log's directory, in order. Raises OSError."""
    return sorted(number for name in fs.listdir(log_path) if (number := segment_number(name)) is not None)


def missing_segment(log_path: str, number: int) -> CorruptionError:
    """The error that says which segment is not there."""
    return CorruptionError(os.path.join(log_path, segment_name(number)), 0, "a segment", "no file")


def find_segments(fs: FileSystem, log_path: str, keyring: Keyring, numbers: Iterable[int]) -> list[FoundSegment]:
    """Read the headers of the segments with these numbers, which are in order and must have no gap.

    Raises CorruptionError, WrongKey, NewerFormat, OSError.
    """
    found: list[FoundSegment] = []
    for number in numbers:
        if found and number != found[-1].number + 1:
            raise missing_segment(log_path, found[-1].number + 1)
        found.append(_find(fs, log_path, number, keyring))
    return found


def segments_of(found: list[FoundSegment], index: int, time_ms: int) -> list[Segment]:
    """The segments before a point of the log, which are not replayed. `index` and `time_ms` are the last entry's there.

    Raises CorruptionError for headers that are no log's.
    """
    segments: list[Segment] = []
    for segment in reversed(found):
        first_index = segment.header.first_index
        if segment.first_time_ms is None or not first_index <= index:
            raise CorruptionError(
                segment.path, 0, f"a segment with records up to index {index}", f"one from index {first_index}"
            )
        segments.append(Segment(segment.number, segment.path, first_index, index, time_ms, segment.size))
        index, time_ms = first_index - 1, segment.first_time_ms
    return segments[::-1]


def read_segment_header(fs: FileSystem, path: str, number: int) -> tuple[SegmentHeader, int, bytes]:
    """The header of segment `number`, its file's size in bytes, and the header of its first record, if there is one.

    Raises CorruptionError, NewerFormat, OSError.
    """
    file = fs.open(path, "r")
    try:
        size = file.size()
        data = file.pread(SEGMENT_HEADER_SIZE + RECORD_HEADER_SIZE, 0)
    finally:
        file.close()
    data, record = data[:SEGMENT_HEADER_SIZE], data[SEGMENT_HEADER_SIZE:]
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
    return header, size, record


def _find(fs: FileSystem, log_path: str, number: int, keyring: Keyring) -> FoundSegment:
    path = os.path.join(log_path, segment_name(number))
    header, size, record = read_segment_header(fs, path, number)
    key = keyring.key_of(path, header.key_id)
    fields = RecordCipher(header, key).decode_header(record) if len(record) == RECORD_HEADER_SIZE else None
    return FoundSegment(number, path, size, header, key, None if fields is None else fields[3])

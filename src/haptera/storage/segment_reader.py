"""Reads a segment's records in order, and judges the bytes after the last valid one (storage-format 6).

Streams: memory holds one chunk of the file, or one record where that is larger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from haptera.errors import CorruptionError
from haptera.storage.segment_format import (
    ENTRY_SIZE_MAX,
    RECORD_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    TAG_SIZE,
    LogEntry,
    RecordCipher,
    SegmentHeader,
)

if TYPE_CHECKING:
    from haptera.storage.data_key import DataKey
    from haptera.storage.filesystem import File

__all__ = ["CHUNK_SIZE", "SegmentReader", "nonzero_end"]

#: Bytes read at a time: large enough that the calls cost nothing, small enough to stay out of everyone's way.
CHUNK_SIZE = 2 << 20

RECORD_SIZE_MIN = RECORD_HEADER_SIZE + TAG_SIZE
BODY_SIZE_MAX = ENTRY_SIZE_MAX + TAG_SIZE
_ZEROS = bytes(CHUNK_SIZE)
_NONZERO = re.compile(rb"[^\x00]")
#: The least that a disk writes as a whole.
SECTOR_SIZE = 512
#: Zeros that no record has by itself: its header has fewer in a row, and the rest is as good as random.
_MISSING = bytes(16)
#: Where the index stands in a record header.
_INDEX_AT = 4
#: The bits of an index that a search leaves open; the 40 above them are known, and make a string to look for.
_INDEX_LOW_BITS = 24


class SegmentReader:
    """Reads one segment whose header is known.

    After `entries` has ended: `offset` is where the valid records end, `index`, `term`, `time_ms` and `tag` are the
    last record's.
    """

    def __init__(self, file: File, path: str, size: int, header: SegmentHeader, key: DataKey) -> None:
        self.path = path
        self.offset: int = SEGMENT_HEADER_SIZE
        self.count: int = 0
        self.index: int = header.first_index - 1
        self.term: int = 0
        self.time_ms: int = 0
        self._file = file
        self._size = size
        self._header = header
        self._codec = RecordCipher(header, key)

    @property
    def tag(self) -> bytes:
        return self._codec.tag

    @property
    def sealed(self) -> bool:
        """A segment is sealed by cutting it to its records, which are always fewer bytes than were preallocated."""
        return self._size < self._header.capacity

    def entries(self, term: int, time_ms: int, progress: Callable[[int, int], None]) -> Iterator[LogEntry]:
        """Every valid record up to the first invalid one, as entries.

        `term` and `time_ms` are the last entry's before this segment. `progress(count, offset)` is called for each
        chunk. Raises CorruptionError for a record that is whole but out of its place.
        """
        decode_header, decrypt = self._codec.decode_header, self._codec.decrypt
        buffer, position, base = b"", 0, self.offset
        index, count = self.index, 0
        while True:
            if len(buffer) - position < RECORD_HEADER_SIZE:
                base += position
                progress(count, base)
                buffer, position = self._read(base, CHUNK_SIZE), 0
                if len(buffer) < RECORD_HEADER_SIZE:
                    break
            header = buffer[position : position + RECORD_HEADER_SIZE]
            fields = decode_header(header)
            if fields is None:
                break
            length, index, next_term, next_time_ms = fields
            end = position + RECORD_HEADER_SIZE + length
            self._check(
                base + position, fields, index == self.index + 1 and next_term >= term and next_time_ms >= time_ms
            )
            if end > len(buffer):
                base += position
                progress(count, base)
                buffer, position = self._read(base, max(CHUNK_SIZE, RECORD_HEADER_SIZE + length)), 0
                end = RECORD_HEADER_SIZE + length
                if end > len(buffer):
                    break
            payload = decrypt(header, buffer[position + RECORD_HEADER_SIZE : end])
            if payload is None:
                break
            count += 1
            term, time_ms, position = next_term, next_time_ms, end
            self.index = index
            yield LogEntry(term, index, time_ms, payload)
        self.offset, self.term, self.time_ms = base + position, term, time_ms
        self.count += count
        progress(count, self._size)

    def finish(self, last: bool) -> int:
        """Judge the bytes after the valid records: nothing, or a torn tail. Returns the torn tail's size in bytes (0:
        none).

        `last`: no segment follows this one. Raises CorruptionError where a crash cannot have left these bytes.
        """
        if self.sealed and not self.count:
            raise self._damaged(f"the sealed segment has {self._size} bytes and no record")
        if self.offset == self._size:
            return 0
        if not last or self.sealed:
            raise self._damaged(f"the sealed segment has {self._size - self.offset} more bytes that are no record")
        end = nonzero_end(self._file, self.offset, self._size)
        if end > self.offset and self._header.synced:
            self._check_torn(end)
        return end - self.offset

    def skip_damage(self) -> bool:
        """Go on behind the damage at `offset`: the next `entries` begins at the next place that a valid record header
        names. False if no such place is left.

        A node never does this. The check of a directory does, to find the damage behind the first.
        """
        header = self._read(self.offset, RECORD_HEADER_SIZE)
        fields = self._codec.decode_header(header) if len(header) == RECORD_HEADER_SIZE else None
        if fields is not None and fields[1] > self.index + 1:  # records are missing before it
            self._resume(self.offset, fields[1])
            return True
        if fields is not None and TAG_SIZE <= fields[0] <= BODY_SIZE_MAX:
            self._resume(self.offset + RECORD_HEADER_SIZE + fields[0], max(self.index, fields[1]) + 1)
            return self.offset < self._size
        following = self._later_record(self.offset + 1, self._size)
        if following is not None:
            self._resume(*following)
        return following is not None

    def _resume(self, offset: int, index: int) -> None:
        self.offset, self.index = offset, index - 1
        self._codec.resume(index - self._header.first_index, self._read(offset - TAG_SIZE, TAG_SIZE))

    def _check_torn(self, end: int) -> None:
        """Raise CorruptionError unless the bytes up to `end` can be a record whose write was cut short."""
        # Each record was durable before the next was begun: where there is a later one, this one was whole.
        later = self._later_record(self.offset + 1, end)
        if later is not None:
            raise self._damaged(f"no valid record, though record {later[1]} follows at offset {later[0]}")
        header = self._read(self.offset, RECORD_HEADER_SIZE).ljust(RECORD_HEADER_SIZE, b"\0")
        fields = self._codec.decode_header(header)
        body_size_max = BODY_SIZE_MAX if fields is None else fields[0]
        record_end = min(self.offset + RECORD_HEADER_SIZE + body_size_max, self._size - 1)  # the last byte stays free
        if end > record_end:
            raise self._damaged(f"no valid record, though other bytes than zeros follow its end at offset {record_end}")
        written = header if fields is None else self._read(self.offset, record_end - self.offset)
        if _is_whole(written, self.offset):
            raise self._damaged("no valid record, though none of its bytes is missing")

    def _read(self, offset: int, size: int) -> bytes:
        return self._file.pread(max(0, min(size, self._size - offset)), offset)

    def _check(self, offset: int, fields: tuple[int, int, int, int], in_place: bool) -> None:
        length, index, term, time_ms = fields
        if in_place and TAG_SIZE <= length <= BODY_SIZE_MAX:
            return
        self.offset = offset
        raise self._damaged(f"a record of index {index}, term {term}, time {time_ms} ms and {length} bytes")

    def _damaged(self, actual: str) -> CorruptionError:
        return CorruptionError(self.path, self.offset, f"the record of index {self.index + 1}", actual)

    def _later_record(self, start: int, end: int) -> tuple[int, int] | None:
        """(offset, index) of a record header within `start`..`end` that follows the record at hand."""
        index_min = self.index + 2
        index_max = index_min + (end - start) // RECORD_SIZE_MIN
        prefixes = range(index_min >> _INDEX_LOW_BITS, (index_max >> _INDEX_LOW_BITS) + 1)
        for base in range(start, end, CHUNK_SIZE):
            chunk = self._read(base, CHUNK_SIZE + RECORD_HEADER_SIZE - 1)
            for prefix in prefixes:
                for at in _candidates(chunk, prefix.to_bytes(8 - _INDEX_LOW_BITS // 8, "big")):
                    fields = self._codec.decode_header(chunk[at : at + RECORD_HEADER_SIZE])
                    if fields is not None and index_min <= fields[1] <= index_max:
                        return base + at, fields[1]
        return None


def nonzero_end(file: File, offset: int, size: int) -> int:
    """The offset after the last byte within `offset`..`size` that is not zero; `offset` if there is none."""
    end = offset
    for base in range(offset, size, CHUNK_SIZE):
        chunk = file.pread(min(CHUNK_SIZE, size - base), base)
        if chunk != _ZEROS:
            stripped = chunk.rstrip(b"\0")
            if stripped:
                end = base + len(stripped)
    return end


def _is_whole(record: bytes, offset: int) -> bool:
    """Whether all bytes of a record, or of its header, at `offset` of the file reached the disk.

    A crash leaves zeros where bytes are missing: in the last ones, or in whole sectors. A record may have only a few
    bytes in its first sector. Zeros that it has by chance only make it look less whole.
    """
    in_first_sector = -offset % SECTOR_SIZE
    return (
        record[-1] != 0
        and _MISSING not in record
        and not (0 < in_first_sector < len(_MISSING) and not any(record[:in_first_sector]))
    )


def _candidates(chunk: bytes, prefix: bytes) -> Iterator[int]:
    """Where a record header could stand: the upper bytes of its index are `prefix`, its length is not zero, and it is
    there whole.

    A small index begins with zeros, and so does an empty disk: runs of zeros are stepped over as one.
    """
    end = len(chunk) - RECORD_HEADER_SIZE + _INDEX_AT
    at = chunk.find(prefix, _INDEX_AT)
    while 0 <= at <= end:
        following = at + 1
        if chunk[at - _INDEX_AT : at] != b"\0\0\0\0":
            yield at - _INDEX_AT
        elif (nonzero := _NONZERO.search(chunk, at)) is None:
            return
        else:
            following = nonzero.start() + 1
        at = chunk.find(prefix, following)

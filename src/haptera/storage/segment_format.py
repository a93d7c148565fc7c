"""Segments and records as bytes: the two headers, the key of a segment, and the chain of tags (storage-format 3 and 4).

Nothing here touches a file. The format itself is written down in `haptera.storage.log`.
"""

from __future__ import annotations

import secrets
import struct
from typing import ClassVar, Final

import google_crc32c
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from haptera.storage.data_key import DataKey, derive

__all__ = ["ENTRY_SIZE_MAX", "LOG_FORMAT", "LogEntry", "LogPoint", "RecordCipher", "SegmentHeader"]

LOG_FORMAT = 1
SEGMENT_MAGIC = b"HAPTERAL"
SEGMENT_HEADER_SIZE = 80
SEGMENT_ID_SIZE = 16
RECORD_HEADER_SIZE = 32
TAG_SIZE = 16
#: The largest payload of an entry, in bytes, for both the writer and the reader: four of the largest values, half a
#: segment.
ENTRY_SIZE_MAX = 32 << 20

SEGMENT_HEADER = struct.Struct(">8sHBx8sQ16sQ16sQI")
RECORD_FIELDS = struct.Struct(">IQQQ")
RECORD_HEADER = struct.Struct(">IQQQI")
assert SEGMENT_HEADER.size == SEGMENT_HEADER_SIZE
assert RECORD_HEADER.size == RECORD_HEADER_SIZE

NO_TAG = bytes(TAG_SIZE)
#: The number of the first segment of a log.
FIRST_SEGMENT: Final = 1
#: The capacity of a segment that is only to be there: it has no room for a record.
EMPTY_CAPACITY: Final = SEGMENT_HEADER_SIZE + 1
U64_MAX = (1 << 64) - 1
_CRC_SIZE = 4
_SYNC, _OS = 0, 1


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """One entry of the log.

    `index` rises by one; `term` and `time_ms` (Unix milliseconds) never go back; `payload` is any bytes.
    """

    term: int
    index: int
    time_ms: int
    payload: bytes


class LogPoint(msgspec.Struct, frozen=True):
    """A place in the log between two segments: all before it can be replaced by a snapshot.

    `index`, `term`, `time_ms` and `tag` are the last record's before it, and `next_segment` is the number of the
    segment that begins there. `START` is the point before the first record.
    """

    START: ClassVar[LogPoint]

    index: int
    term: int
    time_ms: int
    tag: bytes
    next_segment: int


LogPoint.START = LogPoint(0, 0, 0, NO_TAG, FIRST_SEGMENT)


class SegmentHeader(msgspec.Struct, frozen=True):
    """The header of a segment (storage-format 3). `capacity` is the size in bytes it was preallocated with."""

    number: int
    id: bytes
    key_id: bytes
    first_index: int
    previous_tag: bytes
    capacity: int
    #: Whether each record was made durable before the next was written (durability "sync").
    synced: bool

    @classmethod
    def new(
        cls, number: int, key: DataKey, first_index: int, previous_tag: bytes, capacity: int, synced: bool
    ) -> SegmentHeader:
        """A header with an id that no segment had before, so that its key is new too and no nonce can repeat."""
        return cls(number, secrets.token_bytes(SEGMENT_ID_SIZE), key.id, first_index, previous_tag, capacity, synced)

    def encode(self) -> bytes:
        durability = _SYNC if self.synced else _OS
        fields = SEGMENT_HEADER.pack(
            SEGMENT_MAGIC,
            LOG_FORMAT,
            durability,
            self.key_id,
            self.number,
            self.id,
            self.first_index,
            self.previous_tag,
            self.capacity,
            0,
        )[:-_CRC_SIZE]
        crc: int = google_crc32c.value(fields)
        return fields + crc.to_bytes(_CRC_SIZE, "big")

    @classmethod
    def decode(cls, data: bytes) -> SegmentHeader | None:
        """The header in `data` (SEGMENT_HEADER_SIZE bytes), or None if it is not a valid one.

        It may be of another format version: see `format_of`.
        """
        if len(data) != SEGMENT_HEADER_SIZE:
            return None
        magic, version, durability, key_id, number, id_, first_index, tag, capacity, crc = SEGMENT_HEADER.unpack(data)
        if magic != SEGMENT_MAGIC or crc != google_crc32c.value(data[:-_CRC_SIZE]):
            return None
        header = cls(number, id_, key_id, first_index, tag, capacity, durability == _SYNC)
        if version == LOG_FORMAT and header.encode() != data:
            return None  # the format knows no other durability, and the byte behind it is 0
        return header


def format_of(data: bytes) -> int:
    """The format version in the bytes of a segment header."""
    return int.from_bytes(data[8:10], "big")


class RecordCipher:
    """Encrypts or decrypts the records of one segment, in order: it counts the nonce and carries the chain.

    `tag` is the tag of the record before the next one, `count` the number of records so far.
    """

    __slots__ = ("_aad", "_cipher", "_seed", "count", "tag")

    def __init__(self, header: SegmentHeader, key: DataKey) -> None:
        self._aad = header.encode()
        self._cipher = AESGCM(derive(key.secret, header.id, b"haptera log segment/1", 32))
        self._seed = google_crc32c.value(header.id)
        self.count: int = 0
        self.tag: bytes = header.previous_tag

    def encode(self, entry: LogEntry) -> bytes:
        """The next record. Never call it again for a record whose write failed: that would use the nonce twice."""
        assert len(entry.payload) <= ENTRY_SIZE_MAX
        fields = RECORD_FIELDS.pack(len(entry.payload) + TAG_SIZE, entry.index, entry.term, entry.time_ms)
        crc: int = google_crc32c.extend(self._seed, fields)
        header = fields + crc.to_bytes(_CRC_SIZE, "big")
        body = self._cipher.encrypt(self.count.to_bytes(12, "big"), entry.payload, self._aad + header + self.tag)
        self.count += 1
        self.tag = body[-TAG_SIZE:]
        return header + body

    def resume(self, count: int, tag: bytes) -> None:
        """Go on to read behind records that could not be read: with record `count`, after one with this `tag`."""
        self.count = count
        self.tag = tag

    def decode_header(self, data: bytes) -> tuple[int, int, int, int] | None:
        """(length of the rest, index, term, time_ms) of the record header `data`, or None if it is not one of
        this segment.
        """
        length, index, term, time_ms, crc = RECORD_HEADER.unpack(data)
        if crc != google_crc32c.extend(self._seed, data[:-_CRC_SIZE]):
            return None
        return length, index, term, time_ms

    def decrypt(self, header: bytes, body: bytes) -> bytes | None:
        """The payload of the next record, or None if another record was written at this place of the log."""
        try:
            payload = self._cipher.decrypt(self.count.to_bytes(12, "big"), body, self._aad + header + self.tag)
        except InvalidTag:
            return None
        self.count += 1
        self.tag = body[-TAG_SIZE:]
        return payload

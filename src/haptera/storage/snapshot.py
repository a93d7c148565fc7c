"""Snapshots: the state at one point of the log, each in one file that is whole or not there (storage-format 12).

This comment is the format. Integers are unsigned and big-endian; CRC-32C is Castagnoli's.

Files
    snapshots/<index>.snap, the index of the last entry that it covers in 16 lower-case hex digits.
    snapshots/<index>.<snapshot id>.snap.tmp is one that is being made, and means nothing when a crash leaves it. Two
    processes may make the same one, where the first outlives its node, and each has a file of its own.

Header (96 bytes)
     0    8 magic "HAPTERAS"
     8    2 format: 1. Magic, this field and the CRC keep their places in every format
    10    2 zero
    12    8 id of the data key
    20   16 snapshot id: random
    36    8 index, the last that it covers
    44    8 term of that entry
    52    8 time_ms of that entry
    60   16 tag of that entry's record
    76    8 number of the segment that goes on there
    84    8 revision of the store
    92    4 CRC-32C of bytes 0..91

Chunks, one after the other, to the end of the file
    header (12 bytes):
         0    4 length of the ciphertext, tag included: 16 to 1 MiB + 16
         4    4 number of the chunk, from 0
         8    1 flags: 1 the piece goes on in the next chunk, 2 the last chunk of the file
         9    1 size of the section's name
        10    2 zero
    ciphertext and tag: AES-256-GCM with
        key    HKDF-SHA256(data key, salt = snapshot id, info = "haptera snapshot/1")
        nonce  the number of the chunk, in 12 bytes
        AAD    file header || chunk header || tag of the chunk before (zeros for the first)
    Its plaintext is the section's name and a piece of the section, or a part of one. The last chunk has no name; it is
    a MessagePack map from the name of each section to [pieces, bytes]. So a chunk cannot be altered, moved, left out
    or taken from another file, and a file that is cut anywhere has no last chunk.

Making
    create under its .tmp name, header, chunks, fsync, rename, fsync of the directory. The rename is the one step that
    makes a snapshot current, and nothing else has to agree with it. A file is written once, by one writer, with an id
    of its own, so no nonce is used twice under a key.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import google_crc32c
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from haptera.errors import CorruptionError
from haptera.storage.data_key import DataKey, derive
from haptera.storage.directory import (
    is_unfinished_snapshot,
    snapshot_index,
    snapshot_name,
    unfinished_snapshot_name,
)
from haptera.storage.errors import NewerFormat, failing, translated
from haptera.storage.segment_format import NO_TAG, TAG_SIZE, LogPoint

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.storage.filesystem import File, FileSystem
    from haptera.storage.keyring import Keyring

__all__ = [
    "SNAPSHOT_FORMAT",
    "SnapshotFile",
    "SnapshotReader",
    "find_snapshots",
    "remove_snapshots",
    "remove_unfinished_snapshots",
    "write_snapshot",
]

SNAPSHOT_FORMAT: Final = 1
SNAPSHOT_MAGIC: Final = b"HAPTERAS"
SNAPSHOT_HEADER: Final = struct.Struct(">8sH2x8s16sQQQ16sQQI")
SNAPSHOT_HEADER_SIZE: Final = 96
CHUNK_HEADER: Final = struct.Struct(">IIBB2x")
assert SNAPSHOT_HEADER.size == SNAPSHOT_HEADER_SIZE
#: Bytes that are encrypted at once: reader and writer hold no more than this of a piece that is larger.
CHUNK_SIZE_MAX: Final = 1 << 20
#: Bytes of a piece: the largest value of a store, and room for what goes with it.
PIECE_SIZE_MAX: Final = 16 << 20
#: Bytes after which the writer waits for the disk. One sync of all at the end would hold up the log's for seconds.
SYNC_EVERY: Final = 16 << 20

_CRC_SIZE: Final = 4
_GOES_ON, _LAST = 1, 2


class SnapshotHeader(msgspec.Struct, frozen=True):
    """The header of a snapshot: the point of the log that it stands at, and the store's revision there."""

    key_id: bytes
    id: bytes
    point: LogPoint
    revision: int

    def encode(self) -> bytes:
        point = self.point
        fields = SNAPSHOT_HEADER.pack(
            SNAPSHOT_MAGIC,
            SNAPSHOT_FORMAT,
            self.key_id,
            self.id,
            point.index,
            point.term,
            point.time_ms,
            point.tag,
            point.next_segment,
            self.revision,
            0,
        )[:-_CRC_SIZE]
        crc: int = google_crc32c.value(fields)
        return fields + crc.to_bytes(_CRC_SIZE, "big")


class SnapshotFile(msgspec.Struct, frozen=True):
    """A snapshot as it was found. `point`, `revision` and `key_id`, the id of its data key, are those of its header, or
    None if that is damaged.
    """

    path: str
    index: int
    size_bytes: int
    point: LogPoint | None
    revision: int | None
    key_id: bytes | None


class _ChunkCipher:
    """Encrypts or decrypts the chunks of one snapshot, in order: it counts the nonce and carries the chain."""

    def __init__(self, header: SnapshotHeader, key: DataKey) -> None:
        self._aad = header.encode()
        self._cipher = AESGCM(derive(key.secret, header.id, b"haptera snapshot/1", 32))
        self._tag = NO_TAG
        self.count = 0

    def encrypt(self, flags: int, section: bytes, part: bytes | memoryview) -> bytes:
        header = CHUNK_HEADER.pack(len(section) + len(part) + TAG_SIZE, self.count, flags, len(section))
        body = self._cipher.encrypt(self._nonce(), section + part, self._aad + header + self._tag)
        self._next(body)
        return header + body

    def decrypt(self, header: bytes, body: bytes) -> bytes | None:
        try:
            plain = self._cipher.decrypt(self._nonce(), body, self._aad + header + self._tag)
        except InvalidTag:
            return None
        self._next(body)
        return plain

    def _nonce(self) -> bytes:
        return self.count.to_bytes(12, "big")

    def _next(self, body: bytes) -> None:
        self._tag = body[-TAG_SIZE:]
        self.count += 1


def write_snapshot(
    fs: FileSystem, path: str, keyring: Keyring, point: LogPoint, revision: int, pieces: Iterable[tuple[str, bytes]]
) -> SnapshotFile:
    """Make a snapshot of the state at `point` in the directory `path`, durable on return.

    `pieces` are taken one at a time, each with the name of its section; `revision` is the store's there. Raises
    DiskFull and DiskFailed; then, or when `pieces` raises, the directory has no new snapshot, or a whole one.
    """
    key = keyring.newest
    header = SnapshotHeader(key.id, secrets.token_bytes(16), point, revision)
    target = os.path.join(path, snapshot_name(point.index))
    unfinished = os.path.join(path, unfinished_snapshot_name(point.index, header.id))
    with translated(target, "make the snapshot"):
        try:
            file = fs.open(unfinished, "x")
            try:
                size = _write(file, header, key, pieces)
                file.fsync()  # a snapshot must not have its name before all of it is on the disk
            finally:
                file.close()
            fs.rename(unfinished, target)
            fs.sync_directory(path)  # and the log that it replaces must not be removed before that
        except BaseException:
            with contextlib.suppress(OSError):
                fs.unlink(unfinished)
            raise
    return SnapshotFile(target, point.index, size, point, revision, header.key_id)


def _write(file: File, header: SnapshotHeader, key: DataKey, pieces: Iterable[tuple[str, bytes]]) -> int:
    """Write the header and the chunks; the size of the file."""
    cipher = _ChunkCipher(header, key)
    sections: dict[str, list[int]] = {}
    file.pwrite(header.encode(), 0)
    size = synced = SNAPSHOT_HEADER_SIZE
    for section, piece in pieces:
        counts = sections.setdefault(section, [0, 0])
        counts[0] += 1
        counts[1] += len(piece)
        for chunk in _chunks(cipher, section.encode(), piece):
            file.pwrite(chunk, size)
            size += len(chunk)
        if size - synced >= SYNC_EVERY:
            file.fdatasync()
            synced = size
    last = cipher.encrypt(_LAST, b"", msgspec.msgpack.encode(sections))
    file.pwrite(last, size)
    return size + len(last)


def _chunks(cipher: _ChunkCipher, section: bytes, piece: bytes) -> Iterator[bytes]:
    if len(piece) > PIECE_SIZE_MAX:
        raise ValueError(f"a piece has {len(piece)} bytes, and {PIECE_SIZE_MAX} is the most a snapshot can hold")
    room = CHUNK_SIZE_MAX - len(section)
    rest = memoryview(piece)
    while len(rest) > room:
        yield cipher.encrypt(_GOES_ON, section, rest[:room])
        rest = rest[room:]
    yield cipher.encrypt(0, section, rest)


class SnapshotReader:
    """An open snapshot. `point` is where the log goes on, `revision` the store's there, `size` the file's in bytes and
    `offset` how far it is read.
    """

    def __init__(self, fs: FileSystem, path: str, keyring: Keyring) -> None:
        """Read the header. Raises CorruptionError, WrongKey, NewerFormat, DiskFailed."""
        self.path = path
        with translated(path, "open the snapshot"):
            self._file = fs.open(path, "r")
            try:
                self.size: int = self._file.size()
                header = _decode(path, self._file.pread(SNAPSHOT_HEADER_SIZE, 0))
                self._cipher = _ChunkCipher(header, keyring.key_of(path, header.key_id))
            except BaseException:
                self._file.close()
                raise
        self.point: LogPoint = header.point
        self.revision: int = header.revision
        self.offset: int = SNAPSHOT_HEADER_SIZE

    def __enter__(self) -> SnapshotReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Safe to call again."""
        self._file.close()

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """Every piece with the name of its section, as it was written, once. All of them are there when it has ended.

        Raises CorruptionError and DiskFailed.
        """
        sections: dict[str, list[int]] = {}
        parts: list[bytes] = []
        started = b""
        while True:
            at = self.offset
            with translated(self.path, "read the snapshot"):
                flags, name, part = self._chunk()
            if flags == _LAST:
                self._check_end(at, sections, part, unfinished=bool(parts))
                return
            if parts and (name != started or sum(map(len, parts)) + len(part) > PIECE_SIZE_MAX):
                raise self._damaged(at, "the rest of a piece", "another one")
            started = name
            parts.append(part)
            if flags == _GOES_ON:
                continue
            piece = part if len(parts) == 1 else b"".join(parts)
            parts = []
            section = name.decode()
            counts = sections.setdefault(section, [0, 0])
            counts[0] += 1
            counts[1] += len(piece)
            yield section, piece

    def _chunk(self) -> tuple[int, bytes, bytes]:
        """The next chunk: its flags, its section's name, and its part of a piece."""
        number = self._cipher.count
        header = self._file.pread(CHUNK_HEADER.size, self.offset)
        if len(header) < CHUNK_HEADER.size:
            raise self._damaged(self.offset, f"chunk {number}", "the end of the file")
        length, found, flags, name_size = CHUNK_HEADER.unpack(header)
        if found != number or not TAG_SIZE <= length <= CHUNK_SIZE_MAX + TAG_SIZE:
            raise self._damaged(self.offset, f"chunk {number}", f"the header of chunk {found} of {length} bytes")
        body = self._file.pread(length, self.offset + CHUNK_HEADER.size)
        plain = self._cipher.decrypt(header, body) if len(body) == length else None
        if plain is None:
            raise self._damaged(self.offset, f"chunk {number}", "other bytes, or too few")
        if flags not in {0, _GOES_ON, _LAST} or not plain[:name_size].isascii():
            raise self._damaged(self.offset, "a chunk of this format", f"flags {flags}")
        self.offset += CHUNK_HEADER.size + length
        return flags, plain[:name_size], plain[name_size:]

    def _check_end(self, at: int, sections: dict[str, list[int]], counts: bytes, *, unfinished: bool) -> None:
        if unfinished or msgspec.msgpack.encode(sections) != counts:
            raise self._damaged(at, "the counts of the pieces before", "others")
        if self.offset != self.size:
            raise self._damaged(self.offset, "the end of the file", f"{self.size - self.offset} more bytes")

    def _damaged(self, offset: int, expected: str, actual: str) -> CorruptionError:
        return CorruptionError(self.path, offset, expected, actual)


def find_snapshots(fs: FileSystem, path: str) -> list[SnapshotFile]:
    """The snapshots in a directory, newest first, damaged ones too.

    Raises NewerFormat and DiskFailed. A snapshot that is removed meanwhile is left out.
    """
    with translated(path, "look for snapshots"):
        indexes = [index for name in fs.listdir(path) if (index := snapshot_index(name)) is not None]
        found = (_find(fs, os.path.join(path, snapshot_name(index)), index) for index in sorted(indexes, reverse=True))
        return [file for file in found if file is not None]


def remove_snapshots(fs: FileSystem, path: str, indexes: Iterable[int]) -> None:
    """Remove the snapshots of these indexes, durably on return. Raises DiskFailed."""
    with failing(path, "remove old snapshots"):
        for index in indexes:
            with contextlib.suppress(FileNotFoundError):
                fs.unlink(os.path.join(path, snapshot_name(index)))
        fs.sync_directory(path)


def remove_unfinished_snapshots(fs: FileSystem, path: str) -> None:
    """Remove the snapshots that no writer has finished. There must be none at work. Raises DiskFailed."""
    with translated(path, "remove unfinished snapshots"):
        for name in fs.listdir(path):
            if is_unfinished_snapshot(name):
                fs.unlink(os.path.join(path, name))


def _find(fs: FileSystem, path: str, index: int) -> SnapshotFile | None:
    try:
        file = fs.open(path, "r")
    except FileNotFoundError:
        return None
    try:
        size, data = file.size(), file.pread(SNAPSHOT_HEADER_SIZE, 0)
    finally:
        file.close()
    try:
        header = _decode(path, data)
    except CorruptionError:
        return SnapshotFile(path, index, size, None, None, None)
    return SnapshotFile(path, index, size, header.point, header.revision, header.key_id)


def _decode(path: str, data: bytes) -> SnapshotHeader:
    """The header in the first bytes of a snapshot. Raises CorruptionError, NewerFormat."""
    expected = "the header of a snapshot and its CRC-32C"
    if len(data) != SNAPSHOT_HEADER_SIZE:
        raise CorruptionError(path, 0, expected, f"{len(data)} bytes in all")
    magic, version, key_id, id_, index, term, time_ms, tag, next_segment, revision, crc = SNAPSHOT_HEADER.unpack(data)
    if magic != SNAPSHOT_MAGIC or crc != google_crc32c.value(data[:-_CRC_SIZE]):
        raise CorruptionError(path, 0, expected, data[:16].hex())
    if version > SNAPSHOT_FORMAT:
        raise NewerFormat(path, version, SNAPSHOT_FORMAT)
    if version < SNAPSHOT_FORMAT or index != snapshot_index(os.path.basename(path)):
        raise CorruptionError(path, 0, "a snapshot of the index in its name", f"one of index {index}")
    header = SnapshotHeader(key_id, id_, LogPoint(index, term, time_ms, tag, next_segment), revision)
    if header.encode() != data:  # a byte that is to be 0 and is not
        raise CorruptionError(path, 0, expected, data[:16].hex())
    return header

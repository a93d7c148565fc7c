"""The bytes of a backup: its header, its manifest, its chunks and its digest (storage-format 10).

    header ‖ keyring ‖ manifest ‖ chunk ‖ chunk ‖ … ‖ the last chunk, which holds the digest

The manifest lists the files and their sizes, so a reader knows the length and the place of every chunk before it comes:
a chunk has its full size unless it is the last one of its file. Nothing here touches a file.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final, Literal

import google_crc32c
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Meta

from haptera.storage.data_key import KEY_ID_SIZE, derive
from haptera.storage.directory import KEYRING_SIZE_MAX, NODE_ID_SIZE
from haptera.storage.segment_format import TAG_SIZE

if TYPE_CHECKING:
    from haptera.storage.data_key import DataKey

__all__ = ["BACKUP_FORMAT", "CHUNK_SIZE", "BackupFile", "BackupHeader", "Manifest"]

BACKUP_FORMAT: Final = 1
BACKUP_MAGIC: Final = b"HAPTERAB"
BACKUP_ID_SIZE: Final = 16
#: Bytes of a file in one chunk: with its header it is one item of the wire, and a disk reads it in one call.
CHUNK_SIZE: Final = 256 * 1024 - 16
#: A file takes some 20 bytes of the manifest, and a directory has some hundred files.
MANIFEST_SIZE_MAX: Final = 16 << 20
DIGEST_SIZE: Final = 32

HEADER: Final = struct.Struct(">8sHxx8s16sIIII")
HEADER_SIZE: Final = 52
CHUNK_HEADER: Final = struct.Struct(">IQI")
CHUNK_HEADER_SIZE: Final = 16
assert HEADER.size == HEADER_SIZE
assert CHUNK_HEADER.size == CHUNK_HEADER_SIZE

_CRC_SIZE: Final = 4
#: The key of a manifest follows from the backup's random id, and encrypts this one text.
_NONCE: Final = bytes(12)

Number = Annotated[int, Meta(ge=0)]
#: Where a file stands in its data directory: a snapshot by the index of its last entry, a segment by its number.
Kind = Literal["snapshot", "segment"]


class BackupFile(msgspec.Struct, frozen=True, array_like=True):
    """A file of a backup. Its kind and its number make its name; the backup holds its first ``size`` bytes."""

    kind: Kind
    number: Number
    size: Annotated[int, Meta(ge=1)]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a backup: the state of one store after its entry ``index``.

    ``time_ms`` is when the backup was made and ``entry_time_ms`` the time of the last entry, both in Unix
    milliseconds. ``keys`` are the ids of the data keys in its keyring.
    """

    directory_format: Number
    version: str
    node_id: Annotated[bytes, Meta(min_length=NODE_ID_SIZE, max_length=NODE_ID_SIZE)]
    time_ms: Number
    index: Number
    revision: Number
    entry_time_ms: Number
    #: The number of the first segment, which is that after the snapshot where there is one.
    first_segment: Annotated[int, Meta(ge=1)]
    keys: list[Annotated[bytes, Meta(min_length=KEY_ID_SIZE, max_length=KEY_ID_SIZE)]]
    files: list[BackupFile]

    @property
    def next_segment(self) -> int:
        """The number of the segment after the last one in the backup."""
        return self.first_segment + sum(file.kind == "segment" for file in self.files)

    @property
    def in_order(self) -> bool:
        """Whether the files are one snapshot at most, and then the segments without a gap."""
        files, first = self.files, self.first_segment
        segments = [file.number for file in files if file.kind == "segment"]
        snapshots = len(files) - len(segments)
        return (
            snapshots <= 1
            and all(file.kind == "segment" for file in files[snapshots:])
            and segments == list(range(first, first + len(segments)))
            and (snapshots == 1 or first == 1)
        )


class BackupHeader(msgspec.Struct, frozen=True):
    """The header of a backup. ``key_id`` names the data key that the keys of its manifest and its digest follow from;
    sizes are in bytes.
    """

    key_id: bytes
    id: bytes
    keyring_size: int
    keyring_check: int
    manifest_size: int

    def encode(self) -> bytes:
        fields = HEADER.pack(
            BACKUP_MAGIC,
            BACKUP_FORMAT,
            self.key_id,
            self.id,
            self.keyring_size,
            self.keyring_check,
            self.manifest_size,
            0,
        )[:-_CRC_SIZE]
        return fields + _crc(fields).to_bytes(_CRC_SIZE, "big")

    @classmethod
    def decode(cls, data: bytes) -> BackupHeader | None:
        """The header in ``data`` (HEADER_SIZE bytes), or None if it is none. It may be of another format version: see
        `format_of`.
        """
        if len(data) != HEADER_SIZE:
            return None
        magic, version, key_id, id_, keyring_size, keyring_check, manifest_size, crc = HEADER.unpack(data)
        if magic != BACKUP_MAGIC or crc != _crc(data[:-_CRC_SIZE]):
            return None
        header = cls(key_id, id_, keyring_size, keyring_check, manifest_size)
        sizes_fit = keyring_size <= KEYRING_SIZE_MAX and TAG_SIZE <= manifest_size <= MANIFEST_SIZE_MAX
        if version == BACKUP_FORMAT and not (sizes_fit and header.encode() == data):
            return None  # a size that no backup has, or a byte that is to be 0 and is not
        return header

    @property
    def manifest_offset(self) -> int:
        """Where the manifest stands."""
        return HEADER_SIZE + self.keyring_size

    @property
    def size(self) -> int:
        """Bytes before the first chunk."""
        return self.manifest_offset + self.manifest_size


def format_of(data: bytes) -> int:
    """The format version in the bytes of a header."""
    return int.from_bytes(data[8:10], "big")


def head_of(id_: bytes, key: DataKey, keyring: bytes, manifest: Manifest) -> bytes:
    """All that stands before the chunks. ``id_`` (16 random bytes) is used for one backup only."""
    text = msgspec.msgpack.encode(manifest)
    if len(keyring) > KEYRING_SIZE_MAX or len(text) + TAG_SIZE > MANIFEST_SIZE_MAX:
        raise ValueError(f"a backup holds no keyring of {len(keyring)} bytes with a manifest of {len(text)}")
    header = BackupHeader(key.id, id_, len(keyring), _crc(keyring), len(text) + TAG_SIZE).encode()
    return header + keyring + _manifest_cipher(id_, key).encrypt(_NONCE, text, header + keyring)


def read_manifest(header: BackupHeader, key: DataKey, keyring: bytes, data: bytes) -> Manifest | None:
    """The manifest in ``data``, or None if another one was written at this place."""
    try:
        text = _manifest_cipher(header.id, key).decrypt(_NONCE, data, header.encode() + keyring)
        manifest = msgspec.msgpack.decode(text, type=Manifest)
    except (InvalidTag, ValueError, RecursionError):  # text that is not UTF-8 is no DecodeError
        return None
    return manifest if manifest.in_order else None


def keyring_fits(header: BackupHeader, keyring: bytes) -> bool:
    """Whether these are the bytes of the keyring that the header was made with."""
    return len(keyring) == header.keyring_size and _crc(keyring) == header.keyring_check


class Digest:
    """The digest over everything in a backup before it: HMAC-SHA256 with a key that follows from a data key."""

    def __init__(self, id_: bytes, key: DataKey) -> None:
        self._hash = hmac.new(derive(key.secret, id_, b"haptera backup digest/1", 32), digestmod=hashlib.sha256)

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def value(self) -> bytes:
        return self._hash.digest()


def chunk_header(id_: bytes, number: int, payload: bytes) -> bytes:
    """The header of the chunk of this number, from 0, in the backup ``id_``."""
    fields = CHUNK_HEADER.pack(len(payload), number, 0)[:-_CRC_SIZE]
    crc: int = google_crc32c.extend(google_crc32c.extend(_crc(id_), fields), payload)
    return fields + crc.to_bytes(_CRC_SIZE, "big")


def payload_sizes(size: int) -> Iterator[int]:
    """The sizes of the payloads that a file of ``size`` bytes is in."""
    for start in range(0, size, CHUNK_SIZE):
        yield min(CHUNK_SIZE, size - start)


def stored_size(size: int) -> int:
    """Bytes that a file of ``size`` bytes takes in a backup."""
    return size + -(-size // CHUNK_SIZE) * CHUNK_HEADER_SIZE


def backup_size(header: BackupHeader, manifest: Manifest) -> int:
    """Bytes of a whole backup."""
    files = sum(stored_size(file.size) for file in manifest.files)
    return header.size + files + CHUNK_HEADER_SIZE + DIGEST_SIZE


def _manifest_cipher(id_: bytes, key: DataKey) -> AESGCM:
    return AESGCM(derive(key.secret, id_, b"haptera backup manifest/1", 32))


def _crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return crc

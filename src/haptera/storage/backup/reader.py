"""Reads a backup from its beginning to its end and checks each byte, all of which are hostile until then
(storage-format 10). `image` shows its files as a directory.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from haptera.errors import DamagedBackup
from haptera.storage.backup.format import (
    BACKUP_FORMAT,
    BACKUP_MAGIC,
    CHUNK_HEADER_SIZE,
    DIGEST_SIZE,
    HEADER_SIZE,
    BackupHeader,
    Digest,
    Manifest,
    backup_size,
    chunk_header,
    format_of,
    keyring_fits,
    payload_sizes,
    read_manifest,
)
from haptera.storage.errors import NewerFormat
from haptera.storage.segment_format import SEGMENT_MAGIC
from haptera.storage.snapshot import SNAPSHOT_MAGIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from haptera.storage.backup.format import BackupFile
    from haptera.storage.data_key import DataKey
    from haptera.storage.keyring import Keyring

__all__ = ["BackupReader"]

#: read(size): the next ``size`` bytes; fewer only at the end.
Read = "Callable[[int], bytes]"

#: unlock(file, data): the keyring whose wrapped bytes are ``data``, found in ``file``.
Unlock = "Callable[[str, bytes], Keyring]"

#: Bytes of a wrong value that an error shows.
_SHOWN_MAX: Final = 16


#: The beginnings of files that are taken for a backup by mistake.
_OTHER_KINDS: Final = (
    (SEGMENT_MAGIC, "a segment of a log"),
    (SNAPSHOT_MAGIC, "a snapshot in a data directory"),
    (b"\x1f\x8b", "a gzip file, which has to be unpacked first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file, which has to be unpacked first"),
    (b"\xfd7zXZ\0", "an xz file, which has to be unpacked first"),
)


class NotABackup(DamagedBackup):
    """The first bytes are those of another file. `actual` says what it is, or what they are."""

    def __str__(self) -> str:
        return f"{self.file} is no backup, but {self.actual}"


class BackupReader:
    """One pass through a backup. ``name`` is what its errors call it.

    Making one reads what stands before the chunks: ``manifest``, ``keyring`` and ``keyring_data``, its bytes. ``size``
    is that of the whole backup and ``offset`` how far it was read, in bytes.
    """

    def __init__(self, name: str, read: Callable[[int], bytes], unlock: Callable[[str, bytes], Keyring]) -> None:
        self.name = name
        self.offset: int = 0
        self._read = read
        head = self._begin()
        header = BackupHeader.decode(head)
        if header is None:
            raise DamagedBackup(name, 0, "the header of a backup and its CRC-32C", head[:_SHOWN_MAX].hex())
        if format_of(head) > BACKUP_FORMAT:
            raise NewerFormat(name, format_of(head), BACKUP_FORMAT)
        if format_of(head) < BACKUP_FORMAT:
            raise DamagedBackup(name, 8, f"format {BACKUP_FORMAT}", f"format {format_of(head)}")
        self.header = header
        self.keyring_data: bytes = self._take(header.keyring_size, "the keyring")
        if not keyring_fits(header, self.keyring_data):
            raise DamagedBackup(name, HEADER_SIZE, "the keyring and its CRC-32C", "other bytes")
        self.keyring: Keyring = unlock(name, self.keyring_data)
        key = self.keyring.find(header.key_id)
        if key is None:
            raise DamagedBackup(name, HEADER_SIZE, f"a keyring with the key {header.key_id.hex()}", "one without it")
        sealed = self._take(header.manifest_size, "the manifest")
        manifest = read_manifest(header, key, self.keyring_data, sealed)
        if manifest is None:
            raise DamagedBackup(name, header.manifest_offset, "the manifest", "bytes that do not decrypt to one")
        self.manifest: Manifest = manifest
        self.size: int = backup_size(header, manifest)
        self._digest = self._begun_digest(key, head, sealed)

    def chunks(self) -> Iterator[tuple[BackupFile, bytes]]:
        """The content of the files in their order, piece by piece, once; at its end the whole backup has been checked.

        A piece has been checked against damage when it is handed out, and against replacement only at the end. Raises
        DamagedBackup.
        """
        number = 0
        for file in self.manifest.files:
            for size in payload_sizes(file.size):
                yield file, self._chunk(number, size)
                number += 1
        at = self.offset
        value = self._digest.value()
        if not hmac.compare_digest(self._chunk(number, DIGEST_SIZE), value):
            raise DamagedBackup(self.name, at, "the digest of all that stands before", "another")
        if self._read(1):
            raise DamagedBackup(self.name, self.offset, "the end of the backup", "more bytes")

    def _begun_digest(self, key: DataKey, head: bytes, sealed: bytes) -> Digest:
        digest = Digest(self.header.id, key)
        for part in (head, self.keyring_data, sealed):
            digest.update(part)
        return digest

    def _chunk(self, number: int, size: int) -> bytes:
        at = self.offset
        header = self._take(CHUNK_HEADER_SIZE, f"the header of chunk {number}")
        payload = self._take(size, f"chunk {number}")
        expected = chunk_header(self.header.id, number, payload)
        if header != expected:
            raise DamagedBackup(self.name, at, f"chunk {number} of {size} bytes and its CRC-32C", "another one")
        self._digest.update(header)
        self._digest.update(payload)
        return payload

    def _begin(self) -> bytes:
        """The bytes of the header. Raises NotABackup where it cannot be one."""
        head = self._read(HEADER_SIZE)
        if head[: len(BACKUP_MAGIC)] != BACKUP_MAGIC[: len(head)]:
            known = next((kind for magic, kind in _OTHER_KINDS if head.startswith(magic)), None)
            begins = f"a file that begins with {head[:_SHOWN_MAX]!r}"
            raise NotABackup(self.name, 0, "the header of a backup", known or begins)
        return self._counted(head, HEADER_SIZE, "the header of a backup")

    def _take(self, size: int, meaning: str) -> bytes:
        return self._counted(self._read(size), size, meaning)

    def _counted(self, data: bytes, size: int, meaning: str) -> bytes:
        if len(data) < size:
            raise DamagedBackup(self.name, self.offset + len(data), meaning, "the end of the backup")
        self.offset += size
        return data

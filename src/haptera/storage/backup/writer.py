"""Makes the stream of a backup from the files of a data directory (storage-format 10)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from haptera.errors import CorruptionError
from haptera.storage.backup.format import (
    BACKUP_ID_SIZE,
    CHUNK_SIZE,
    HEADER_SIZE,
    BackupHeader,
    Digest,
    backup_size,
    chunk_header,
    head_of,
    payload_sizes,
)
from haptera.storage.backup.names import file_path
from haptera.storage.errors import translated

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from haptera.storage.backup.format import BackupFile, Manifest
    from haptera.storage.data_key import DataKey
    from haptera.storage.filesystem import FileSystem

__all__ = ["BackupWriter"]


class BackupWriter:
    """One backup of the data directory ``path``. ``keyring`` is its file of the keys as it is on the disk, and ``key``
    the newest data key in it. ``size`` is in bytes.

    The files of the manifest stay as they are, at least in the bytes that it names, until the last piece was taken.
    """

    def __init__(self, fs: FileSystem, path: str, key: DataKey, keyring: bytes, manifest: Manifest) -> None:
        self.manifest = manifest
        self._fs = fs
        self._path = path
        self._id = secrets.token_bytes(BACKUP_ID_SIZE)  # so that no key of a manifest is ever used again
        self._head = head_of(self._id, key, keyring, manifest)
        self._digest = Digest(self._id, key)
        header = BackupHeader.decode(self._head[:HEADER_SIZE])
        assert header is not None
        self.size: int = backup_size(header, manifest)

    def pieces(self) -> Generator[bytes, None, None]:
        """The backup, once, in pieces of at most 256 KiB. Memory holds one of them. Blocks.

        Raises DiskFailed, and CorruptionError for a file that is shorter than it was.
        """
        for start in range(0, len(self._head), CHUNK_SIZE):
            yield self._digested(self._head[start : start + CHUNK_SIZE])
        number = 0
        for file in self.manifest.files:
            for payload in self._payloads(file_path(self._path, file), file):
                yield self._digested(chunk_header(self._id, number, payload) + payload)
                number += 1
        digest = self._digest.value()
        yield chunk_header(self._id, number, digest) + digest

    def _payloads(self, path: str, wanted: BackupFile) -> Iterator[bytes]:
        with translated(path, "read the file for a backup"):
            file = self._fs.open(path, "r")
            try:
                offset = 0
                for size in payload_sizes(wanted.size):
                    payload = file.pread(size, offset)
                    offset += len(payload)
                    if len(payload) < size:
                        raise CorruptionError(path, offset, f"{wanted.size} bytes", "the end of the file")
                    yield payload
            finally:
                file.close()

    def _digested(self, piece: bytes) -> bytes:
        self._digest.update(piece)
        return piece

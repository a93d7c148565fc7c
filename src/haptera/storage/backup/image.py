"""A backup as a directory: its files are read where they are, without a copy.

So recovery, the tools and point-in-time recovery read a backup in the way in which they read a data directory.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from haptera.errors import DamagedBackup
from haptera.storage.backup.format import (
    CHUNK_HEADER_SIZE,
    CHUNK_SIZE,
    chunk_header,
    payload_sizes,
    stored_size,
)
from haptera.storage.backup.names import FOLDERS, file_path
from haptera.storage.directory import KEYS_NAME, NODE_NAME, node_text
from haptera.storage.filesystem import ReadOnlyFile, ReadOnlyFileSystem

if TYPE_CHECKING:
    from haptera.storage.backup.reader import BackupReader
    from haptera.storage.filesystem import File, OpenMode

__all__ = ["BackupImage"]


class BackupImage(ReadOnlyFileSystem):
    """The files of a backup that ``reader`` has begun, as a `FileSystem` that cannot be written.

    The paths of its files begin with ``path``, the backup's own. ``file`` is the open backup, and stays the caller's.
    """

    def __init__(self, path: str, reader: BackupReader, file: File) -> None:
        path = os.path.normpath(path)
        self.path: str = path
        manifest = reader.manifest
        has_segments = manifest.next_segment > manifest.first_segment
        self._stored: dict[str, File] = {
            os.path.join(path, NODE_NAME): _Text(
                node_text(manifest.node_id, manifest.directory_format, complete=has_segments)
            ),
            os.path.join(path, KEYS_NAME): _Text(reader.keyring_data),
        }
        number, offset = 0, reader.header.size
        for each in manifest.files:
            name = file_path(path, each)
            self._stored[name] = _StoredFile(file, path, reader.header.id, number, offset, each.size)
            number += sum(1 for _ in payload_sizes(each.size))
            offset += stored_size(each.size)

    def open(self, path: str, mode: OpenMode) -> File:
        if mode != "r":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        stored = self._stored.get(os.path.normpath(path))
        if stored is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return stored

    def listdir(self, path: str) -> list[str]:
        folder = os.path.normpath(path)
        names = [os.path.basename(name) for name in self._stored if os.path.dirname(name) == folder]
        if folder == self.path:
            names += FOLDERS
        elif folder == (os.path.dirname(self.path) or "."):
            names.append(os.path.basename(self.path))
        return names


class _Text(ReadOnlyFile):
    """A small file that a backup holds in another place."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def pread(self, size: int, offset: int) -> bytes:
        return self._content[offset : offset + size]

    def size(self) -> int:
        return len(self._content)


class _StoredFile(ReadOnlyFile):
    """A file within a backup: from chunk ``number`` on, which stands at ``offset``. It keeps the last chunk it read."""

    def __init__(self, file: File, path: str, id_: bytes, number: int, offset: int, size: int) -> None:
        self._file = file
        self._path = path
        self._id = id_
        self._number = number
        self._offset = offset
        self._size = size
        self._read = -1
        self._payload = b""

    def pread(self, size: int, offset: int) -> bytes:
        end = min(offset + size, self._size)
        parts = []
        while offset < end:
            position, start = divmod(offset, CHUNK_SIZE)
            part = self._chunk(position)[start : start + end - offset]
            parts.append(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def size(self) -> int:
        return self._size

    def close(self) -> None:
        self._read, self._payload = -1, b""

    def _chunk(self, position: int) -> bytes:
        """The payload of one chunk of the file, checked: the backup may have changed since it was verified."""
        if position != self._read:
            at = self._offset + position * (CHUNK_HEADER_SIZE + CHUNK_SIZE)
            size = min(CHUNK_SIZE, self._size - position * CHUNK_SIZE)
            data = self._file.pread(CHUNK_HEADER_SIZE + size, at)
            header, payload = data[:CHUNK_HEADER_SIZE], data[CHUNK_HEADER_SIZE:]
            number = self._number + position
            if len(payload) < size or header != chunk_header(self._id, number, payload):
                raise DamagedBackup(self._path, at, f"chunk {number} of {size} bytes and its CRC-32C", "another one")
            self._read, self._payload = position, payload
        return self._payload

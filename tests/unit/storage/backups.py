"""Backups of a small store, and the ways to read and to break them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from haptera.storage import BackupFile, BackupReader, BackupWriter, Manifest
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.stores import PATH, Store

if TYPE_CHECKING:
    from haptera.storage import Keyring


def backup_of(store: Store, *, index: int | None = None) -> bytes:
    """A backup of a store as it is."""
    log, directory = store.log, store.directory
    keyring = store.keyring
    manifest = Manifest(
        directory_format=1,
        version="1.2.3",
        node_id=directory.node_id,
        time_ms=1_700_000_000_000,
        index=log.last_index if index is None else index,
        revision=log.last_index,
        entry_time_ms=1_700_000_000_001,
        first_segment=1,
        keys=[key.id for key in keyring.keys],
        files=[BackupFile("segment", segment.number, segment.size_bytes) for segment in log.segments],
    )
    writer = BackupWriter(directory.fs, directory.path, keyring.newest, directory.read_keyring(), manifest)
    data = b"".join(writer.pieces())
    assert len(data) == writer.size
    return data


def small() -> tuple[bytes, Keyring, MemoryFileSystem]:
    """A backup of thirteen entries in several segments, its keyring, and the file system of the store."""
    fs = MemoryFileSystem()
    store = Store.open(fs)
    store.append(13)
    return backup_of(store), store.keyring, fs


def read(data: bytes, keyring: Keyring, name: str = "b") -> dict[BackupFile, bytes]:
    """The files of a backup, all of it checked."""
    reader = BackupReader(name, io.BytesIO(data).read, lambda *_: keyring)
    files: dict[BackupFile, bytes] = dict.fromkeys(reader.manifest.files, b"")
    for file, piece in reader.chunks():
        files[file] += piece
    return files


__all__ = ["PATH", "backup_of", "read", "small"]

"""Puts the files of a backup, and the segments of an archive behind them, into a directory that is being made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from haptera.errors import CorruptionError
from haptera.storage.archive import copy_content
from haptera.storage.backup.names import FOLDERS, file_path
from haptera.storage.directory import KEYS_NAME, segment_name
from haptera.storage.errors import ForeignArchive, translated
from haptera.storage.filesystem import read_file, write_file_atomically
from haptera.storage.found_segments import read_segment_header
from haptera.storage.keyring_format import wrap
from haptera.storage.segment_format import SEGMENT_HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.storage.archive import Archive
    from haptera.storage.backup.format import BackupFile
    from haptera.storage.backup.reader import BackupReader
    from haptera.storage.directory import DataDirectory
    from haptera.storage.filesystem import File
    from haptera.storage.master_key import MasterKey

__all__ = ["ArchivedSegments", "unpack"]


class ArchivedSegments:
    """The segments of an archive that go on where a backup ends, and the keys that they need.

    ``paths`` has the segments by number, the first of which may be the last of the backup, with more records.
    ``master`` opens the keyring of the backup, and will open the one of both. Raises ForeignArchive (it is another
    node's), CorruptionError (a segment between them is missing), WrongKey (no key at hand opens a segment; a master key
    of the archive opens nothing), NewerFormat and DiskFailed.
    """

    def __init__(self, archive: Archive, reader: BackupReader, master: MasterKey) -> None:
        manifest = reader.manifest
        if archive.node_id != manifest.node_id:
            raise ForeignArchive(archive.path, manifest.node_id.hex(), archive.node_id.hex())
        found = archive.segments()
        number = manifest.next_segment
        if number - 1 in found and number > manifest.first_segment:
            number -= 1
        self.paths: dict[int, str] = {}
        while number in found:
            self.paths[number] = found[number]
            number += 1
        if any(later > number for later in found):
            raise CorruptionError(os.path.join(archive.log_path, segment_name(number)), 0, "a segment", "no file")
        self._archive = archive
        self._master = master
        self._keyring = archive.with_keys(reader.keyring, master)
        for number, path in self.paths.items():  # before anything is copied, which may take hours
            if number >= manifest.next_segment:
                with translated(path, "read the header of the archived segment"):
                    self._keyring.key_of(path, read_segment_header(archive.fs, path, number)[0].key_id)

    def open(self, number: int, begun: bytes | None = None) -> File:
        """Open an archived segment; ``begun`` is the header of the part of it that the backup has, if it has one.

        Raises CorruptionError if that is the header of another segment, and OSError.
        """
        path = self.paths[number]
        segment = self._archive.fs.open(path, "r")
        if begun is not None and segment.pread(SEGMENT_HEADER_SIZE, 0) != begun:
            segment.close()
            raise CorruptionError(path, 0, "the segment of this number in the backup", "another segment")
        return segment

    def keyring_data(self) -> bytes:
        """The file of the keys of the backup and of the keys of the archive, under the master key."""
        return wrap(self._keyring, [self._master])


def unpack(
    reader: BackupReader,
    directory: DataDirectory,
    archived: ArchivedSegments | None,
    on_progress: Callable[[int], None],
) -> None:
    """Put everything into a directory that is being made, durably: the keyring, the files, the archived segments.

    The keyring comes first, because a directory with keys and without node.toml never opens. On return every byte of
    the backup has been checked. Raises DamagedBackup, CorruptionError (an archived segment is another than the backup's
    of its number), DiskFull, DiskFailed.
    """
    fs = directory.fs
    keyring = reader.keyring_data if archived is None else archived.keyring_data()
    with translated(directory.keys_path, "restore the keyring"):
        write_file_atomically(fs, directory.path, KEYS_NAME, keyring)
    with translated(directory.path, "restore the files"):
        folders = [os.path.join(directory.path, name) for name in FOLDERS]
        _write_files(reader, directory, on_progress)
        if archived is not None:
            for number in archived.paths:
                _copy_segment(archived, number, directory)
        for folder in folders:
            fs.sync_directory(folder)  # before node.toml says that all is there


def _write_files(reader: BackupReader, directory: DataDirectory, on_progress: Callable[[int], None]) -> None:
    writing: BackupFile | None = None
    file: File | None = None
    offset = 0
    try:
        for each, piece in reader.chunks():
            if each != writing:
                _finish(file)
                writing, offset = each, 0
                file = directory.fs.open(file_path(directory.path, each), "x")
            assert file is not None
            file.pwrite(piece, offset)
            offset += len(piece)
            on_progress(reader.offset)
        if file is not None:
            file.fsync()
    finally:
        if file is not None:
            file.close()


def _finish(file: File | None) -> None:
    if file is not None:
        file.fsync()
        file.close()


def _copy_segment(archived: ArchivedSegments, number: int, directory: DataDirectory) -> None:
    """Copy an archived segment, in place of the first part of it that the backup may have had."""
    fs, name = directory.fs, segment_name(number)
    path = os.path.join(directory.log_path, name)
    begun = read_file(fs, path, SEGMENT_HEADER_SIZE) if name in fs.listdir(directory.log_path) else None
    segment = archived.open(number, begun)
    try:
        if begun is not None:
            fs.unlink(path)
        copy = fs.open(path, "x")
        try:
            copy_content(segment, copy)
            copy.fsync()
        finally:
            copy.close()
    finally:
        segment.close()

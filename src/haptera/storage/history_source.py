"""The places that a history is read from: a data directory, or a backup, and the archive of the same node.

Each is shown as one data directory, so that one path of code reads them all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haptera.errors import MissingKey
from haptera.storage.backup import BackupImage, BackupReader
from haptera.storage.directory import LOG_NAME, segment_name, segment_number
from haptera.storage.overlay_filesystem import OverlayFileSystem
from haptera.storage.segment_format import SEGMENT_HEADER_SIZE
from haptera.storage.stored_keyring import open_keyring, unwrap_keyring

if TYPE_CHECKING:
    from haptera.storage.archive import Archive
    from haptera.storage.directory import DataDirectory
    from haptera.storage.directory_check import Unlock
    from haptera.storage.filesystem import File, FileSystem
    from haptera.storage.keyring import Keyring
    from haptera.storage.master_key import MasterKey

__all__ = ["HistorySource", "find_source"]


@dataclass(frozen=True, slots=True)
class HistorySource:
    """A data directory, as `fs` shows it. `unlock` opens its keys.

    `archive_path` is its archive, and `archive_of` the id of that one's node; both are empty without one. `current`
    says that the log's end is the store's present: a backup, and the archive behind it, may be older.
    """

    fs: FileSystem
    path: str
    unlock: Unlock
    archive_path: str = ""
    archive_of: bytes = b""
    current: bool = True


def find_source(fs: FileSystem, path: str, archive: Archive | None, master: MasterKey | None) -> HistorySource:
    """The source at `path`, the file of a backup or a data directory, with an archive.

    A backup is read from its beginning to its end. Raises DamagedBackup, MissingKey, WrongKey, NewerFormat,
    CorruptionError, DiskFailed.
    """
    file = _backup(fs, path)
    shown = fs if file is None else _image(file, path, master)
    if archive is None:
        return HistorySource(shown, path, lambda directory: open_keyring(directory, master), current=file is None)
    view = OverlayFileSystem(shown)
    log_path = os.path.join(path, LOG_NAME)
    numbers = {segment_number(name) for name in shown.listdir(log_path)}
    for number, archived in archive.segments().items():
        own = os.path.join(log_path, segment_name(number))
        if number not in numbers or (file is not None and _is_longer(fs, archived, shown, own)):
            view.show(own, fs, archived)
    return HistorySource(view, path, _unlock_with(archive, master), archive.path, archive.node_id, current=file is None)


def _is_longer(fs: FileSystem, archived: str, shown: FileSystem, own: str) -> bool:
    """Whether the archive has more of a segment, which was still appended to when the backup was made."""
    one, other = fs.open(archived, "r"), shown.open(own, "r")
    try:
        same = one.pread(SEGMENT_HEADER_SIZE, 0) == other.pread(SEGMENT_HEADER_SIZE, 0)
        return same and one.size() > other.size()
    finally:
        one.close()
        other.close()


def _unlock_with(archive: Archive, master: MasterKey | None) -> Unlock:
    """Open the keyring of a directory together with those of its archive, as far as the master keys open them."""

    def unlock(directory: DataDirectory) -> Keyring:
        own = open_keyring(directory, master)
        return archive.with_keys(own, own.master)  # the check names what cannot be read

    return unlock


def _backup(fs: FileSystem, path: str) -> File | None:
    """The open file of a backup; None where there is a directory, or nothing."""
    try:
        return fs.open(path, "r")
    except OSError:
        return None


def _image(file: File, path: str, master: MasterKey | None) -> BackupImage:
    offset = 0

    def read(size: int) -> bytes:
        nonlocal offset
        data = file.pread(size, offset)
        offset += len(data)
        return data

    def unlock(name: str, data: bytes) -> Keyring:
        if master is None:
            raise MissingKey(name, "no master key is given, and a backup is noise without that of its node")
        return unwrap_keyring(name, data, master)

    reader = BackupReader(path, read, unlock)
    for _ in reader.chunks():
        pass  # at the end the whole has been checked
    return BackupImage(path, reader, file)

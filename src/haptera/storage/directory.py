"""The data directory: its content, its owner, and the lock that keeps a second process out (storage-format 2)."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tomllib

import google_crc32c

from haptera.errors import CorruptionError, StorageError
from haptera.storage.errors import DirectoryInUse, NewerFormat, holder_of, translated
from haptera.storage.filesystem import File, FileSystem, read_file, write_file_atomically

__all__ = ["DIRECTORY_FORMAT", "NODE_ID_SIZE", "DataDirectory"]

DIRECTORY_FORMAT = 1
NODE_ID_SIZE = 16
LOG_NAME = "log"
KEYS_NAME = "keys"
NODE_NAME = "node.toml"
LOCK_NAME = "lock"
NODE_FILE_SIZE_MAX = 4096
#: Bytes of a keyring at most: it has some hundred for each key.
KEYRING_SIZE_MAX = 1 << 20
_SEGMENT_NAME = re.compile(r"([0-9a-f]{16})\.seg", re.ASCII)


def segment_name(number: int) -> str:
    """The file name of a segment."""
    return f"{number:016x}.seg"


def segment_number(name: str) -> int | None:
    """The number of the segment that a file name stands for; None for any other file."""
    match = _SEGMENT_NAME.fullmatch(name)
    return int(match[1], 16) if match else None


class DataDirectory:
    """An open data directory, locked against every other process (and every other opening in this one).

    `path`, `log_path`, `keys_path` are paths; `node_id` is 16 bytes, chosen when the directory was made.
    """

    def __init__(self, fs: FileSystem, path: str, lock: File) -> None:
        self.fs = fs
        self.path = path
        self.log_path = os.path.join(path, LOG_NAME)
        self.keys_path = os.path.join(path, KEYS_NAME)
        self.node_path = os.path.join(path, NODE_NAME)
        self.node_id = b""
        self._lock = lock

    @classmethod
    def open(cls, fs: FileSystem, path: str, create: bool = True) -> DataDirectory:
        """Lock a data directory and read its identity; make it if it is not there and `create` is true (parents are not
        made).

        Raises DirectoryInUse, NewerFormat, CorruptionError (something that must be there is not, or is damaged),
        DiskFull, DiskFailed and StorageError (there is none, and `create` is false). See storage-format 2.
        """
        path = os.path.normpath(path)  # so that the part before the last "/" is the parent
        with translated(path, "open the data directory"):
            if create:
                _make_directory(fs, path)
            elif NODE_NAME not in _names(fs, path):
                raise StorageError(f"{path}: there is no data directory")
        directory = cls.unidentified(fs, path)
        try:
            directory.identify()
        except BaseException:
            directory.close()
            raise
        return directory

    @classmethod
    def unidentified(cls, fs: FileSystem, path: str) -> DataDirectory:
        """Lock a directory that may be anything: `node_id` is empty until `identify`.

        Raises DirectoryInUse, DiskFull, DiskFailed.
        """
        path = os.path.normpath(path)
        with translated(path, "open the data directory"):
            return cls(fs, path, _take_lock(fs, path))

    def close(self) -> None:
        """Release the lock. Safe to call again."""
        self._lock.close()

    def read_keyring(self) -> bytes:
        """The file of the keys as it is on the disk. Raises DiskFailed."""
        with translated(self.keys_path, "read the key file"):
            return read_file(self.fs, self.keys_path, KEYRING_SIZE_MAX)

    def identify(self) -> None:
        """Read the identity, or make one where there is nothing yet. Raises as `open`."""
        with translated(self.path, "open the data directory"):
            try:
                data = read_file(self.fs, self.node_path, NODE_FILE_SIZE_MAX)
            except FileNotFoundError:
                self._create()
                return
            self.node_id = _parse(self.node_path, data)
            self.fs.sync_directory(self.path)  # the process that made this file, or the keys, may have died before that
            if LOG_NAME not in self.fs.listdir(self.path):
                raise CorruptionError(self.log_path, 0, "the log's directory", "nothing")

    def _create(self) -> None:
        """First the log's directory, last node.toml: where node.toml is, everything is."""
        _make_directory(self.fs, self.log_path)
        if KEYS_NAME in self.fs.listdir(self.path) or self.fs.listdir(self.log_path):
            raise CorruptionError(
                self.node_path, 0, "the file that identifies the keys and the log beside it", "nothing"
            )
        self.node_id = secrets.token_bytes(NODE_ID_SIZE)
        write_file_atomically(self.fs, self.path, NODE_NAME, node_text(self.node_id))


def node_text(node_id: bytes) -> bytes:
    """The content of node.toml."""
    check = google_crc32c.value(node_id)
    return f'format = {DIRECTORY_FORMAT}\nnode_id = "{node_id.hex()}"\ncheck = {check}\n'.encode()


def _make_directory(fs: FileSystem, path: str) -> None:
    parent = os.path.dirname(path) or "."
    try:
        fs.mkdir(path)
    except FileExistsError:
        # Sync the name all the same: the process that made it may have died before that. If we may not, it was made
        # for us, long ago.
        with contextlib.suppress(PermissionError):
            fs.sync_directory(parent)
    else:
        fs.sync_directory(parent)


def _names(fs: FileSystem, path: str) -> list[str]:
    try:
        return fs.listdir(path)
    except FileNotFoundError:
        return []


def _take_lock(fs: FileSystem, path: str) -> File:
    lock_path = os.path.join(path, LOCK_NAME)
    try:
        lock = fs.open(lock_path, "x")
    except FileExistsError:
        lock = fs.open(lock_path, "r+")
    try:
        if not lock.try_lock():
            holder = lock.pread(32, 0).strip()
            pid = int(holder) if holder.isdigit() else None
            raise DirectoryInUse(path, pid, holder_of(pid))
    except BaseException:
        lock.close()
        raise
    with contextlib.suppress(OSError):  # the id is for people: a full disk must not keep anyone from reading
        lock.truncate(0)
        lock.pwrite(b"%d\n" % os.getpid(), 0)
    return lock


def _parse(path: str, data: bytes) -> bytes:
    try:
        table = tomllib.loads(data.decode())
        if type(table["format"]) is int and table["format"] > DIRECTORY_FORMAT:
            raise NewerFormat(path, table["format"], DIRECTORY_FORMAT)
        node_id = bytes.fromhex(table["node_id"])
        known = table["format"] == DIRECTORY_FORMAT and len(node_id) == NODE_ID_SIZE
        if known and table["check"] == google_crc32c.value(node_id):
            return node_id
    except (ValueError, KeyError, TypeError):
        pass
    raise CorruptionError(path, 0, f"format = {DIRECTORY_FORMAT}, a node_id in hex and its check", repr(data[:100]))

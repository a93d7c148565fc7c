"""The data directory: its content, its owner, and the lock that keeps a second process out (storage-format 2)."""

from __future__ import annotations

import contextlib
import os
import re
import secrets

import google_crc32c

from haptera.errors import CorruptionError, StorageError
from haptera.storage.errors import DirectoryInUse, NewerFormat, holder_of, translated
from haptera.storage.filesystem import TEMPORARY, File, FileSystem, read_file, write_file_atomically
from haptera.storage.toml import parse_toml

__all__ = ["DIRECTORY_FORMAT", "KEYRING_SIZE_MAX", "NODE_ID_SIZE", "DataDirectory"]

DIRECTORY_FORMAT = 2
NODE_ID_SIZE = 16
LOG_NAME = "log"
SNAPSHOTS_NAME = "snapshots"
KEYS_NAME = "keys"
MASTER_KEY_NAME = "master.key"
NODE_NAME = "node.toml"
LOCK_NAME = "lock"
#: The largest file of a keyring: 256 data keys, encrypted under two master keys, take 56 KiB.
KEYRING_SIZE_MAX = 64 << 10
NODE_FILE_SIZE_MAX = 4096
_SEGMENT_NAME = re.compile(r"([0-9a-f]{16})\.seg", re.ASCII)
_SNAPSHOT_NAME = re.compile(r"([0-9a-f]{16})\.snap", re.ASCII)
_UNFINISHED = f".snap{TEMPORARY}"


def segment_name(number: int) -> str:
    """The file name of a segment."""
    return f"{number:016x}.seg"


def segment_number(name: str) -> int | None:
    """The number of the segment that a file name stands for; None for any other file."""
    match = _SEGMENT_NAME.fullmatch(name)
    return int(match[1], 16) if match else None


def sealed_segments(fs: FileSystem, log_path: str) -> dict[int, str]:
    """The paths by number of the segments that another one follows, in order: they are whole, and stay as they are.

    Raises DiskFailed.
    """
    with translated(log_path, "list the segments"):
        numbers = sorted(number for number in map(segment_number, fs.listdir(log_path)) if number is not None)
    return {number: os.path.join(log_path, segment_name(number)) for number in numbers[:-1]}


def snapshot_name(index: int) -> str:
    """The file name of a snapshot of the state after the entry with this index."""
    return f"{index:016x}.snap"


def snapshot_index(name: str) -> int | None:
    """The index in the file name of a snapshot; None for any other file."""
    match = _SNAPSHOT_NAME.fullmatch(name)
    return int(match[1], 16) if match else None


def unfinished_snapshot_name(index: int, snapshot_id: bytes) -> str:
    """The file name of a snapshot that is being made: no two makers have the same."""
    return f"{index:016x}.{snapshot_id.hex()}{_UNFINISHED}"


def is_unfinished_snapshot(name: str) -> bool:
    """Whether a file name stands for a snapshot that is being made, or was when its maker ended."""
    return name.endswith(_UNFINISHED)


class DataDirectory:
    """An open data directory, locked against every other process (and every other opening in this one).

    `path`, `log_path`, `snapshots_path`, `keys_path`, `master_key_path` are paths; `node_id` is 16 bytes, chosen when
    the directory was made. `format` is the format in which it was found, and `complete` whether all that must be there
    is.
    """

    def __init__(self, fs: FileSystem, path: str, lock: File) -> None:
        self.fs = fs
        self.path = path
        self.log_path: str = os.path.join(path, LOG_NAME)
        self.snapshots_path: str = os.path.join(path, SNAPSHOTS_NAME)
        self.keys_path: str = os.path.join(path, KEYS_NAME)
        self.master_key_path: str = os.path.join(path, MASTER_KEY_NAME)
        self.node_path: str = os.path.join(path, NODE_NAME)
        self.node_id: bytes = b""
        self.format: int = DIRECTORY_FORMAT
        self.complete: bool = False
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
                make_directory(fs, path)
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
        with translated(self.keys_path, "read the keyring"):
            return read_file(self.fs, self.keys_path, KEYRING_SIZE_MAX)

    def identify(self) -> None:
        """Read the identity, or make one where there is nothing yet. Raises as `open`."""
        with translated(self.path, "open the data directory"):
            try:
                data = read_file(self.fs, self.node_path, NODE_FILE_SIZE_MAX)
            except FileNotFoundError:
                self._create()
                return
            self.node_id, self.format, self.complete = _parse(self.node_path, data)
            self.fs.sync_directory(self.path)  # the process that made this file, or the keys, may have died before that
            names = self.fs.listdir(self.path)
            if LOG_NAME not in names:
                raise CorruptionError(self.log_path, 0, "the log's directory", "nothing")
            if SNAPSHOTS_NAME not in names:  # an older version made the directory
                make_directory(self.fs, self.snapshots_path)
            # A snapshot whose writer died before this may lose its name, and then the log before it must be there.
            self.fs.sync_directory(self.snapshots_path)

    def finish(self) -> None:
        """Say in node.toml that the directory is complete, and of the newest format: the last step of making one, and
        of migrating one of an older format. Raises DiskFull, DiskFailed.

        From then on the keyring and a segment must be there.
        """
        if not self.complete:
            with translated(self.node_path, "complete the data directory"):
                self._write_identity(complete=True)

    def _create(self) -> None:
        """First the log's directory, then node.toml: without it there are neither keys nor segments."""
        make_directory(self.fs, self.log_path)
        make_directory(self.fs, self.snapshots_path)
        keys = {KEYS_NAME, MASTER_KEY_NAME}.intersection(self.fs.listdir(self.path))
        if keys or self.fs.listdir(self.log_path) or self.fs.listdir(self.snapshots_path):
            raise CorruptionError(
                self.node_path, 0, "the file that identifies the keys and the log beside it", "nothing"
            )
        self.node_id = secrets.token_bytes(NODE_ID_SIZE)
        self._write_identity(complete=False)

    def _write_identity(self, complete: bool) -> None:
        text = node_text(self.node_id, DIRECTORY_FORMAT, complete)
        write_file_atomically(self.fs, self.path, NODE_NAME, text)
        self.complete = complete


def node_text(node_id: bytes, number: int, complete: bool) -> bytes:
    """The content of node.toml in the format `number`. Format 1 does not say whether the directory is complete."""
    text = f'format = {number}\nnode_id = "{node_id.hex()}"\n'
    checked = node_id
    if number > 1:
        text += f"complete = {str(complete).lower()}\n"
        checked = text.encode()
    return f"{text}check = {google_crc32c.value(checked)}\n".encode()


def make_directory(fs: FileSystem, path: str) -> None:
    """Make a directory, if it is not there, durably. Its parents are not made. Raises OSError."""
    parent = os.path.dirname(path) or "."
    try:
        fs.mkdir(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, f"{error.strerror}: {parent} has to be made first", path) from error
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


def _parse(path: str, data: bytes) -> tuple[bytes, int, bool]:
    """The node's id, the format, and whether the directory is complete: one of format 1 is not until it is migrated."""
    try:
        table = parse_toml(data)
        number = table["format"]
        if type(number) is int and number > DIRECTORY_FORMAT:
            raise NewerFormat(path, number, DIRECTORY_FORMAT)
        node_id = bytes.fromhex(table["node_id"])
        if type(number) is int and len(node_id) == NODE_ID_SIZE:
            if number == 1 and table["check"] == google_crc32c.value(node_id):
                return node_id, 1, False
            if number == DIRECTORY_FORMAT and data == node_text(node_id, number, table["complete"] is True):
                return node_id, DIRECTORY_FORMAT, table["complete"]
    except (ValueError, KeyError, TypeError):
        pass
    raise CorruptionError(path, 0, f"format = {DIRECTORY_FORMAT}, a node_id in hex and its check", repr(data[:100]))

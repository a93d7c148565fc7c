"""A data directory that is being made of something else: of a backup, or of the state of another directory.

`node.toml` comes last. A node refuses keys and a log without it, so a crash leaves the whole directory, or nothing that
opens.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from haptera.errors import StorageError
from haptera.storage.directory import (
    DIRECTORY_FORMAT,
    LOCK_NAME,
    NODE_ID_SIZE,
    NODE_NAME,
    DataDirectory,
    make_directory,
    node_text,
    segment_number,
)
from haptera.storage.errors import DiskFailed, translated
from haptera.storage.filesystem import write_file_atomically
from haptera.storage.segment import EMPTY_CAPACITY, SegmentHeader
from haptera.storage.writer import create_empty

if TYPE_CHECKING:
    from haptera.storage.filesystem import FileSystem
    from haptera.storage.keyring import Keyring
    from haptera.storage.segment import LogPoint

__all__ = ["NewDirectory"]


class NewDirectory:
    """The directory from `make` to `finish`. `directory` has its paths, its new node id and its lock; the caller fills
    it with keys, snapshots and segments.
    """

    def __init__(self, directory: DataDirectory) -> None:
        self.directory = directory

    @classmethod
    def make(cls, fs: FileSystem, path: str) -> NewDirectory:
        """Make the directory with its lock and its folders.

        It must not exist, or be empty; its parent must exist. Raises StorageError, DirectoryInUse, DiskFull,
        DiskFailed.
        """
        cls.refuse_filled(fs, path)
        with translated(path, "make the data directory"):
            make_directory(fs, path)
        new = cls(DataDirectory.unidentified(fs, path))
        directory = new.directory
        try:
            with translated(directory.path, "make the data directory"):
                make_directory(fs, directory.log_path)
                make_directory(fs, directory.snapshots_path)
        except BaseException:
            new.close()
            raise
        directory.node_id = secrets.token_bytes(NODE_ID_SIZE)
        return new

    @staticmethod
    def refuse_filled(fs: FileSystem, path: str) -> None:
        """Raise StorageError if a directory at `path` holds something. To be asked before any long work for it."""
        try:
            with translated(path, "list the directory to be made"):
                names = set(fs.listdir(path))
        except DiskFailed as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return
            raise
        if NODE_NAME in names:
            raise StorageError(
                f"{path}: it is not empty, because it holds a store; name a directory that does not exist"
            )
        if names - {LOCK_NAME}:
            raise StorageError(f"{path}: it is not empty; if a crash left this of an earlier attempt, remove it")

    def begin_log(self, keyring: Keyring, point: LogPoint) -> None:
        """Make the empty segment with which the log goes on at `point`, where a snapshot stands.

        Raises DiskFull, DiskFailed.
        """
        directory, key = self.directory, keyring.newest
        header = SegmentHeader.new(point.next_segment, key, point.index + 1, point.tag, EMPTY_CAPACITY, synced=True)
        create_empty(directory.fs, directory.log_path, header, key, replaced=None)

    def finish(self, fs: FileSystem) -> None:
        """Make it a data directory that opens, in one step. Raises DiskFull, DiskFailed.

        All that it holds must be durable. Without a segment it is not complete: its first opening makes one, behind the
        snapshot that it holds. `fs` is the directory's own, or a view of it in which it is tried first.
        """
        directory = self.directory
        with translated(directory.node_path, "complete the data directory"):
            segments = any(segment_number(name) is not None for name in fs.listdir(directory.log_path))
            text = node_text(directory.node_id, DIRECTORY_FORMAT, complete=segments)
            write_file_atomically(fs, directory.path, NODE_NAME, text)

    def close(self) -> None:
        """Release the lock."""
        self.directory.close()

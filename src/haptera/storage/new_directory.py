"""A data directory that is being made of something else: of a backup, or of the state of another directory.

It says that it may lack changes of the store (`open-end`), so that its numbers are not given again. `node.toml` comes
last. A node refuses keys and a log without it, so a crash leaves the whole directory, or nothing that
opens. Where the making fails, what was made is removed.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from haptera.errors import StorageError
from haptera.storage.directory import (
    DIRECTORY_FORMAT,
    KEYS_NAME,
    LOCK_NAME,
    MASTER_KEY_NAME,
    NODE_ID_SIZE,
    NODE_NAME,
    DataDirectory,
    make_directory,
    node_text,
    segment_number,
)
from haptera.storage.errors import DiskFailed, translated
from haptera.storage.filesystem import TEMPORARY, write_file_atomically
from haptera.storage.open_end import OPEN_END_NAME, write_open_end
from haptera.storage.segment_format import EMPTY_CAPACITY, SegmentHeader
from haptera.storage.segment_writer import create_empty

if TYPE_CHECKING:
    from haptera.storage.filesystem import FileSystem
    from haptera.storage.keyring import Keyring
    from haptera.storage.segment_format import LogPoint

__all__ = ["NewDirectory"]


class NewDirectory:
    """The directory from `make` to `finish`. `directory` has its paths, its new node id and its lock; the caller fills
    it with keys, snapshots and segments.

    As a context it is closed at the end of the block, and removed if it is not finished then.
    """

    def __init__(self, directory: DataDirectory, *, was_there: bool) -> None:
        self.directory = directory
        self._was_there = was_there
        self._finished = False

    def __enter__(self) -> NewDirectory:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._end(error)

    @classmethod
    def make(cls, fs: FileSystem, path: str) -> NewDirectory:
        """Make the directory with its lock and its folders.

        It must not exist, or be empty; its parent must exist. Raises StorageError, DirectoryInUse, DiskFull,
        DiskFailed.
        """
        was_there = cls.refuse_filled(fs, path)
        with translated(path, "make the data directory"):
            make_directory(fs, path)
        new = cls(DataDirectory.unidentified(fs, path), was_there=was_there)
        directory = new.directory
        try:
            with translated(directory.path, "make the data directory"):
                make_directory(fs, directory.log_path)
                make_directory(fs, directory.snapshots_path)
            write_open_end(fs, directory.path)
        except BaseException as error:
            new._end(error)
            raise
        directory.node_id = secrets.token_bytes(NODE_ID_SIZE)
        return new

    @staticmethod
    def refuse_filled(fs: FileSystem, path: str) -> bool:
        """Raise StorageError if a directory at `path` holds something. To be asked before any long work for it.

        Returns whether there is a directory, which is empty.
        """
        try:
            with translated(path, "list the directory to be made"):
                names = set(fs.listdir(path))
        except DiskFailed as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return False
            raise
        if NODE_NAME in names:
            raise StorageError(
                f"{path}: it is not empty, because it holds a store; name a directory that does not exist"
            )
        if names - {LOCK_NAME}:
            raise StorageError(f"{path}: it is not empty; if a crash left this of an earlier attempt, remove it")
        return True

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
        self._finished = fs is directory.fs

    def _end(self, error: BaseException | None) -> None:
        """Close the directory, and remove it if it is not finished. The error is told of what cannot be removed."""
        try:
            if not self._finished:
                self._remove()
        except OSError as failed:
            if error is not None:
                error.add_note(f"remove what is left of {self.directory.path}, which could not be removed: {failed}")
        finally:
            self.close()

    def _remove(self) -> None:
        """Remove all that was made: first the file without which nothing opens it. Raises OSError."""
        directory, fs = self.directory, self.directory.fs
        names = fs.listdir(directory.path)
        for name in (NODE_NAME, KEYS_NAME, MASTER_KEY_NAME, OPEN_END_NAME):
            for each in {name, name + TEMPORARY}.intersection(names):
                fs.unlink(os.path.join(directory.path, each))
        for folder in (directory.log_path, directory.snapshots_path):
            if os.path.basename(folder) in names:
                for name in fs.listdir(folder):
                    fs.unlink(os.path.join(folder, name))
                fs.rmdir(folder)
        fs.unlink(os.path.join(directory.path, LOCK_NAME))
        if not self._was_there:
            fs.rmdir(directory.path)

    def close(self) -> None:
        """Release the lock."""
        self.directory.close()

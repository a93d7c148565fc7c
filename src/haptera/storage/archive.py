"""The archive: a directory, on another disk as a rule, that keeps each sealed segment of one node (storage-format 11).

    archive.toml            the format and the node whose archive it is, written first
    log/<number>.seg        sealed segments, byte for byte
    keys/<number>           each keyring that the node had, wrapped as it was

A file is copied to its name with .tmp behind it, synced, renamed, and its directory synced: a name stands for a whole
file, and no file is ever written again.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

import google_crc32c

from haptera.errors import CorruptionError
from haptera.storage.directory import (
    KEYRING_SIZE_MAX,
    LOG_NAME,
    NODE_ID_SIZE,
    make_directory,
    segment_name,
    segment_number,
)
from haptera.storage.errors import ForeignArchive, NewerFormat, WrongKey, translated
from haptera.storage.filesystem import TEMPORARY, create_anew, give_name, read_file, write_file_atomically
from haptera.storage.keyring import Keyring
from haptera.storage.keyring_format import WrappedKeyring
from haptera.storage.segment_format import SEGMENT_HEADER_SIZE
from haptera.storage.toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from haptera.storage.filesystem import File, FileSystem
    from haptera.storage.master_key import MasterKey

__all__ = ["Archive"]

ARCHIVE_FORMAT: Final = 1
IDENTITY_NAME: Final = "archive.toml"
KEYRINGS_NAME: Final = "keys"
_IDENTITY_SIZE_MAX: Final = 4096
#: Bytes copied at a time: a stop is noticed after each.
COPY_SIZE: Final = 1 << 20
_KEYRING_NAME: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)


class Stopped(Exception):
    """A copy was told to stop. The file that it made has no name of its own yet."""


class Archive:
    """The archive in the directory ``path`` of the node ``node_id``. All of it blocks."""

    def __init__(self, fs: FileSystem, path: str, node_id: bytes, masters: Sequence[MasterKey] = ()) -> None:
        """``masters`` are master keys that open keyrings of the archive beside the one of its reader."""
        self.path = path
        self.log_path: str = os.path.join(path, LOG_NAME)
        self.keyrings_path: str = os.path.join(path, KEYRINGS_NAME)
        self.node_id = node_id
        self.fs = fs
        self._masters = masters

    def create(self) -> None:
        """Make what is missing; the directory's parents are not made, so that a disk that is not mounted is noticed.

        Raises ForeignArchive, NewerFormat, CorruptionError, DiskFull, DiskFailed.
        """
        with translated(self.path, "make the archive"):
            make_directory(self.fs, self.path)
            if IDENTITY_NAME not in self.fs.listdir(self.path):
                self._write_identity()
            self.check()
            make_directory(self.fs, self.log_path)
            make_directory(self.fs, self.keyrings_path)

    def check(self) -> None:
        """Read whose archive it is. Raises ForeignArchive, NewerFormat, CorruptionError, DiskFailed (it is not there,
        because its disk is not mounted for instance).
        """
        path = os.path.join(self.path, IDENTITY_NAME)
        with translated(path, "read whose archive it is"):
            found = _parse(path, read_file(self.fs, path, _IDENTITY_SIZE_MAX))
        if found != self.node_id:
            raise ForeignArchive(self.path, self.node_id.hex(), found.hex())

    @classmethod
    def find(cls, fs: FileSystem, path: str, masters: Sequence[MasterKey] = ()) -> Archive:
        """The archive in a directory, of any node. Raises CorruptionError, NewerFormat, DiskFailed."""
        identity = os.path.join(path, IDENTITY_NAME)
        with translated(identity, "read whose archive it is"):
            return cls(fs, path, _parse(identity, read_file(fs, identity, _IDENTITY_SIZE_MAX)), masters)

    def segments(self) -> dict[int, str]:
        """The paths of the segments by their numbers, in order. Raises DiskFailed."""
        with translated(self.log_path, "list the archive"):
            numbers = [segment_number(name) for name in self.fs.listdir(self.log_path)]
        found = sorted(number for number in numbers if number is not None)
        return {number: os.path.join(self.log_path, segment_name(number)) for number in found}

    def keyrings(self) -> list[tuple[str, bytes]]:
        """(path, bytes) of the keyrings, oldest first. Raises DiskFailed."""
        with translated(self.keyrings_path, "read the keyrings of the archive"):
            return [
                (path, read_file(self.fs, path, KEYRING_SIZE_MAX))
                for path in (os.path.join(self.keyrings_path, name) for name in self._keyring_names())
            ]

    def with_keys(self, keyring: Keyring, master: MasterKey) -> Keyring:
        """The keys of a keyring and all of the archive, the newest last.

        Each archived keyring is opened with ``master`` or with one of the archive's own master keys. One that none of
        them opens is left out; the errors of the result name its master keys, because a file may be under a key in it.
        Raises WrongKey (a master key of the archive opens none of its keyrings), CorruptionError, DiskFailed.
        """
        keys = {key.id: key for key in keyring.keys}
        found = [WrappedKeyring(path, data) for path, data in self.keyrings()]
        closed: dict[str, None] = {}
        for wrapped in found:
            opener = next((each for each in (master, *self._masters) if each.id in wrapped.master_ids), None)
            if opener is not None:
                keys = {key.id: key for key in wrapped.unwrap(opener).keys} | keys
            else:
                closed |= dict.fromkeys(master_id.hex() for master_id in wrapped.master_ids)
        self._refuse_useless_keys(found)
        hint = (
            ""
            if not closed
            else (
                f"{self.keyrings_path} has keyrings under the master key {', '.join(closed)}, which is not given: "
                "--archive-master-key-file takes it"
            )
        )
        return Keyring(sorted(keys.values(), key=lambda key: (key.first_segment, key.created_ms)), hint)

    def add_keyring(self, data: bytes) -> None:
        """Keep the keyring ``data``, unless it is the newest already. Raises DiskFull, DiskFailed."""
        with translated(self.keyrings_path, "archive the keyring"):
            names = self._keyring_names()
            if names and read_file(self.fs, os.path.join(self.keyrings_path, names[-1]), KEYRING_SIZE_MAX) == data:
                return
            number = int(names[-1], 16) + 1 if names else 1
            write_file_atomically(self.fs, self.keyrings_path, f"{number:016x}", data)

    def holds(self, number: int, source: str) -> bool:
        """Whether the sealed segment ``source`` is in the archive.

        Raises CorruptionError where another segment of its number is, and DiskFailed.
        """
        path = os.path.join(self.log_path, segment_name(number))
        with translated(path, "look at the archived segment"):
            if segment_name(number) not in self.fs.listdir(self.log_path):
                return False
            ours, theirs = (_identity_of(self.fs, each) for each in (source, path))
        if ours != theirs:
            raise CorruptionError(path, 0, f"the segment {source}", "another segment of its number")
        return True

    def add(self, number: int, source: str, stopping: Callable[[], bool] = lambda: False) -> None:
        """Copy a sealed segment, durably. Raises DiskFull, DiskFailed, and Stopped once ``stopping`` says so."""
        name = segment_name(number)
        path = os.path.join(self.log_path, name)
        with translated(source, "read the segment for the archive"):
            segment = self.fs.open(source, "r")
        try:
            with translated(path, "archive the segment"):
                copy = create_anew(self.fs, path + TEMPORARY)
                try:
                    copy_content(segment, copy, stopping)
                    copy.fsync()  # its name says that it is whole
                finally:
                    copy.close()
                give_name(self.fs, self.log_path, name)  # durably: retention may remove the segment after this
        finally:
            segment.close()

    def _refuse_useless_keys(self, found: Iterable[WrappedKeyring]) -> None:
        openers = dict.fromkeys(master_id for wrapped in found for master_id in wrapped.master_ids)
        for master in self._masters:
            if master.id not in openers:
                ids = ", ".join(master_id.hex() for master_id in openers)
                raise WrongKey(self.keyrings_path, ids, master.id.hex(), "archive master key")

    def _write_identity(self) -> None:
        check = google_crc32c.value(self.node_id)
        text = f'format = {ARCHIVE_FORMAT}\nnode_id = "{self.node_id.hex()}"\ncheck = {check}\n'
        write_file_atomically(self.fs, self.path, IDENTITY_NAME, text.encode())

    def _keyring_names(self) -> list[str]:
        return sorted(name for name in self.fs.listdir(self.keyrings_path) if _KEYRING_NAME.fullmatch(name))


def copy_content(source: File, target: File, stopping: Callable[[], bool] = lambda: False) -> None:
    """Copy a file into an empty one, piece by piece. Raises OSError, and Stopped once ``stopping`` says so."""
    size = source.size()
    for offset in range(0, size, COPY_SIZE):
        if stopping():
            raise Stopped
        target.pwrite(source.pread(min(COPY_SIZE, size - offset), offset), offset)


def _identity_of(fs: FileSystem, path: str) -> tuple[int, bytes]:
    """The size of a segment and its header, which has a random id."""
    file = fs.open(path, "r")
    try:
        return file.size(), file.pread(SEGMENT_HEADER_SIZE, 0)
    finally:
        file.close()


def _parse(path: str, data: bytes) -> bytes:
    try:
        table = parse_toml(data)
        if type(table["format"]) is int and table["format"] > ARCHIVE_FORMAT:
            raise NewerFormat(path, table["format"], ARCHIVE_FORMAT)
        node_id = bytes.fromhex(table["node_id"])
        known = table["format"] == ARCHIVE_FORMAT and len(node_id) == NODE_ID_SIZE
        if known and table["check"] == google_crc32c.value(node_id):
            return node_id
    except (ValueError, KeyError, TypeError):
        pass
    raise CorruptionError(path, 0, f"format = {ARCHIVE_FORMAT}, a node_id in hex and its check", repr(data[:100]))

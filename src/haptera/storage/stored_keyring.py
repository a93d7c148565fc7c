"""The files of keys in a data directory: the keyring, and the master key where none is given (storage-format 2.2, 2.3).

The order of the writes is the promise: at any instant the keyring on the disk opens with the master key on the disk, or
with the given one. A file is replaced as a whole. A generated master key that is replaced is kept beside it, under its
id: the backups that were made before need it, and no one may have another copy.
"""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from haptera.errors import CorruptionError, StorageError
from haptera.secret_forms import size_of_no_key
from haptera.storage.data_key import DATA_KEY_SIZE, DataKey
from haptera.storage.directory import (
    KEYRING_SIZE_MAX,
    KEYS_NAME,
    MASTER_KEY_NAME,
    DataDirectory,
    segment_number,
)
from haptera.storage.errors import DiskFull, MissingKey, translated
from haptera.storage.filesystem import TEMPORARY, read_file, write_file_atomically
from haptera.storage.keyring import Keyring
from haptera.storage.keyring_format import WrappedKeyring, format_of_keys, wrap
from haptera.storage.master_key import MASTER_KEY_FORM, MasterKey
from haptera.storage.toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from haptera.storage.filesystem import FileSystem

__all__ = ["DATA_KEYS_MAX", "StoredKeyring", "kept_master_keys", "open_keyring", "unwrap_keyring"]

#: Data keys of one keyring. Each of them has retained data: a keyring is full when its key was changed this many times
#: within the time for which data is retained.
DATA_KEYS_MAX: Final = 256
#: Replaced master keys that are kept in one directory: a change each week for a year. The node removes none, because it
#: does not know the backups that need them.
MASTER_KEYS_KEPT_MAX: Final = 64
_KEPT_NAME: Final = re.compile(rf"{re.escape(MASTER_KEY_NAME)}\.[0-9a-f]{{16}}", re.ASCII)


class StoredKeyring(Keyring):
    """The keyring of an open data directory; each change is in its file before it is seen here.

    `master` is the master key that opens it, and `generated` whether that is kept beside the data. `unused_files` are
    the paths of generated keys that stand there although a given one opens it. After a change has failed the keyring is
    as it was before. Changes may come from several threads.
    """

    __slots__ = ("_changing", "_directory", "_masters", "generated", "unused_files")

    def __init__(
        self,
        directory: DataDirectory,
        keys: Iterable[DataKey],
        master: MasterKey,
        *,
        generated: bool,
        unused_files: Sequence[str],
    ) -> None:
        super().__init__(keys)
        self.generated: bool = generated
        self.unused_files: Sequence[str] = unused_files
        self._directory = directory
        self._changing = threading.Lock()
        #: Two while it is not known which of them opens the file: after a failure in the middle of a change.
        self._masters: tuple[MasterKey, ...] = (master,)

    @property
    def master(self) -> MasterKey:
        """The master key that opens the keyring."""
        return self._masters[0]

    def rotate(self) -> DataKey:
        """Add a data key, for the segments and snapshots that are made from now on.

        Raises StorageError (there are DATA_KEYS_MAX already), DiskFull, DiskFailed.
        """
        directory = self._directory
        with self._changing, translated(directory.log_path, "look for the newest segment"):
            if len(self._keys) >= DATA_KEYS_MAX:
                raise StorageError(
                    f"{directory.keys_path}: {len(self._keys)} data keys are in use, and there may be no more: "
                    "data is kept under each of them"
                )
            # The newest segment may be empty, and is then made again under the new key.
            newest = max(filter(None, map(segment_number, directory.fs.listdir(directory.log_path))), default=1)
            key = DataKey.new(first_segment=newest)
            self._replace((*self._keys, key), self._masters)
        return key

    def drop_unused(self, used: Callable[[], Collection[bytes]]) -> list[DataKey]:
        """Drop the data keys that nothing uses, but never the newest. Returns those that were dropped.

        `used` collects the ids in the headers of all files that are still to be read; no file may be in the making
        under an older key meanwhile. Raises DiskFull, DiskFailed.
        """
        older = self._keys[:-1]  # before the files are looked at: what is made from here on is under a newer key
        in_use = used() if older else ()
        dropped = [key for key in older if key.id not in in_use]
        if dropped:
            with self._changing:
                self._replace(tuple(key for key in self._keys if key not in dropped), self._masters)
        return dropped

    def change_master(self, new: MasterKey) -> None:
        """Encrypt the data keys under a given master key in place of the one that they are under, and give the file of
        a generated one the name under which it is kept. Called again with the same key, it finishes a change that was
        interrupted.

        Raises StorageError (MASTER_KEYS_KEPT_MAX are kept already, or the file holds no master key), DiskFull,
        DiskFailed: the keyring is then under the one key, or the other, or both.
        """
        directory = self._directory
        with self._changing, translated(directory.master_key_path, "keep the generated master key"):
            generated = _read_master(directory)
            if generated is not None:
                _refuse_more_kept(directory, generated)
            self._change_to(new)
            self.generated = False
            if generated is not None:
                directory.fs.rename(directory.master_key_path, _kept_path(directory, generated))
                directory.fs.sync_directory(directory.path)
            self.unused_files = kept_master_keys(directory.fs, directory.path)

    def change_generated_master(self) -> None:
        """Replace the generated master key by another one, and keep it under another name.

        It is kept first; then the keyring is under both before the file changes, and under the new one alone after
        that. Raises StorageError (MASTER_KEYS_KEPT_MAX are kept already), DiskFull, DiskFailed: the keyring then opens
        with the key that the file holds.
        """
        directory = self._directory
        with self._changing:
            old, new = self.master, MasterKey.new()
            for master in self._masters:
                _refuse_more_kept(directory, master)
                _write(directory, os.path.basename(_kept_path(directory, master)), master.format())
            if len(self._masters) > 1:  # a change has failed, and either key may be in its file, durably or not
                self._replace(self._keys, self._masters)
                _write(directory, MASTER_KEY_NAME, old.format())
            self._masters = (old, new)
            self._replace(self._keys, self._masters)
            _write(directory, MASTER_KEY_NAME, new.format())
            self._change_to(new)

    def _change_to(self, new: MasterKey) -> None:
        self._masters = (self.master, new) if new.id != self.master.id else (new,)
        self._replace(self._keys, [new])
        self._masters = (new,)

    def _replace(self, keys: tuple[DataKey, ...], masters: Iterable[MasterKey]) -> None:
        _write(self._directory, KEYS_NAME, wrap(Keyring(keys), masters))
        self._keys = keys


def open_keyring(directory: DataDirectory, master: MasterKey | None = None) -> StoredKeyring:
    """Open the keyring of a directory with the given master key, or with the one that is generated beside the data.

    In a directory that is not complete, a missing keyring is made if there is no segment, and one of format 1 becomes
    one of this format. Nothing is changed where the keyring cannot be opened. Raises MissingKey, WrongKey,
    CorruptionError, NewerFormat, DiskFull, DiskFailed. See storage-format 2.2.
    """
    path = directory.keys_path
    with translated(path, "read the keyring"):
        data = _content(directory, KEYS_NAME)
    if data is None:
        keyring = _new(directory, master, [_first_key(directory)])
    elif directory.format == 1 and format_of_keys(path, data) == 1:
        keyring = _new(directory, master, [_parse_plain(path, data)])
    else:
        keyring = _read(directory, master, WrappedKeyring(path, data))
    with translated(path, "remove what a crash has left beside the keyring"):
        _remove_leftovers(directory)
    return keyring


def kept_master_keys(fs: FileSystem, path: str) -> list[str]:
    """The paths of the replaced master keys that a data directory keeps. Raises DiskFailed."""
    with translated(path, "look for master keys"):
        return sorted(os.path.join(path, name) for name in fs.listdir(path) if _KEPT_NAME.fullmatch(name))


def unwrap_keyring(file: str, data: bytes, master: MasterKey) -> Keyring:
    """The keyring in the content of `file`, a copy of a directory's. Raises WrongKey, CorruptionError, NewerFormat."""
    return WrappedKeyring(file, data).unwrap(master)


def _new(directory: DataDirectory, master: MasterKey | None, keys: list[DataKey]) -> StoredKeyring:
    """Make the file of a keyring: first the master key, if it is to be beside the data, and then what it opens."""
    opener = master or _read_master(directory)
    if opener is None:
        opener = MasterKey.new()
        _write(directory, MASTER_KEY_NAME, opener.format())
    _write(directory, KEYS_NAME, wrap(Keyring(keys), [opener]))
    return _stored(directory, keys, master, opener)


def _read(directory: DataDirectory, master: MasterKey | None, wrapped: WrappedKeyring) -> StoredKeyring:
    opener = master or _read_generated(directory, wrapped)
    keyring = wrapped.unwrap(opener)
    if len(wrapped.master_ids) > 1:
        # A change of the master key was interrupted, and the key at hand is the one to go on with. On a full disk that
        # has to wait for the next opening.
        with suppress(DiskFull):
            _write(directory, KEYS_NAME, wrap(keyring, [opener]))
    return _stored(directory, keyring.keys, master, opener)


def _stored(
    directory: DataDirectory, keys: Iterable[DataKey], given: MasterKey | None, opener: MasterKey
) -> StoredKeyring:
    unused: list[str] = []
    if given is not None:
        unused = kept_master_keys(directory.fs, directory.path)
        with translated(directory.path, "look for a generated master key"):
            if MASTER_KEY_NAME in directory.fs.listdir(directory.path):
                unused.append(directory.master_key_path)
    return StoredKeyring(directory, keys, opener, generated=given is None, unused_files=unused)


def _first_key(directory: DataDirectory) -> DataKey:
    """The first data key of a directory, where nothing can be under another one."""
    with translated(directory.keys_path, "look for a log beside the keyring"):
        segments = any(segment_number(name) is not None for name in directory.fs.listdir(directory.log_path))
    if directory.complete or segments:
        raise MissingKey(directory.keys_path)
    return DataKey.new(first_segment=1)


def _read_generated(directory: DataDirectory, wrapped: WrappedKeyring) -> MasterKey:
    master = _read_master(directory)
    if master is None:
        ids = ", ".join(master_id.hex() for master_id in wrapped.master_ids)
        raise MissingKey(
            directory.master_key_path, f"no master key is given: the keyring is encrypted under the master key {ids}"
        )
    return master


def _read_master(directory: DataDirectory) -> MasterKey | None:
    path = directory.master_key_path
    with translated(path, "read the generated master key"):
        data = _content(directory, MASTER_KEY_NAME)
    master = MasterKey.parse(data) if data is not None else None
    if data is not None and master is None:
        raise CorruptionError(path, 0, MASTER_KEY_FORM, size_of_no_key(data))
    return master


def _parse_plain(path: str, data: bytes) -> DataKey:
    """The data key of a file of format 1, which holds it in the clear."""
    try:
        table = parse_toml(data)
        key = DataKey.of(bytes.fromhex(table["key"]))
        if len(key.secret) == DATA_KEY_SIZE and key.id == bytes.fromhex(table["id"]):
            return key
    except (ValueError, KeyError, TypeError):
        pass  # never quote the text: it may be most of the key
    raise CorruptionError(path, 0, "a data key and the id that follows from it", "something else")


def _content(directory: DataDirectory, name: str) -> bytes | None:
    """The content of a file of the directory; None if it is not there. Raises OSError."""
    try:
        return read_file(directory.fs, f"{directory.path}/{name}", KEYRING_SIZE_MAX + 1)
    except FileNotFoundError:
        return None


def _remove_leftovers(directory: DataDirectory) -> None:
    """Remove the files of keys that a crash left unfinished: one may hold a secret. Raises OSError."""
    for name in directory.fs.listdir(directory.path):
        whole = name.removesuffix(TEMPORARY)
        if whole != name and (whole in {KEYS_NAME, MASTER_KEY_NAME} or _KEPT_NAME.fullmatch(whole)):
            directory.fs.unlink(f"{directory.path}/{name}")


def _kept_path(directory: DataDirectory, master: MasterKey) -> str:
    """The place of a master key that is kept although it opens the keyring no longer."""
    return f"{directory.master_key_path}.{master.id.hex()}"


def _refuse_more_kept(directory: DataDirectory, master: MasterKey) -> None:
    kept = kept_master_keys(directory.fs, directory.path)
    if len(kept) >= MASTER_KEYS_KEPT_MAX and _kept_path(directory, master) not in kept:
        raise StorageError(
            f"{directory.path}: {len(kept)} replaced master keys are kept, and there may be no more: put those "
            f"that backups need elsewhere, and remove {kept[0]} and the others"
        )


def _write(directory: DataDirectory, name: str, data: bytes) -> None:
    with translated(f"{directory.path}/{name}", "write the file of keys"):
        write_file_atomically(directory.fs, directory.path, name, data)

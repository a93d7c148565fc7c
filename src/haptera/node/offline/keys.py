"""The keys and the format of a data directory that no node has open: rotation, and migration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from haptera.errors import ConfigurationError
from haptera.node.key_rotation import CurrentKeys
from haptera.node.master_key import MasterKeySource
from haptera.storage import (
    DIRECTORY_FORMAT,
    DataDirectory,
    Log,
    OverlayFileSystem,
    StoredKeyring,
    open_keyring,
)

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.storage import FileSystem, MasterKey

__all__ = ["Migration", "change_master_key", "migrate", "rotate_data_key"]


class Migration(msgspec.Struct, frozen=True):
    """The formats of a directory before and after a migration, and how many entries were read for it."""

    from_format: int
    to_format: int
    entries: int
    keys: CurrentKeys

    @property
    def needed(self) -> bool:
        """Whether there was anything to do."""
        return self.from_format != self.to_format


def rotate_data_key(fs: FileSystem, config: NodeConfig) -> CurrentKeys:
    """Make a data key for all that a node writes from its next start on.

    Raises StorageError (DirectoryInUse while a node runs), ConfigurationError.
    """
    with _opened(fs, config) as opened:
        opened.keyring.rotate()
        return opened.current()


def change_master_key(fs: FileSystem, config: NodeConfig, new: MasterKey | None) -> CurrentKeys:
    """Put the data keys under a given master key; with None, under another generated one.

    Raises StorageError (DirectoryInUse while a node runs), ConfigurationError (there is no generated key to replace).
    """
    with _opened(fs, config) as opened:
        keyring = opened.keyring
        if new is not None:
            keyring.change_master(new)
        elif keyring.generated:
            keyring.change_generated_master()
        else:
            raise ConfigurationError("the master key is a given one: --new-master-key-file has to give the new one")
        return opened.current()


def migrate(fs: FileSystem, config: NodeConfig, *, check: bool) -> Migration:
    """Bring a directory to the newest format; with `check`, in memory alone, and nothing is changed.

    Its log is read and checked on the way. Raises StorageError, ConfigurationError.
    """
    view = OverlayFileSystem(fs) if check else None
    try:
        with _opened(view or fs, config) as opened:
            return Migration(opened.directory.format, DIRECTORY_FORMAT, opened.entries, opened.current())
    finally:
        if view is not None:
            view.close()


class _Opened:
    """An open directory of the newest format. `entries` counts those that were read to migrate it."""

    def __init__(self, source: MasterKeySource, directory: DataDirectory, keyring: StoredKeyring) -> None:
        self.directory = directory
        self.keyring = keyring
        self._source = source
        self.entries = self._migrate() if directory.format < DIRECTORY_FORMAT else 0

    def current(self) -> CurrentKeys:
        return CurrentKeys(self.keyring.newest.id, self.keyring.master.id, self._source.origin)

    def _migrate(self) -> int:
        """Recover the log, as the start of a node does, which completes the migration."""
        log = Log.open(self.directory.fs, self.directory, self.keyring)
        try:
            return sum(1 for _ in log.replay())
        finally:
            log.close()


@contextmanager
def _opened(fs: FileSystem, config: NodeConfig) -> Iterator[_Opened]:
    source = MasterKeySource(config)
    master = source.read()
    directory = DataDirectory.open(fs, config.data_dir, create=False)
    try:
        yield _Opened(source, directory, open_keyring(directory, master))
    finally:
        directory.close()

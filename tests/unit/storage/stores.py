"""A small store for the storage tests: a data directory, its key and its log, opened as a node opens them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from haptera.errors import StorageError
from haptera.storage import DataDirectory, Log, LogEntry, LogPoint, check_directory, open_keyring

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.storage import Durability, FileSystem, MasterKey, StoredKeyring

PATH = "data"
LOG_PATH = "data/log"
SNAPSHOTS_PATH = "data/snapshots"
#: Room for a few small entries, so that a dozen fill several segments.
SEGMENT_SIZE = 400


def entry(index: int, size: int = 24) -> LogEntry:
    """The entry that the tests write at an index: its content says which it is."""
    return LogEntry(1 + index // 5, index, 1_700_000_000_000 + index // 3, (b"%d " % index * size)[:size])


def entries(count: int, size: int = 24) -> list[LogEntry]:
    return [entry(index, size) for index in range(1, count + 1)]


def check_soundness(fs: FileSystem, path: str = PATH) -> None:
    """Fail if the check of the directory finds damage, which no crash leaves; there may be no directory yet."""
    try:
        found = check_directory(fs, path, open_keyring)
    except StorageError as error:
        assert "there is no data directory" in str(error)  # noqa: PT017  # anything else is damage
    else:
        assert not found.findings.damaged, list(found.findings)


class Store:
    """An open store. `entries` is what was replayed."""

    def __init__(self, directory: DataDirectory, keyring: StoredKeyring, log: Log) -> None:
        self.directory = directory
        self.keyring = keyring
        self.log = log
        self.entries = list(log.replay())

    @classmethod
    def open(
        cls,
        fs: FileSystem,
        path: str = PATH,
        *,
        segment_size: int = SEGMENT_SIZE,
        durability: Durability = "sync",
        master: MasterKey | None = None,
        start: LogPoint = LogPoint.START,
    ) -> Store:
        directory = DataDirectory.open(fs, path)
        try:
            keyring = open_keyring(directory, master)
            log = Log.open(fs, directory, keyring, start=start, segment_size=segment_size, durability=durability)
            return cls(directory, keyring, log)
        except BaseException:
            directory.close()
            raise

    def append(self, count: int, size: int = 24) -> None:
        """Append entries, every other one as a prepared record where there may be one: as a node with a ring does."""
        for index in range(self.log.last_index + 1, self.log.last_index + count + 1):
            new = entry(index, size)
            if index % 2 or not self.write_prepared(new):
                self.log.append(new)

    def write_prepared(self, new: LogEntry) -> bool:
        """Write the next entry as a prepared record. False where that is not to be."""
        record = self.log.prepare(new)
        if record is None:
            return False
        self.log.finish(record, record.attempt())
        return True

    def close(self) -> None:
        try:
            self.log.close()
        finally:
            self.directory.close()


@contextmanager
def opened(
    fs: FileSystem, path: str = PATH, *, durability: Durability = "sync", master: MasterKey | None = None
) -> Iterator[Store]:
    store = Store.open(fs, path, durability=durability, master=master)
    try:
        yield store
    finally:
        store.close()

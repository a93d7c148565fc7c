"""The n-th call to the file system fails, for every n: never a wrong answer, and nothing acknowledged is lost."""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from haptera.errors import StorageError
from haptera.storage import DataDirectory, Log, open_keyring
from haptera.storage.errors import DiskFailed, DiskFull
from haptera.testing.filesystem import MemoryFileSystem
from tests.support.thinned import some, thinned
from tests.unit.storage.stores import PATH, SEGMENT_SIZE, entries, entry, opened

if TYPE_CHECKING:
    from haptera.storage import Durability

OPENINGS = 3
APPENDS = 7


#: The calls that note, before the first append, that a loss of power may take changes.
NOTES = {
    ("pwrite", f"{PATH}/open-end.tmp"),
    ("fsync", f"{PATH}/open-end.tmp"),
    ("rename", f"{PATH}/open-end"),
    ("sync_directory", PATH),
}


def open_log(fs: MemoryFileSystem, durability: Durability) -> tuple[DataDirectory, Log]:
    directory = DataDirectory.open(fs, PATH)
    try:
        keyring = open_keyring(directory)
        log = Log.open(fs, directory, keyring, segment_size=SEGMENT_SIZE, durability=durability)
        replayed = list(log.replay())
        assert replayed == entries(len(replayed))
    except StorageError:
        directory.close()
        raise
    return directory, log


def append(log: Log) -> int:
    """Append the next entry, and once more if the disk was full. Returns its index."""
    index = log.last_index + 1
    try:
        log.append(entry(index))
    except DiskFull:
        log.append(entry(index))
    return index


def work(fs: MemoryFileSystem, durability: Durability) -> tuple[int, list[StorageError]]:
    """Open, append, close, several times. Returns the last acknowledged index, and the errors."""
    acknowledged = 0
    errors: list[StorageError] = []
    for _ in range(OPENINGS):
        try:
            directory, log = open_log(fs, durability)
        except StorageError as error:
            errors.append(error)
            directory, log = open_log(fs, durability)  # the fault is over
        assert log.last_index >= acknowledged
        try:
            for _ in range(APPENDS):
                acknowledged = append(log)
        except StorageError as error:
            errors.append(error)
            with pytest.raises(DiskFailed):
                append(log)
            acknowledged = acknowledged if durability == "sync" else 0  # a sync that fails at last may lose it all
        try:
            log.close()
        except StorageError as error:
            errors.append(error)
            acknowledged = acknowledged if durability == "sync" else 0
        directory.close()
    return acknowledged, errors


@thinned(3)
@pytest.mark.parametrize("durability", ["sync", "os"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_any_call_fails(number: int, durability: Durability, step: int) -> None:
    whole = MemoryFileSystem()
    assert work(whole, durability) == (OPENINGS * APPENDS, [])
    for at in some(range(1, len(whole.calls) + 1), step):
        fs = MemoryFileSystem()
        fs.fail_at, fs.fail_with = at, number
        acknowledged, errors = work(fs, durability)
        call = fs.calls[at - 1]
        silent = call in {("truncate", f"{PATH}/lock"), ("pwrite", f"{PATH}/lock")}
        retried = number != errno.EIO and (
            call[0] in {"create", "allocate", "listdir", "open", "pread"} or call in NOTES
        )
        assert len(errors) == 1 or silent or retried, call
        if durability == "sync":
            for loss in ("drop", "keep"):
                with opened(fs.power_failure(loss)) as store:
                    assert store.entries == entries(store.log.last_index), call
                    assert store.log.last_index >= acknowledged, call
        with opened(fs.restart()) as store:
            assert store.entries == entries(store.log.last_index), call
            assert store.log.last_index >= acknowledged, call


@pytest.mark.parametrize(
    "call", ["pwrite", "fdatasync", "fsync", "truncate", "sync_directory", "pread", "open", "size"]
)
def test_a_disk_that_stays_broken_is_never_a_wrong_answer(call: str) -> None:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(10)
        last = store.log.last_index
        fs.failing = frozenset({call})
        with suppress(DiskFailed):
            store.append(20)
        with suppress(DiskFailed):
            store.close()
        with suppress(DiskFailed), opened(fs) as again:
            assert again.entries == entries(again.log.last_index)
            assert again.log.last_index >= last
        fs.failing = frozenset()
    with opened(fs.power_failure("drop")) as store:
        assert store.log.last_index >= last
        assert store.entries == entries(store.log.last_index)

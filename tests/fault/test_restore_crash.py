"""A recovery into a new directory is stopped after every call, with every loss of power: what is left does not open, or
is whole. And each call of it fails: then nothing is left that opens, and the error says so.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError, StorageError
from haptera.node import NodeConfig, Timeline, build_directory, salvage, verify
from haptera.storage import open_keyring
from haptera.testing.filesystem import Crashed, MemoryFileSystem
from tests.fault.test_storage_crash import LOSSES
from tests.support.stops import lose, stops
from tests.unit.node.offline.directories import CONFIG, PATH, Recorded, opened

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = NodeConfig(data_dir="target", segment_size=CONFIG.segment_size)
REVISION = 41
#: The process id in the lock is for people; a failure to write it is no failure.
UNTOLD = {("truncate", "target/lock"), ("pwrite", "target/lock")}


def restore(fs: MemoryFileSystem) -> None:
    build_directory(fs, TARGET, open_keyring, Timeline(fs, PATH, open_keyring).at_revision(REVISION))


def save(fs: MemoryFileSystem) -> None:
    salvage(fs, CONFIG, TARGET, open_keyring)


def source() -> MemoryFileSystem:
    fs = MemoryFileSystem()
    Recorded(fs, 11, entries=30, snapshot_each=12).durable.close()
    fs = fs.power_failure("drop")
    newest = f"{PATH}/log/{sorted(fs.listdir(f'{PATH}/log'))[-2]}"
    data = bytearray(fs.read(newest))
    data[-50] ^= 1  # so that a salvage has something to do
    fs.write(newest, bytes(data))
    return fs


def files(fs: MemoryFileSystem) -> dict[str, bytes]:
    folders = (PATH, f"{PATH}/log", f"{PATH}/snapshots")
    names = [f"{folder}/{name}" for folder in folders for name in fs.listdir(folder)]
    return {name: fs.read(name) for name in names if name not in folders and not name.endswith("lock")}


def digest_of(fs: MemoryFileSystem) -> bytes:
    durable = opened(fs, TARGET)
    try:
        return durable.machine.digest()
    finally:
        durable.close()


def check_target(fs: MemoryFileSystem, expected: bytes, *, whole: bool = False) -> bool:
    """Fail unless the target is whole, or nothing that opens; return which."""
    begun = "target" in fs.listdir("") and "keys" in fs.listdir("target")
    try:
        found = digest_of(fs)
    except CorruptionError:
        assert not whole
        return False
    if not begun:  # an empty directory is where a node makes a new store
        assert not whole
        return False
    assert found == expected
    assert verify(fs, TARGET, open_keyring).sound
    return True


@pytest.mark.parametrize("work", [restore, save])
@pytest.mark.parametrize(("loss", "seed"), LOSSES)
def test_a_crash_after_any_call_leaves_the_whole_directory_or_none(
    work: Callable[[MemoryFileSystem], None], loss: str, seed: int
) -> None:
    start = source()
    before = files(start)
    stopped = stops(work, lambda: None, start)
    expected = digest_of(lose(stopped[-1].fs, "killed", 0))
    outcomes = []
    for stop in stopped:
        left = lose(stop.fs, loss, seed)
        assert files(left) == before, "the source stays as it is"
        outcomes.append(check_target(left, expected, whole=stop is stopped[-1]))
    assert outcomes == sorted(outcomes), "once it is whole, it stays"


@pytest.mark.parametrize("work", [restore, save])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_each_call_that_fails_leaves_nothing_that_opens(work: Callable[[MemoryFileSystem], None], number: int) -> None:
    start = source()
    before = files(start)
    done = deepcopy(start)
    work(done)
    expected = digest_of(done.restart())
    refused = 0
    for call in done.changes():
        fs = deepcopy(start)
        fs.fail_at, fs.fail_with = call, number
        try:
            work(fs)
        except StorageError:
            refused += 1
            fs.fail_at = None
            if check_target(left := fs.power_failure("drop"), expected):
                # The last sync failed: the name was there, and the disk has it now and then.
                assert call == done.changes()[-1]
            assert files(left) == before
    told = [call for call in done.changes() if done.calls[call - 1] not in UNTOLD]
    assert refused == len(told)


def test_a_target_that_a_crash_left_is_refused_and_can_be_made_once_it_is_removed() -> None:
    fs = source()
    done = deepcopy(fs)
    restore(done)
    fs.stop_after = done.changes()[-3]
    with suppress(Crashed):
        restore(fs)
    fs.stop_after = None
    fs = fs.restart()
    with pytest.raises(StorageError, match="target: it is not empty; if a crash left this"):
        restore(fs)

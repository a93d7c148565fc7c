"""Flip each byte of a small store with snapshots, cut its files at each length: the same state, or a refusal.

And the n-th call to the file system fails, for every n.
"""

from __future__ import annotations

import asyncio
import errno
from functools import cache
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.errors import StorageError
from haptera.node.offline.pitr import Timeline
from haptera.node.snapshots.keeper import Current
from haptera.storage import find_snapshots, open_keyring
from haptera.storage.errors import DiskFailed, DiskFull
from haptera.testing import node, virtual_clock
from haptera.testing.filesystem import MemoryFileSystem
from tests.support.thinned import some, thinned
from tests.unit.node.stored_state import LOG_PATH, PATH, SNAPSHOTS_PATH, StoredState, digest_after, stored

if TYPE_CHECKING:
    from collections.abc import Callable

TOTAL = 7

digest = cache(digest_after)


def small_store() -> MemoryFileSystem:
    """Two snapshots, and no log before the first of them."""
    fs = MemoryFileSystem()
    with stored(fs) as state:
        state.write(2)
        first = state.snapshot()
        state.write(2)
        state.snapshot()
        state.write(TOTAL - 4)
        assert first.point is not None
        state.log.forget_before(first.point.next_segment)
    return fs.power_failure("drop")


def paths(fs: MemoryFileSystem) -> list[str]:
    """The snapshots and the segments, without the reserve, whose bytes mean nothing."""
    found = [f"{folder}/{name}" for folder in (SNAPSHOTS_PATH, LOG_PATH) for name in sorted(fs.listdir(folder))]
    return [path for path in found if path.endswith((".snap", ".seg"))]


def outcome(fs: MemoryFileSystem) -> int | None:
    """The index of the state that opens, which is whole; None for a refusal."""
    try:
        with stored(fs) as state:
            assert state.machine.digest() == digest(state.machine.index)
            return state.machine.index
    except StorageError:
        return None


@thinned(4)
@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_each_byte_flipped(mask: int, step: int) -> None:
    whole = small_store()
    refused = 0
    for path in paths(whole):
        data = whole.read(path)
        for at in some(range(len(data)), step):
            fs = whole.power_failure("keep")
            fs.write(path, data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
            found = outcome(fs)
            if path.startswith(SNAPSHOTS_PATH):
                assert found == TOTAL, (path, at)
            else:
                assert found in {None, TOTAL}, (path, at)
            refused += found is None
    assert refused > 500 // step


@thinned(4)
def test_each_file_cut_at_each_length(step: int) -> None:
    whole = small_store()
    last = paths(whole)[-1]
    for path in paths(whole):
        data = whole.read(path)
        for length in some(range(len(data)), step):
            fs = whole.power_failure("keep")
            fs.write(path, data[:length])
            found = outcome(fs)
            if path.startswith(SNAPSHOTS_PATH):
                assert found == TOTAL, (path, length)
            elif path != last:  # the end of the log may have been cut off where a record ends
                assert found in {None, TOTAL}, (path, length)


def test_each_file_missing() -> None:
    whole = small_store()
    for path in paths(whole)[:-1]:
        fs = whole.power_failure("keep")
        fs.unlink(path)
        assert outcome(fs) in {None, TOTAL}, path
    fs = whole.power_failure("keep")
    for file in find_snapshots(fs, SNAPSHOTS_PATH):
        fs.unlink(file.path)
    assert outcome(fs) is None, "the log begins behind them"


@pytest.mark.parametrize("damage", [lambda data: bytes(len(data)), lambda data: b"\xff" * len(data), lambda data: b""])
def test_each_snapshot_replaced_by_something_else(damage: Callable[[bytes], bytes]) -> None:
    whole = small_store()
    snapshots = find_snapshots(whole, SNAPSHOTS_PATH)
    for file in snapshots:
        fs = whole.power_failure("keep")
        fs.write(file.path, damage(fs.read(file.path)))
        assert outcome(fs) == TOTAL
    fs = whole.power_failure("keep")
    fs.write(snapshots[0].path, fs.read(snapshots[1].path))
    assert outcome(fs) == TOTAL


@virtual_clock
async def test_a_snapshot_that_is_damaged_while_the_node_runs_is_no_beginning_of_history() -> None:
    """Retention would else remove the snapshot before it, without which it is of no use."""
    fs = MemoryFileSystem()
    async with node(storage=fs, listen=["haptera://node:7457"], retain_for=100.0) as url, haptera.connect(url) as db:
        keeper = url.node.snapshots
        for number, at_s in ((1, 0.0), (2, 60.0), (3, 120.0)):
            await asyncio.sleep(at_s - asyncio.get_running_loop().time())
            await db.set("key", b"%d" % number)
            made = await keeper.request()
            assert isinstance(made, Current)
            if number == 2:
                path = f"{SNAPSHOTS_PATH}/{made.index:016x}.snap"
                fs.write(path, fs.read(path)[:-1])
        assert [each.whole for each in keeper.retention.snapshots] == [True, False, True]
        await asyncio.sleep(45.0)
        await db.set("key", b"4")
        assert isinstance(await keeper.request(), Current)  # the second snapshot is older than the bound by now
    timeline = Timeline(fs.restart(), PATH, open_keyring)
    assert [timeline.at_revision(revision).machine.revision for revision in (2, 3, 4)] == [2, 3, 4]


def work(fs: MemoryFileSystem) -> tuple[int, int]:
    """Write, snapshot, forget, over several openings, whatever fails. The last acknowledged index, and the errors."""
    acknowledged = errors = 0
    for _ in range(3):
        try:
            state = StoredState.begin(fs)
        except StorageError:
            errors += 1
            state = StoredState.begin(fs)  # the fault is over
        assert state.machine.index >= acknowledged
        assert state.machine.digest() == digest(state.machine.index)
        try:
            for _ in range(3):
                state.write(1)
                acknowledged = state.machine.index
            try:
                state.snapshot()
            except DiskFull:
                errors += 1
                state.snapshot()
            except DiskFailed:
                errors += 1  # a snapshot that fails is no reason to end, unless it was the log that failed
            newest = find_snapshots(fs, SNAPSHOTS_PATH)
            state.write(1)
            acknowledged = state.machine.index
            if len(newest) > 1 and newest[1].point is not None:
                state.log.forget_before(newest[1].point.next_segment)
        except StorageError:
            errors += 1
        try:
            state.close()
        except StorageError:
            errors += 1
    return acknowledged, errors


@thinned(4)
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_any_call_fails(number: int, step: int) -> None:
    whole = MemoryFileSystem()
    assert work(whole) == (12, 0)
    for at in some(range(1, len(whole.calls) + 1), step):
        fs = MemoryFileSystem()
        fs.fail_at, fs.fail_with = at, number
        acknowledged, errors = work(fs)
        call = fs.calls[at - 1]
        assert errors <= 2, call
        for left in (fs.power_failure("drop"), fs.power_failure("keep"), fs.restart()):
            with stored(left) as state:
                assert state.machine.index >= acknowledged, call
                assert state.machine.digest() == digest(state.machine.index), call

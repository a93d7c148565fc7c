"""Stop a node after every call of a snapshot and of retention, take the power away in every way, and start again.

The second process is run inline: it makes the same calls in the same order, and a crash of the machine is one for both.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from functools import cache

import pytest

from haptera.errors import StorageError
from haptera.node.config import NodeConfig
from haptera.node.recovery import DurableState
from haptera.node.snapshots.decision import Bounds, SegmentFile, Snapshot, decide
from haptera.node.snapshots.disposal import dispose
from haptera.node.snapshots.making import make_snapshot
from haptera.state import Logged, encode_commands, operations
from haptera.storage import LogEntry, find_snapshots, remove_unfinished_snapshots
from haptera.testing.filesystem import MemoryFileSystem
from tests.support.stops import Stop, left_by, stops
from tests.support.thinned import some, thinned

#: Losses by power failure, and the steps between the calls to stop after. The long run stops after each.
LOSSES: list[tuple[str, int, int]] = [
    ("killed", 0, 3),
    ("drop", 0, 1),
    ("keep", 0, 3),
    *(("tear", seed, 9) for seed in range(3)),
    *(("reorder", seed, 18) for seed in range(6)),
]
EVERY_LOSS = [(loss, seed, 1) for loss, seed, step in LOSSES if step > 1]
PATH = "/data"
#: Bytes of the events of a snapshot.
EVENTS_SIZE = 1 << 20
#: Room for two entries.
SEGMENT_SIZE = 500
#: Room for two snapshots and the log between them.
RETAINED = 2400
CONFIG = NodeConfig(data_dir=PATH, listen=(), segment_size=64 * 1024)
ENTRIES = 26


def entry(index: int) -> LogEntry:
    """Three keys are overwritten in turn; a value says which entry wrote it."""
    command = Logged(operations.Set(f"key{index % 3}", b"%d " % index * 20))
    return LogEntry(1, index, index * 1000, encode_commands([command]))


def expected(index: int) -> dict[str, bytes]:
    """The store after the entry of this index."""
    return {f"key{each % 3}": b"%d " % each * 20 for each in range(max(1, index - 2), index + 1)}


def started(fs: MemoryFileSystem) -> DurableState:
    state = DurableState(CONFIG, fs)
    try:
        state.open()
    except BaseException:
        with suppress(StorageError):
            state.close()
        raise
    state.log.segment_size = SEGMENT_SIZE
    return state


def snapshot(state: DurableState) -> None:
    """Roll the log, make a snapshot of all of it, and remove what is beyond the bounds."""
    fs, directory, log = state.directory.fs, state.directory, state.log
    point = log.roll()
    try:
        make_snapshot(fs, directory.path, state.keyring, point, EVENTS_SIZE, lambda: None, [])
    except StorageError:
        remove_unfinished_snapshots(fs, directory.snapshots_path)
        return
    dispose(fs, log, directory.snapshots_path, planned(state))


def planned(state: DurableState):  # type: ignore[no-untyped-def]  # as `decide` returns it
    found = sorted(find_snapshots(state.directory.fs, state.directory.snapshots_path), key=lambda file: file.index)
    snapshots = [
        Snapshot(file.index, file.point.next_segment, file.point.time_ms, file.size_bytes)
        for file in found
        if file.point is not None
    ]
    segments = [SegmentFile(each.number, each.size_bytes) for each in state.log.segments]
    return decide(snapshots, segments, Bounds(RETAINED, -1))


def work(fs: MemoryFileSystem, acknowledged: list[int]) -> None:
    """Two lives of a directory: written, with a snapshot after every few entries, killed; started, written, closed."""
    state = started(fs)
    for index in range(1, 17):
        state.log.append(entry(index))
        acknowledged[0] = index
        if index % 4 == 0:
            snapshot(state)
    state.directory.close()  # the log is left as a killed process leaves it
    state = started(fs)
    for index in range(17, ENTRIES + 1):
        state.log.append(entry(index))
        acknowledged[0] = index
        if index % 5 == 0:
            snapshot(state)
    state.close()


@cache
def stopped() -> list[Stop[int]]:
    """The lives, stopped after each call, with the last index that they had acknowledged."""
    acknowledged = [0]
    return stops(lambda fs: work(fs, acknowledged), lambda: acknowledged[0])


def check_what_is_left(fs: MemoryFileSystem, at_least: int) -> None:
    """A start has everything acknowledged and nothing half done, and the store goes on, with another snapshot."""
    state = started(fs)
    index = state.machine.index
    assert at_least <= index <= ENTRIES
    assert {key: value for key, (value, _, _) in state.machine.kv.entries.items()} == expected(index)
    assert state.machine.revision == index
    for number in range(index + 1, index + 4):
        state.log.append(entry(number))
    snapshot(state)
    state.close()
    again = started(fs)
    assert again.machine.index == index + 3
    assert {key: value for key, (value, _, _) in again.machine.kv.entries.items()} == expected(index + 3)
    again.close()


def test_the_work_makes_snapshots_and_removes_old_files() -> None:
    """Else the tests here would prove nothing."""
    fs = MemoryFileSystem()
    work(fs, [0])
    names = [path for name, path in fs.calls if name == "unlink"]
    assert sum(path.endswith(".seg") for path in names) >= 4
    assert sum(path.endswith(".snap") for path in names) >= 2
    assert 1 <= len(fs.listdir(f"{PATH}/snapshots")) <= 2
    assert (
        sum(
            len(fs.read(f"{PATH}/{folder}/{name}"))
            for folder in ("log", "snapshots")
            for name in fs.listdir(f"{PATH}/{folder}")
            if name != "reserve"
        )
        <= RETAINED + SEGMENT_SIZE
    )


@pytest.mark.parametrize(
    ("loss", "seed", "step"), [*LOSSES, *(pytest.param(*each, marks=pytest.mark.long) for each in EVERY_LOSS)]
)
def test_a_crash_in_a_snapshot_or_in_retention_loses_nothing(loss: str, seed: int, step: int) -> None:
    places = stopped()[seed * 3 :: step] if step > 1 else stopped()
    for left, acknowledged in left_by(places, loss, seed):
        check_what_is_left(left, acknowledged)


@thinned(4)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_call_that_fails_in_a_snapshot_or_in_retention_loses_nothing(error: int, step: int) -> None:
    calls = MemoryFileSystem()
    work(calls, [0])
    for number in some(range(1, len(calls.calls) + 1), step):
        fs = MemoryFileSystem()
        fs.fail_at, fs.fail_with = number, error
        acknowledged = [0]
        with suppress(StorageError):
            work(fs, acknowledged)
        fs.fail_at = None
        left = fs.restart()
        check_what_is_left(left, acknowledged[0])
        assert not [name for name in left.listdir(f"{PATH}/snapshots") if name.endswith(".tmp")]

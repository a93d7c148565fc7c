"""Stop the program after every call to the file system, take the power away in every way, and open what is left."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import pytest

from haptera.testing.filesystem import Crashed, MemoryFileSystem
from tests.support.stops import Stop, image, left_by, stops
from tests.unit.storage.stores import (
    Store,
    check_soundness,
    entries,
    entry,
    opened,
)

if TYPE_CHECKING:
    from haptera.storage import Durability, LogEntry

DURABILITIES: tuple[Durability, ...] = ("sync", "os")
LOSSES: list[tuple[str, int]] = [
    ("killed", 0),
    ("drop", 0),
    ("keep", 0),
    *(("tear", seed) for seed in range(4)),
    *(("reorder", seed) for seed in range(8)),
]


ALL = [entry(index, 700 if index in {8, 11} else 24) for index in range(1, 14)]


def work(fs: MemoryFileSystem, durability: Durability, acknowledged: list[int]) -> None:
    """A life of a store: made, filled over several segments, killed without a word, recovered, closed, opened again."""
    store = Store.open(fs, durability=durability)
    for _ in range(6):
        store.append(1)
        acknowledged[0] = store.log.last_index
    store.directory.close()  # the log is left as a killed process leaves it
    for _ in range(2):
        store = Store.open(fs, durability=durability)
        for size in (24, 700, 24):
            store.append(1, size)
            acknowledged[0] = store.log.last_index
        store.close()


@cache
def stopped(durability: Durability) -> list[Stop[int]]:
    """A life that is stopped after each call, with the last index that it had acknowledged."""
    acknowledged = [0]
    return stops(lambda fs: work(fs, durability, acknowledged), lambda: acknowledged[0])


def check_what_is_left(fs: MemoryFileSystem, at_least: int, written: list[LogEntry] = ALL) -> None:
    """Everything acknowledged is there, nothing half done is, no check finds damage, and the store goes on."""
    check_soundness(fs)
    with opened(fs) as store:
        kept = len(store.entries)
        assert store.entries == written[:kept]
        assert kept >= at_least
        store.append(3)
        assert store.log.last_index == kept + 3
    with opened(fs) as store:
        assert store.entries == written[:kept] + [entry(index) for index in range(kept + 1, kept + 4)]
        assert store.log.recovery.torn_bytes == 0


@pytest.mark.parametrize(("loss", "seed"), LOSSES)
def test_a_crash_after_any_call_loses_nothing_that_was_acknowledged(loss: str, seed: int) -> None:
    for left, acknowledged in left_by(stopped("sync"), loss, seed):
        check_what_is_left(left, acknowledged)


def test_every_record_of_a_long_segment_is_durable_when_it_is_acknowledged() -> None:
    """Trap: acknowledged before any fsync. A sync of all but a few records is none."""
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=64 * 1024)
    for index in range(1, 301):
        store.append(1)
        left = fs.power_failure("drop")
        if index % 16 == 0 or index > 290:
            check_what_is_left(left, index, entries(303))
        else:
            assert left.read(store.log.segments[0].path) == fs.read(store.log.segments[0].path)


@pytest.mark.parametrize(("loss", "seed"), LOSSES)
def test_durability_os_loses_only_the_end_and_only_with_the_power(loss: str, seed: int) -> None:
    for left, acknowledged in left_by(stopped("os"), loss, seed):
        check_what_is_left(left, acknowledged if loss == "killed" else 0)


def go_on(fs: MemoryFileSystem) -> None:
    """Recover, and append what comes next."""
    log = Store.open(fs).log
    log.append(ALL[log.last_index])


@pytest.mark.parametrize("first", ["killed", ""])
@pytest.mark.parametrize(("loss", "seed"), LOSSES)
def test_a_crash_during_the_recovery_from_a_crash(first: str, loss: str, seed: int) -> None:
    looked_at = set()
    for left, acknowledged in left_by(stopped("sync")[seed::11], first or loss, seed):
        for found, _ in left_by(stops(go_on, lambda: None, left), loss, seed):
            if (look := (image(found), acknowledged)) not in looked_at:
                looked_at.add(look)
                check_what_is_left(found, acknowledged)


def test_what_a_recovery_has_handed_out_survives_a_power_failure() -> None:
    """A process is killed between a write and its sync: the next one reads what was written, and answers from it."""
    for durability in DURABILITIES:
        for fs, _ in left_by(stopped(durability), "killed", 0):
            store = Store.open(fs)
            check_what_is_left(fs.power_failure("drop"), len(store.entries))
            if len(store.entries) < len(ALL):
                store.log.append(ALL[len(store.entries)])
                check_what_is_left(fs.power_failure("drop"), len(store.entries) + 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_power_failure_while_the_log_of_a_killed_process_is_sealed(seed: int) -> None:
    """The short size must not reach the disk before the record that the killed process had not synced."""
    fs = MemoryFileSystem()
    store = Store.open(fs)
    store.append(2)
    fs.stop_after = len(fs.calls) + 1
    with suppress(Crashed):
        store.append(1)
    left = fs.restart()
    recovery = stops(lambda fs: Store.open(fs).directory.close(), lambda: 2, left)
    for found, at_least in left_by(recovery, "reorder", seed):
        check_what_is_left(found, at_least)


def test_a_torn_tail_is_reported() -> None:
    fs = MemoryFileSystem()
    work(fs, "sync", [0])
    store = Store.open(fs)
    store.append(1)
    offset = store.log.segments[-1].size_bytes
    fs.stop_after = len(fs.calls) + 1
    with pytest.raises(Crashed):
        store.append(1)
    torn = [fs.power_failure("tear", seed) for seed in range(10)]
    reports = []
    for left in torn:
        with opened(left) as again:
            reports.append(again.log.recovery)
    cut = [report for report in reports if report.torn_bytes]
    assert cut
    for report in cut:
        assert (report.file, report.offset) == (store.log.segments[-1].path, offset)
        assert 0 < report.torn_bytes < 72
    assert all(report.entries == 13 for report in reports)

"""A cluster of one: what is committed, in which order, and what an error leaves."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from haptera.replication import TERM, ClusterOfOne, Writers
from haptera.replication.record_writer import PREPARED_MAX
from haptera.storage import DataDirectory, Log, LogEntry, open_keyring
from haptera.storage.errors import DiskFailed, DiskFull
from haptera.testing.filesystem import MemoryFileSystem

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.storage import PreparedRecord

import pytest

#: Bytes that a payload has at most, as a proposal says: so few that the loop may make the record.
SIZE = 64


class Disk:
    """A writer that does one job when the test says so."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], None]] = deque()
        self.closed = False

    def submit(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def close(self) -> None:
        self.closed = True


class Records:
    """A record writer over files in memory. It writes a record when the test says so."""

    def __init__(self) -> None:
        self.begun: deque[tuple[PreparedRecord, Callable[[BaseException | None], None]]] = deque()
        self.short = False
        self.closed = False

    def start(self, record: PreparedRecord, ended: Callable[[BaseException | None], None]) -> None:
        assert not self.begun, "one record at a time"
        if self.short:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.begun.append((record, ended))

    def write(self) -> None:
        record, ended = self.begun.popleft()
        ended(record.attempt())

    def finish(self) -> None:
        while self.begun:
            self.write()

    def close(self) -> None:
        self.closed = True


class Cluster:
    """A cluster over a log in memory, and what it has told."""

    def __init__(self, last_index: int = 0, *, records: Records | None = None) -> None:
        self.fs = MemoryFileSystem()
        self.directory = DataDirectory.open(self.fs, "/data")
        self.log = Log.open(self.fs, self.directory, open_keyring(self.directory))
        assert list(self.log.replay()) == []
        self.disk = Disk()
        self.told: list[tuple[int, bytes | type[BaseException]]] = []
        self.records = records
        self.one = ClusterOfOne(
            log=self.log,
            last_index=last_index,
            writers=Writers(self.disk, records),
            loop=asyncio.get_running_loop(),
            committed=lambda entry, seconds: self.told.append((entry.index, entry.payload)),
            refused=lambda index, error, seconds: self.told.append((index, type(error))),
        )

    async def begin(self) -> Records:
        """Have the thread make the segment, with a first entry in it. Gives the writer of the records behind that."""
        assert self.records is not None
        self.one.propose(1000, lambda: b"first", SIZE)
        assert not self.records.begun
        await self.write()
        return self.records

    def replayed(self) -> list[bytes]:
        """The payloads that an opening of the directory finds, after the end of this one."""
        self.close()
        log = Log.open(self.fs, self.directory, open_keyring(self.directory))
        payloads = [entry.payload for entry in log.replay()]
        log.close()
        return payloads

    async def write(self) -> None:
        """Do what is with the disk, and let the loop hear of it."""
        self.disk.jobs.popleft()()
        await asyncio.sleep(0)

    def close(self) -> None:
        self.log.close()
        self.directory.close()


async def test_an_entry_is_committed_when_the_log_has_it() -> None:
    cluster = Cluster()
    assert cluster.one.propose(1000, lambda: b"first", SIZE) == 1
    assert (cluster.one.busy, cluster.told, cluster.log.last_index) == (True, [], 0)
    await cluster.write()
    assert (cluster.one.busy, cluster.told, cluster.log.last_index) == (False, [(1, b"first")], 1)
    assert cluster.one.propose(1001, lambda: b"second", SIZE) == 2
    await cluster.write()
    assert cluster.told == [(1, b"first"), (2, b"second")]
    cluster.one.propose(1002, lambda: b"", SIZE)
    with pytest.raises(AssertionError, match="one entry is with the disk at a time"):
        cluster.one.propose(1002, lambda: b"", SIZE)
    await cluster.write()
    cluster.close()
    log = Log.open(cluster.fs, cluster.directory, open_keyring(cluster.directory))
    assert list(log.replay()) == [
        LogEntry(TERM, 1, 1000, b"first"),
        LogEntry(TERM, 2, 1001, b"second"),
        LogEntry(TERM, 3, 1002, b""),
    ]
    log.close()


async def test_an_entry_that_finds_the_disk_full_leaves_its_index_to_the_next() -> None:
    cluster = Cluster()
    cluster.fs.failing, cluster.fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
    assert cluster.one.propose(1000, lambda: b"refused", SIZE) == 1
    await cluster.write()
    cluster.fs.failing = frozenset()
    assert cluster.one.propose(1001, lambda: b"written", SIZE) == 1
    await cluster.write()
    assert cluster.told == [(1, DiskFull), (1, b"written")]
    cluster.close()


async def test_after_a_failed_sync_nothing_is_committed() -> None:
    cluster = Cluster()
    cluster.fs.failing = frozenset({"fdatasync"})
    cluster.one.propose(1000, lambda: b"unknown", SIZE)
    await cluster.write()
    cluster.fs.failing = frozenset()
    cluster.one.propose(1001, lambda: b"never", SIZE)
    await cluster.write()
    assert cluster.told == [(1, DiskFailed), (1, DiskFailed)]
    cluster.close()


async def test_a_payload_that_cannot_be_made_is_told_as_an_error() -> None:
    def fails() -> bytes:
        raise MemoryError

    cluster = Cluster()
    cluster.one.propose(1000, fails, SIZE)
    await cluster.write()
    assert cluster.told == [(1, MemoryError)]
    assert not cluster.one.busy
    cluster.one.close()
    assert cluster.disk.closed
    cluster.close()


def test_a_loop_that_is_closed_while_the_disk_is_busy_hears_nothing() -> None:
    async def proposed() -> Cluster:
        cluster = Cluster()
        cluster.one.propose(1000, lambda: b"written", SIZE)
        return cluster

    cluster = asyncio.run(proposed())
    cluster.disk.jobs.popleft()()
    assert (cluster.told, cluster.log.last_index) == ([], 1)
    cluster.close()


async def test_a_job_between_two_entries_is_told_in_the_order_of_the_log() -> None:
    cluster = Cluster()
    order: list[object] = []
    cluster.one._committed = lambda entry, _: order.append(entry.index)
    cluster.one.propose(1, lambda: b"one", SIZE)
    result = cluster.one.between(lambda: cluster.log.last_index, lambda seen: order.append(f"saw {seen}"))
    cluster.disk.jobs.popleft()()
    cluster.disk.jobs.popleft()()
    await asyncio.sleep(0)
    cluster.one.propose(2, lambda: b"two", SIZE)
    await cluster.write()
    assert order == [1, "saw 1", 2]
    assert await result == 1
    cluster.close()


async def test_a_job_that_fails_fails_for_its_caller_alone() -> None:
    cluster = Cluster()
    failed = cluster.one.between(lambda: 1 // 0)
    await cluster.write()
    with pytest.raises(ZeroDivisionError):
        await failed
    cancelled = cluster.one.between(lambda: 1)
    cancelled.cancel()
    await cluster.write()
    cluster.one.propose(1, lambda: b"one", SIZE)
    await cluster.write()
    assert cluster.told == [(1, b"one")]
    cluster.close()


async def test_a_record_behind_others_needs_no_thread() -> None:
    cluster = Cluster(records=Records())
    records = await cluster.begin()
    assert cluster.one.propose(1001, lambda: b"second", SIZE) == 2
    assert (cluster.one.busy, len(cluster.disk.jobs), cluster.log.last_index) == (True, 0, 1)
    records.write()
    assert (cluster.one.busy, cluster.log.last_index) == (False, 2)
    assert cluster.told == [(1, b"first"), (2, b"second")]
    assert cluster.replayed() == [b"first", b"second"]


async def test_a_large_entry_is_the_threads() -> None:
    cluster = Cluster(records=Records())
    records = await cluster.begin()
    cluster.one.propose(1001, lambda: bytes(PREPARED_MAX), PREPARED_MAX)
    records.write()
    cluster.one.propose(1002, lambda: bytes(PREPARED_MAX + 1), PREPARED_MAX + 1)
    assert not records.begun
    await cluster.write()
    assert cluster.replayed() == [b"first", bytes(PREPARED_MAX), bytes(PREPARED_MAX + 1)]


async def test_an_entry_for_which_the_segment_has_no_room_is_the_threads() -> None:
    cluster = Cluster(records=Records())
    cluster.log.segment_size = 4096
    records = await cluster.begin()
    by_thread = 0
    for number in range(64):
        cluster.one.propose(1001 + number, lambda: bytes(400), 400)
        if records.begun:
            records.write()
        else:
            by_thread += 1
            await cluster.write()
    assert 6 <= by_thread < 16
    assert len(cluster.log.segments) == by_thread + 1
    assert cluster.replayed() == [b"first", *[bytes(400)] * 64]


async def test_a_prepared_record_that_fails_is_the_last_one() -> None:
    cluster = Cluster(records=Records())
    records = await cluster.begin()
    cluster.one.propose(1001, lambda: b"unknown", SIZE)
    cluster.fs.failing = frozenset({"fdatasync"})
    records.write()
    cluster.fs.failing = frozenset()
    cluster.one.propose(1002, lambda: b"never", SIZE)
    assert cluster.one.busy  # it is told in a later turn, as any other end
    await asyncio.sleep(0)
    assert not records.begun
    assert cluster.told == [(1, b"first"), (2, DiskFailed), (2, DiskFailed)]
    assert cluster.replayed()[:1] == [b"first"]


async def test_a_full_disk_at_a_prepared_record_is_a_failure_because_it_had_its_space() -> None:
    cluster = Cluster(records=Records())
    records = await cluster.begin()
    cluster.one.propose(1001, lambda: b"unknown", SIZE)
    cluster.fs.failing, cluster.fs.fail_with = frozenset({"pwrite"}), errno.ENOSPC
    records.write()
    assert cluster.told[1:] == [(2, DiskFailed)]
    cluster.close()


async def test_the_thread_writes_a_record_that_cannot_begin() -> None:
    cluster = Cluster(records=Records())
    records = await cluster.begin()
    records.short = True
    cluster.one.propose(1001, lambda: b"second", SIZE)
    await cluster.write()
    records.short = False
    cluster.one.propose(1002, lambda: b"third", SIZE)
    records.write()
    assert cluster.told == [(1, b"first"), (2, b"second"), (3, b"third")]
    assert cluster.replayed() == [b"first", b"second", b"third"]


async def test_the_thread_fails_with_a_record_that_cannot_begin() -> None:
    cluster = Cluster(records=Records())
    (await cluster.begin()).short = True
    cluster.one.propose(1001, lambda: b"unknown", SIZE)
    cluster.fs.failing = frozenset({"fdatasync"})
    await cluster.write()
    assert cluster.told[1:] == [(2, DiskFailed)]
    cluster.close()


@pytest.mark.parametrize("number", [errno.ECANCELED, errno.EAGAIN])
async def test_the_thread_writes_a_record_that_the_kernel_did_not_write(number: int) -> None:
    cluster = Cluster(records=Records())
    records = await cluster.begin()
    cluster.one.propose(1001, lambda: b"second", SIZE)
    seen = cluster.one.between(lambda: cluster.log.last_index)
    _, ended = records.begun.popleft()
    ended(OSError(number, os.strerror(number)))
    assert (cluster.one.busy, cluster.told) == (True, [(1, b"first")])
    await cluster.write()
    assert cluster.told == [(1, b"first"), (2, b"second")]
    await cluster.write()
    assert await seen == 2
    cluster.one.propose(1002, lambda: b"third", SIZE)
    records.write()
    assert cluster.replayed() == [b"first", b"second", b"third"]


async def test_a_record_that_a_signal_keeps_from_being_noted_is_waited_for_at_the_end() -> None:
    class Interrupted(Records):
        def start(self, record: PreparedRecord, ended: Callable[[BaseException | None], None]) -> None:
            super().start(record, ended)
            raise KeyboardInterrupt

    cluster = Cluster(records=Interrupted())
    await cluster.begin()
    with pytest.raises(KeyboardInterrupt):
        cluster.one.propose(1001, lambda: b"second", SIZE)
    cluster.one.close()
    assert cluster.told == [(1, b"first"), (2, b"second")]
    assert cluster.replayed() == [b"first", b"second"]


async def test_a_payload_that_the_loop_cannot_make_is_told_in_a_later_turn() -> None:
    def fails() -> bytes:
        raise MemoryError

    cluster = Cluster(records=Records())
    records = await cluster.begin()
    cluster.one.propose(1001, fails, SIZE)
    assert cluster.told == [(1, b"first")]
    await asyncio.sleep(0)
    assert cluster.told == [(1, b"first"), (2, MemoryError)]
    cluster.one.propose(1002, lambda: b"second", SIZE)
    records.write()
    assert cluster.told[2:] == [(2, b"second")]
    cluster.close()


async def test_a_job_waits_for_the_prepared_record_and_the_next_record_for_the_job() -> None:
    cluster = Cluster(records=Records())
    records = await cluster.begin()
    order: list[object] = []
    cluster.one._committed = lambda entry, _: order.append(entry.index)
    cluster.one.propose(1001, lambda: b"second", SIZE)
    results = [cluster.one.between(lambda: cluster.log.last_index, partial(_note, order, name)) for name in "ab"]
    assert not cluster.disk.jobs  # the log is not the thread's
    records.write()
    cluster.one.propose(1002, lambda: b"third", SIZE)
    assert (len(cluster.disk.jobs), len(records.begun)) == (3, 0)
    for _ in range(3):
        await cluster.write()
    assert order == [2, "a saw 2", "b saw 2", 3]
    assert [await result for result in results] == [2, 2]
    cluster.one.propose(1003, lambda: b"fourth", SIZE)
    assert records.begun
    records.write()
    assert not cluster.disk.jobs  # each job has run once
    assert cluster.replayed() == [b"first", b"second", b"third", b"fourth"]


async def test_a_job_that_fails_or_is_cancelled_gives_the_log_back() -> None:
    cluster = Cluster(records=Records())
    records = await cluster.begin()
    failed, cancelled = cluster.one.between(lambda: 1 // 0), cluster.one.between(lambda: 1)
    cancelled.cancel()
    await cluster.write()
    await cluster.write()
    with pytest.raises(ZeroDivisionError):
        await failed
    cluster.one.propose(1001, lambda: b"second", SIZE)
    records.write()
    assert cluster.told == [(1, b"first"), (2, b"second")]
    cluster.close()


def test_the_end_waits_for_a_prepared_record_and_tells_nothing_to_a_loop_that_is_closed() -> None:
    async def proposed() -> Cluster:
        cluster = Cluster(records=Records())
        await cluster.begin()
        cluster.one.propose(1001, lambda: b"second", SIZE)
        _job = cluster.one.between(lambda: cluster.told.append((0, b"a job")))
        return cluster

    cluster = asyncio.run(proposed())
    cluster.one.close()
    assert (cluster.told, cluster.log.last_index) == ([(1, b"first")], 2)
    assert len(cluster.disk.jobs) == 1  # the job, for the writer's end to wait for
    assert cluster.records is not None
    assert cluster.records.closed
    assert cluster.disk.closed
    assert cluster.replayed() == [b"first", b"second"]


def _note(order: list[object], name: str, seen: int) -> None:
    order.append(f"{name} saw {seen}")

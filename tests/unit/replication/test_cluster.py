"""A cluster of one: what is committed, in which order, and what an error leaves."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from typing import TYPE_CHECKING

from haptera.replication import TERM, ClusterOfOne
from haptera.storage import DataDirectory, Log, LogEntry, open_keyring
from haptera.storage.errors import DiskFailed, DiskFull
from haptera.testing.filesystem import MemoryFileSystem

if TYPE_CHECKING:
    from collections.abc import Callable

import pytest


class Disk:
    """A writer that does one job when the test says so."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], None]] = deque()
        self.closed = False

    def submit(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def close(self) -> None:
        self.closed = True


class Cluster:
    """A cluster over a log in memory, and what it has told."""

    def __init__(self, last_index: int = 0) -> None:
        self.fs = MemoryFileSystem()
        self.directory = DataDirectory.open(self.fs, "/data")
        self.log = Log.open(self.fs, self.directory, open_keyring(self.directory))
        assert list(self.log.replay()) == []
        self.disk = Disk()
        self.told: list[tuple[int, bytes | type[BaseException]]] = []
        self.one = ClusterOfOne(
            append=self.log.append,
            last_index=last_index,
            writer=self.disk,
            loop=asyncio.get_running_loop(),
            committed=lambda entry, seconds: self.told.append((entry.index, entry.payload)),
            refused=lambda index, error, seconds: self.told.append((index, type(error))),
        )

    async def write(self) -> None:
        """Do what is with the disk, and let the loop hear of it."""
        self.disk.jobs.popleft()()
        await asyncio.sleep(0)

    def close(self) -> None:
        self.log.close()
        self.directory.close()


async def test_an_entry_is_committed_when_the_log_has_it() -> None:
    cluster = Cluster()
    assert cluster.one.propose(1000, lambda: b"first") == 1
    assert (cluster.one.busy, cluster.told, cluster.log.last_index) == (True, [], 0)
    await cluster.write()
    assert (cluster.one.busy, cluster.told, cluster.log.last_index) == (False, [(1, b"first")], 1)
    assert cluster.one.propose(1001, lambda: b"second") == 2
    await cluster.write()
    assert cluster.told == [(1, b"first"), (2, b"second")]
    cluster.one.propose(1002, lambda: b"")
    with pytest.raises(AssertionError, match="one entry is with the disk at a time"):
        cluster.one.propose(1002, lambda: b"")
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
    assert cluster.one.propose(1000, lambda: b"refused") == 1
    await cluster.write()
    cluster.fs.failing = frozenset()
    assert cluster.one.propose(1001, lambda: b"written") == 1
    await cluster.write()
    assert cluster.told == [(1, DiskFull), (1, b"written")]
    cluster.close()


async def test_after_a_failed_sync_nothing_is_committed() -> None:
    cluster = Cluster()
    cluster.fs.failing = frozenset({"fdatasync"})
    cluster.one.propose(1000, lambda: b"unknown")
    await cluster.write()
    cluster.fs.failing = frozenset()
    cluster.one.propose(1001, lambda: b"never")
    await cluster.write()
    assert cluster.told == [(1, DiskFailed), (1, DiskFailed)]
    cluster.close()


async def test_a_payload_that_cannot_be_made_is_told_as_an_error() -> None:
    def fails() -> bytes:
        raise MemoryError

    cluster = Cluster()
    cluster.one.propose(1000, fails)
    await cluster.write()
    assert cluster.told == [(1, MemoryError)]
    assert not cluster.one.busy
    cluster.one.close()
    assert cluster.disk.closed
    cluster.close()


def test_a_loop_that_is_closed_while_the_disk_is_busy_hears_nothing() -> None:
    async def proposed() -> Cluster:
        cluster = Cluster()
        cluster.one.propose(1000, lambda: b"written")
        return cluster

    cluster = asyncio.run(proposed())
    cluster.disk.jobs.popleft()()
    assert (cluster.told, cluster.log.last_index) == ([], 1)
    cluster.close()


async def test_a_job_between_two_entries_is_told_in_the_order_of_the_log() -> None:
    cluster = Cluster()
    order: list[object] = []
    cluster.one._committed = lambda entry, _: order.append(entry.index)
    cluster.one.propose(1, lambda: b"one")
    result = cluster.one.between(lambda: cluster.log.last_index, lambda seen: order.append(f"saw {seen}"))
    cluster.disk.jobs.popleft()()
    cluster.disk.jobs.popleft()()
    await asyncio.sleep(0)
    cluster.one.propose(2, lambda: b"two")
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
    cluster.one.propose(1, lambda: b"one")
    await cluster.write()
    assert cluster.told == [(1, b"one")]
    cluster.close()

"""Records that the kernel writes for a loop: when the loop hears of their ends, and what a closed one leaves."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from haptera.replication import RingWriter
from haptera.storage import IoRing, LogEntry, OsFileSystem, PreparedRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from haptera.storage import OsFile

ENTRY = LogEntry(1, 1, 1, b"")


@pytest.fixture(autouse=True)
def _there_is_a_ring() -> None:
    ring = IoRing.open()
    if ring is None:
        pytest.skip("this system has no io_uring, or forbids it")
    ring.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OsFile]:
    opened = OsFileSystem().open(str(tmp_path / "file"), "x")
    yield opened
    opened.close()


def opened() -> RingWriter:
    writer = RingWriter.open(asyncio.get_running_loop())
    assert writer is not None
    return writer


async def test_the_loop_hears_of_each_record_in_a_later_turn(file: OsFile) -> None:
    writer = opened()
    for number in range(20):
        ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        writer.start(PreparedRecord(ENTRY, b"%02d" % number, file, 2 * number, True), ended.set_result)
        assert not ended.done()
        assert await ended is None
    assert file.pread(100, 0) == b"".join(b"%02d" % number for number in range(20))
    writer.close()


async def test_the_loop_hears_of_an_error_and_of_the_next_record(file: OsFile, tmp_path: Path) -> None:
    writer = opened()
    reading = OsFileSystem().open(str(tmp_path / "file"), "r")
    for place, reason in ((reading, errno.EBADF), (file, None)):
        ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        writer.start(PreparedRecord(ENTRY, b"data", place, 0, True), ended.set_result)
        error = await ended
        assert (error.errno if isinstance(error, OSError) else error) == reason
    assert file.pread(100, 0) == b"data"
    reading.close()
    writer.close()


def test_the_end_waits_for_a_record_although_the_loop_is_closed(file: OsFile) -> None:
    told: list[BaseException | None] = []

    async def start() -> RingWriter:
        writer = opened()
        writer.start(PreparedRecord(ENTRY, b"data", file, 0, True), told.append)
        return writer

    writer = asyncio.run(start())
    writer.finish()
    assert told == [None]
    assert file.pread(100, 0) == b"data"
    writer.close()
    writer.close()


async def test_a_closed_writer_leaves_the_loop_without_its_descriptor(file: OsFile) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):  # each has the number of the one before
        writer = opened()
        ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        writer.start(PreparedRecord(ENTRY, b"data", file, 0, True), ended.set_result)
        assert await ended is None
        writer.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_loop_that_cannot_wait_for_descriptors_gets_no_writer() -> None:
    before = len(os.listdir("/proc/self/fd"))
    loop = Mock(**{"add_reader.side_effect": NotImplementedError})
    assert RingWriter.open(loop) is None
    assert len(os.listdir("/proc/self/fd")) == before

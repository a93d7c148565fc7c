"""The archiver of a node: it keeps up, goes on after failures, and is in nobody's way."""

from __future__ import annotations

import asyncio
import errno
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.node import archiver as module
from haptera.node.config import NodeConfig
from haptera.node.health import Health, health
from haptera.node.logging import fields_of
from haptera.node.node import Node
from haptera.node.services.server import status
from haptera.node.snapshots.keeper import Current
from haptera.state import operations
from haptera.storage import Archive
from haptera.testing.filesystem import MemoryFile, MemoryFileSystem
from tests.unit.node.nodes import Asked, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from haptera.node.archiver import Archiver
    from haptera.storage import OpenMode


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(module, "RETRY_S_MIN", 0.01)
    monkeypatch.setattr(module, "RETRY_S_MAX", 0.04)


CONFIG = NodeConfig(data_dir="/data", listen=(), segment_size=64 * 1024, archive_dir="/archive")


async def fill(node: Node, segments: int) -> None:
    """Write until so many segments have a record, of which the last is not sealed."""
    for _ in range(segments):
        written = Asked(node, operations.Set("k", bytes(60_000)))
        while not written.answered:
            await asyncio.sleep(0.001)


def archiver_of(node: Node) -> Archiver:
    assert node.archiver is not None
    return node.archiver


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def caught_up(node: Node, through: int) -> None:
    archiver = archiver_of(node)
    await until(lambda: archiver.through >= through and not archiver.lag)


async def test_each_segment_that_is_sealed_is_archived_with_the_keyring(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    data, archive = tmp_path / "data", tmp_path / "archive"
    config = msgspec.structs.replace(CONFIG, data_dir=str(data), archive_dir=str(archive))
    async with on_disk(config) as node:
        await fill(node, 6)
        await caught_up(node, 5)
        for number in range(1, 6):
            name = f"{number:016x}.seg"
            assert (archive / "log" / name).read_bytes() == (data / "log" / name).read_bytes()
        assert (archive / "keys" / f"{1:016x}").read_bytes() == (data / "keys").read_bytes()
        assert node.node_id.hex() in (archive / "archive.toml").read_text()
        assert node.metrics.values()["archive_lag_segments"] == 0
        assert health(node) == Health("ok")
    threads = {thread for thread in threading.enumerate() if thread.name == "haptera-archive"}
    assert threads <= before
    async with on_disk(config) as node:
        await fill(node, 2)
        await caught_up(node, 7)


async def test_a_node_without_an_archive_has_no_lag() -> None:
    async with opened() as node:
        assert node.archiver is None
        assert node.metrics.values()["archive_lag_segments"] == 0


class Failing(MemoryFileSystem):
    """Files of which those in the archive, with `part` in their paths, fail while `number` says so; with `hangs` they
    wait for it.
    """

    number = 0
    part = ""
    hangs: threading.Event | None = None

    def open(self, path: str, mode: OpenMode) -> MemoryFile:
        if "archive" in path:
            if self.hangs is not None:
                self.hangs.wait(10)
            if self.number and self.part in path:
                raise OSError(self.number, "it fails", path)
        return super().open(path, mode)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOENT, errno.EIO])
async def test_an_archive_that_fails_is_told_and_tried_again_while_the_node_goes_on(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    fs = Failing()
    caplog.set_level("INFO")
    fs.number = number
    async with opened(fs, config=CONFIG) as node:
        archiver = archiver_of(node)
        await fill(node, 4)
        await until(lambda: archiver.lag == 3 and bool(archiver.trouble))
        assert archiver.through == 0, "retention keeps all that is not archived"
        assert node.metrics.values()["archive_lag_segments"] == 3
        state, reason, help_, since_ms = health(node)
        assert state == "ok"
        assert reason.startswith("3 segments are not archived: ")
        assert "it fails" in reason
        assert "tries again by itself" in help_
        assert since_ms is not None
        assert 0 <= node.clock_ms() - since_ms < 60_000
        told = status(node)
        assert (told["health"], told["health_reason"], told["health_help"]) == (state, reason, help_)
        fs.number = 0
        await caught_up(node, 3)
        await until(lambda: not archiver.trouble)
        assert health(node) == Health("ok")
        assert "health_reason" not in status(node)
    events = [record.message for record in caplog.records if record.message.startswith("archive_")]
    assert events[0] == "archive_failed"
    assert events[-1] == "archive_resumed"


async def test_a_segment_counts_as_archived_when_it_is() -> None:
    """Retention may remove all up to `through`."""
    fs = Failing()
    fs.part = ".seg"
    async with opened(fs, config=CONFIG) as node:
        archiver = archiver_of(node)
        await fill(node, 3)
        await caught_up(node, 2)
        fs.number = errno.EIO
        await fill(node, 2)
        await until(lambda: bool(archiver.trouble))
        assert archiver.through == 2 == max(Archive.find(fs, "/archive").segments())
        assert archiver.lag == 2
        fs.number = 0
        await caught_up(node, 4)


async def test_retention_removes_no_segment_that_is_not_archived() -> None:
    fs = Failing()
    fs.number = errno.EIO
    config = msgspec.structs.replace(CONFIG, retain_bytes=4 * CONFIG.segment_size)
    async with opened(fs, config=config) as node:
        await fill(node, 12)
        assert isinstance(await node.snapshots.request(), Current)
        await node.snapshots.retention.run()
        assert sum(name.endswith(".seg") for name in fs.listdir("/data/log")) >= 12, "beyond the bound"
        fs.number = 0
        await caught_up(node, 11)
        await node.snapshots.retention.run()
        left = [name for name in fs.listdir("/data/log") if name.endswith(".seg")]
        assert len(left) <= 4
        assert len(Archive.find(fs, "/archive").segments()) >= 11


async def test_the_archive_of_another_node_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """And the log and the health say what is to be done, not when it is tried again."""
    fs = MemoryFileSystem()
    Archive(fs, "/archive", bytes(16)).create()
    async with opened(fs, config=CONFIG) as node:
        archiver = archiver_of(node)
        await fill(node, 3)
        await until(lambda: bool(archiver.trouble))
        assert "the archive of node 00000000000000000000000000000000, and this is node" in archiver.trouble
        assert archiver.through == 0
        help_ = "it belongs to another node: start this one with an --archive-dir of its own"
        assert health(node)[2] == help_ == status(node)["health_help"]
    assert fs.listdir("/archive/log") == []
    told = next(record for record in caplog.records if record.message == "archive_failed")
    assert dict(fields_of(told))["help"] == help_
    assert "retry_in_seconds" not in dict(fields_of(told))


async def test_an_archive_that_hangs_holds_up_neither_writes_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "END_WAIT_S", 0.05)
    fs = Failing()
    fs.hangs = threading.Event()
    async with opened(fs, config=CONFIG) as node:
        await fill(node, 4)
        assert archiver_of(node).through == 0
    fs.hangs.set()


@asynccontextmanager
async def on_disk(config: NodeConfig) -> AsyncIterator[Node]:
    node = await Node.open(config)
    try:
        yield node
    finally:
        await node.aclose()

"""The embedded channel: what becomes of a change that nobody waits for any more."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.client import open_embedded
from haptera.error_codes import DeadlineExceeded
from haptera.errors import ConfigurationError
from haptera.node.node import Node
from haptera.state import limits
from haptera.testing import MemoryFileSystem, virtual_clock
from tests.unit.node.nodes import ManualWriter, turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from haptera.client import Database
    from haptera.node.config import NodeConfig


@asynccontextmanager
async def opened(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Database, ManualWriter]]:
    writer = ManualWriter()
    open_node = partial(Node.open, filesystem=MemoryFileSystem(), writer=writer)

    def with_small_segments(config: NodeConfig) -> Awaitable[Node]:
        return open_node(msgspec.structs.replace(config, segment_size=64 * 1024))

    monkeypatch.setattr(Node, "open", with_small_segments)
    async with open_embedded("/data") as db:
        yield db, writer
        await writer.write_all()


@virtual_clock
async def test_time_that_is_over_before_the_disk_has_it_drops_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as (db, writer):
        handed = asyncio.ensure_future(db.set("handed", b"", timeout=5.0))
        await turn()
        with pytest.raises(DeadlineExceeded) as dropped:
            await db.set("waiting", b"", timeout=2.0)
        assert dropped.value.outcome == "not_applied"
        with pytest.raises(DeadlineExceeded) as unknown:
            await handed
        assert unknown.value.outcome == "unknown"
        await writer.write_all()
        assert [entry.key async for entry in db.scan()] == ["handed"]


@virtual_clock
async def test_cancelling_before_the_disk_has_it_drops_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as (db, writer):
        changes = [asyncio.ensure_future(db.set("handed", b""))]
        await turn()
        changes.append(asyncio.ensure_future(db.set("waiting", b"")))
        await turn()
        for change in changes:
            change.cancel()
        await asyncio.wait(changes)
        await writer.write_all()
        assert [entry.key async for entry in db.scan()] == ["handed"]


async def test_a_count_that_looks_at_each_key_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as (db, writer):
        changes = asyncio.ensure_future(db.set_many({f"k{number}": b"" for number in range(10)}))
        await writer.write_all()
        await changes
        assert await db.count(glob="k*[0-4]") == 5
        monkeypatch.setattr(limits, "SLICE_WORK_MAX", 1)
        with pytest.raises(DeadlineExceeded) as error:
            await db.count(glob="k*[0-4]", timeout=1e-9)
        assert error.value.outcome == "not_applied"


@pytest.mark.parametrize("path", ["", "a\0b", b""])
async def test_a_path_that_is_none_is_refused_when_it_is_given(path: Any) -> None:
    with pytest.raises(ConfigurationError, match="path is that of the data directory"):
        str(open_embedded(path))

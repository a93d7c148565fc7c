"""The embedded channel: what becomes of a change that nobody waits for any more."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import haptera
from haptera.client import open_embedded
from haptera.client.channels import embedded_channel
from haptera.errors import ConfigurationError, ConnectionLost, DeadlineExceeded
from haptera.node.node import Node
from haptera.state import limits, sliced_work
from haptera.testing import MemoryFileSystem, virtual_clock
from tests.unit.node.nodes import ManualWriter, turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from haptera.client import Database
    from haptera.node.config import NodeConfig
    from haptera.state.sliced_work import Steps


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


async def test_a_drain_loses_no_call_that_waits_for_the_store_to_be_opened(tmp_path: Path) -> None:
    """Trap: a drain loses calls that would have succeeded. Nothing else than the opening is under way."""
    db = haptera.open(tmp_path / "data", durability="os")
    calls = [asyncio.create_task(db.increment("n")) for _ in range(20)]
    await asyncio.sleep(0)
    await db.drain()
    assert sorted(await asyncio.gather(*calls)) == list(range(1, 21))
    with pytest.raises(ConnectionLost, match="closed"):
        await db.get("n")


async def test_a_drain_waits_for_work_that_is_done_in_slices_and_for_a_scan_that_is_read(tmp_path: Path) -> None:
    """Trap: served and embedded store that differ."""
    db = haptera.open(tmp_path / "data", durability="os")
    await db.set_many({f"k{number:05}": b"" for number in range(20_000)})
    scan = aiter(db.scan())
    await anext(scan)
    work = [
        asyncio.create_task(call)
        for call in (db.count(glob="k*9"), db.set_many({f"m{number}": b"" for number in range(10_000)}))
    ]
    await asyncio.sleep(0)
    drain = asyncio.create_task(db.drain())
    assert [await work[0], len([entry async for entry in scan])] == [2000, 19_999]
    await drain
    assert work[1].exception() is None


@pytest.mark.parametrize("end", ["aclose", "drain"])
async def test_what_is_under_way_at_the_end_fails_and_is_neither_cut_short_nor_cancelled(
    tmp_path: Path, end: str
) -> None:
    """Trap: served and embedded store that differ. A scan that ended here as if it were whole lost the other keys."""
    db = haptera.open(tmp_path / "data", durability="os")
    await db.set_many({f"k{number:05}": b"" for number in range(20_000)})
    scan = aiter(db.scan())
    await anext(scan)
    counts = [asyncio.create_task(db.count(glob="k*9")) for _ in range(100)]
    await asyncio.sleep(0)
    await (db.aclose() if end == "aclose" else db.drain(timeout=0.0))
    for count in counts:
        with pytest.raises(ConnectionLost, match="the database is closed") as lost:
            await count
        assert lost.value.outcome == "not_applied"
    with pytest.raises(ConnectionLost, match="the database is closed"):
        async for _ in scan:
            pass


@virtual_clock
async def test_a_long_change_that_is_with_the_disk_is_applied_whole_though_its_caller_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its list is freed in slices when it has been applied, and not when its caller has gone."""
    async with opened(monkeypatch) as (db, writer):
        items = {f"k{number}": b"" for number in range(3000)}
        with pytest.raises(DeadlineExceeded) as unknown:
            await db.set_many(items, timeout=2.0)
        assert unknown.value.outcome == "unknown"
        await writer.write_all()
        assert await db.count() == len(items)


async def test_trap_the_long_list_of_a_call_is_freed_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: one caller's long work on the loop. However the call ends."""
    lists: list[list[Any]] = []
    lengths: list[int] = []

    def free_steps(elements: list[Any]) -> Steps[None]:
        lists.append(elements)
        lengths.append(len(elements))
        return sliced_work.free_steps(elements)

    monkeypatch.setattr(embedded_channel, "free_steps", free_steps)
    monkeypatch.setattr(Node, "open", partial(Node.open, filesystem=MemoryFileSystem()))
    keys = [f"k{number}" for number in range(3000)]
    async with open_embedded("/data") as db:
        await db.set_many(dict.fromkeys(keys, b""))
        await db.get_many(keys)
        await db.delete_many(keys)
        with pytest.raises(haptera.errors.InvalidKey):
            await db.get_many([*keys, ""])
        for _ in range(20):
            await turn()
    assert lengths == [3000, 3000, 3000, 3001]
    assert not any(lists)

"""Dead keys are removed by commands in the log, in time, in short batches, and on a full disk too."""

from __future__ import annotations

import asyncio
from asyncio import sleep
from typing import TYPE_CHECKING

from haptera.errors import Failure
from haptera.node import expiry
from haptera.node.commands import ANONYMOUS
from haptera.node.commit import RETRY_S
from haptera.state.operations import (
    Clear,
    Count,
    Delete,
    Exists,
    Expire,
    Get,
    GetMany,
    OpenScan,
    Set,
    SetMany,
    TimeToLive,
)
from haptera.testing import MemoryFileSystem, node, virtual_clock
from tests.unit.node.nodes import Asked, ManualWriter, done, fill_disk, opened, turn

if TYPE_CHECKING:
    import pytest

    from haptera.node.node import Node


def stored(node: Node) -> set[str]:
    """The keys that are there, dead ones too."""
    return set(node._machine.kv.entries)


@virtual_clock
async def test_a_key_is_absent_from_its_millisecond_on_and_removed_soon_after() -> None:
    async with node(storage="memory") as url:
        store = url.node
        await done(store, Set("a", b"1", ttl_ms=1000), Set("b", b"1"))
        await sleep(0.999)
        assert Asked(store, Exists("a")).result == (True,)
        await sleep(0.0011)
        assert Asked(store, Exists("a")).result == (False,)
        await sleep(0.01)
        assert stored(store) == {"b"}
        assert store.revision == 3
        assert store.metrics.values()["keys_expired_total"] == 1


@virtual_clock
async def test_nothing_is_written_while_nothing_is_due() -> None:
    async with node(storage="memory") as url:
        store = url.node
        await done(store, Set("a", b"1", ttl_ms=4 * 86_400_000), Set("b", b"1", ttl_ms=1000))
        await done(store, Expire("b", None))
        index = store.index
        await sleep(3 * 86_400)
        assert store.index == index
        await sleep(86_401)
        assert (store.index, stored(store)) == (index + 1, {"b"})


@virtual_clock
async def test_keys_that_ended_while_the_node_was_down_are_gone_when_it_starts() -> None:
    """The time that a node is down counts."""
    fs = MemoryFileSystem()
    async with node(storage=fs) as url:
        await done(url.node, Set("a", b"1", ttl_ms=60_000), Set("b", b"1", ttl_ms=86_400_000))
    await sleep(120)
    async with node(storage=fs) as url:
        assert Asked(url.node, GetMany(["a"])).result == ([None],)
        assert Asked(url.node, TimeToLive("b")).result == (86_400_000 - 120_000,)
        await sleep(0.01)
        assert stored(url.node) == {"b"}


@virtual_clock
async def test_keys_that_a_replayed_clear_found_dead_are_removed_after_the_start() -> None:
    fs = MemoryFileSystem()
    async with node(storage=fs) as url:
        store = url.node
        await done(store, Set("z", b"1"), Set("a", b"1", ttl_ms=100))
        store.expiry.stop()
        await sleep(1)
        await done(store, Clear("z"))
        assert stored(store) == {"a"}
    async with node(storage=fs) as url:
        await sleep(0.01)
        assert stored(url.node) == set()


@virtual_clock
async def test_a_key_that_is_refreshed_again_and_again_stays() -> None:
    async with node(storage="memory") as url:
        store = url.node
        await done(store, Set("session", b"1", ttl_ms=1000))
        for _ in range(20):
            await sleep(0.9)
            await done(store, Expire("session", 1000))
        assert stored(store) == {"session"}
        await sleep(1.1)
        assert stored(store) == set()


@virtual_clock
async def test_many_keys_are_removed_in_batches() -> None:
    async with node(storage="memory") as url:
        store = url.node
        await done(store, SetMany([(f"{number}", b"") for number in range(5000)], 1000))
        index, revision = store.index, store.revision
        await sleep(1.2)
        assert stored(store) == set()
        batches = -(-5000 // expiry.EXPIRED_TOGETHER_MAX)
        assert (store.index - index, store.revision - revision) == (batches, batches)


async def test_a_count_beside_many_dead_keys_is_made_in_turns() -> None:
    now = 1_790_000_000_000
    async with opened(clock_ms=lambda: now, monotonic_ns=lambda: now * 1_000_000) as store:
        store.expiry.stop()
        await done(store, SetMany([(f"{number}", b"") for number in range(5000)], 10), Set("a", b""))
        assert store.commands.counts_at_once(ANONYMOUS, Count())
        now += 10
        assert not store.commands.counts_at_once(ANONYMOUS, Count())
        assert await store.commands.count(ANONYMOUS, Count()) == ((1,), 2)
        assert await store.commands.count(ANONYMOUS, Count(prefix="b")) == ((0,), 2)
        assert await done(store, Clear("b")) == [(0, None)]


async def test_a_read_does_not_call_a_key_dead_that_an_entry_on_its_way_may_have_live_on() -> None:
    """Trap: absent for one reader, and then a change of the very key succeeds."""
    now, writer = 1_790_000_000_000, ManualWriter()
    async with opened(writer=writer, clock_ms=lambda: now, monotonic_ns=lambda: now * 1_000_000) as store:
        asked = Asked(store, Set("a", b"1", ttl_ms=100))
        await writer.write_all()
        assert asked.result == (1, None)
        now += 90
        persist = Asked(store, Expire("a", None))  # the entry has the time of this moment
        await turn()
        now += 20
        assert Asked(store, Exists("a")).result == (True,)
        assert Asked(store, TimeToLive("a")).result == (10,)
        assert Asked(store, Count()).result == (1,)
        assert Asked(store, GetMany(["a"])).result == ([(b"1", 1, 1_790_000_000_100)],)
        await writer.write_all()
        assert persist.result == (2,)
        assert Asked(store, Get("a")).result == (b"1", 2, None)


async def test_no_entry_has_a_time_before_one_that_a_read_has_used() -> None:
    """A read has called the key dead: no change that comes later finds it alive."""
    now, writer = 1_790_000_000_000, ManualWriter()
    async with opened(writer=writer, clock_ms=lambda: now, monotonic_ns=lambda: now * 1_000_000) as store:
        Asked(store, Set("a", b"1", ttl_ms=100))
        await writer.write_all()
        now += 100
        assert Asked(store, Exists("a")).result == (False,)
        now -= 50  # the wall clock and the other one, as in a process that was moved
        persist = Asked(store, Expire("a", None))
        await writer.write_all()
        assert persist.failures == [(4001, "not_applied")]
        await writer.write_all()


async def test_an_open_scan_goes_by_the_time_at_which_it_was_opened() -> None:
    now = 1_790_000_000_000
    async with opened(clock_ms=lambda: now, monotonic_ns=lambda: now * 1_000_000) as store:
        await done(store, Set("a", b"1", ttl_ms=10), Set("b", b"1"))
        cursor = await store.commands.open_scan(ANONYMOUS, OpenScan())
        assert not isinstance(cursor, Failure)
        now += 10
        page = cursor.page(1000, 10)
        assert not isinstance(page, Failure)
        assert [row[0] for row in page.rows] == ["a", "b"]
        cursor.close()


@virtual_clock
async def test_keys_expire_on_a_full_disk_and_so_make_room() -> None:
    fs = MemoryFileSystem()
    async with node(storage=fs) as url:
        store = url.node
        await done(store, Set("a", b"1", ttl_ms=1000))
        await fill_disk(store, fs)
        await sleep(1.1)
        assert "a" not in stored(store)
        fs.failing = frozenset()


@virtual_clock
async def test_a_command_that_the_log_does_not_take_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with node(storage="memory") as url:
        store = url.node
        await done(store, Set("a", b"1", ttl_ms=1000))
        with monkeypatch.context() as patch:
            patch.setattr("haptera.node.commit.PENDING_COMMANDS_MAX", 0)
            await sleep(1.5)
            assert "a" in stored(store)
            assert Asked(store, Exists("a")).result == (False,)
        await sleep(RETRY_S)
        assert stored(store) == set()


@virtual_clock
async def test_a_node_that_ends_removes_nothing_more() -> None:
    fs = MemoryFileSystem()
    async with node(storage=fs) as url:
        store = url.node
        await done(store, Set("a", b"1", ttl_ms=1000))
        await sleep(0.9995)
    await sleep(5)
    assert "a" in stored(store)


async def test_a_key_that_dies_while_its_delete_is_on_its_way_is_deleted_once() -> None:
    now, writer = 1_790_000_000_000, ManualWriter()
    async with opened(writer=writer, clock_ms=lambda: now, monotonic_ns=lambda: now * 1_000_000) as store:
        Asked(store, Set("a", b"1", ttl_ms=100))
        await writer.write_all()
        delete = Asked(store, Delete("a"))
        await turn()
        now += 200
        await asyncio.sleep(0.12)
        await writer.write_all()
        assert delete.result == (True, 2, None)
        assert store.revision == 2

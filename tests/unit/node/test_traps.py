"""Traps of times to live and of leases, as a node meets them: with its clocks, its log, its timers and its watches."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.errors import Failure
from haptera.node.commands import ANONYMOUS
from haptera.node.lease_clock import TICK_MS
from haptera.node.watches import LocalFeed
from haptera.state.event_history import EXPIRE
from haptera.state.operations import Delete, Get, GrantLease, OpenWatch, RenewLease, Set
from haptera.testing import MemoryFileSystem, virtual_clock
from tests.unit.node.nodes import Asked, done, opened

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from haptera.node.node import Node

START_MS = 1_700_000_000_000
YEAR_MS = 366 * 86_400_000
LATE_S = 2 * TICK_MS / 1000 + 0.01


class Clocks:
    """The clocks of a machine: time passes on both with that of the loop, ``wall_ms`` more has passed on the wall's,
    and ``paused_s`` is the time that the node did not see pass, because it was stopped.
    """

    def __init__(self) -> None:
        self.wall_ms = 0
        self.paused_s = 0.0

    def opened(self, fs: MemoryFileSystem) -> AbstractAsyncContextManager[Node]:
        loop = asyncio.get_running_loop()
        return opened(
            fs,
            clock_ms=lambda: START_MS + self.wall_ms + int((loop.time() + self.paused_s) * 1000),
            monotonic_ns=lambda: int((loop.time() + self.paused_s) * 1e9),
        )


def has(store: Node, key: str = "a") -> bool:
    return not isinstance(Asked(store, Get(key)).result, Failure)


async def leased(store: Node, ttl_ms: int) -> tuple[int, int]:
    """Grant a lease, to which the key `a` belongs: its id, and the token."""
    [granted] = await done(store, GrantLease(ttl_ms))
    assert isinstance(granted, tuple)
    [written] = await done(store, Set("a", b"1", lease=granted[0]))
    assert isinstance(written, tuple)
    return granted[0], written[0]


async def told(store: Node, feed: LocalFeed) -> list[Any]:
    """The events that a watch was told of: revision, kind and key."""
    await store.drain()
    events = []
    while feed._items:
        revision, rows, _ = msgspec.msgpack.decode(await feed.next())
        events += [(revision, kind, key) for kind, key, *_ in rows]
    return events


@virtual_clock
async def test_trap_expiry_by_each_nodes_clock_and_not_logged() -> None:
    """A replay under any clock has the key until the entry that removes it, and not behind that."""
    fs, clocks = MemoryFileSystem(), Clocks()
    async with clocks.opened(fs) as store:
        await done(store, Set("a", b"1", ttl_ms=60_000))
        digest = store._machine.digest()
    states = set()
    for wall_ms in (-YEAR_MS, 0, YEAR_MS):
        clocks.wall_ms = wall_ms
        files = deepcopy(fs)
        async with clocks.opened(files) as store:
            assert store._machine.digest() == digest
            assert set(store._machine.kv.entries) == {"a"}
            await asyncio.sleep(80)
            assert not has(store)
            assert (store.revision, store._machine.kv.entries.get("a")) == (2, None)
        async with Clocks().opened(files) as store:
            states.add((store.revision, store._machine.kv.digest()))
    assert len(states) == 1


@virtual_clock
@pytest.mark.parametrize("jump_ms", [-YEAR_MS, YEAR_MS])
async def test_trap_a_ttl_that_a_clock_jump_makes_endless_or_ends_at_once(jump_ms: int) -> None:
    clocks = Clocks()
    async with clocks.opened(MemoryFileSystem()) as store:
        await done(store, Set("a", b"1", ttl_ms=60_000))
        clocks.wall_ms = jump_ms
        await done(store, Set("b", b"1", ttl_ms=60_000))
        await asyncio.sleep(54)
        assert has(store, "a")
        assert has(store, "b")
        await asyncio.sleep(13)
        assert not has(store, "a")
        assert not has(store, "b")
        await store.drain()
        assert not store._machine.kv.entries


@virtual_clock
async def test_trap_a_lease_that_ends_because_the_node_was_paused_without_its_owner_being_told() -> None:
    """An owner that renews right behind the pause keeps its lease. One that does not is told by each of its ways: the
    watch, the renewal, and the fence of a change.
    """
    clocks = Clocks()
    async with clocks.opened(MemoryFileSystem()) as store:
        lease, token = await leased(store, 5000)
        feed = LocalFeed()
        store.watches.open(ANONYMOUS, OpenWatch(prefix="a"), feed)
        await asyncio.sleep(4)
        clocks.paused_s += 3600
        await asyncio.sleep(TICK_MS / 1000)  # the first tick behind the pause
        assert Asked(store, RenewLease([lease])).result == ((5000,),)
        await asyncio.sleep(4.9)
        assert has(store)
        await asyncio.sleep(0.1 + LATE_S)
        assert not has(store)
        assert await told(store, feed) == [(store.revision, EXPIRE, "a")]
        assert Asked(store, RenewLease([lease])).result == ((None,),)
        [refused] = await done(store, Set("b", b"late", fence=token))
        assert isinstance(refused, Failure)
        assert refused.code == 4011


@virtual_clock
async def test_trap_a_key_recreated_by_another_owner_and_deleted_by_the_old_lease() -> None:
    async with Clocks().opened(MemoryFileSystem()) as store:
        await leased(store, 5000)
        await done(store, Delete("a"), Set("a", b"another's"))
        await asyncio.sleep(5 + LATE_S)
        assert has(store)
        assert store.metrics.values()["leases_ended_total"] == 1

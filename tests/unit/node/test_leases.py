"""A node keeps the leases that are renewed, and ends the others: never early, and in the log."""

from __future__ import annotations

import asyncio
from asyncio import sleep
from typing import TYPE_CHECKING

from haptera.errors import Failure
from haptera.node import health, leases
from haptera.node.commit import RETRY_S
from haptera.node.lease_clock import TICK_MS
from haptera.state.operations import Count, Get, GrantLease, ListLeases, RenewLease, RevokeLease, Set, SetMany
from haptera.testing import MemoryFileSystem, node, virtual_clock
from tests.unit.node.nodes import Asked, ManualWriter, done, fill_disk, opened, turn

if TYPE_CHECKING:
    import pytest

    from haptera.node.node import Node

#: Seconds by which a lease ends at the latest, behind its time.
LATE_S = 2 * TICK_MS / 1000 + 0.01


async def leased(store: Node, ttl_ms: int = 10_000) -> int:
    """Grant a lease, to which the key `a` belongs."""
    lease = await granted(store, ttl_ms)
    await done(store, Set("a", b"1", lease=lease))
    return lease


async def granted(store: Node, ttl_ms: int) -> int:
    """Grant a lease, without keys."""
    [result] = await done(store, GrantLease(ttl_ms))
    assert isinstance(result, tuple)
    return int(result[0])


def renewed(store: Node, *ids: int) -> object:
    return Asked(store, RenewLease(list(ids))).result


def ticks(store: Node) -> bool:
    return store.leases._timer is not None


def has(store: Node, key: str = "a") -> bool:
    return not isinstance(Asked(store, Get(key)).result, Failure)


@virtual_clock
async def test_a_lease_that_is_not_renewed_ends_after_its_time_and_soon_after() -> None:
    async with node(storage="memory") as url:
        store = url.node
        lease = await leased(store)
        await sleep(9.999)
        assert has(store)
        await sleep(LATE_S)
        assert not has(store)
        assert renewed(store, lease) == ((None,),)
        values = store.metrics.values()
        assert (values["leases"], values["leases_ended_total"], values["keys_expired_total"]) == (0, 1, 1)


@virtual_clock
async def test_a_lease_that_is_renewed_goes_on_and_nothing_is_written_for_it() -> None:
    async with node(storage="memory") as url:
        store = url.node
        lease = await leased(store)
        index = store.index
        for _ in range(30):
            await sleep(9.9)
            assert renewed(store, lease, 99) == ((10_000, None),)
        assert store.index == index
        await sleep(9.999)
        assert has(store)
        await sleep(LATE_S)
        assert not has(store)
        assert store.index == index + 1


@virtual_clock
async def test_there_is_no_timer_while_there_is_no_lease() -> None:
    async with node(storage="memory") as url:
        store = url.node
        assert not ticks(store)
        lease = await leased(store)
        assert ticks(store)
        await done(store, RevokeLease(lease))
        await sleep(1)
        assert not ticks(store)
        await sleep(1000)
        lease = await leased(store)
        await sleep(0.2)
        assert Asked(store, ListLeases()).result == (((lease, 10_000, 9800, 1),), False)
        await sleep(9.799)
        assert has(store)


@virtual_clock
async def test_the_list_tells_how_much_time_is_left() -> None:
    async with node(storage="memory") as url:
        store = url.node
        lease = await leased(store)
        await sleep(4)
        other = await granted(store, 2000)
        [result] = await done(store, ListLeases())
        assert result == (((lease, 10_000, 6000, 1), (other, 2000, 2000, 0)), False)


@virtual_clock
async def test_a_lease_has_its_whole_time_again_when_the_node_starts() -> None:
    """Though it was down for a day: nothing says when it was renewed last. Then it ends, as no client renews it."""
    fs = MemoryFileSystem()
    async with node(storage=fs) as url:
        lease = await leased(url.node)
        await sleep(9)
    await sleep(86_400)
    async with node(storage=fs) as url:
        await sleep(9.9)
        assert has(url.node)
        assert Asked(url.node, ListLeases()).result == (((lease, 10_000, 100, 1),), False)
        await sleep(LATE_S + 0.1)
        assert not has(url.node)
    async with node(storage=fs) as url:
        assert not has(url.node)


async def test_a_renewal_while_the_end_of_the_lease_is_on_its_way_comes_too_late() -> None:
    clock = Clock()
    writer = ManualWriter()
    async with opened(MemoryFileSystem(), writer=writer, monotonic_ns=clock.read) as store:
        asked = Asked(store, GrantLease(1000), SetMany([]))
        await turn()
        await writer.write_all()
        [(lease, _), _] = asked.results  # type: ignore[misc]
        clock.tick(store, 3)
        assert renewed(store, lease) == ((1000,),)
        clock.tick(store, 4)
        await turn()
        await turn()
        assert lease in store._machine.leases.by_id
        assert renewed(store, lease) == ((None,),)
        await writer.write_all()
        assert lease not in store._machine.leases.by_id
        store.leases.stop()
        await finish(store, writer)


async def finish(store: Node, writer: ManualWriter) -> None:
    closing = asyncio.ensure_future(store.aclose())
    while not closing.done():
        await turn()
        await writer.write_all()


class Clock:
    """A monotonic clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now_ns = 0

    def read(self) -> int:
        return self.now_ns

    def tick(self, store: Node, times: int = 1, milliseconds: int = TICK_MS) -> None:
        """Have the node tick, each time so much later."""
        for _ in range(times):
            self.now_ns += milliseconds * 1_000_000
            timer = store.leases._timer
            assert timer is not None
            timer.cancel()
            store.leases._tick()


async def test_a_node_that_was_paused_reads_the_renewals_of_the_pause_before_it_ends_a_lease() -> None:
    """Trap: a lease that ends because the node was paused. The tick behind the pause ends none, though the lease had
    a quarter of a second left before it.
    """
    clock = Clock()
    async with opened(MemoryFileSystem(), monotonic_ns=clock.read) as store:
        lease = await leased(store, 1000)
        clock.tick(store, 3)
        clock.tick(store, 1, 60_000)  # the process was stopped for a minute
        await asyncio.sleep(0.01)
        assert has(store)
        assert renewed(store, lease) == ((1000,),)
        clock.tick(store, 3)
        await asyncio.sleep(0.01)
        assert has(store)
        clock.tick(store)
        await asyncio.sleep(0.01)
        await store.drain()
        assert not has(store)


@virtual_clock
async def test_a_lease_ends_on_a_full_disk_too() -> None:
    """Its end frees, so it may use the reserve of the log."""
    fs = MemoryFileSystem()
    async with node(storage=fs) as url:
        store = url.node
        await leased(store)
        await fill_disk(store, fs)
        await sleep(10 + LATE_S)
        assert not has(store)
        fs.failing = frozenset()


@virtual_clock
async def test_health_names_leases_that_are_left_behind_before_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "LEASES_MANY", 3)
    async with node(storage="memory") as url:
        store = url.node
        lease = await granted(store, 10_000)
        await granted(store, 600_000)
        assert health.health(store) == health.Health("ok")
        await granted(store, 600_000)
        state, reason, help_, since_ms = health.health(store)
        assert (state, since_ms) == ("ok", None)
        assert reason.startswith("there are 3 of 100000 leases")
        assert "neither renews nor revokes" in help_
        await done(store, RevokeLease(lease))
        assert health.health(store) == health.Health("ok")


@virtual_clock
async def test_an_end_that_the_log_has_not_taken_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with node(storage="memory") as url:
        store = url.node
        lease = await leased(store)
        monkeypatch.setattr(store._pipeline, "_takes", lambda *_: False)
        await sleep(10 + LATE_S)
        assert has(store)
        assert renewed(store, lease) == ((None,),)
        monkeypatch.undo()
        await sleep(RETRY_S)
        assert not has(store)


@virtual_clock
async def test_an_end_is_not_tried_again_when_the_node_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: set[float] = set()

    def takes(*_: object) -> bool:
        tried.add(asyncio.get_running_loop().time())
        return False

    async with node(storage="memory") as url:
        store = url.node
        await leased(store)
        monkeypatch.setattr(store._pipeline, "_takes", takes)
        await sleep(10 + LATE_S)
        assert len(tried) == 1
    await sleep(5 * RETRY_S)
    assert len(tried) == 1


@virtual_clock
async def test_many_leases_end_in_several_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "ENDED_TOGETHER_MAX", 10)
    async with node(storage="memory") as url:
        store = url.node
        await done(store, *[GrantLease(1000)] * 35)
        await done(store, *[Set(f"k{number}", b"", lease=number) for number in range(1, 36)])
        index = store.index
        await sleep(1 + LATE_S)
        assert Asked(store, Count()).result == (0,)
        assert store.index == index + 4


@virtual_clock
async def test_leases_with_many_keys_end_one_by_one_so_that_writers_get_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "ENDED_TOGETHER_MAX", 10)
    async with node(storage="memory") as url:
        store = url.node
        await done(store, *[GrantLease(1000)] * 5)
        for lease in range(1, 6):
            await done(store, SetMany([(f"{lease}/{number}", b"") for number in range(200)], lease=lease))
        index = store.index
        await sleep(1 + LATE_S)
        assert Asked(store, Count()).result == (0,)
        assert store.index == index + 5


@virtual_clock
async def test_leases_that_are_revoked_leave_nothing_behind() -> None:
    """However long they would have lasted."""
    async with node(storage="memory") as url:
        store = url.node
        for _ in range(100):
            lease = await leased(store, 86_400_000)
            await done(store, RevokeLease(lease))
        assert not len(store.leases._deadlines)
        assert not store.leases._deadlines._slots

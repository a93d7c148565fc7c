"""Locks, semaphores and elections: who holds them, in which order, and how a holder learns that it does not."""

from __future__ import annotations

import asyncio
import random
from asyncio import sleep
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.client.recipes.line import LINE
from haptera.errors import Fenced, InvalidKey, LeaseLost, LockLost, WaitTimeout
from haptera.testing import MemoryFileSystem, node, proxy, virtual_clock
from tests.support.stores import opened
from tests.support.virtual import loop, network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from haptera import Database
    from haptera.recipes import Holding
    from haptera.testing import Proxy

#: Seconds by which a node is late with the end of a lease, at most.
LATE_S = 0.6


@pytest.fixture(params=["served", "embedded"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(request.param, tmp_path) as database:
        yield database


@asynccontextmanager
async def clients(count: int, **options: Any) -> AsyncIterator[list[Database]]:
    async with node(storage="memory", **options) as url, AsyncExitStack() as stack:
        yield [await stack.enter_async_context(haptera.connect(url)) for _ in range(count)]


@asynccontextmanager
async def two_ways(**options: Any) -> AsyncIterator[tuple[Database, Database, Proxy]]:
    """A client, and one that reaches the node by a proxy."""
    async with (
        node(storage="memory", **options) as url,
        proxy(url) as cut,
        haptera.connect(url) as near,
        haptera.connect(cut.url) as far,
    ):
        yield near, far, cut


async def places(db: Database, name: str = "jobs") -> list[bytes]:
    return [place.value async for place in db.scan(prefix=name + LINE)]


# -- as a program uses it


async def test_a_lock_has_a_token_that_is_good_until_the_block_ends(db: Database) -> None:
    async with db.lock("jobs", value=b"me") as lock:
        assert lock.held
        await db.set("report", b"1", fence=lock.token)
        [place] = [place async for place in db.scan(prefix="jobs/.line/")]
        assert (place.value, place.version) == (b"me", lock.token)
        [lease] = [lease async for lease in db.leases()]
        assert place.key == f"jobs/.line/{lease.id:016x}"
        assert repr(lock) == f"<haptera.recipes.Holding {lock.token}, held>"
    assert await lock.lost is None
    assert repr(lock).endswith("ended>")
    assert await places(db) == []
    with pytest.raises(Fenced):
        await db.set("report", b"2", fence=lock.token)


async def test_claimants_hold_a_lock_one_after_the_other_in_the_order_in_which_they_came(db: Database) -> None:
    held: list[tuple[int, int]] = []
    inside = 0

    async def claim(number: int) -> None:
        nonlocal inside
        async with db.lock("jobs") as lock:
            inside += 1
            assert inside == 1
            held.append((number, lock.token))
            await sleep(0.001)
            inside -= 1

    tasks = []
    for number in range(12):
        tasks.append(asyncio.create_task(claim(number)))
        while len(await places(db)) + len(held) <= number:
            await sleep(0.001)
    await asyncio.gather(*tasks)
    assert [number for number, _ in held] == list(range(12))
    assert held == sorted(held, key=lambda each: each[1])


async def test_a_semaphore_has_so_many_holders_at_a_time(db: Database) -> None:
    inside, most, done = 0, 0, 0

    async def claim() -> None:
        nonlocal inside, most, done
        async with db.semaphore("printers", limit=3):
            inside += 1
            most = max(most, inside)
            await sleep(0.005)
            inside -= 1
        done += 1

    await asyncio.gather(*(claim() for _ in range(10)))
    assert (most, done) == (3, 10)
    assert await places(db, "printers") == []


async def test_who_does_not_wait_is_refused_at_once_and_leaves_nothing_behind(db: Database) -> None:
    async with db.lock("jobs"):
        revision = (await db.status())["revision"]
        with pytest.raises(WaitTimeout, match="jobs is held by others"):
            await db.lock("jobs", wait=0).__aenter__()
        assert (await db.status())["revision"] == revision, "a claim that cannot succeed is not written"
        with pytest.raises(TimeoutError):
            await db.lock("jobs", wait=0.01).__aenter__()
        assert len(await places(db)) == 1
    async with db.lock("jobs", wait=0) as lock:
        assert lock.held


async def test_a_claim_is_for_one_holder_at_a_time_and_may_be_entered_again(db: Database) -> None:
    claim = db.lock("jobs")
    async with claim as first:
        with pytest.raises(RuntimeError, match="the claim to jobs is entered already"):
            await claim.__aenter__()
    async with claim as second:
        assert second.token > first.token


async def test_an_election_tells_who_leads(db: Database) -> None:
    watcher = db.election("leader")
    assert await watcher.leader() is None
    changes = watcher.changes()
    assert await anext(changes) is None
    async with db.election("leader", value="ann") as leader:
        entry = await watcher.leader()
        assert entry is not None
        assert (entry.text, entry.version) == ("ann", leader.token)
        assert await anext(changes) == entry
        second = asyncio.create_task(db.election("leader", value=b"bob").__aenter__())
        while len(await places(db, "leader")) < 2:
            await sleep(0.001)
        assert await watcher.leader() == entry
    await second
    told = await anext(changes)
    assert told is not None
    assert told.text == "bob"
    await changes.aclose()


@pytest.mark.parametrize(
    ("claim", "error"),
    [
        (lambda db: db.lock("jobs", ttl=0.1), "ttl is between"),
        (lambda db: db.lock("jobs", wait=-1.0), "wait is a number of seconds"),
        (lambda db: db.lock("jobs", wait=float("nan")), "wait is a number of seconds"),
        (lambda db: db.semaphore("jobs", limit=0), "limit is between"),
    ],
)
async def test_a_claim_that_cannot_succeed_is_a_mistake(
    db: Database, claim: Callable[[Database], object], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        claim(db)


async def test_a_name_that_is_no_key_is_refused_and_leaves_no_lease(db: Database) -> None:
    with pytest.raises(InvalidKey):
        await db.lock("x" * 4090).__aenter__()
    assert [lease async for lease in db.leases()] == []


# -- loss


async def test_a_block_whose_place_is_deleted_is_cancelled(db: Database) -> None:
    seen: list[str] = []

    async def work() -> None:
        async with db.lock("jobs") as lock:
            await db.delete_many([place.key async for place in db.scan(prefix="jobs/.line/")])
            try:
                await sleep(60.0)
            except asyncio.CancelledError:
                seen.append(f"cancelled, held: {lock.held}")
                raise

    with pytest.raises(LockLost, match="its place in the line was deleted"):
        await work()
    assert seen == ["cancelled, held: False"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await sleep(0)


async def test_a_place_that_is_written_again_is_lost(db: Database) -> None:
    async def work() -> None:
        async with db.lock("jobs") as lock:
            tokens.append(lock.token)
            [place] = [place async for place in db.scan(prefix="jobs/.line/")]
            await db.set(place.key, b"another's")
            await sleep(60.0)

    tokens: list[int] = []
    with pytest.raises(LockLost, match="its place in the line was written again"):
        await work()
    with pytest.raises(Fenced):
        await db.set("report", b"1", fence=tokens[0])
    assert await places(db) == [b"another's"], "it belongs to no claimant, and is left as it is"


@virtual_clock
async def test_a_holder_that_is_cut_off_is_cancelled_before_another_has_the_lock() -> None:
    order: list[str] = []

    async def hold(db: Database) -> None:
        try:
            async with db.lock("jobs"):
                order.append("first holds")
                await sleep(3600.0)
        finally:
            order.append("first ends")

    async with two_ways() as (near, far, cut):
        first = asyncio.create_task(hold(far))
        await sleep(1.0)
        second = asyncio.create_task(near.lock("jobs").__aenter__())
        await sleep(1.0)
        cut.pause()
        stopped_at = loop().time()
        holding = await second
        order.append("second holds")
        with pytest.raises(LockLost) as caught:
            await first
        assert isinstance(caught.value.__cause__, LeaseLost)
        assert order == ["first holds", "first ends", "second holds"]
        assert holding.held
        assert loop().time() - stopped_at <= 10.0 + LATE_S, "no one waits longer than the lease"
        cut.resume()


@virtual_clock
async def test_a_holder_that_was_stopped_knows_that_it_has_lost_the_lock_before_it_is_told() -> None:
    async def work(db: Database) -> None:
        async with db.lock("jobs") as lock:
            loop()._now += 9.5
            assert not lock.held

    async with clients(1) as [db]:
        with pytest.raises(LockLost):
            await work(db)


@virtual_clock
async def test_a_wall_clock_that_is_set_ends_no_lock_and_prolongs_none() -> None:
    set_ms = 0
    async with two_ways(clock_ms=lambda: 1_700_000_000_000 + set_ms) as (db, far, cut), db.lock("jobs") as lock:
        for jump_ms in (86_400_000, -172_800_000, 86_400_000):
            set_ms += jump_ms
            await sleep(30.0)
            assert lock.held
        gone = asyncio.create_task(far.lock("other").__aenter__())
        await asyncio.wait([gone])
        cut.pause()
        set_ms -= 86_400_000
        begun = loop().time()
        async with db.lock("other", wait=60.0):
            assert not gone.result().held
            assert loop().time() - begun <= 10.0 + LATE_S
        cut.resume()


@virtual_clock
async def test_the_error_of_the_block_goes_before_the_loss_of_the_lock() -> None:
    async def work(db: Database) -> None:
        async with db.lock("jobs"):
            await db.clear(prefix="jobs/.line/")
            try:
                await sleep(60.0)
            except asyncio.CancelledError:
                raise ZeroDivisionError from None

    async with clients(1) as [db]:
        with pytest.raises(ZeroDivisionError):
            await work(db)


@virtual_clock
async def test_a_block_that_goes_on_after_the_loss_raises_it_at_its_end() -> None:
    ends: list[str] = []

    async def work(db: Database) -> None:
        async with db.lock("jobs"):
            await db.clear(prefix="jobs/.line/")
            try:
                await sleep(60.0)
            except asyncio.CancelledError:
                ends.append("goes on")

    async with clients(1) as [db]:
        with pytest.raises(LockLost):
            await work(db)
    assert ends == ["goes on"]


@virtual_clock
async def test_a_task_that_is_cancelled_as_the_lock_is_lost_stays_cancelled() -> None:
    async def work(db: Database) -> None:
        async with db.lock("jobs"):
            entered.set()
            await sleep(60.0)

    for loses_first in (True, False):
        entered = asyncio.Event()
        async with clients(2) as [db, other]:
            task = asyncio.create_task(work(db))
            await entered.wait()
            if loses_first:
                await other.clear(prefix="jobs/.line/")
                while not task.cancelling():
                    await sleep(0)
                task.cancel()
            else:
                task.cancel()
                await other.clear(prefix="jobs/.line/")
            await asyncio.wait([task])
            assert task.cancelled()


@virtual_clock
async def test_a_timeout_around_and_in_the_block_keeps_its_meaning() -> None:
    async with clients(1) as [db]:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(5.0), db.lock("jobs"):
                await sleep(60.0)
        assert not isinstance(caught.value, WaitTimeout)

        async def work() -> None:
            async with db.lock("jobs"):
                await db.clear(prefix="jobs/.line/")
                async with asyncio.timeout(50.0):
                    await sleep(60.0)

        with pytest.raises(LockLost):
            await work()


# -- waiting


@virtual_clock
async def test_claimants_wait_over_cuts_and_restarts_of_the_node_and_none_holds_beside_another() -> None:
    address = "haptera://127.0.0.1:7457"
    fs = MemoryFileSystem()
    inside: list[int] = []
    tokens: list[int] = []

    async def claim(number: int) -> None:
        async with haptera.connect(address) as db, db.lock("jobs") as lock:
            assert inside == []
            inside.append(number)
            tokens.append(lock.token)
            await sleep(1.0)
            inside.remove(number)

    async with node(storage=fs, listen=address):
        tasks = [asyncio.create_task(claim(number)) for number in range(20)]
        for _ in range(10):
            await sleep(0.7)
            network().sever()
    await sleep(2.0)
    async with node(storage=fs, listen=address):
        await asyncio.gather(*tasks)
    assert len(tokens) == 20
    assert tokens == sorted(tokens)


@virtual_clock
async def test_a_claimant_holds_only_when_it_has_seen_the_whole_line() -> None:
    """The places come in several pieces, because what the claimants say of themselves is long."""
    async with clients(3) as [one, two, three]:
        long = b"x" * 1_500_000
        async with one.semaphore("p", limit=2, value=long), two.semaphore("p", limit=2, value=long):
            with pytest.raises(WaitTimeout):
                await three.semaphore("p", limit=2, wait=5.0, value=long).__aenter__()


@virtual_clock
async def test_all_claimants_of_a_database_follow_a_line_by_one_watch() -> None:
    """More claimants than a connection has streams leave room for its other calls."""
    async with clients(2, max_streams=64) as [db, other]:
        tokens: list[int] = []

        async def claim() -> None:
            async with db.lock("jobs") as lock:
                await sleep(0.1)
                tokens.append(lock.token)

        async with other.lock("jobs"):
            tasks = [asyncio.create_task(claim()) for _ in range(100)]
            await sleep(30.0)
            assert len(await places(db)) == 101
        await asyncio.gather(*tasks)
        assert len(tokens) == 100
        assert tokens == sorted(tokens)
        assert await places(other) == []


@virtual_clock
async def test_a_claimant_that_waits_asks_the_store_nothing() -> None:
    async with two_ways() as (db, other, counted):
        async with db.lock("jobs", ttl=3600.0):
            task = asyncio.create_task(other.lock("jobs", ttl=3600.0).__aenter__())
            await sleep(1.0)
            before = counted.to_acceptor.sent
            await sleep(900.0)
            assert counted.to_acceptor.sent - before < 4000, "signs of life alone"
        assert (await task).held


@virtual_clock
async def test_a_claimant_goes_on_waiting_when_its_watch_was_overtaken() -> None:
    """The node keeps so few changes that a watch that was cut off cannot go on from where it was."""
    async with two_ways(history_events=10_000) as (db, far, cut):
        async with db.lock("jobs") as lock:
            task = asyncio.create_task(far.lock("jobs").__aenter__())
            await sleep(1.0)
            cut.sever()
            cut.pause()
            for _ in range(12):
                await db.set_many({f"other/{number}": b"x" for number in range(1000)})
            cut.resume()
            await sleep(5.0)
            assert lock.held
            assert not task.done()
        await sleep(3.0)
        assert (await task).held


@pytest.mark.parametrize("others", [True, False])
def test_a_claimant_that_is_cancelled_at_any_moment_leaves_the_line(others: bool) -> None:
    async def hold(db: Database) -> None:
        async with db.lock("jobs", ttl=1.0):
            await sleep(3600.0)

    @virtual_clock
    async def run() -> None:
        async with clients(2, write_delay=0.01) as [db, other], AsyncExitStack() as stack:
            if others:
                await stack.enter_async_context(other.lock("jobs"))
            for moment in range(60):
                task = asyncio.create_task(hold(db))
                for _ in range(moment % 30):
                    await sleep(0.0 if moment < 30 else 0.002)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
            await sleep(1.0 + LATE_S)
            assert len(await places(other)) == others
            assert len([lease async for lease in other.leases()]) == others
            left = [str(task.get_coro()) for task in asyncio.all_tasks()]
            assert sum("LineFollower._follow" in task or "LinePlace" in task for task in left) == 2 * others

    run()


@virtual_clock
async def test_the_end_of_the_block_is_bounded_when_the_store_is_silent() -> None:
    async def work(db: Database) -> None:
        async with db.lock("jobs", ttl=3600.0):
            network().pause()
            raise ZeroDivisionError

    async with clients(1) as [db]:
        begun = loop().time()
        with pytest.raises(ZeroDivisionError):
            await work(db)
        assert loop().time() - begun <= 6.0
        network().resume()


@virtual_clock
async def test_a_store_that_is_silent_when_a_claim_begins_is_an_error_in_time() -> None:
    async with clients(1) as [db]:
        await db.status()
        network().pause()
        with pytest.raises((haptera.ConnectionLost, haptera.DeadlineExceeded)):
            await db.lock("jobs").__aenter__()
        assert loop().time() <= 15.0
        network().resume()


# -- elections and semaphores


@virtual_clock
async def test_the_stream_of_leaders_has_no_gap_however_short_they_lead() -> None:
    async with clients(3) as [one, two, watcher]:
        told: list[str | None] = []

        async def follow() -> None:
            changes = watcher.election("leader").changes()
            while True:
                leader = await anext(changes)
                told.append(None if leader is None else leader.text)

        task = asyncio.create_task(follow())
        await sleep(0.1)

        async def lead(db: Database, name: str) -> None:
            async with db.election("leader", value=name):
                pass

        for number in range(10):
            await asyncio.gather(lead(one, f"a{number}"), lead(two, f"b{number}"))
            network().sever()
            await sleep(5.0)
        task.cancel()
        assert told[0] is None
        leaders = [name for name in told if name is not None]
        assert sorted(leaders) == sorted(f"{letter}{number}" for letter in "ab" for number in range(10))
        assert told[-1] is None


@virtual_clock
async def test_who_took_a_place_first_leads_whichever_lease_is_older() -> None:
    async with clients(1) as [db]:
        older, newer = [await db.grant_lease(60.0) for _ in range(2)]
        for lease, value in ((newer, b"first"), (older, b"second")):
            await db.set(f"leader/.line/{lease:016x}", value, lease=lease)
        leader = await db.election("leader").leader()
        assert leader is not None
        assert leader.value == b"first"
        told = await anext(db.election("leader").changes())
        assert told == leader


@virtual_clock
async def test_claimants_of_a_semaphore_that_vanish_leave_their_permits() -> None:
    async with two_ways() as (near, far, cut):
        gone = [asyncio.create_task(far.semaphore("p", limit=3).__aenter__()) for _ in range(2)]
        await asyncio.wait(gone)
        async with near.semaphore("p", limit=3):
            waiting = [asyncio.create_task(near.semaphore("p", limit=3).__aenter__()) for _ in range(3)]
            await sleep(1.0)
            assert not any(task.done() for task in waiting)
            cut.pause()
            await sleep(10.0 + LATE_S)
            assert [task.done() for task in waiting].count(True) == 2
            assert not any(task.result().held for task in gone)
        await sleep(1.0)
        assert all(task.done() for task in waiting)
        cut.resume()


@pytest.mark.parametrize("seed", range(3))
def test_claimants_that_come_go_stop_and_are_cut_off_never_hold_together(seed: int) -> None:
    """By order of tokens: each holder's token is higher than that of the holder before it."""

    @virtual_clock(seed=seed)
    async def run() -> None:
        believers: dict[int, Holding] = {}
        tokens: list[int] = []

        async def claimant(url: str) -> None:
            async with proxy(url) as cut, haptera.connect(cut.url) as db:
                for _ in range(4):
                    await sleep(random.random() * 4.0)
                    try:
                        async with db.lock("jobs", ttl=random.choice([1.0, 2.0, 5.0]), wait=60.0) as lock:
                            assert not [other for other in believers.values() if other.held]
                            believers[lock.token] = lock
                            tokens.append(lock.token)
                            match random.randrange(4):
                                case 0:
                                    cut.pause()
                                case 1:
                                    cut.sever()
                                case _:
                                    pass
                            await sleep(random.random() * 8.0)
                    except (LockLost, WaitTimeout, haptera.ConnectionLost, haptera.DeadlineExceeded):
                        pass
                    cut.resume()

        async with node(storage="memory") as url:
            await asyncio.gather(*(claimant(url) for _ in range(6)))
        assert len(tokens) >= 12
        assert tokens == sorted(tokens)

    run()


@virtual_clock
async def test_the_holders_of_a_store_that_was_replaced_end_no_lock_of_the_new_one() -> None:
    """A restored store grants the leases again that were granted behind its backup, and makes the same places."""
    listen, held = "haptera://127.0.0.1:7457", asyncio.Event()

    async def hold(db: Database) -> None:
        async with db.lock("jobs", ttl=10.0):
            held.set()
            await asyncio.Future()

    async with proxy(listen) as cut, haptera.connect(cut.url) as old:
        async with node(storage="memory", listen=listen):
            holder = asyncio.create_task(hold(old))
            await held.wait()
            cut.refuse()
        async with (
            node(storage="memory", listen=listen),
            haptera.connect(listen) as new,
            new.lock("jobs", ttl=10.0) as lock,
        ):
            await cut.accept()
            with pytest.raises(LockLost, match="another server"):
                await holder
            assert loop().time() < 3.0, "it takes no stranger's place for its own until its next renewal"
            await sleep(30.0)
            assert lock.held

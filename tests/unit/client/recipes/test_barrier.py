"""Barriers: on a served and on an embedded store, and with parties that are cut off, on virtual time."""

from __future__ import annotations

import asyncio
import random
from asyncio import sleep
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.errors import InvalidKey, WaitTimeout
from haptera.testing import node, proxy, virtual_clock
from tests.support.stores import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera import Database
    from haptera.testing import Proxy

#: Seconds by which a node is late with the end of a lease, at most.
LATE_S = 1.0


@asynccontextmanager
async def behind_a_link() -> AsyncIterator[tuple[Proxy, Database, Database]]:
    """A link, the client whose connection it carries, and another client of the same node."""
    async with (
        node(storage="memory") as url,
        proxy(url) as link,
        haptera.connect(link.url) as one,
        haptera.connect(url) as other,
    ):
        yield link, one, other


@pytest.fixture(params=["served", "embedded"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(request.param, tmp_path) as database:
        yield database


async def keys_of(db: Database) -> set[str]:
    return {entry.key async for entry in db.scan(prefix="step/", keys_only=True)}


async def waiting(db: Database, parties: int) -> None:
    """Wait until so many parties have come."""
    while len(await keys_of(db) - {"step/.barrier/open"}) != parties:
        await sleep(0.001)


async def test_parties_go_on_when_the_last_of_them_has_come(db: Database) -> None:
    first = [asyncio.create_task(db.barrier("step", parties=3).wait()) for _ in range(2)]
    await waiting(db, 2)
    await sleep(0.02)
    assert not any(task.done() for task in first)
    assert not await db.barrier("step", parties=3).is_open()
    await db.barrier("step", parties=3).wait()
    await asyncio.gather(*first)
    assert await db.barrier("step", parties=3).is_open()
    assert await keys_of(db) == {"step/.barrier/open"}


async def test_a_party_that_comes_to_an_open_barrier_passes(db: Database) -> None:
    barrier = db.barrier("step", parties=1)
    await barrier.wait()
    revision = db.revision
    await barrier.wait()
    await db.barrier("step", parties=50, wait=0).wait()
    assert (await db.status())["revision"] == revision, "nothing was written"


async def test_a_barrier_that_is_reset_holds_as_many_parties_back_again(db: Database) -> None:
    barrier = db.barrier("step", parties=2)
    assert not await barrier.reset()
    for _ in range(3):
        first = asyncio.create_task(barrier.wait())
        await waiting(db, 1)
        assert not await barrier.reset(), "it is not open"
        await sleep(0.01)
        assert not first.done()
        await asyncio.gather(first, barrier.wait())
        assert await barrier.reset()
        assert not await barrier.is_open()


async def test_the_entries_of_parties_from_before_a_reset_do_not_count(db: Database) -> None:
    """A fourth party has come to a barrier of three, and is killed before its entry is gone."""
    barrier = db.barrier("step", parties=3)
    async with db.lease(60.0) as lease:
        await db.set(f"step/.barrier/{lease.id:016x}", b"", lease=lease)
        await asyncio.gather(*(barrier.wait() for _ in range(3)))
        assert await barrier.reset()
        again = [asyncio.create_task(barrier.wait()) for _ in range(2)]
        await waiting(db, 3)
        await sleep(0.02)
        assert not any(task.done() for task in again)
        await asyncio.gather(*again, barrier.wait())


async def test_a_party_gives_up_when_the_others_have_not_come_in_time(db: Database) -> None:
    with pytest.raises(WaitTimeout, match="step"):
        await db.barrier("step", parties=2, wait=0.05).wait()
    assert await keys_of(db) == set()
    with pytest.raises(WaitTimeout):
        await db.barrier("step", parties=2, wait=0).wait()


async def test_a_party_that_is_cancelled_does_not_count(db: Database) -> None:
    barrier = db.barrier("step", parties=2)
    gone = asyncio.create_task(barrier.wait())
    await waiting(db, 1)
    gone.cancel()
    await asyncio.wait([gone])
    assert gone.cancelled()
    first = asyncio.create_task(barrier.wait())
    await waiting(db, 1)
    await sleep(0.02)
    assert not first.done()
    await asyncio.gather(first, barrier.wait())


async def test_a_party_whose_entry_is_deleted_comes_again(db: Database) -> None:
    barrier = db.barrier("step", parties=2)
    first = asyncio.create_task(barrier.wait())
    await waiting(db, 1)
    [key] = await keys_of(db)
    await db.delete(key)
    await waiting(db, 1)
    assert await keys_of(db) != {key}
    await asyncio.gather(first, barrier.wait())


async def test_as_many_parties_as_a_transact_compares_may_meet(db: Database) -> None:
    await asyncio.gather(*(db.barrier("step", parties=127).wait() for _ in range(127)))
    assert await keys_of(db) == {"step/.barrier/open"}


async def test_mistakes_of_a_program_are_told_when_the_barrier_is_made(db: Database) -> None:
    for parties in (0, 128):
        with pytest.raises(ValueError, match="parties is between 1 and 127"):
            db.barrier("step", parties=parties)
    with pytest.raises(ValueError, match="ttl is between"):
        db.barrier("step", parties=2, ttl=0.5)
    name = "n" * (4096 - len("/.barrier/") - 16)
    db.barrier(name, parties=2)
    for refused in ("", name + "n"):
        with pytest.raises(InvalidKey):
            db.barrier(refused, parties=2)


@virtual_clock
async def test_a_party_that_is_cut_off_for_longer_than_its_lease_does_not_count_until_it_is_back() -> None:
    async with behind_a_link() as (link, one, other):
        away = asyncio.create_task(one.barrier("step", parties=3, ttl=5.0).wait())
        await waiting(other, 1)
        link.pause()
        await sleep(5.0 + LATE_S)
        assert await keys_of(other) == set()
        here = [asyncio.create_task(other.barrier("step", parties=3, ttl=5.0).wait()) for _ in range(2)]
        await sleep(60.0)
        assert not any(task.done() for task in here)
        link.resume()
        await asyncio.gather(away, *here)


@virtual_clock
async def test_a_party_whose_answer_to_the_opening_is_lost_passes_all_the_same() -> None:
    async with behind_a_link() as (link, one, other):
        first = asyncio.create_task(one.barrier("step", parties=2, ttl=60.0).wait())
        await waiting(other, 1)
        await sleep(1.0)
        link.delay(1.0, "to_dialer")
        async with other.lease(60.0) as lease:
            await other.set(f"step/.barrier/{lease.id:016x}", b"", lease=lease)
            await sleep(1.5)
            assert await other.barrier("step", parties=2).is_open()
            link.pause("to_dialer")
            await sleep(12.0)
            assert not first.done()
            link.resume()
            await first


@virtual_clock
async def test_a_party_that_is_cut_off_before_it_has_come_comes_with_another_lease() -> None:
    async with behind_a_link() as (link, one, other):
        link.delay(0.2)
        coming = asyncio.create_task(one.barrier("step", parties=1, ttl=1.0).wait())
        while not [lease async for lease in other.leases()]:
            await sleep(0.01)
        link.pause("to_acceptor")
        await sleep(1.0 + LATE_S)
        assert not [lease async for lease in other.leases()]
        link.resume()
        link.delay(0.0)
        await coming


@virtual_clock
async def test_a_party_that_hears_late_of_the_end_of_another_does_not_open_for_it() -> None:
    async with behind_a_link() as (link, one, other):
        late = asyncio.create_task(one.barrier("step", parties=3, ttl=60.0).wait())
        await waiting(other, 1)
        await sleep(1.0)
        link.delay(2.0, "to_dialer")
        gone, there = await other.lease(60.0), await other.lease(60.0)
        for lease in (gone, there):
            await other.set(f"step/.barrier/{lease.id:016x}", b"", lease=lease)
            await sleep(0.1)
        await gone.close()
        await sleep(10.0)
        assert not await other.barrier("step", parties=3).is_open()
        await other.barrier("step", parties=3).wait()
        await late
        await there.close()


async def cut(link: Proxy, chance: random.Random) -> None:
    while True:
        await sleep(chance.uniform(0.0, 4.0))
        match chance.randrange(3):
            case 0:
                link.sever()
            case 1:
                link.sever_after(chance.randrange(1, 8), "to_dialer")
            case _:
                link.pause()
                await sleep(chance.choice([0.5, 4.0, 9.0]))
                link.resume()


async def rounds(seed: int, count: int) -> None:
    """Three parties pass one barrier after the other, and no one before all have come."""
    chance = random.Random(seed)
    parties = 3
    came = [0] * count
    async with node(storage="memory") as url, AsyncExitStack() as stack:
        links = [await stack.enter_async_context(proxy(url)) for _ in range(parties)]
        clients = [await stack.enter_async_context(haptera.connect(link.url)) for link in links]

        async def party(db: Database) -> None:
            for step in range(count):
                await sleep(chance.uniform(0.0, 2.0))
                came[step] += 1
                while True:
                    try:
                        await db.barrier(f"step-{step}", parties=parties, ttl=3.0).wait()
                        break
                    except (haptera.ConnectionLost, haptera.errors.DeadlineExceeded):
                        pass  # it has not come
                assert came[step] == parties

        cuts = [asyncio.create_task(cut(link, chance)) for link in links]
        async with asyncio.timeout(600.0):
            await asyncio.gather(*(party(db) for db in clients))
        for task in cuts:
            task.cancel()
        await asyncio.wait(cuts)


def test_no_party_passes_before_all_have_come_though_they_are_cut_off_at_random() -> None:
    seed = random.randrange(1 << 32)
    virtual_clock(seed=seed)(rounds)(seed, 2)


@pytest.mark.long
@pytest.mark.parametrize("_", range(50))
def test_no_party_passes_early_over_many_cuts(_: int) -> None:
    seed = random.randrange(1 << 32)
    virtual_clock(seed=seed)(rounds)(seed, 30)

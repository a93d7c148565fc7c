"""Leases that a database keeps alive: renewed in time and together, lost before the node ends them, and never twice."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
from asyncio import sleep
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

import haptera
from haptera import boot_clock
from haptera.client.leases.instant import Instant
from haptera.client.leases.lease_renewer import LeaseRenewer
from haptera.errors import ConnectionLost, DeadlineExceeded, Fenced, LeaseLost, LeaseNotFound, WrongLoop
from haptera.key_rules import LEASES_RENEWED_MAX
from haptera.testing import MemoryFileSystem, node, node_in_thread, proxy, virtual_clock
from tests.support.forked import in_child
from tests.support.stores import opened
from tests.support.virtual import loop, network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from haptera import Database
    from haptera.client.leases.kept_lease import KeptLease
    from haptera.recipes import Lease
    from haptera.testing import NodeUrl

#: Seconds by which a node is late with the end of a lease, at most.
LATE_S = 0.6


@pytest.fixture(params=["served", "embedded"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(request.param, tmp_path) as database:
        yield database


@asynccontextmanager
async def two_clients() -> AsyncIterator[tuple[Database, Database]]:
    async with node(storage="memory") as url, haptera.connect(url) as one, haptera.connect(url) as other:
        yield one, other


def held(lease: Lease | KeptLease) -> bool:
    """Whether it is held now: a type checker takes an attribute to stay as it was."""
    return lease.held


def leases_of(url: NodeUrl) -> list[int]:
    """The leases that a node has."""
    return list(url.node._machine.leases.by_id)


async def revoked(lease: int, server_id: bytes | None, seconds: float) -> None:
    """Stand for a store whose leases are all ended as they are asked to."""


def tasks_of_leases() -> list[str]:
    return [name for task in asyncio.all_tasks() if "Lease" in (name := str(task.get_coro()))]


@pytest.fixture
def renewals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, list[int]]]:
    """When the leases of which ids were renewed."""
    made: list[tuple[float, list[int]]] = []
    renew = haptera.Database.renew_leases

    async def noted(self: Database, leases: Iterable[int], **options: Any) -> list[float | None]:
        ids = list(leases)
        made.append((asyncio.get_running_loop().time(), ids))
        return await renew(self, ids, **options)

    monkeypatch.setattr(haptera.Database, "renew_leases", noted)
    return made


# -- as a program uses it


async def test_a_lease_is_entered_or_awaited_and_its_keys_end_with_it(db: Database) -> None:
    async with db.lease(60.0) as lease:
        await db.set("a", b"1", lease=lease)
        assert held(lease)
        assert [(info.id, info.ttl, info.keys) async for info in db.leases()] == [(lease.id, 60.0, 1)]
    assert not held(lease)
    assert await lease.lost is None
    assert await db.get("a") is None

    async with await db.lease(ttl=60.0) as awaited:
        assert (awaited.ttl, awaited.held, int(awaited.id)) == (60.0, True, awaited.__index__())
    await awaited.close()
    assert [info async for info in db.leases()] == []
    with pytest.raises(LeaseNotFound):
        await db.set("a", b"1", lease=awaited)


async def test_the_time_of_a_lease_is_checked_before_anything_is_sent(db: Database) -> None:
    for ttl in (0.5, 86_401.0):
        with pytest.raises(ValueError, match="ttl is between 1 and 86400"):
            await db.lease(ttl)


async def test_the_end_of_a_lease_leaves_the_error_of_the_block(db: Database) -> None:
    lease = await db.lease(60.0)

    async def fail() -> None:
        async with lease:
            await db.revoke_lease(lease)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not held(lease)


def test_a_lease_says_what_it_is() -> None:
    async def main() -> str:
        async with node(storage="memory") as url, haptera.connect(url) as db:
            lease = await db.lease(10.0)
            held = repr(lease)
            await lease.close()
            return held + repr(lease)

    assert asyncio.run(main()) == "<haptera.recipes.Lease 1 of 10 s, held><haptera.recipes.Lease 1 of 10 s, ended>"


# -- renewals


@virtual_clock
async def test_a_lease_is_renewed_each_third_of_its_time_for_as_long_as_it_is_open() -> None:
    async with two_clients() as (db, other), db.lease(10.0) as lease:
        await db.set("a", b"1", lease=lease)
        for _ in range(100):
            await sleep(36.0)
            assert held(lease)
        assert await other.get("a") is not None
        assert (await other.status())["revision"] == 2, "a renewal is no change"


def test_leases_that_were_granted_at_different_times_come_to_be_renewed_together(
    renewals: list[tuple[float, list[int]]],
) -> None:
    @virtual_clock
    async def run() -> None:
        async with two_clients() as (db, _):
            leases = []
            for _ in range(20):
                leases.append(await db.lease(12.0))
                await sleep(0.6)
            del renewals[:]
            await sleep(120.0)
            assert sum(len(ids) for _, ids in renewals) >= 20 * 30
            assert len(renewals) <= 4 * 30, "four calls in each third of their time"
            assert all(held(lease) for lease in leases)

    run()


def test_more_leases_than_one_call_renews_are_renewed_by_several() -> None:
    class Store:
        calls: list[int] = []  # noqa: RUF012

        async def renew_leases(self, leases: list[int], *, timeout: float) -> list[float | None]:
            self.calls.append(len(leases))
            assert timeout == pytest.approx(10.0)
            return [30.0] * len(leases)

    @virtual_clock
    async def run() -> None:
        store = Store()
        renewer = LeaseRenewer(cast("Database", store), lambda: None, revoked)
        granted = Instant.now(loop())
        kept = [renewer.keep(number, 30.0, granted) for number in range(2 * LEASES_RENEWED_MAX + 5)]
        await sleep(15.0)
        assert store.calls == [LEASES_RENEWED_MAX, LEASES_RENEWED_MAX, 5]
        await sleep(20.0)
        assert all(held(lease) for lease in kept)
        await renewer.aclose()

    run()


@virtual_clock
async def test_a_call_that_hangs_holds_up_no_renewal_of_another_lease() -> None:
    """The first lease of a day is being renewed, with hours to wait, when one of two seconds is granted."""

    class Store:
        async def renew_leases(self, leases: list[int], *, timeout: float) -> list[float | None]:
            if 1 in leases:
                await asyncio.Future()
            return [2.0] * len(leases)

    renewer = LeaseRenewer(cast("Database", Store()), lambda: None, revoked)
    long = renewer.keep(1, 86_400.0, Instant.now(loop()))
    await sleep(30_000.0)
    assert long.asked
    short = renewer.keep(2, 2.0, Instant.now(loop()))
    await sleep(40.0)
    assert held(short)
    await renewer.aclose()


@virtual_clock
async def test_renewals_end_with_the_last_lease_and_begin_with_the_next() -> None:
    async with two_clients() as (db, _):
        first = await db.lease(10.0)
        assert tasks_of_leases()
        await first.close()
        await sleep(0)
        await sleep(0)
        assert tasks_of_leases() == []
        async with db.lease(10.0) as lease:
            await sleep(100.0)
            assert held(lease)


@virtual_clock
async def test_a_lease_goes_on_over_lost_connections_and_a_restart_of_the_node() -> None:
    fs = MemoryFileSystem()
    async with node(storage=fs, listen="haptera://127.0.0.1:7457") as url:
        db = await haptera.connect(url)
        lease = await db.lease(10.0)
        await db.set("a", b"1", lease=lease)
        for _ in range(20):
            await sleep(2.9)
            network().sever()
        assert held(lease)
    await sleep(4.0)
    async with node(storage=fs, listen="haptera://127.0.0.1:7457"):
        await sleep(60.0)
        assert held(lease)
        assert await db.get("a") is not None
        await db.aclose()


# -- loss


@virtual_clock
async def test_a_lease_is_lost_at_nine_tenths_of_its_time_and_before_the_node_ends_it() -> None:
    async with node(storage="memory") as url, haptera.connect(url) as db:
        granted = loop().time()
        lease = await db.lease(10.0)
        await db.set("a", b"1", lease=lease)
        network().pause()
        error = await lease.lost
        assert loop().time() - granted == pytest.approx(9.0)
        assert isinstance(error, LeaseLost)
        assert str(error) == "no renewal of the lease was answered for 9 seconds"
        assert isinstance(error.__cause__, ConnectionLost | DeadlineExceeded)
        assert not held(lease)
        assert leases_of(url)
        network().resume()
        await sleep(10.0 + LATE_S)
        assert not held(lease), "a lease that is lost stays lost"
        assert not leases_of(url)


@virtual_clock
async def test_a_lease_that_the_node_has_ended_is_lost_with_the_next_renewal() -> None:
    async with two_clients() as (db, other):
        lease = await db.lease(9.0)
        await other.revoke_lease(lease)
        error = await lease.lost
        assert str(error) == "the node has ended the lease"
        assert loop().time() == pytest.approx(3.0, abs=0.1)


@virtual_clock
async def test_a_process_that_was_stopped_finds_its_lease_lost_before_any_timer_says_so() -> None:
    async with two_clients() as (db, _):
        lease = await db.lease(10.0)
        loop()._now += 8.9
        assert held(lease)
        loop()._now += 0.2
        assert not held(lease)
        assert await lease.lost is not None


@virtual_clock
async def test_a_machine_that_slept_finds_its_lease_lost() -> None:
    async with two_clients() as (db, _):
        lease = await db.lease(10.0)
        loop().sleep_machine(9.1)
        assert not held(lease)
        assert await lease.lost is not None
        assert loop().time() < 4.0, "the next renewal notices"


@virtual_clock
async def test_a_slow_test_on_virtual_time_loses_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = itertools.count(0, 3_600_000_000_000)
    monkeypatch.setattr(boot_clock, "boot_time_ns", lambda: next(hours))
    async with two_clients() as (db, _):
        lease = await db.lease(10.0)
        await asyncio.sleep(30.0)
        assert held(lease)


@virtual_clock
async def test_a_lease_is_lost_where_another_server_answers_that_gives_its_id_to_someone_else() -> None:
    """A restored store grants the ids again that were granted behind its backup."""
    listen = "haptera://127.0.0.1:7457"
    async with node(storage="memory", listen=listen) as url:
        db = await haptera.connect(url)
        renewed, closed, first = await db.lease(60.0), await db.lease(6000.0), await db.lease(6000.0)
    async with node(storage="memory", listen=listen) as url, haptera.connect(url) as other:
        others = [await other.grant_lease(600.0) for _ in range(3)]
        assert others == [renewed.id, closed.id, first.id]
        await first.close()  # before anything else was answered by this server
        assert leases_of(url) == others
        with pytest.raises(LeaseLost, match="another server"):
            raise await renewed.lost  # type: ignore[misc]  # it was not closed
        await closed.close()
        assert leases_of(url) == others
        await db.aclose()


@virtual_clock
async def test_a_change_under_a_lease_is_made_at_the_server_that_has_granted_it_and_at_no_other() -> None:
    listen = "haptera://127.0.0.1:7457"
    async with haptera.connect(listen) as db:
        async with node(storage="memory", listen=listen):
            lease = await db.lease(6000.0)
            result = await lease.transact(then=[("set", ["a", b"1", {"lease": lease.id}])])
            token = result.version
            assert (result.succeeded, token) == (True, db.revision)
            result = await lease.transact(
                compare=[("a", "version", "=", 99)], then=[("delete", ["a"])], otherwise=[("get", ["a"])], fence=token
            )
            assert not result.succeeded
            with pytest.raises(Fenced):
                await lease.transact(then=[("delete", ["a"])], fence=99)
        async with node(storage="memory", listen=listen), haptera.connect(listen) as other:
            assert await other.grant_lease(600.0) == lease.id
            for _ in range(2):
                with pytest.raises(LeaseLost, match="another server"):
                    await lease.transact(then=[("set", ["a", b"2", {"lease": lease.id}])])
                assert not lease.held
            assert await lease.lost is not None
            assert await other.get("a") is None
            await lease.close()
            assert len([each async for each in other.leases()]) == 1


@virtual_clock
async def test_a_change_under_a_lease_whose_answer_is_lost_is_made_once() -> None:
    async with node(storage="memory") as url, proxy(url) as link, haptera.connect(link.url) as db:
        lease = await db.lease(6000.0)
        link.pause("to_dialer")
        changing = asyncio.create_task(lease.transact(then=[("increment", ["a", 1])]))
        await asyncio.sleep(1.0)
        link.sever()
        link.resume()
        assert (await changing).results == [1]
        assert await db.counter("a").get() == 1


@virtual_clock
async def test_a_renewal_that_is_answered_after_the_loss_changes_nothing() -> None:
    answer: asyncio.Future[list[float | None]] = loop().create_future()

    class Store:
        async def renew_leases(self, leases: list[int], *, timeout: float) -> list[float | None]:
            return await answer

    renewer = LeaseRenewer(cast("Database", Store()), lambda: None, revoked)
    lease = renewer.keep(7, 10.0, Instant.now(loop()))
    await sleep(5.0)
    loop()._now += 5.0
    answer.set_result([10.0])
    assert not held(lease)
    await sleep(0)
    await sleep(0)
    assert not held(lease)
    assert await lease.ended is not None
    await renewer.aclose()


@virtual_clock
async def test_the_time_counts_from_before_the_grant_was_sent() -> None:
    async with two_clients() as (db, _):
        await db.status()
        network().delay(1.0)
        begun = loop().time()
        lease = await db.lease(10.0)
        assert loop().time() - begun == pytest.approx(2.0)
        network().pause()
        await lease.lost
        assert loop().time() - begun == pytest.approx(9.0)
        network().resume()


def test_the_time_counts_from_before_a_renewal_was_sent(renewals: list[tuple[float, list[int]]]) -> None:
    @virtual_clock
    async def run() -> None:
        async with two_clients() as (db, _):
            lease = await db.lease(20.0)
            network().delay(1.0)
            await sleep(9.0)
            network().pause()
            [(sent, ids)] = renewals
            await lease.lost
            assert ids == [lease.id]
            assert loop().time() - sent == pytest.approx(18.0)
            network().resume()

    run()


@virtual_clock
async def test_a_task_that_waits_for_the_loss_and_is_cancelled_leaves_the_others_waiting() -> None:
    async with two_clients() as (db, other):
        lease = await db.lease(9.0)

        async def loss() -> LeaseLost | None:
            return await lease.lost

        first, second = asyncio.create_task(loss()), asyncio.create_task(loss())
        await sleep(0.1)
        first.cancel()
        await sleep(0.1)
        assert not second.done()
        await other.revoke_lease(lease)
        assert isinstance(await second, LeaseLost)
        assert first.cancelled()


# -- the end


@virtual_clock
async def test_the_end_of_a_lease_waits_no_longer_than_its_time_for_a_store_that_is_silent() -> None:
    async with two_clients() as (db, _):
        lease, long = await db.lease(2.0), await db.lease(3600.0)
        network().pause()
        begun = loop().time()
        await lease.close()
        assert loop().time() - begun <= 2.0
        begun = loop().time()
        await long.close()
        assert loop().time() - begun <= 5.0
        assert not held(long)
        network().resume()


@virtual_clock
async def test_a_lease_that_was_lost_to_silence_ends_at_once_when_it_is_closed() -> None:
    async with two_clients() as (db, other):
        lease = await db.lease(10.0)
        await db.set("a", b"1", lease=lease)
        network().pause()
        await lease.lost
        network().resume()
        await lease.close()
        assert await other.get("a") is None


@virtual_clock
async def test_a_grant_that_is_cancelled_ends_by_its_time() -> None:
    async with node(storage="memory", write_delay=0.01) as url, haptera.connect(url) as db:
        for turns in range(40):

            async def grant() -> Lease:
                return await db.lease(1.0)

            task = asyncio.create_task(grant())
            for _ in range(turns):
                await sleep(0 if turns < 30 else 0.001)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                await task.result().close()
        await sleep(1.0 + LATE_S)
        assert not leases_of(url)
        async with db.lease(1.0) as lease:
            await sleep(30.0)
            assert held(lease)


@virtual_clock
async def test_an_end_that_is_cancelled_leaves_a_lease_that_is_not_renewed() -> None:
    async with node(storage="memory", write_delay=0.01) as url, haptera.connect(url) as db:
        for turns in range(10):
            lease = await db.lease(1.0)
            task = asyncio.create_task(lease.close())
            for _ in range(turns):
                await sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert not held(lease) or turns == 0
            if turns == 0:
                await lease.close()
        await sleep(1.0 + LATE_S)
        assert not leases_of(url)


@virtual_clock
async def test_a_database_that_is_closed_has_lost_its_leases_and_leaves_no_task() -> None:
    async with node(storage="memory") as url:
        for close in ("aclose", "drain"):
            db = haptera.connect(url)
            lease, at_once = await db.lease(10.0), await db.lease(20.0)
            await getattr(db, close)()
            assert tasks_of_leases() == []
            assert isinstance(await lease.lost, LeaseLost)
            assert not held(at_once)
            await lease.close()


async def test_an_embedded_store_that_is_closed_has_lost_its_leases(tmp_path: Path) -> None:
    async with haptera.open(tmp_path / "data") as db:
        lease = await db.lease(10.0)
    assert isinstance(await lease.lost, LeaseLost)
    await lease.close()


# -- loops, threads, processes


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of the loop that was closed
def test_a_lease_ends_with_its_loop_and_the_database_grants_others_on_the_next() -> None:
    with node_in_thread(storage="memory") as url:
        db = haptera.connect(url)

        async def grant() -> Lease:
            return await db.lease(60.0)

        async def again() -> None:
            async with db.lease(60.0) as lease:
                assert held(lease)
            await first.close()
            assert [info async for info in db.leases()] == []
            await db.aclose()

        first = asyncio.run(grant())
        assert not held(first)
        asyncio.run(again())
        gc.collect()


def test_a_lease_is_closed_on_its_own_loop_alone() -> None:
    async def main() -> None:
        async with node(storage="memory") as url, haptera.connect(url) as db:
            lease = await db.lease(60.0)
            with pytest.raises(WrongLoop, match="the lease 1 belongs to the event loop"):
                await asyncio.to_thread(asyncio.run, lease.close())
            assert held(lease)

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_has_no_lease_of_its_parents_and_leaves_that_as_it_is() -> None:
    with node_in_thread(storage="memory") as url:
        db = haptera.connect(url)

        async def main() -> None:
            async with db.lease(60.0) as lease:

                def child() -> str:
                    asyncio._set_running_loop(None)

                    async def use() -> str:
                        held = lease.held
                        await lease.close()
                        async with db.lease(30.0) as own:
                            said = f"{held} {own.held} {[info.ttl async for info in db.leases()]}"
                        await db.aclose()
                        return said

                    return asyncio.run(use())

                said = await asyncio.to_thread(in_child, child)
                assert said == "False True [60.0, 30.0]"
                assert held(lease)
                assert [info.id async for info in db.leases()] == [lease.id]
            await db.aclose()

        asyncio.run(main())

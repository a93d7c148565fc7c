"""Recipes whose store refuses, or whose connections end, at each place where they wait, with each error that passes.

A holder keeps what its lease still holds, who waits goes on, and an error that stays is told to who waits.
"""

from __future__ import annotations

import asyncio
from asyncio import sleep
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.errors import ConnectionLost, HapteraError, failure
from haptera.state.kv import Kv
from haptera.testing import node, virtual_clock
from tests.support.refusals import LASTING, PASSING, Refusals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera import Database
    from haptera.state import Result
    from haptera.state.operations import SetMany

#: Seconds in which trouble is over, with the pauses behind two failures.
OVER_S = 5.0


@asynccontextmanager
async def troubled() -> AsyncIterator[tuple[Database, Refusals, Database]]:
    """A client whose calls fail as told, and another one of the same store."""
    async with node(storage="memory") as url, haptera.connect(url) as db, haptera.connect(url) as other:
        yield db, Refusals.of(db), other


def compacted() -> HapteraError:
    return failure(4009).exception()


async def keys(db: Database, prefix: str) -> set[str]:
    return {entry.key async for entry in db.scan(prefix=prefix, keys_only=True)}


async def ended(task: asyncio.Task[object]) -> BaseException | None:
    """How a task ends that is about to."""
    await asyncio.wait([task], timeout=OVER_S)
    assert task.done()
    return task.exception()


# -- lines


@pytest.mark.parametrize("begun", [False, True])
@virtual_clock
async def test_a_holder_and_a_claimant_go_on_when_the_watch_of_their_line_meets_an_error_that_passes(
    begun: bool,
) -> None:
    async with troubled() as (db, refusals, other):
        for name, meet in PASSING.items():
            async with db.lock(name) as lock:
                waiting = asyncio.create_task(db.lock(name).__aenter__())
                while len(await keys(other, name + "/")) < 2:
                    await sleep(0.01)
                await sleep(0.1)
                refusals.refuse_watches(meet(), meet(), begun=begun)
                refusals.cut_watches(compacted())
                await sleep(OVER_S)
                assert refusals.used
                assert lock.held, name
                assert not waiting.done(), name
            await sleep(1.0)
            assert waiting.result().held, name
            await other.clear(prefix=name + "/")
            await sleep(0.1)


@virtual_clock
async def test_a_claimant_that_has_its_place_waits_on_when_the_first_look_at_the_line_is_cut_short() -> None:
    async with troubled() as (db, refusals, _):
        for name, meet in PASSING.items():
            refusals.refuse_watches(meet(), begun=True)
            async with db.lock(name) as lock:
                assert refusals.used
                assert lock.held


@virtual_clock
async def test_a_claimant_is_told_of_a_line_that_it_cannot_look_at_in_the_time_of_a_call() -> None:
    async with troubled() as (db, refusals, other):
        for name, meet in {**PASSING, **LASTING}.items():
            error = meet()
            refusals.refuse_watches(error, begun=False)
            task = asyncio.create_task(db.lock(name).__aenter__())
            assert await ended(task) is error
            assert await keys(other, name) == set()
            assert [lease async for lease in other.leases()] == []


@virtual_clock
async def test_an_error_that_stays_ends_holders_and_claimants_of_a_line() -> None:
    async with troubled() as (db, refusals, _):

        async def hold(name: str) -> None:
            async with db.lock(name):
                await sleep(3600.0)

        for name, meet in LASTING.items():
            tasks = [asyncio.create_task(hold(name)) for _ in range(2)]
            await sleep(1.0)
            error = meet()
            refusals.refuse_watches(error, begun=False)
            refusals.cut_watches(compacted())
            causes = [found.__cause__ or found for found in [await ended(task) for task in tasks] if found is not None]
            assert causes == [error, error], name


@virtual_clock
async def test_a_line_that_cannot_be_looked_at_is_tried_at_growing_intervals() -> None:
    async with troubled() as (db, refusals, _), db.lock("jobs", ttl=600.0) as lock:
        refusals.refuse_watches(*[failure(5005).exception() for _ in range(30)], begun=False)
        refusals.cut_watches(compacted())
        tried = len(refusals.tried)
        await sleep(15.0)
        assert 10 <= len(refusals.tried) - tried <= 40
        await sleep(60.0)
        assert refusals.used
        assert lock.held


@virtual_clock
async def test_a_defect_ends_holders_and_claimants_of_a_line_and_leaves_none_in_it() -> None:
    async with troubled() as (db, refusals, other):

        async def hold() -> None:
            async with db.lock("jobs"):
                await sleep(3600.0)

        for begun in (False, True):
            tasks = [asyncio.create_task(hold()) for _ in range(2)]
            await sleep(1.0)
            defect = ZeroDivisionError()
            if begun:
                refusals.cut_watches(defect)
            else:
                refusals.refuse_watches(defect, begun=False)
                refusals.cut_watches(compacted())
            causes = [found.__cause__ or found for found in [await ended(task) for task in tasks] if found is not None]
            assert causes == [defect, defect]
            assert await keys(other, "jobs/") == set()
            async with db.lock("jobs", wait=1.0) as lock:
                assert lock.held


# -- leases


@virtual_clock
async def test_a_lease_goes_on_when_a_renewal_meets_a_defect() -> None:
    async with troubled() as (db, refusals, _), db.lease(10.0) as lease:
        refusals.refuse("renew_lease", ZeroDivisionError())
        await sleep(60.0)
        assert refusals.used
        assert lease.held


# -- elections


@pytest.mark.parametrize("begun", [False, True])
@virtual_clock
async def test_who_follows_an_election_goes_on_over_each_error_that_passes(begun: bool) -> None:
    async with troubled() as (db, refusals, other):
        changes = db.election("leader").changes()
        assert await anext(changes) is None
        for meet in PASSING.values():
            refusals.refuse_watches(meet(), begun=begun)
            refusals.cut_watches(meet())
            async with other.election("leader", value="ann"):
                told = await anext(changes)
                assert told is not None
                assert told.text == "ann"
                await sleep(OVER_S)
                assert refusals.used
            assert await anext(changes) is None
        await changes.aclose()


@virtual_clock
async def test_who_follows_an_election_is_told_of_an_error_that_stays_and_of_the_first_one() -> None:
    async with troubled() as (db, refusals, _):
        for meet in LASTING.values():
            changes = db.election("leader").changes()
            assert await anext(changes) is None
            refusals.cut_watches(error := meet())
            with pytest.raises(HapteraError) as told:
                await anext(changes)
            assert told.value is error
        for meet in PASSING.values():
            refusals.refuse_watches(error := meet(), begun=False)
            with pytest.raises(HapteraError) as told:
                await anext(db.election("leader").changes())
            assert told.value is error


@virtual_clock
async def test_who_follows_an_election_is_told_that_the_database_is_closed() -> None:
    async with troubled() as (db, _, _):
        changes = db.election("leader").changes()
        assert await anext(changes) is None
        waiting = asyncio.create_task(anext(changes))
        await sleep(0.1)
        await db.aclose()
        assert "is closed" in str(await ended(waiting))


# -- barriers


@pytest.mark.parametrize("place", ["watch", "watch begun", "transact", "transact made", "grant_lease"])
@virtual_clock
async def test_a_party_of_a_barrier_waits_on_over_each_error_that_passes(place: str) -> None:
    async with troubled() as (db, refusals, other):
        for name, meet in PASSING.items():
            waiting = asyncio.create_task(db.barrier(name, parties=2).wait())
            while not await keys(other, name + "/"):
                await sleep(0.01)
            await sleep(0.1)
            match place:
                case "watch" | "watch begun":
                    refusals.refuse_watches(meet(), meet(), begun=place == "watch begun")
                    refusals.cut_watches(compacted())
                case _:  # its entry is gone, and it comes again
                    method, _, made = place.partition(" ")
                    refusals.refuse(method, meet(), made=bool(made))
                    await other.clear(prefix=name + "/")
            await sleep(OVER_S)
            assert refusals.used
            assert not waiting.done(), name
            await other.barrier(name, parties=2).wait()
            assert await ended(waiting) is None, name


@virtual_clock
async def test_a_party_keeps_its_place_when_its_watch_meets_an_error_that_passes() -> None:
    """A party that came again at each refusal would be there for moments, and might never meet the others."""
    async with troubled() as (db, refusals, other):
        waiting = asyncio.create_task(db.barrier("step", parties=2).wait())
        await sleep(0.1)
        [key] = await keys(other, "step/")
        refusals.refuse_watches(*[failure(3007).exception() for _ in range(9)], begun=False)
        refusals.cut_watches(compacted())
        await sleep(60.0)
        assert refusals.used
        assert await keys(other, "step/") == {key}
        await other.barrier("step", parties=2).wait()
        assert await ended(waiting) is None


@virtual_clock
async def test_a_party_is_told_of_an_error_that_stays_and_of_the_first_one() -> None:
    async with troubled() as (db, refusals, _):
        for name, meet in LASTING.items():
            waiting = asyncio.create_task(db.barrier(name, parties=2).wait())
            await sleep(0.1)
            refusals.cut_watches(error := meet())
            assert await ended(waiting) is error
        for name, meet in PASSING.items():
            refusals.refuse("grant_lease", error := meet())
            with pytest.raises(HapteraError) as told:
                await db.barrier(name, parties=2).wait()
            assert told.value is error


@virtual_clock
async def test_a_party_is_told_that_the_database_is_closed() -> None:
    async with troubled() as (db, _, _):
        waiting = asyncio.create_task(db.barrier("step", parties=2).wait())
        await sleep(0.1)
        await db.aclose()
        error = await ended(waiting)
        assert isinstance(error, ConnectionLost)
        assert "closed" in str(error)


# -- queues


@pytest.mark.parametrize("place", ["watch", "watch begun", "scan", "transact", "transact made", "grant_lease"])
@virtual_clock
async def test_a_worker_goes_on_over_each_error_that_passes(place: str) -> None:
    async with troubled() as (db, refusals, other), db.queue("mail").worker(ttl=10.0) as worker:
        for name, meet in PASSING.items():
            await sleep(1.0)
            match place:
                case "watch" | "watch begun":
                    refusals.refuse_watches(meet(), begun=place == "watch begun")
                    refusals.cut_watches(meet())
                    await sleep(OVER_S)
                case "scan":
                    refusals.refuse("scan", meet())
                    refusals.cut_watches(compacted())
                    await sleep(OVER_S)
                case "grant_lease":
                    [lease] = [lease async for lease in other.leases()]
                    await other.revoke_lease(lease.id)
                    refusals.refuse("grant_lease", meet())
                case _:
                    refusals.refuse("transact", meet(), made=place.endswith("made"))
            await other.queue("mail").put(name)
            job = await worker.take(wait=60.0)
            assert refusals.used
            assert job is not None
            assert (job.text, job.attempts) == (name, 1)
            await job.ack()


@pytest.mark.parametrize("end", ["ack", "release"])
@pytest.mark.parametrize("made", [False, True])
@virtual_clock
async def test_the_end_of_a_job_is_repeated_over_each_error_that_passes(made: bool, end: str) -> None:
    async with troubled() as (db, refusals, other), db.queue("mail").worker(ttl=10.0) as worker:
        for name, meet in PASSING.items():
            await other.queue("mail").put(name)
            job = await worker.take(wait=60.0)
            assert job is not None
            refusals.refuse("transact", meet(), made=made)
            if made and end == "ack":
                refusals.refuse("transact", meet())
            if end == "release":
                await job.release()
                job = await worker.take(wait=60.0)
                assert job is not None
                assert (job.text, job.attempts) == (name, 2)
                await job.ack()
            else:
                await job.ack(then=[("increment", [f"done/{name}", 1])])
                assert await other.counter(f"done/{name}").get() == 1
            assert refusals.used
            assert await other.queue("mail").size() == 0


@virtual_clock
async def test_an_error_that_stays_leaves_a_job_in_hand_and_ends_a_worker_that_cannot_look_at_its_queue() -> None:
    async with troubled() as (db, refusals, other):
        for meet in LASTING.values():
            async with db.queue("mail").worker() as worker:
                await other.queue("mail").put("a")
                job = await worker.take(wait=60.0)
                assert job is not None
                refusals.refuse("transact", error := meet())
                with pytest.raises(HapteraError) as told:
                    await job.ack()
                assert told.value is error
                await job.ack()
                waiting = asyncio.create_task(worker.take())
                await sleep(0.1)
                refusals.cut_watches(error := meet())
                assert await ended(waiting) is error


@virtual_clock
async def test_a_claim_that_the_store_refuses_for_longer_than_the_wait_raises_the_refusal() -> None:
    async with troubled() as (db, refusals, other), db.queue("mail").worker() as worker:
        await other.queue("mail").put("a")
        await sleep(0.1)
        for wait in (0.0, 3.0):
            refusals.refuse("transact", *[failure(5002).exception() for _ in range(99)])
            begun = asyncio.get_running_loop().time()
            with pytest.raises(haptera.errors.StorageFull):
                await worker.take(wait=wait)
            assert wait <= asyncio.get_running_loop().time() - begun <= wait + 2.0
            refusals.forget()
        job = await worker.take(wait=0)
        assert job is not None
        assert job.attempts == 1


@virtual_clock
async def test_a_claim_whose_leases_are_all_lost_is_repeated_at_intervals_until_its_time_is_over() -> None:
    """As behind an address where two stores answer in turns."""
    async with troubled() as (db, refusals, other), db.queue("mail").worker() as worker:
        await other.queue("mail").put("a")
        await sleep(0.1)
        refusals.refuse("transact", compacted())
        job = await worker.take(wait=0)
        assert job is not None, "a lease that is lost is followed by another"
        await job.release()
        await sleep(0.1)
        granted = refusals.tried.count("grant_lease")
        refusals.refuse("transact", *[compacted() for _ in range(1000)])
        begun = asyncio.get_running_loop().time()
        with pytest.raises(haptera.errors.LeaseLost):
            await worker.take(wait=60.0)
        assert 60.0 <= asyncio.get_running_loop().time() - begun <= 62.0
        assert 30 <= refusals.tried.count("grant_lease") - granted <= 120
        refusals.forget()
        job = await worker.take(wait=0)
        assert job is not None


@virtual_clock
async def test_a_claim_under_a_lease_that_the_node_has_ended_is_repeated_once_though_its_time_is_over() -> None:
    async with troubled() as (db, _, other), db.queue("mail").worker(ttl=600.0) as worker:
        await other.queue("mail").put("a")
        await sleep(0.1)
        [lease] = [lease async for lease in other.leases()]
        await other.revoke_lease(lease.id)
        job = await worker.take(wait=0)
        assert job is not None
        assert job.held


@virtual_clock
async def test_a_worker_whose_leases_are_all_lost_ends_when_it_is_told_to() -> None:
    async with troubled() as (db, refusals, other):
        async with db.queue("mail").worker() as worker:
            refusals.refuse("transact", *[compacted() for _ in range(1000)])
            waiting = asyncio.create_task(worker.take())
            await other.queue("mail").put("a")
            await sleep(5.0)
            assert not waiting.done()
            begun = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begun <= 3.0
        assert isinstance(await ended(waiting), ConnectionLost)


@pytest.mark.parametrize("place", ["watch", "scan"])
@virtual_clock
async def test_a_worker_whose_queue_meets_a_defect_raises_it(place: str) -> None:
    async with troubled() as (db, refusals, _), AsyncExitStack() as stack:
        worker = await stack.enter_async_context(db.queue("mail").worker())
        waiting = asyncio.create_task(worker.take())
        await sleep(0.1)
        defect = ZeroDivisionError()
        if place == "scan":
            refusals.refuse("scan", defect)
            refusals.cut_watches(compacted())
        else:
            refusals.cut_watches(defect)
        assert await ended(waiting) is defect
        assert refusals.used


@virtual_clock
async def test_a_worker_of_a_closed_database_ends() -> None:
    async with troubled() as (db, _, _), AsyncExitStack() as stack:
        worker = await stack.enter_async_context(db.queue("mail").worker())
        waiting = asyncio.create_task(worker.take())
        await sleep(0.1)
        await db.aclose()
        error = await ended(waiting)
        assert isinstance(error, ConnectionLost)


# -- rate limits


@pytest.mark.parametrize("made", [False, True])
@virtual_clock
async def test_who_waits_for_a_rate_limit_waits_on_over_each_error_that_passes(made: bool) -> None:
    async with troubled() as (db, refusals, other):
        for name, meet in PASSING.items():
            assert await other.rate_limit(name, limit=1, per=20.0).take() == 0.0
            waiting = asyncio.create_task(db.rate_limit(name, limit=1, per=20.0).wait())
            await sleep(1.0)
            refusals.refuse("transact", meet(), meet(), made=made)
            await sleep(60.0)
            assert refusals.used
            assert await ended(waiting) is None, name


@virtual_clock
async def test_who_waits_for_a_rate_limit_is_told_of_an_error_that_stays_of_the_first_one_and_of_the_end() -> None:
    async with troubled() as (db, refusals, _):
        for name, meet in LASTING.items():
            limit = db.rate_limit(name, limit=1, per=20.0)
            await limit.wait()
            waiting = asyncio.create_task(limit.wait())
            await sleep(1.0)
            refusals.refuse("transact", error := meet())
            await sleep(20.0)
            assert await ended(waiting) is error
        for name, meet in PASSING.items():
            refusals.refuse("transact", error := meet())
            with pytest.raises(HapteraError) as told:
                await db.rate_limit(name, limit=1, per=20.0).wait()
            assert told.value is error
        closed = db.rate_limit("closed", limit=1, per=20.0)
        await closed.wait()
        waiting = asyncio.create_task(closed.wait())
        await sleep(1.0)
        await db.aclose()
        await sleep(20.0)
        assert isinstance(await ended(waiting), ConnectionLost)


# -- pauses


@virtual_clock
async def test_the_pauses_begin_anew_behind_each_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower that was cut off ten times in a week is back as fast as one that was cut off once."""
    attempts: list[int] = []

    async def wait(_: object, attempt: int, within: float = 0.0) -> None:
        attempts.append(attempt)
        await sleep(0.01)

    monkeypatch.setattr("haptera.peer.backoff.Backoff.wait", wait)
    async with troubled() as (db, refusals, _), db.queue("mail").worker(), db.lock("jobs"):
        changes = db.election("leader").changes()
        assert await anext(changes) is None
        following = asyncio.create_task(anext(changes))
        waiting = asyncio.create_task(db.barrier("step", parties=2).wait())
        for _ in range(4):
            await sleep(1.0)
            refusals.cut_watches(compacted())
        await sleep(1.0)
        assert attempts == [1] * 16
        for task in (following, waiting):
            task.cancel()
        await asyncio.wait([following, waiting])


# -- an embedded store


async def test_who_waits_for_an_embedded_store_that_fails_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Kv, op: SetMany) -> Result:
        raise MemoryError

    monkeypatch.setattr(Kv, "set_many", fail)
    async with haptera.open(tmp_path / "data", durability="os") as db:
        changes = db.election("leader").changes()
        assert await anext(changes) is None
        waiting: list[asyncio.Task[object]] = [
            asyncio.create_task(anext(changes)),
            asyncio.create_task(db.barrier("step", parties=2).wait()),
        ]
        async with db.queue("mail").worker() as worker, db.cached(prefix="") as cache:
            waiting.append(asyncio.create_task(worker.take()))
            while not await keys(db, "step/"):
                await sleep(0.001)
            await sleep(0.05)
            waiting.append(asyncio.create_task(anext(cache.changes())))
            await sleep(0)
            assert not db.closed
            with pytest.raises(HapteraError):
                await db.set_many({"a": "1"})
            told = await asyncio.gather(*waiting, return_exceptions=True)
        assert [getattr(error, "code", None) for error in told] == [5001] * 4
        assert db.closed

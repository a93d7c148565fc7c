"""Queues whose workers are cut off, frozen and cancelled, on virtual time: every job is done, its effect once."""

from __future__ import annotations

import asyncio
import random
from asyncio import sleep
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.client.recipes.interruption import Interruption
from haptera.errors import ConnectionLost, DeadlineExceeded, Fenced, LeaseLost
from haptera.recipes import Lease
from haptera.testing import MemoryFileSystem, node, proxy, virtual_clock
from tests.support.virtual import network

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haptera import Database
    from haptera.recipes import Job, Worker
    from haptera.testing import Proxy

#: Seconds by which a node is late with the end of a lease, and a watch with the news of it, at most.
LATE_S = 1.0


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def two_clients(**options: Any) -> AsyncIterator[tuple[Database, Proxy, Database]]:
    """A client behind a proxy, the proxy, and a client that is never cut off."""
    async with (
        node(storage="memory", **options) as url,
        proxy(url) as link,
        haptera.connect(link.url) as one,
        haptera.connect(url) as other,
    ):
        yield one, link, other


async def taken(worker: Worker) -> Job:
    job = await worker.take(wait=60.0)
    assert job is not None
    return job


@virtual_clock
async def test_the_job_of_a_frozen_worker_is_anothers_when_its_lease_has_ended_and_no_sooner() -> None:
    async with two_clients() as (one, link, other):
        await other.queue("mail").put("a")
        async with one.queue("mail").worker(ttl=10.0) as frozen, other.queue("mail").worker(ttl=10.0) as worker:
            lost = await taken(frozen)
            link.pause()
            begun = now()
            job = await taken(worker)
            assert 10.0 - 10.0 / 3 <= now() - begun <= 10.0 + LATE_S
            assert not lost.held
            assert job.attempts == 2
            link.resume()
            with pytest.raises(Fenced):
                await lost.ack()
            await job.ack()
            await other.queue("mail").put("b")
            assert (await taken(frozen)).text == "b"


@virtual_clock
async def test_a_claim_whose_answer_is_lost_is_taken_over_by_the_worker_that_made_it() -> None:
    """The worker lives on and renews its lease, under which the claim would stand for ever."""
    async with two_clients() as (one, link, other):
        async with one.queue("mail").worker(ttl=60.0) as worker:
            taking = asyncio.create_task(worker.take())
            await sleep(0.1)
            await other.queue("mail").put("a")
            while not await other.exists("mail/.claims/00000000000000000001"):
                link.pause("to_dialer")
            await sleep(12.0)
            link.resume()
            async with await taking as job:  # type: ignore[union-attr]
                assert (job.text, job.attempts) == ("a", 1)
        assert await other.queue("mail").size() == 0


@virtual_clock
async def test_a_claim_that_is_found_under_the_own_lease_and_in_no_hand_is_taken_over() -> None:
    async with two_clients() as (one, _, other):
        jobs = await other.queue("mail").put_many(["a"] * 300)
        async with one.queue("mail").worker(ttl=600.0) as worker:
            job = await taken(worker)
            claim = await other.get("mail/.claims/00000000000000000001")
            assert claim is not None
            lease = int(claim.value, 16)
            await other.set("mail/.claims/00000000000000000290", claim.value, lease=lease)
            found = []
            for _ in jobs:
                found.append(job.number)
                await job.ack()
                if len(found) < len(jobs):
                    job = await taken(worker)
            assert found == list(jobs)


@virtual_clock
async def test_an_acknowledgement_whose_answer_is_lost_is_repeated_until_it_is_known() -> None:
    async with two_clients() as (one, link, other):
        await other.queue("mail").put("a")
        async with one.queue("mail").worker(ttl=60.0) as worker:
            job = await taken(worker)
            link.pause("to_dialer")
            ending = asyncio.create_task(job.ack(then=[("increment", ["sent", 1])]))
            await sleep(12.0)
            assert await other.queue("mail").size() == 0
            link.resume()
            await ending
        assert await other.counter("sent").get() == 1


@virtual_clock
async def test_an_acknowledgement_that_does_not_reach_the_store_says_so_when_the_lease_is_lost() -> None:
    async with two_clients() as (one, link, other):
        await other.queue("mail").put("a")
        async with one.queue("mail").worker(ttl=10.0) as worker, other.queue("mail").worker() as successor:
            job = await taken(worker)
            link.pause()
            begun = now()
            with pytest.raises((ConnectionLost, DeadlineExceeded)):
                await job.ack()
            assert now() - begun < 20.0
            assert (await taken(successor)).attempts == 2
            link.resume()


@virtual_clock
async def test_an_acknowledgement_goes_on_when_its_task_is_cancelled() -> None:
    for turns in range(6):
        async with two_clients() as (one, _, other):
            await other.queue("mail").put("a")
            async with one.queue("mail").worker() as worker:
                job = await taken(worker)
                ending = asyncio.create_task(job.ack())
                for _ in range(turns + 1):
                    await sleep(0)
                ending.cancel()
                await asyncio.wait([ending])
            assert await other.queue("mail").size() == 0


@virtual_clock
async def test_a_worker_ends_soon_though_the_store_is_silent() -> None:
    async with two_clients() as (one, link, other):
        await other.queue("mail").put("a")
        begun = 0.0
        async with one.queue("mail").worker(ttl=60.0) as worker:
            await taken(worker)
            link.pause()
            begun = now()
        assert now() - begun <= 6.0
        link.resume()
        async with other.queue("mail").worker() as successor:
            assert await successor.take(wait=60.0 + LATE_S) is not None


@virtual_clock
async def test_a_worker_that_ends_repeats_nothing_and_leaves_its_jobs_to_the_end_of_the_lease() -> None:
    async with two_clients() as (one, link, other):
        await other.queue("mail").put("a")
        async with one.queue("mail").worker(ttl=3600.0) as worker:
            job = await taken(worker)
            link.pause()
            begun = now()
            ending = asyncio.create_task(job.ack())
            await sleep(12.0)
            assert not ending.done()
        assert now() - begun <= 12.0 + 5.0 + 2.0 + 5.0
        with pytest.raises((ConnectionLost, DeadlineExceeded)) as raised:
            await ending
        assert raised.value.outcome == "unknown"
        link.resume()


@virtual_clock
async def test_a_worker_goes_on_after_a_restart_of_the_node() -> None:
    fs = MemoryFileSystem()
    async with AsyncExitStack() as stack:
        async with node(storage=fs, listen="haptera://127.0.0.1:7457") as url:
            db = await stack.enter_async_context(haptera.connect(url))
            queue = db.queue("mail")
            await queue.put_many(["a", "b", "c"])
            worker = await stack.enter_async_context(queue.worker(ttl=10.0))
            first, second = await taken(worker), await taken(worker)
            await first.ack()
        await sleep(5.0)
        async with node(storage=fs, listen="haptera://127.0.0.1:7457"):
            await second.ack()
            async with await taken(worker) as job:
                assert job.text == "c"
            assert await queue.size() == 0
            await stack.aclose()


@virtual_clock
async def test_a_worker_that_the_history_has_overtaken_reads_the_queue_anew() -> None:
    async with (
        two_clients(history_events=10_000) as (one, link, other),
        one.queue("mail").worker(ttl=60.0) as worker,
    ):
        await other.queue("mail").put_many(["done", "in hand"])
        await (await taken(worker)).ack()
        in_hand = await taken(worker)
        link.refuse()
        link.sever()
        await other.queue("mail").put("new")
        for _ in range(4):
            await other.set_many({f"other/{number}": "" for number in range(5_000)})
        await link.accept()
        assert (await taken(worker)).text == "new"
        assert await worker.take(wait=5.0) is None
        await in_hand.ack()


def test_most_claims_of_many_workers_that_wait_for_one_job_at_a_time_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0
    transact = Lease.transact

    async def counted(self: Lease, **options: Any) -> Any:
        nonlocal tries
        tries += "otherwise" in options
        return await transact(self, **options)

    monkeypatch.setattr(Lease, "transact", counted)

    @virtual_clock(seed=7)
    async def run() -> None:
        jobs = 30
        async with node(storage="memory") as url, AsyncExitStack() as stack:
            network().delay(0.0002)
            done = asyncio.Semaphore(0)

            async def work(db: Database) -> None:
                async with db.queue("mail").worker() as worker:
                    async for job in worker:
                        async with job:
                            pass
                        done.release()

            clients = [await stack.enter_async_context(haptera.connect(url)) for _ in range(12)]
            working = [asyncio.create_task(work(db)) for db in clients]
            producer = await stack.enter_async_context(haptera.connect(url))
            await sleep(1.0)
            for _ in range(jobs):
                await producer.queue("mail").put("a")
                await done.acquire()
            for task in working:
                task.cancel()
            await asyncio.wait(working)
        assert jobs <= tries < 3 * jobs

    run()


class Trial:
    """A queue whose clients are cut off at random, and what is known of its jobs."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.holders: dict[int, Job] = {}
        self.put: set[int] = set()
        self.producing = True

    async def produce(self, db: Database, jobs: int) -> None:
        queue = db.queue("mail")
        while jobs > 0:
            count = self.chance.randrange(1, 9)
            with suppress(ConnectionLost, DeadlineExceeded):
                self.put.update(await queue.put_many([b"x"] * count, delay=self.chance.choice([0.0, 0.0, 1.5])))
            jobs -= count
            await sleep(self.chance.random())

    async def work(self, db: Database) -> None:
        """Take jobs with two tasks; now and then end the worker, with jobs in hand."""
        while self.producing:
            with suppress(ConnectionLost, DeadlineExceeded):
                async with db.queue("mail").worker(ttl=3.0, delay=self.chance.choice([0.0, 0.5])) as worker:
                    tasks = [asyncio.create_task(self._take_on(worker)) for _ in range(2)]
                    await sleep(self.chance.uniform(5.0, 30.0))
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)

    async def _take_on(self, worker: Worker) -> None:
        async for job in worker:
            holder = self.holders.get(job.number)
            assert holder is None or not holder.held, "two have it at once"
            assert holder is None or holder.token < job.token
            self.holders[job.number] = job
            with suppress(Fenced, ConnectionLost, DeadlineExceeded, ZeroDivisionError):
                async with job:
                    await sleep(self.chance.choice([0.0, 0.01, 1.0, 4.0]))
                    if self.chance.random() < 0.2:
                        raise ZeroDivisionError
                    await job.ack(then=[("increment", [f"done/{job.number}", 1])])

    async def cut(self, link: Proxy) -> None:
        while self.producing:
            await sleep(self.chance.uniform(0.0, 4.0))
            match self.chance.randrange(4):
                case 0:
                    link.sever()
                case 1:
                    link.sever_after(self.chance.randrange(1, 8), "to_dialer")
                case 2:
                    direction = self.chance.choice(["to_dialer", "to_acceptor"])
                    link.pause(direction)  # type: ignore[arg-type]
                    await sleep(self.chance.choice([0.5, 4.0, 9.0]))
                    link.resume()
                case _:
                    link.delay(self.chance.choice([0.0, 0.001, 0.1]))


async def trial(seed: int, jobs: int) -> None:
    trial = Trial(seed)
    async with node(storage="memory") as url, haptera.connect(url) as db, AsyncExitStack() as stack:
        links = [await stack.enter_async_context(proxy(url)) for _ in range(3)]
        clients = [await stack.enter_async_context(haptera.connect(link.url)) for link in links]
        others = [asyncio.create_task(trial.cut(link)) for link in links]
        others += [asyncio.create_task(trial.work(client)) for client in clients]
        producers = [asyncio.create_task(trial.produce(client, jobs)) for client in clients]
        await asyncio.gather(*producers)
        async with asyncio.timeout(600.0):
            while await db.queue("mail").size():
                await sleep(1.0)
        trial.producing = False
        await asyncio.gather(*others)
        done = {int(entry.key.removeprefix("done/")): entry.text async for entry in db.scan(prefix="done/")}
        assert set(done.values()) == {"1"}, "the effect of each job is made once"
        assert trial.put <= done.keys(), "a job whose put was answered is done"
        assert await db.count(prefix="mail/.claims/0") == await db.count(prefix="mail/.attempts/") == 0


def test_every_job_is_done_and_its_effect_made_once_though_everyone_is_cut_off_at_random() -> None:
    seed = random.randrange(1 << 32)
    virtual_clock(seed=seed)(trial)(seed, 6)


@pytest.mark.long
@pytest.mark.parametrize("_", range(50))
def test_every_job_is_done_over_many_cuts(_: int) -> None:
    seed = random.randrange(1 << 32)
    virtual_clock(seed=seed)(trial)(seed, 200)


# -- the block of a job


@virtual_clock
async def test_the_block_of_a_job_is_cancelled_before_another_worker_has_the_job() -> None:
    order: list[str] = []

    async def work(worker: Worker) -> None:
        job = await taken(worker)
        async with job:
            try:
                await sleep(3600.0)
            finally:
                order.append(f"the block ends, held: {job.held}")

    async with two_clients() as (one, link, other):
        await other.queue("mail").put("a")
        async with one.queue("mail").worker(ttl=10.0) as frozen, other.queue("mail").worker(ttl=10.0) as worker:
            working = asyncio.create_task(work(frozen))
            await sleep(1.0)
            link.pause()
            job = await taken(worker)
            order.append("another has it")
            with pytest.raises(Fenced) as lost:
                await working
            assert isinstance(lost.value.__cause__, LeaseLost)
            assert order == ["the block ends, held: False", "another has it"]
            await job.ack()
            link.resume()


@virtual_clock
async def test_a_job_that_is_acknowledged_in_its_block_is_lost_no_more() -> None:
    async with two_clients() as (one, _, other), one.queue("mail").worker(ttl=10.0) as worker:
        for end in ("ack", "release"):
            await other.queue("mail").put("a")
            async with await taken(worker) as job:
                await (job.ack() if end == "ack" else job.release(delay=60.0))
                [lease] = [lease async for lease in other.leases()]
                await other.revoke_lease(lease.id)
                await sleep(30.0)
                assert not job.held
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0


@virtual_clock
async def test_a_task_that_is_cancelled_as_its_job_is_lost_stays_cancelled() -> None:
    async def work(job: Job) -> None:
        async with job:
            await sleep(3600.0)

    for loses_first in (True, False):
        async with two_clients() as (one, _, other), one.queue("mail").worker(ttl=10.0) as worker:
            await other.queue("mail").put("a")
            job = await taken(worker)
            task = asyncio.create_task(work(job))
            await sleep(1.0)
            [lease] = [lease async for lease in other.leases()]
            await other.revoke_lease(lease.id)
            await job.lost
            while loses_first and not task.cancelling():
                await sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()


@virtual_clock
async def test_the_error_of_the_block_goes_before_the_loss_of_the_job() -> None:
    async def work(worker: Worker) -> None:
        async with await taken(worker):
            try:
                await sleep(3600.0)
            except asyncio.CancelledError:
                raise ZeroDivisionError from None

    async with two_clients() as (one, _, other), one.queue("mail").worker(ttl=10.0) as worker:
        await other.queue("mail").put("a")
        task = asyncio.create_task(work(worker))
        await sleep(1.0)
        [lease] = [lease async for lease in other.leases()]
        await other.revoke_lease(lease.id)
        with pytest.raises(ZeroDivisionError):
            await task


@virtual_clock
async def test_a_block_that_is_entered_when_the_job_is_lost_ends_at_once() -> None:
    async def work(job: Job) -> None:
        async with job:
            await sleep(0)
            raise AssertionError

    async with two_clients() as (one, _, other), one.queue("mail").worker(ttl=10.0) as worker:
        await other.queue("mail").put("a")
        job = await taken(worker)
        [lease] = [lease async for lease in other.leases()]
        await other.revoke_lease(lease.id)
        await sleep(5.0)
        with pytest.raises(Fenced):
            await work(job)


async def lose(job: Job, other: Database) -> None:
    """End the lease of the only job in hand."""
    [lease] = [lease async for lease in other.leases()]
    await other.revoke_lease(lease.id)
    await job.lost


@pytest.mark.parametrize("end", ["ack", "release"])
@virtual_clock
async def test_a_block_that_ends_its_lost_job_itself_raises_the_loss_and_its_task_goes_on(end: str) -> None:
    async def block(job: Job) -> None:
        async with job:
            try:
                await sleep(3600.0)
            finally:
                await (job.ack() if end == "ack" else job.release())

    async def work(job: Job) -> str:
        with pytest.raises(Fenced) as lost:
            await block(job)
        assert end == "ack" or isinstance(lost.value.__cause__, LeaseLost)
        await sleep(0)
        return "goes on"

    async with two_clients() as (one, _, other), one.queue("mail").worker(ttl=10.0) as worker:
        await other.queue("mail").put("a")
        job = await taken(worker)
        task = asyncio.create_task(work(job))
        await sleep(1.0)
        await lose(job, other)
        await asyncio.wait([task])
        assert not task.cancelled()
        assert await task == "goes on"
        assert task.cancelling() == 0


@virtual_clock
async def test_a_block_is_not_entered_for_a_job_that_is_lost_and_its_task_goes_on() -> None:
    entered: list[int] = []

    async def block(job: Job) -> None:
        async with job:
            entered.append(job.number)

    async def work(job: Job) -> str:
        for _ in range(2):
            with pytest.raises(Fenced) as lost:
                await block(job)
            assert isinstance(lost.value.__cause__, LeaseLost)
            await sleep(0)
        return "goes on"

    async with two_clients() as (one, _, other), one.queue("mail").worker(ttl=10.0) as worker:
        await other.queue("mail").put("a")
        job = await taken(worker)
        await lose(job, other)
        task = asyncio.create_task(work(job))
        await asyncio.wait([task])
        assert not task.cancelled()
        assert await task == "goes on"
        assert entered == []


@virtual_clock
async def test_the_block_of_a_job_that_has_ended_is_a_mistake() -> None:
    async with two_clients() as (one, _, other), one.queue("mail").worker(ttl=10.0) as worker:
        await other.queue("mail").put("a")
        job = await taken(worker)
        await job.ack()
        with pytest.raises(RuntimeError, match="acknowledged or given back already"):
            await job.__aenter__()


@virtual_clock
async def test_an_interruption_is_met_in_the_block_or_not_at_all() -> None:
    """Also one from a step of the task itself, which no ``await`` of the block follows."""
    task = asyncio.current_task()
    assert task is not None
    block = Interruption()
    block.interrupt()
    assert block.ends(None)
    await sleep(0)
    await sleep(0)
    block = Interruption()
    block.interrupt()
    with pytest.raises(asyncio.CancelledError):
        await sleep(60.0)
    assert block.ends(asyncio.CancelledError)
    assert task.cancelling() == 0
    await sleep(0)


# -- another store behind the same address


@virtual_clock
async def test_a_worker_of_a_store_that_was_replaced_touches_no_job_of_the_new_one() -> None:
    """The new store gives the same numbers, versions and leases, so that a token of the old one fits there."""
    listen = "haptera://127.0.0.1:7457"
    async with AsyncExitStack() as stack:
        link = await stack.enter_async_context(proxy(listen))
        old = await stack.enter_async_context(haptera.connect(link.url))
        async with node(storage="memory", listen=listen):
            await old.queue("mail").put("of the old store")
            worker = await stack.enter_async_context(old.queue("mail").worker(ttl=600.0))
            lost = await taken(worker)
            link.refuse()
        async with node(storage="memory", listen=listen), haptera.connect(listen) as new:
            await new.queue("mail").put("of the new store")
            async with new.queue("mail").worker(ttl=600.0) as other:
                job = await taken(other)
                assert (job.token, job.number) == (lost.token, lost.number), "they are alike in all but the store"
                await link.accept()
                with pytest.raises(Fenced) as fenced:
                    await lost.ack(then=[("set", ["report", b"of a lost job"])])
                assert isinstance(fenced.value.__cause__, LeaseLost)
                assert await new.get("report") is None
                assert job.held
                await new.queue("mail").put("for the old worker")
                another = await taken(worker)
                assert another.text == "for the old worker"
                assert len([lease async for lease in new.leases()]) == 2, "it claims under a lease of this store"
                await another.ack()
                await job.ack()
                assert await new.queue("mail").size() == 0
            await stack.aclose()

"""Queues, on a served and on an embedded store."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from haptera.errors import Fenced, KeyExists, NotAnInteger, ValueTooLarge
from tests.support.stores import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera import Database
    from haptera.recipes import Job, Worker

LONG_S = 3600.0


@pytest.fixture(params=["served", "embedded"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(request.param, tmp_path) as database:
        yield database


async def keys_of(db: Database, name: str) -> set[str]:
    return {entry.key.removeprefix(name) async for entry in db.scan(prefix=name + "/", keys_only=True)}


async def taken(worker: Worker) -> Job:
    job = await worker.take(wait=10.0)
    assert job is not None
    return job


async def test_jobs_are_taken_in_their_order_and_are_gone_when_they_are_done(db: Database) -> None:
    mail = db.queue("mail")
    assert await mail.put("a") == 1
    assert await mail.put_many([b"b", "c"]) == range(2, 4)
    assert await mail.put_many([]) == range(0)
    assert await mail.size() == 3
    async with mail.worker() as worker:
        for number, text in enumerate("abc", 1):
            async with await taken(worker) as job:
                assert (job.number, job.text, job.value, job.attempts) == (number, text, text.encode(), 1)
                assert job.held
            assert not job.held
        assert await worker.take(wait=0) is None
    assert await mail.size() == 0
    assert await keys_of(db, "mail") == {"/.last", "/.claims/ready"}


async def test_a_worker_that_was_entered_knows_the_jobs_that_are_there(db: Database) -> None:
    await db.queue("mail").put("a")
    async with db.queue("mail").worker() as worker:
        job = await worker.take(wait=0)
        assert job is not None
        await job.ack()


async def test_a_job_for_a_task_that_is_cancelled_meanwhile_goes_to_the_next_task(db: Database) -> None:
    mail = db.queue("mail")
    async with mail.worker() as worker:
        for turns in range(12):
            first, second = asyncio.create_task(worker.take()), asyncio.create_task(worker.take())
            await asyncio.sleep(0)
            await mail.put("a")
            for _ in range(turns):
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            job = await (second if first.cancelled() else first)
            assert job is not None
            await job.ack()
            second.cancel()
            await asyncio.wait([second])


async def test_a_worker_waits_for_the_next_job(db: Database) -> None:
    mail = db.queue("mail")
    done: list[str] = []

    async def work() -> None:
        async with mail.worker() as worker:
            async for job in worker:
                async with job:
                    done.append(job.text)
                if job.text == "end":
                    return

    working = asyncio.create_task(work())
    for text in ("a", "b", "end"):
        await asyncio.sleep(0.01)
        await mail.put(text)
    await working
    assert done == ["a", "b", "end"]


async def test_a_job_whose_block_raises_comes_back_and_counts_its_attempts(db: Database) -> None:
    mail = db.queue("mail")
    await mail.put("a")
    async with mail.worker() as one, mail.worker() as other:
        for attempts, worker in enumerate((one, other, one), 1):
            job = await taken(worker)
            assert job.attempts == attempts
            with pytest.raises(RuntimeError, match="no luck"):
                async with job:
                    raise RuntimeError("no luck")
        async with await taken(other) as job:
            assert job.attempts == 4
    assert await keys_of(db, "mail") == {"/.last", "/.claims/ready"}


async def test_a_job_that_is_put_or_given_back_with_a_delay_waits_for_it(db: Database) -> None:
    mail = db.queue("mail")
    await mail.put("never", delay=LONG_S)
    async with mail.worker(delay=LONG_S) as worker:
        assert await worker.take(wait=0) is None
        await mail.put("soon", delay=0.05)
        job = await taken(worker)
        assert job.text == "soon"
        await job.release(delay=0.05)
        job = await taken(worker)
        assert (job.text, job.attempts) == ("soon", 2)
        with pytest.raises(RuntimeError):
            async with job:
                raise RuntimeError
        assert await worker.take(wait=0.05) is None
    assert await mail.size() == 2


async def test_jobs_in_hand_are_free_when_their_worker_ends(db: Database) -> None:
    mail = db.queue("mail")
    await mail.put_many(["a", "b"])
    async with mail.worker() as other:
        async with mail.worker() as worker:
            one, two = await taken(worker), await taken(worker)
            assert await other.take(wait=0) is None
        assert {(await taken(other)).number for _ in range(2)} == {one.number, two.number}
        with pytest.raises(Fenced):
            await one.ack()
        await two.release()
    assert await mail.size() == 2


async def test_a_worker_that_has_lost_its_lease_cannot_acknowledge_what_another_has(db: Database) -> None:
    mail = db.queue("mail")
    await mail.put("a")
    async with mail.worker() as one, mail.worker() as other:
        lost = await taken(one)
        claim = await db.get("mail/.claims/00000000000000000001")
        assert claim is not None
        assert claim.version == lost.token
        await db.revoke_lease(int(claim.value, 16))
        job = await taken(other)
        assert job.token > lost.token
        with pytest.raises(Fenced):
            await lost.ack()
        with pytest.raises(Fenced):
            await db.set("sent", "by the first", fence=lost.token)
        await db.set("sent", "by the second", fence=job.token)
        await job.ack()
        await mail.put("b")
        async with await taken(one) as job:  # under another lease
            assert job.text == "b"


async def test_changes_that_are_made_with_the_acknowledgement_are_made_once(db: Database) -> None:
    mail = db.queue("mail")
    await mail.put("a")
    async with mail.worker() as one, mail.worker() as other:
        first = await taken(one)
        claim = await db.get("mail/.claims/00000000000000000001")
        assert claim is not None
        await db.revoke_lease(int(claim.value, 16))
        second = await taken(other)
        with pytest.raises(Fenced):
            await first.ack(then=[("increment", ["sent", 1])])
        await second.ack(then=[("increment", ["sent", 1])])
    assert await db.counter("sent").get() == 1


async def test_an_acknowledgement_that_is_refused_leaves_the_job_in_hand(db: Database) -> None:
    mail = db.queue("mail")
    await mail.put("a")
    await db.set("sent", "once")
    async with mail.worker() as worker:
        async with await taken(worker) as job:
            with pytest.raises(KeyExists):
                await job.ack(then=[("set", ["sent", b"twice", {"if": "absent"}])])
            assert job.held
        with pytest.raises(RuntimeError, match="already"):
            await job.ack()
        with pytest.raises(RuntimeError, match="already"):
            await job.release()
    assert await mail.size() == 0


async def test_a_put_may_be_a_part_of_a_transact(db: Database) -> None:
    mail = db.queue("mail")
    put = await mail.put_operations("paid")
    later = await mail.put_operations("asked for an opinion", delay=LONG_S)
    await db.transact(then=[("set", ["order/7", b"paid"]), *put, *later])
    async with mail.worker() as worker:
        assert (await taken(worker)).text == "paid"
        assert await worker.take(wait=0) is None


async def test_each_job_of_many_is_taken_once_by_many_tasks_of_many_workers(db: Database) -> None:
    mail = db.queue("mail")
    numbers = await mail.put_many([b"%d" % number for number in range(1, 301)])
    done: Counter[int] = Counter()

    async def work(worker: Worker) -> None:
        while len(done) < len(numbers):
            if (job := await worker.take(wait=0.1)) is not None:
                async with job:
                    assert int(job.value) == job.number
                    done[job.number] += 1

    async with mail.worker() as one, mail.worker() as two, mail.worker() as three:
        await asyncio.gather(*(work(worker) for worker in (one, two, three) for _ in range(4)))
    assert done == Counter(numbers)


async def test_a_task_that_is_cancelled_while_it_takes_a_job_leaves_it_free(db: Database) -> None:
    mail = db.queue("mail")
    async with mail.worker() as worker:
        for steps in range(12):
            taking = asyncio.create_task(worker.take())
            await mail.put("a")
            for _ in range(steps):
                await asyncio.sleep(0)
            taking.cancel()
            await asyncio.wait([taking])
            if not taking.cancelled():
                job = taking.result()
                assert job is not None
                await job.release()
            await (await taken(worker)).ack()
            assert await mail.size() == 0
            assert await worker.take(wait=0) is None


async def test_a_number_that_stands_is_never_written_over(db: Database) -> None:
    mail = db.queue("mail")
    await mail.put("a")
    await db.delete("mail/.last")
    with pytest.raises(KeyExists):
        await mail.put("b")
    assert await mail.put("b") == 2
    await db.set("mail/.last", "-7")
    with pytest.raises(NotAnInteger):
        await mail.put("c")
    assert await mail.size() == 2


async def test_keys_of_other_programs_are_passed_over(db: Database) -> None:
    await db.set_many({f"mail/.items/{number:020}x": "" for number in range(300)})
    await db.set_many({"mail/.items/x": "", "mail/.claims/x": "", "mail/.claims/ready": "soon"})
    mail = db.queue("mail")
    await db.set("mail/.attempts/00000000000000000001", "text")
    async with mail.worker() as worker:
        await mail.put_many(["a", "b"])
        with pytest.raises(NotAnInteger):
            await worker.take()
        assert (await taken(worker)).text == "b"
        await db.set("mail/.claims/x", "")
        await db.set("mail/.claims/ready", "soon")
        assert await mail.put("c") == 3
        assert (await taken(worker)).text == "c"


async def test_a_job_that_is_not_there_is_not_claimed(db: Database) -> None:
    async with db.queue("mail").worker() as worker:
        await db.set("mail/.claims/ready", "7-9")
        assert await worker.take(wait=0.1) is None
    assert await keys_of(db, "mail") == {"/.claims/ready"}


async def test_jobs_of_any_size_are_put(db: Database) -> None:
    mail = db.queue("mail")
    large = b"x" * (6 * 1024 * 1024)
    assert await mail.put_many([large] * 3 + [b"y"] * 200) == range(1, 204)
    assert await mail.put_many([b"z"] * 129, delay=LONG_S) == range(204, 333)
    assert await mail.size() == 332
    with pytest.raises(ValueTooLarge):
        await mail.put(b"x" * (8 * 1024 * 1024 + 1))
    async with mail.worker() as worker:
        assert (await taken(worker)).value == large


async def test_mistakes_of_a_program_are_told_before_anything_is_sent(db: Database) -> None:
    mail = db.queue("mail")
    for value in (7, None):
        with pytest.raises(TypeError):
            await mail.put(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await mail.put_many("text")
    with pytest.raises(TypeError):
        await mail.put_many(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ttl is between"):
        await mail.put("a", delay=-1.0)
    with pytest.raises(ValueError, match="ttl is between"):
        mail.worker(ttl=0.5)
    with pytest.raises(ValueError, match="ttl is between"):
        mail.worker(delay=-1.0)
    with pytest.raises(RuntimeError, match="async with"):
        await mail.worker().take()
    assert await keys_of(db, "mail") == set()


async def test_a_worker_that_has_ended_takes_nothing_more(db: Database) -> None:
    async with db.queue("mail").worker() as worker:
        waiting = asyncio.create_task(worker.take())
        await asyncio.sleep(0)
    with pytest.raises(ConnectionError, match="the worker is closed"):
        await waiting
    with pytest.raises(ConnectionError, match="the worker is closed"):
        await worker.take(wait=0)
    with pytest.raises(RuntimeError, match="entered once"):
        async with worker:
            pass


async def test_a_worker_whose_database_is_closed_says_so(db: Database) -> None:
    async with db.queue("mail").worker() as worker:
        waiting = asyncio.create_task(worker.take())
        await asyncio.sleep(0.01)
        await db.aclose()
        with pytest.raises(ConnectionError):
            await waiting

"""Queues whose workers and node are killed and stopped at random: every job is done, and its effect is made once.

Nobody writes with the token of a job that another has.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.errors import ConnectionLost, DeadlineExceeded
from tests.support.processes import end_group, start
from tests.unit.node.process import serving

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from haptera import Database

#: Seconds of the lease of a worker.
TTL_S = 1.0

#: A worker. It writes the token of its job twice, with that token, and counts the job with its acknowledgement.
WORKER = f"""
import asyncio, random, sys
from contextlib import suppress
import haptera
from haptera.errors import ConnectionLost, DeadlineExceeded, Fenced

async def work(db, worker):
    async for job in worker:
        with suppress(Fenced, ConnectionLost, DeadlineExceeded):
            async with job:
                for _ in range(2):
                    await db.set(f"token/{{job.number}}", str(job.token), fence=job.token)
                    await asyncio.sleep(random.choice([0.0, 0.0, 0.02]))
                if random.random() < 0.1:
                    raise ConnectionLost("on purpose")
                await job.ack(then=[("increment", [f"done/{{job.number}}", 1])])

async def main():
    while True:
        with suppress(ConnectionLost, DeadlineExceeded):
            async with haptera.connect(sys.argv[1], timeout=3) as db:
                async with db.queue("mail").worker(ttl={TTL_S}) as worker:
                    await asyncio.gather(work(db, worker), work(db, worker))

asyncio.run(main())
"""


class Crew:
    """The workers: processes that are killed, and started again."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._processes = [self._begin() for _ in range(size)]

    def _begin(self) -> subprocess.Popen[str]:
        return start([sys.executable, "-c", WORKER, self._url])

    def kill(self, place: int) -> None:
        self._end(self._processes[place])
        self._processes[place] = self._begin()

    async def stop(self, place: int, seconds: float) -> None:
        self._processes[place].send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._processes[place].send_signal(signal.SIGCONT)

    def end(self) -> None:
        for process in self._processes:
            self._end(process)

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        assert process.poll() is None, process.communicate()
        end_group(process.pid)
        process.communicate()


async def put_jobs(db: Database, count: int, chance: random.Random) -> set[int]:
    """Put jobs for as long as it takes; the numbers of the jobs whose put was answered."""
    answered: set[int] = set()
    while len(answered) < count:
        with suppress(ConnectionLost, DeadlineExceeded):
            answered.update(await db.queue("mail").put_many([b"x"] * chance.randrange(1, 20)))
        await asyncio.sleep(chance.uniform(0.0, 0.05))
    return answered


async def check(db: Database, answered: set[int]) -> None:
    done = {int(entry.key.removeprefix("done/")): entry.text async for entry in db.scan(prefix="done/")}
    assert answered <= done.keys(), "a job whose put was answered is done"
    assert set(done.values()) == {"1"}, "the effect of each job is made once"
    for number in done:
        tokens = [int(change.text) async for change in db.history(f"token/{number}") if change.value is not None]
        assert tokens == sorted(tokens), "nobody writes after another has taken the job"
    keys = {entry.key async for entry in db.scan(prefix="mail/", keys_only=True)}
    assert keys == {"mail/.last", "mail/.claims/ready"}


def faults(chance: random.Random, count: int) -> Iterator[str]:
    """Kinds of faults: each once at first, then at random."""
    kinds = ["kill", "node", "stop"]
    chance.shuffle(kinds)
    for number in range(count):
        yield kinds[number] if number < len(kinds) else chance.choice(kinds)


async def trial(path: Path, workers: int, jobs: int, count: int, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    with ExitStack() as stack:
        node = stack.enter_context(serving(path))
        await asyncio.to_thread(node.ready)
        url = f"haptera+unix://{path}/haptera.sock"
        crew = Crew(url, workers)
        stack.callback(crew.end)
        async with haptera.connect(url, timeout=5) as db:
            putting = asyncio.create_task(put_jobs(db, jobs, chance))
            for fault in faults(chance, count):
                await asyncio.sleep(chance.uniform(0.1, 0.4))
                match fault:
                    case "kill":
                        crew.kill(chance.randrange(workers))
                    case "stop":
                        await crew.stop(chance.randrange(workers), chance.choice([0.2, 1.3]) * TTL_S)
                    case _:
                        node.signal(signal.SIGKILL)
                        assert await asyncio.to_thread(node.end) == -signal.SIGKILL
                        node = stack.enter_context(serving(path))
                        await asyncio.to_thread(node.ready)
            answered = await putting
            async with asyncio.timeout(60):
                while await db.queue("mail").size():
                    await asyncio.sleep(0.05)
            await check(db, answered)


async def test_every_job_is_done_though_workers_and_the_node_are_killed(tmp_path: Path) -> None:
    await trial(tmp_path / "d", workers=2, jobs=60, count=3, seed=random.randrange(1 << 32))


@pytest.mark.long
async def test_every_job_is_done_over_sixty_kills(tmp_path: Path) -> None:
    await trial(tmp_path / "d", workers=4, jobs=3_000, count=60, seed=random.randrange(1 << 32))

"""Jobs of a queue taken and acknowledged, beside a list of Redis: one after the other, and by 50 takers.

All servers sync every change before they answer it. A job of Haptera is two changes, the claim and the acknowledgement;
so is one of Redis, BLMOVE to a list of the jobs in hand and LREM from that. Redis has no worker's lease: a job that a
dead program has taken stays in the second list, and to give it back is a program's own work.

Haptera's 50 takers are tasks of one worker, or 50 workers, each with a connection and a watch of its own, which compete
for the jobs. redis-py has a connection for each taker. The rounds alternate; the figures are the medians.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import redis.asyncio

import haptera
from bench import processes, report
from bench.memory import resident

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.recipes import Worker

VALUE: Final = bytes(range(256))
MANY: Final = 50
PUT_TOGETHER: Final = 1_000

Take = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Contender:
    """A way to take jobs: ``put`` puts so many, ``takers`` gives functions that take and acknowledge one each."""

    name: str
    put: Callable[[int], Coroutine[Any, Any, None]]
    takers: Callable[[AsyncExitStack, int], Awaitable[list[Take]]]


def haptera_contender(url: str, name: str, *, workers: int) -> Contender:
    """Takers that share one worker, or have one of their own each (``workers`` 0)."""

    async def put(jobs: int) -> None:
        async with haptera.connect(url, timeout=60) as db:
            await db.queue("mail").put_many([VALUE] * jobs)

    async def worker_of(stack: AsyncExitStack) -> Worker:
        db = await stack.enter_async_context(haptera.connect(url, timeout=60))
        return await stack.enter_async_context(db.queue("mail").worker(ttl=60.0))

    async def takers(stack: AsyncExitStack, count: int) -> list[Take]:
        found = [await worker_of(stack) for _ in range(workers or count)]
        return [_take_from(found[number % len(found)]) for number in range(count)]

    return Contender(name, put, takers)


def _take_from(worker: Worker) -> Take:
    async def take() -> None:
        job = await worker.take()
        assert job is not None
        async with job:
            assert job.value == VALUE

    return take


def redis_contender(port: int) -> Contender:
    """Takers with a connection each."""

    async def put(jobs: int) -> None:
        async with redis.asyncio.Redis(port=port) as client:
            for first in range(0, jobs, PUT_TOGETHER):
                # LREM finds a job by its value, so each has another one.
                values = [b"%08d" % number + VALUE[8:] for number in range(first, min(first + PUT_TOGETHER, jobs))]
                await client.rpush("mail", *values)

    async def takers(stack: AsyncExitStack, count: int) -> list[Take]:
        pool = redis.asyncio.Redis(port=port, max_connections=count)
        stack.push_async_callback(pool.aclose)

        async def take() -> None:
            value: Any = await pool.blmove("mail", "mail/taken", 0, "LEFT", "RIGHT")
            assert value[8:] == VALUE[8:]
            assert await pool.lrem("mail/taken", 1, value) == 1

        return [take] * count

    return Contender("redis-py, BLMOVE and LREM", put, takers)


async def jobs_per_second(contender: Contender, takers: int, jobs: int) -> float:
    """Put jobs, take all of them, and measure that."""
    await contender.put(jobs)
    async with AsyncExitStack() as stack:
        takes = await contender.takers(stack, takers)
        left = iter(range(jobs))

        async def work(take: Take) -> None:
            for _ in left:
                await take()

        started = time.perf_counter()
        await asyncio.gather(*map(work, takes))
        return jobs / (time.perf_counter() - started)


async def measure(url: str, port: int, rounds: int, scale: float) -> list[dict[str, Any]]:
    """The medians of all rounds."""
    one = haptera_contender(url, "haptera, one worker", workers=1)
    many = haptera_contender(url, f"haptera, {MANY} workers", workers=0)
    rival = redis_contender(port)
    results = []
    for takers, jobs, contenders in ((1, 2_000, [one, rival]), (MANY, 10_000, [one, many, rival])):
        wanted = max(takers, int(jobs * scale))
        measured: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        for number in range(rounds + 1):
            for contender in contenders:
                rate = await jobs_per_second(contender, takers, wanted if number else max(takers, wanted // 10))
                measured[contender.name].append(rate)
        medians = {name: statistics.median(rates[1:]) for name, rates in measured.items()}
        results.append({"takers": takers, "jobs_per_round": wanted, "jobs_per_second": medians, "rival": rival.name})
    return results


async def take_some(url: str, taken: int) -> dict[str, Any]:
    """Take jobs of a queue that is there, and see how much memory this process takes for it."""
    contender = haptera_contender(url, "haptera", workers=1)
    async with AsyncExitStack() as stack:
        before = resident(os.getpid())
        takes = await contender.takers(stack, MANY)
        started = time.perf_counter()
        for _ in range(taken // MANY):
            await asyncio.gather(*(take() for take in takes))
        rate = taken / (time.perf_counter() - started)
        grown = resident(os.getpid()) - before
    return {"taken": taken, "jobs_per_second": rate, "grown_kib": grown // 1024}


def measure_long(url: str, jobs: int, taken: int) -> dict[str, Any]:
    """Take some jobs of a very long queue, in a process that does nothing else."""
    asyncio.run(haptera_contender(url, "haptera", workers=1).put(jobs))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return {"jobs": jobs} | executor.submit(_take_some, url, taken).result()


def _take_some(url: str, taken: int) -> dict[str, Any]:
    return asyncio.run(take_some(url, taken))


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    report.show_environment(result["environment"])
    rows = []
    for one in result["results"]:
        rates = one["jobs_per_second"]
        for name, rate in rates.items():
            ratio = "" if name == one["rival"] else f"{rate / rates[one['rival']]:.2f}"
            rows.append([f"{one['takers']}", name, f"{rate:,.0f}", ratio])
    long = result["long"]
    report.show(
        "Queues beside Redis",
        ["takers", "client", "jobs/s", "× Redis"],
        rows,
        [
            f"medians of {result['rounds']} alternating rounds; 256-byte values; take and acknowledgement, durable",
            f"{long['taken']:,} of {long['jobs']:,} jobs were taken, {long['jobs_per_second']:,.0f} a second",
            f"meanwhile the worker's process grew by {long['grown_kib']:,} KiB",
        ],
    )


def compare(directory: Path, *, rounds: int, scale: float) -> dict[str, Any]:
    """Run the whole comparison. Raises FileNotFoundError where there is no redis-server."""
    if processes.redis_version() is None:
        raise FileNotFoundError("redis-server is not on PATH (Debian, Ubuntu: apt-get install redis-server)")
    with (
        processes.scratch(directory) as path,
        processes.node(path / "haptera") as node,
        processes.redis_server(path / "redis") as port,
    ):
        results = asyncio.run(measure(node.url, port, rounds, scale))
    with processes.scratch(directory) as path, processes.node(path / "haptera") as node:
        long = measure_long(node.url, int(1_000_000 * scale), int(10_000 * scale))
    return {"environment": report.environment(directory), "rounds": rounds, "results": results, "long": long}


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and print it; return the exit status."""
    parser = report.arguments("The queues of Haptera beside lists of Redis, durable, in the same run.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each [5]")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of jobs [1]")
    options = parser.parse_args(argv)
    try:
        result = compare(options.dir, rounds=options.rounds, scale=options.scale)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 0
    if options.json:
        report.emit(result)
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The Python client against a node, beside redis-py against Redis: durable writes and reads of 256-byte values.

Both servers sync every change before they answer it (Haptera's default; Redis with `appendonly yes, appendfsync
always`). Haptera encrypts what it writes, Redis does not. One process drives both over TCP on the loopback address with
the same loop: a number of coroutines, each of which makes one call after the other. The rounds alternate, so that
whatever else the machine does meets both; the figures are the medians.

redis-py is measured as it is used: with one connection, on which its calls wait for each other, and with its pool, a
connection for each call in flight. The better of the two is compared. An explicit pipeline, which sends many commands
at once and waits for all of them, is another way to write a program: it is shown, and not compared.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import redis.asyncio

import haptera
from bench import processes, report

if TYPE_CHECKING:
    from pathlib import Path

VALUE = bytes(range(256))
KEYS = 1000
IN_FLIGHT = 50
WARM_UP_SHARE = 10

Call = Callable[[int], Awaitable[object]]


@dataclass(frozen=True)
class Contender:
    """One way to make the calls."""

    name: str
    get: Call
    set: Call


@dataclass(frozen=True)
class Workload:
    """`calls` per round, of which `in_flight` are under way at any time."""

    operation: str
    in_flight: int
    calls: int

    @property
    def name(self) -> str:
        return f"{self.operation}, {'serial' if self.in_flight == 1 else f'{self.in_flight} in flight'}"


@dataclass(frozen=True)
class Round:
    """What one round measured."""

    calls_per_second: float
    p50_ms: float
    p99_ms: float


def key(number: int) -> str:
    return f"bench/{number % KEYS:06}"


async def run_round(call: Call, calls: int, in_flight: int) -> Round:
    """Make the calls and measure each. Raises whatever a call does."""
    numbers = count()
    times: list[float] = []
    clock = time.perf_counter

    async def worker() -> None:
        while (number := next(numbers)) < calls:
            started = clock()
            await call(number)
            times.append(clock() - started)

    gc.collect()
    started = clock()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    seconds = clock() - started
    times.sort()
    return Round(calls / seconds, _percentile_ms(times, 50), _percentile_ms(times, 99))


def _percentile_ms(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000


def haptera_contender(db: haptera.Database) -> Contender:
    async def get(number: int) -> None:
        entry = await db.get(key(number))
        assert entry is not None
        assert entry.value == VALUE

    return Contender("haptera", get, lambda number: db.set(key(number), VALUE))


def redis_contender(name: str, client: redis.asyncio.Redis) -> Contender:
    async def get(number: int) -> None:
        assert await client.get(key(number)) == VALUE

    async def set_(number: int) -> None:
        assert await client.set(key(number), VALUE)

    return Contender(name, get, set_)


def redis_pipeline_contender(client: redis.asyncio.Redis) -> Contender:
    """A call here is one pipeline of `IN_FLIGHT` commands."""

    async def get(number: int) -> None:
        async with client.pipeline(transaction=False) as pipeline:
            for offset in range(IN_FLIGHT):
                _ = pipeline.get(key(number * IN_FLIGHT + offset))
            assert all(value == VALUE for value in await pipeline.execute())

    async def set_(number: int) -> None:
        async with client.pipeline(transaction=False) as pipeline:
            for offset in range(IN_FLIGHT):
                _ = pipeline.set(key(number * IN_FLIGHT + offset), VALUE)
            assert all(await pipeline.execute())

    return Contender("redis-py pipeline", get, set_)


async def contenders(stack: AsyncExitStack, url: str, port: int) -> tuple[list[Contender], Contender]:
    """Those that are compared, and the pipeline that is shown beside them; all connected."""
    db = await stack.enter_async_context(haptera.connect(url))
    single = redis.asyncio.Redis(port=port, single_connection_client=True)
    pool = redis.asyncio.Redis(port=port, max_connections=IN_FLIGHT)
    for client in (single, pool):
        stack.push_async_callback(client.aclose)
    compared = [
        haptera_contender(db),
        redis_contender("redis-py, one connection", single),
        redis_contender("redis-py, pool", pool),
    ]
    return compared, redis_pipeline_contender(pool)


async def measure(url: str, port: int, workloads: list[Workload], rounds: int) -> list[dict[str, Any]]:
    """The medians of each workload for each contender."""
    results = []
    async with AsyncExitStack() as stack:
        compared, pipeline = await contenders(stack, url, port)
        for contender in compared:
            await run_round(contender.set, KEYS, IN_FLIGHT)  # every key is there, every connection open
        for workload in workloads:
            names = [contender.name for contender in compared]
            measured: dict[str, list[Round]] = {name: [] for name in [*names, pipeline.name]}
            for number in range(rounds + 1):
                for contender in compared:
                    call = getattr(contender, workload.operation)
                    calls = workload.calls if number else max(1, workload.calls // WARM_UP_SHARE)
                    measured[contender.name].append(await run_round(call, calls, workload.in_flight))
                if workload.in_flight == IN_FLIGHT:
                    call = getattr(pipeline, workload.operation)
                    one = await run_round(call, max(1, workload.calls // IN_FLIGHT), 1)
                    measured[pipeline.name].append(Round(one.calls_per_second * IN_FLIGHT, one.p50_ms, one.p99_ms))
            results.append(_summary(workload, {name: all_[1:] for name, all_ in measured.items() if all_}))
    return results


def _summary(workload: Workload, measured: dict[str, list[Round]]) -> dict[str, Any]:
    medians = {
        name: {
            field: statistics.median(getattr(round_, field) for round_ in rounds)
            for field in ("calls_per_second", "p50_ms", "p99_ms")
        }
        for name, rounds in measured.items()
    }
    rivals = {name: figures for name, figures in medians.items() if name.startswith("redis-py,")}
    best = max(rivals, key=lambda name: rivals[name]["calls_per_second"])
    return {
        "workload": workload.name,
        "operation": workload.operation,
        "in_flight": workload.in_flight,
        "calls_per_round": workload.calls,
        "medians": medians,
        "best_rival": best,
        "ratio": medians["haptera"]["calls_per_second"] / rivals[best]["calls_per_second"],
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    report.show_environment(result["environment"])
    versions = result["versions"]
    rows = []
    for one in result["results"]:
        for name, figures in one["medians"].items():
            rows.append(
                [
                    one["workload"],
                    name,
                    f"{figures['calls_per_second']:,.0f}",
                    f"{figures['p50_ms']:.2f}",
                    f"{figures['p99_ms']:.2f}",
                    f"{one['ratio']:.2f}" if name == one["best_rival"] else "",
                ]
            )
    report.show(
        "Haptera beside Redis",
        ["workload", "client", "calls/s", "p50 ms", "p99 ms", "haptera is × as fast"],
        rows,
        [
            f"medians of {result['rounds']} alternating rounds; 256-byte values, {KEYS} keys; loop: {result['loop']}",
            f"haptera {versions['haptera']}; redis-server {versions['redis-server']}",
            f"redis-py {versions['redis-py']} with its {versions['redis-parser']}",
            "the times of `redis-py pipeline` are those of a whole pipeline",
        ],
    )


def versions() -> dict[str, str | None]:
    """The versions of both sides."""
    try:
        parser = f"hiredis {importlib.metadata.version('hiredis')} parser"
    except importlib.metadata.PackageNotFoundError:
        parser = "pure Python parser"
    return {
        "haptera": haptera.__version__,
        "redis-server": processes.redis_version(),
        "redis-py": importlib.metadata.version("redis"),
        "redis-parser": parser,
    }


def compare(directory: Path, *, rounds: int, scale: float, loop: str) -> dict[str, Any]:
    """Run the whole comparison; `scale` multiplies the number of calls.

    Raises FileNotFoundError where there is no redis-server.
    """
    if processes.redis_version() is None:
        raise FileNotFoundError("redis-server is not on PATH (Debian, Ubuntu: apt-get install redis-server)")
    workloads = [
        Workload(operation, in_flight, max(in_flight, int(calls * scale)))
        for operation, in_flight, calls in [
            ("get", 1, 4_000),
            ("set", 1, 2_000),
            ("get", IN_FLIGHT, 20_000),
            ("set", IN_FLIGHT, 20_000),
        ]
    ]
    with (
        processes.scratch(directory) as path,
        processes.node(path / "haptera") as node,
        processes.redis_server(path / "redis") as port,
        asyncio.Runner(loop_factory=report.loop_factory(loop)) as runner,
    ):
        results = runner.run(measure(node.url, port, workloads, rounds))
    return {
        "environment": report.environment(directory),
        "versions": versions(),
        "loop": loop,
        "rounds": rounds,
        "results": results,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the comparison and print it; return the exit status."""
    parser = report.arguments("Haptera's Python client beside redis-py, durable, in the same run.")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each workload [7]")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of calls [1]")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="the client's event loop")
    options = parser.parse_args(argv)
    try:
        result = compare(options.dir, rounds=options.rounds, scale=options.scale, loop=options.loop)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        report.emit(result)
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())

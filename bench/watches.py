"""Watches of one prefix beside etcd's: how late events are, and what they cost, while a key is written at a fixed rate.

One process writes and reads: each watch is read by a coroutine through the Python client, and each event carries the
time at which its write began. The servers sync every write. Both clients and both servers are measured in the same run,
one after the other. aetcd and its server are measured where they are installed.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import statistics
import sys
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import haptera
from bench import processes, report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

#: Watches and writes a second.
LOADS: Final = ((100, 100), (1000, 100), (10_000, 10))
#: Watches of one connection: a node takes 512.
PER_CONNECTION: Final = 500
SECONDS: Final = 8.0
#: Seconds after which watches that are still behind are given up.
DRAIN_SECONDS: Final = 20.0
PREFIX: Final = "bench/"


@dataclass(frozen=True)
class Contender:
    """A client and its server: ``connect`` gives a put, and the values of the n-th watch."""

    name: str
    pid: int
    connect: Callable[[AsyncExitStack, int], Awaitable[tuple[Any, Any]]]


@dataclass(frozen=True)
class Figures:
    """The figures of a round: events that all watches were told in a second, how late they were, and cores in use."""

    told: float
    share: float
    p50_ms: float
    p99_ms: float
    server_cores: float
    client_cores: float


def haptera_contender(node: processes.Node) -> Contender:
    async def connect(stack: AsyncExitStack, watches: int) -> tuple[Any, Any]:
        writer = await stack.enter_async_context(haptera.connect(node.url))
        readers = [
            await stack.enter_async_context(haptera.connect(node.url)) for _ in range(-(-watches // PER_CONNECTION))
        ]

        async def watch(number: int) -> AsyncIterator[bytes]:
            async for event in readers[number // PER_CONNECTION].watch(prefix=PREFIX):
                assert event.value is not None
                yield event.value

        return writer.set, watch

    return Contender("haptera", node.pid, connect)


def etcd_contender(port: int, pid: int) -> Contender:
    aetcd = importlib.import_module("aetcd")

    async def connect(stack: AsyncExitStack, watches: int) -> tuple[Any, Any]:
        writer = await stack.enter_async_context(aetcd.Client("127.0.0.1", port, timeout=60))
        readers = [
            await stack.enter_async_context(aetcd.Client("127.0.0.1", port, timeout=60))
            for _ in range(-(-watches // PER_CONNECTION))
        ]

        async def watch(number: int) -> AsyncIterator[bytes]:
            async for event in await readers[number // PER_CONNECTION].watch_prefix(PREFIX.encode()):
                yield event.kv.value

        async def put(key: str, value: bytes) -> None:
            await writer.put(key.encode(), value)

        return put, watch

    return Contender("etcd, aetcd", pid, connect)


async def run_round(contender: Contender, watches: int, rate: int) -> Figures:
    """Write at the rate for so many seconds, and wait until each watch was told of every write, if it ever is."""
    late: list[float] = []
    told = 0

    begun: set[int] = set()

    async def read(number: int, values: AsyncIterator[bytes]) -> None:
        nonlocal told
        async for value in values:
            told += 1
            begun.add(number)
            if told % sampled == 0 and value != b"0":
                late.append(time.perf_counter() - float(value))

    async with AsyncExitStack() as stack:
        put, watch = await contender.connect(stack, watches)
        writes = int(rate * SECONDS)
        sampled = max(1, watches * writes // 200_000)
        reading = [asyncio.create_task(read(number, watch(number))) for number in range(watches)]
        while len(begun) < watches:
            await put(f"{PREFIX}begin", b"0")
            await asyncio.sleep(0.5)
        before_last = -1
        while told != before_last:  # until each has been told of all of these
            before_last = told
            await asyncio.sleep(2.0)
        told, started = 0, time.perf_counter()
        late.clear()
        before, own = processes.cpu_seconds(contender.pid), processes.cpu_seconds()
        putting: set[asyncio.Task[object]] = set()
        for number in range(writes):
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
            task = asyncio.ensure_future(put(f"{PREFIX}{number % 100}", b"%.6f" % time.perf_counter()))
            putting.add(task)
            task.add_done_callback(putting.discard)
        await asyncio.gather(*putting)
        deadline = time.perf_counter() + DRAIN_SECONDS
        while told < watches * writes and time.perf_counter() < deadline:
            await asyncio.sleep(0.05)
        seconds = time.perf_counter() - started
        figures = Figures(
            told / seconds,
            told / (watches * writes),
            statistics.median(late) * 1000,
            sorted(late)[len(late) * 99 // 100] * 1000,
            (processes.cpu_seconds(contender.pid) - before) / seconds,
            (processes.cpu_seconds() - own) / seconds,
        )
        for task_ in reading:
            task_.cancel()
        await asyncio.wait(reading)
    return figures


def measure(directory: Any, loads: list[tuple[int, int]]) -> dict[str, Any]:
    """Run all rounds."""
    rows = []
    with processes.scratch(directory) as path, ExitStack() as servers:
        contenders = [haptera_contender(servers.enter_context(processes.node(path / "node")))]
        if processes.etcd_version() is not None and importlib.util.find_spec("aetcd") is not None:
            etcd = servers.enter_context(processes.etcd_server(path / "etcd"))
            contenders.append(etcd_contender(etcd.port, etcd.pid))
        for watches, rate in loads:
            for contender in contenders:
                figures = asyncio.run(run_round(contender, watches, rate))
                rows.append({"client": contender.name, "watches": watches, "writes": rate, **vars(figures)})
        return {"environment": report.environment(path), "etcd-server": processes.etcd_version(), "watches": rows}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    report.show_environment(result["environment"])
    rows = [
        [
            f"{row['watches']:,} at {row['writes']:,}/s",
            row["client"],
            f"{row['told']:,.0f}",
            f"{row['share']:.0%}",
            f"{row['p50_ms']:,.1f}",
            f"{row['p99_ms']:,.1f}",
            f"{row['server_cores']:.2f}",
            f"{row['client_cores']:.2f}",
        ]
        for row in result["watches"]
    ]
    head = ["watches of one prefix", "client", "events/s", "told", "p50 ms", "p99 ms", "server, cores", "client, cores"]
    report.show("Watches", head, rows)


def main(argv: list[str]) -> int:
    parser = report.arguments("Watches of one prefix, beside etcd's.")
    parser.add_argument("--load", action="append", metavar="WATCHES:RATE", help="one load, in place of all")
    options = parser.parse_args(argv)
    pairs = [load.partition(":") for load in options.load or ()]
    loads = [(int(watches), int(rate)) for watches, _, rate in pairs] or list(LOADS)
    result = measure(options.dir, loads)
    report.emit(result) if options.json else show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

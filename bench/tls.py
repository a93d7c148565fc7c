"""Reads over TLS beside reads without it: one node with each, one client, the same loop.

Both sides have certificates (mutual TLS 1.3). One process drives both nodes over TCP on the loopback address. The
rounds alternate, so that whatever else the machine does meets both; the figures are the medians. The processor times
are of whole processes, the node's read from the system, and hold on a machine with other work.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import haptera
from bench import processes, report
from haptera.cli import dev_certificates

if TYPE_CHECKING:
    from pathlib import Path

IN_FLIGHT: Final = 50
#: The name of a workload, the bytes of a value, the calls in flight.
WORKLOADS: Final = (
    ("get, serial", 256, 1),
    ("get, 50 in flight", 256, IN_FLIGHT),
    ("get of 64 KiB, 8 in flight", 64 * 1024, 8),
)
CONNECTIONS: Final = 200


class Side(NamedTuple):
    """A node under measurement, with or without TLS."""

    name: str
    pid: int
    url: str


class Round(NamedTuple):
    """One round: calls in a second, median milliseconds, and microseconds of processor time of a call on both sides."""

    rate: float
    p50_ms: float
    node_us: float
    client_us: float


async def calls(db: haptera.Database, side: Side, in_flight: int, number: int) -> Round:
    """Make calls, and say how long they take."""
    times: list[float] = []
    numbers = count()

    async def work() -> None:
        while next(numbers) < number:
            begun = time.perf_counter()
            await db.get("key")
            times.append(time.perf_counter() - begun)

    node, client, begun = processes.cpu_seconds(side.pid), processes.cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    seconds = time.perf_counter() - begun
    node_us, client_us = (
        (processes.cpu_seconds(pid) - before) / len(times) * 1e6 for pid, before in ((side.pid, node), (None, client))
    )
    return Round(len(times) / seconds, statistics.median(times) * 1000, node_us, client_us)


async def connections(side: Side, number: int) -> Round:
    """Connect again and again, with one call on each connection."""
    times: list[float] = []
    node, client, begun = processes.cpu_seconds(side.pid), processes.cpu_seconds(), time.perf_counter()
    for _ in range(number):
        one = time.perf_counter()
        async with haptera.connect(side.url) as db:
            await db.get("nothing")
        times.append(time.perf_counter() - one)
    seconds = time.perf_counter() - begun
    node_us = (processes.cpu_seconds(side.pid) - node) / number * 1e6
    client_us = (processes.cpu_seconds() - client) / number * 1e6
    return Round(number / seconds, statistics.median(times) * 1000, node_us, client_us)


async def measure(sides: list[Side], rounds: int, number: int) -> list[dict[str, Any]]:
    """All workloads on both sides, in turns."""
    results = []
    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(haptera.connect(side.url)) for side in sides]
        for name, size, in_flight in WORKLOADS:
            found: dict[str, list[Round]] = {side.name: [] for side in sides}
            for turn in range(rounds + 1):  # the first does not count
                for db, side in zip(databases, sides, strict=True):
                    if not turn:
                        await db.set("key", bytes(size))
                    part = number // 10 if size > 1000 or not turn else number
                    found[side.name].append(await calls(db, side, in_flight, max(in_flight, part)))
            results += _medians(name, found)
        found = {side.name: [] for side in sides}
        for _ in range(rounds + 1):
            for side in sides:
                found[side.name].append(await connections(side, max(1, number * CONNECTIONS // 20_000)))
        return results + _medians("connect and one get", found)


def _medians(name: str, found: dict[str, list[Round]]) -> list[dict[str, Any]]:
    return [
        {
            "workload": name,
            "transport": side,
            **{field: statistics.median(getattr(each, field) for each in rounds[1:]) for field in Round._fields},
        }
        for side, rounds in found.items()
    ]


@contextmanager
def both(directory: Path) -> Iterator[list[Side]]:
    """A node without TLS, and one with it."""
    with ExitStack() as stack:
        path = stack.enter_context(processes.scratch(directory))
        for name, content in dev_certificates.make((), "bench", 1).items():
            (path / name).touch(0o600)
            (path / name).write_bytes(content)
        own = f"cert={path}/server.pem&key={path}/server.key&client_ca={path}/ca.pem"
        plain = stack.enter_context(processes.node(path / "plain"))
        secure = stack.enter_context(processes.node(path / "tls", listen=f"hapteras://127.0.0.1:0?{own}"))
        client = f"cert={path}/client.pem&key={path}/client.key&ca={path}/ca.pem"
        yield [Side("TCP", plain.pid, plain.url), Side("TLS", secure.pid, f"{secure.url}?{client}")]


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("Reads over TLS beside reads without it.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each workload [5]")
    parser.add_argument("--calls", type=int, default=20_000, help="calls of a round [20,000]")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="the client's loop [asyncio]")
    options = parser.parse_args(argv)
    found = report.environment(options.dir)
    with (
        both(options.dir.absolute()) as sides,
        asyncio.Runner(loop_factory=report.loop_factory(options.loop)) as runner,
    ):
        results = runner.run(measure(sides, options.rounds, options.calls))
    if options.json:
        report.emit({"environment": found, "results": results})
        return 0
    report.show_environment(found)
    rows = [
        [
            result["workload"],
            result["transport"],
            f"{result['rate']:,.0f}",
            f"{result['p50_ms']:.2f}",
            f"{result['node_us']:,.0f}",
            f"{result['client_us']:,.0f}",
        ]
        for result in results
    ]
    head = ["workload", "transport", "calls/s", "p50 ms", "node's CPU, µs a call", "client's CPU, µs a call"]
    report.show(f"TLS beside TCP, a client on {options.loop}", head, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

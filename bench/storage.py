"""Durable writes beside Redis and etcd: writes a second and their times, in a closed loop and at half of that rate.

All servers sync every write before they answer it: Haptera by default, Redis with `appendfsync always`, etcd always.
Haptera encrypts what it writes as well. One process drives them over TCP on the loopback address with the load
generator of `haptera bench`; one contender works at a time, and the rounds of the contenders alternate. redis-py,
valkey-glide, aetcd and their servers are measured where they are installed.

The figures of snapshots, backups and replay belong here as well: each is a function such as `writes` and `log_bytes`,
whose rows are a part of the result and a table of `show`.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import importlib.util
import statistics
import sys
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import msgspec

import haptera
from bench import processes, report
from haptera.cli.benchmark.load import NS, Operation, Plan, RealClock, Recorder, merged, run_load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Set = Callable[[str], Awaitable[object]]

VALUE: Final = bytes(range(256))
KEYS: Final = 1000
PERCENTS: Final = (50.0, 99.0, 99.9)
#: No argument, of a method of the service `server`.
_NO_ARGUMENT: Final = b"\x90"

#: Calls in flight together, and the connections that share them. The first is a serial caller.
LOADS: Final = ((1, 1), (50, 1), (500, 1), (50, 50), (500, 50))
#: The load whose rate is halved for the open loop.
HALVED: Final = (50, 1)
REDIS_CONNECTIONS: Final = 50


@dataclass(frozen=True)
class Contender:
    """A client and its server: ``connect`` gives so many connections' sets, which the stack closes."""

    name: str
    connect: Callable[[AsyncExitStack, int], Awaitable[list[Set]]]


@dataclass(frozen=True)
class Figures:
    """The figures of a round, or the medians of some: calls a second, and milliseconds."""

    rate: float
    p50: float
    p99: float
    p999: float


def haptera_contender(url: str) -> Contender:
    async def connect(stack: AsyncExitStack, connections: int) -> list[Set]:
        made = [await stack.enter_async_context(haptera.connect(url)) for _ in range(connections)]
        return [lambda key, db=db: db.set(key, VALUE) for db in made]  # type: ignore[misc]

    return Contender("haptera", connect)


def redis_contender(port: int) -> Contender:
    """redis-py takes a connection for each call in flight; a call beyond the fiftieth waits for one."""
    redis = importlib.import_module("redis.asyncio")

    async def connect(stack: AsyncExitStack, connections: int) -> list[Set]:
        pool = redis.BlockingConnectionPool(port=port, max_connections=REDIS_CONNECTIONS, timeout=None)
        client = redis.Redis.from_pool(pool)
        stack.push_async_callback(client.aclose)
        return [lambda key: client.set(key, VALUE)] * connections

    return Contender("redis-py, pool", connect)


def glide_contender(port: int) -> Contender:
    glide = importlib.import_module("glide")

    async def connect(stack: AsyncExitStack, connections: int) -> list[Set]:
        made = []
        for _ in range(connections):
            configuration = glide.GlideClientConfiguration([glide.NodeAddress("127.0.0.1", port)])
            client = await glide.GlideClient.create(configuration)
            stack.push_async_callback(client.close)
            made.append(client)
        return [lambda key, client=client: client.set(key, VALUE) for client in made]  # type: ignore[misc]

    return Contender("valkey-glide", connect)


def etcd_contender(port: int) -> Contender:
    aetcd = importlib.import_module("aetcd")

    async def connect(stack: AsyncExitStack, connections: int) -> list[Set]:
        made = [await stack.enter_async_context(aetcd.Client("127.0.0.1", port)) for _ in range(connections)]
        return [lambda key, client=client: client.put(key.encode(), VALUE) for client in made]  # type: ignore[misc]

    return Contender("etcd, aetcd", connect)


async def run_round(contender: Contender, load: tuple[int, int], seconds: float, rate: float | None) -> Figures:
    """Make sets for so long, with ``rate`` at even intervals. Raises what a set does."""
    in_flight, connections = load
    numbers, clock = count(), RealClock()

    def operation(set_: Set) -> Operation:
        async def operate() -> tuple[int, int, int]:
            await set_(f"bench/{next(numbers) % KEYS:06}")
            return 0, len(VALUE), 1

        return operate

    async with AsyncExitStack() as stack:
        sets = await contender.connect(stack, connections)
        operations = [operation(sets[number % connections]) for number in range(in_flight)]
        await _run(operations, clock, seconds / 10, rate)  # connections are open, and what is made once is made
        gc.collect()
        return _figures(await _run(operations, clock, seconds, rate))


async def _run(operations: list[Operation], clock: RealClock, seconds: float, rate: float | None) -> Recorder:
    recorder = Recorder(("set",), clock.now())
    plan = Plan(clock, end=clock.now() + round(seconds * NS), count=None, rate=rate)
    await run_load(operations, plan, recorder, clock)
    if recorder.last_error:
        raise next(iter(recorder.last_error.values()))
    return recorder


def _figures(recorder: Recorder) -> Figures:
    p50, p99, p999 = (each / 1e6 for each in merged(recorder.durations()).percentiles(PERCENTS))
    return Figures(recorder.operations * NS / (recorder.end - recorder.start), p50, p99, p999)


def median(rounds: list[Figures]) -> Figures:
    """The median of each figure of some rounds."""
    names = ("rate", "p50", "p99", "p999")
    return Figures(*(statistics.median(getattr(each, name) for each in rounds) for name in names))


async def writes(contenders: list[Contender], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """The closed loop with each load, then the open loop at half the rate of one of them."""
    rows: list[dict[str, Any]] = []
    half: dict[str, float] = {}
    for load in (*LOADS, None):
        in_flight, connections = load or HALVED
        measured: dict[str, list[Figures]] = {each.name: [] for each in contenders}
        for _ in range(rounds):
            for each in contenders:
                rate = half[each.name] if load is None else None
                measured[each.name].append(await run_round(each, load or (500, 1), seconds, rate))
        for name, found in measured.items():
            figures = median(found)
            if load == HALVED:
                half[name] = figures.rate / 2
            rows.append(
                {
                    "load": _named(in_flight, connections) if load else "half the rate of 50 in flight",
                    "client": name,
                    "sets_per_second": figures.rate,
                    "p50_ms": figures.p50,
                    "p99_ms": figures.p99,
                    "p999_ms": figures.p999,
                }
            )
    return rows


def _named(in_flight: int, connections: int) -> str:
    if in_flight == 1:
        return "serial"
    return f"{in_flight} in flight, {connections} connection{'s' if connections > 1 else ''}"


async def log_bytes(contenders: list[Contender], url: str, seconds: float) -> list[dict[str, Any]]:
    """Measure the bytes of a set in the log of a node: of a lone caller, and of 50 whose sets share records."""
    rows = []
    for load in LOADS[:2]:
        before = await _metrics(url)
        await run_round(contenders[0], load, seconds, None)
        after = await _metrics(url)
        size, commands = (after[name] - before[name] for name in ("log_size_bytes", "log_commands_total"))
        rows.append({"load": _named(*load), "bytes": size / commands})
    return rows


async def _metrics(url: str) -> dict[str, float]:
    peer = await haptera.dial(url)
    try:
        values: dict[str, float] = msgspec.msgpack.decode(await peer.call("server", "metrics", _NO_ARGUMENT))
    finally:
        await peer.aclose()
    return values


def measure(directory: Path, *, rounds: int, seconds: float, loop: str) -> dict[str, Any]:
    """Run all of it, with the rivals that are installed."""
    with (
        processes.scratch(directory) as path,
        processes.node(path / "haptera") as node,
        ExitStack() as servers,
        asyncio.Runner(loop_factory=report.loop_factory(loop)) as runner,
    ):
        contenders = [haptera_contender(node.url), *_rivals(servers, path)]
        found = runner.run(writes(contenders, rounds, seconds))
        sizes = runner.run(log_bytes(contenders, node.url, seconds))
    return {
        "environment": report.environment(directory),
        "versions": versions(),
        "loop": loop,
        "rounds": rounds,
        "seconds": seconds,
        "writes": found,
        "log_bytes": sizes,
    }


def _rivals(servers: ExitStack, path: Path) -> list[Contender]:
    rivals = []
    if processes.redis_version() is not None:
        port = servers.enter_context(processes.redis_server(path / "redis"))
        rivals.append(redis_contender(port))
        if importlib.util.find_spec("glide") is not None:
            rivals.append(glide_contender(port))
    if processes.etcd_version() is not None and importlib.util.find_spec("aetcd") is not None:
        rivals.append(etcd_contender(servers.enter_context(processes.etcd_server(path / "etcd")).port))
    return rivals


def versions() -> dict[str, str | None]:
    """The versions of the programs that are measured; None for one that is not installed."""
    found = {"haptera": haptera.__version__, "redis-server": processes.redis_version()}
    found["etcd-server"] = processes.etcd_version()
    for name in ("redis", "hiredis", "valkey-glide", "aetcd"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    report.show_environment(result["environment"])
    rows = [
        [
            row["load"],
            row["client"],
            f"{row['sets_per_second']:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['p999_ms']:.2f}",
        ]
        for row in result["writes"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    report.show(
        "Durable writes",
        ["load", "client", "sets/s", "p50 ms", "p99 ms", "p99.9 ms"],
        rows,
        [
            f"medians of {result['rounds']} alternating rounds of {result['seconds']:g} s; loop: {result['loop']}",
            f"256-byte values, {KEYS} keys",
            versions,
        ],
    )
    sizes = [[row["load"], f"{row['bytes']:.0f}"] for row in result["log_bytes"]]
    report.show("Bytes of the log for a write of 256 bytes", ["load", "bytes"], sizes)


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("Durable writes beside Redis and etcd, in the same run.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each load [3]")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round [2]")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop", help="the client's event loop")
    options = parser.parse_args(argv)
    result = measure(options.dir, rounds=options.rounds, seconds=options.seconds, loop=options.loop)
    if options.json:
        report.emit(result)
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())

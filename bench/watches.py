"""Watches beside etcd's: how late events are, and what they cost, while keys are written at a fixed rate.

The watches are all of one prefix, so that each is told of every write, or each is of a key of its own, so that each
write is told to one. One process writes and reads: each watch is read by a coroutine through the Python client. A third
contender reads the ITEMs of a node and counts the events in them without decoding these: then the node is what is
measured, because the client takes most of the time otherwise. The servers sync every write. All are measured in the
same run, one after the other. aetcd and its server are measured where they are installed.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import random
import statistics
import sys
import time
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

import haptera
from bench import processes, report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


class Load(NamedTuple):
    """So many watches, of one prefix or each of its own key, and the writes a second."""

    watches: int
    rate: int
    own_keys: bool = False

    def target(self, number: int) -> dict[str, str]:
        """The key or the prefix of a watch, as the fields of the method have it."""
        return {"key": f"{PREFIX}{number}"} if self.own_keys else {"prefix": PREFIX}

    def written(self, number: int) -> str:
        """The key of a write."""
        return f"{PREFIX}{number % (self.watches if self.own_keys else 100)}"

    def told(self, writes: int) -> int:
        """The events of so many writes, of all watches together."""
        return sum(self.told_to(number, writes) for number in range(self.watches))

    def told_to(self, number: int, writes: int) -> int:
        """The events of so many writes that a watch is told of."""
        return len(range(number, writes, self.watches)) if self.own_keys else writes


LOADS: Final = (
    Load(100, 100),
    Load(1000, 100),
    Load(10_000, 10),
    Load(10_000, 1000),
    Load(10_000, 1000, own_keys=True),
)
#: Watches of one connection: a node takes 512.
PER_CONNECTION: Final = 500
SECONDS: Final = 8.0
#: Seconds after which watches that have not begun, and those that are still behind, are given up.
BEGIN_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = 20.0
PREFIX: Final = "bench/"
#: Events of a round whose lateness is looked at.
SAMPLES: Final = 200_000

#: Events that came together: how many, and the moment at which one of them was begun to be written, by its position.
Batch = tuple[int, "Callable[[int], float | None]"]


class Contender(NamedTuple):
    """A client and its server: ``connect`` gives a put, which notes when each write was begun, and the events of the
    n-th watch, in batches.
    """

    name: str
    pid: int
    connect: Callable[[AsyncExitStack, Load], Awaitable[tuple[Any, Any]]]


class Figures(NamedTuple):
    """The figures of a round: events that all watches were told in a second, their part of all, and that of the watch
    with the fewest; how late they were; how long a write took; and cores in use.
    """

    told: float
    share: float
    least_share: float
    p50_ms: float
    p99_ms: float
    write_p99_ms: float
    server_cores: float
    client_cores: float


def haptera_contender(node: processes.Node) -> Contender:
    async def connect(stack: AsyncExitStack, load: Load) -> tuple[Any, Any]:
        writer = await stack.enter_async_context(haptera.connect(node.url))
        readers = [
            await stack.enter_async_context(haptera.connect(node.url, timeout=60)) for _ in range(_connections(load))
        ]

        async def watch(number: int) -> AsyncIterator[Batch]:
            target = load.target(number)
            events = readers[number // PER_CONNECTION].watch(target.get("key"), prefix=target.get("prefix"))
            while True:
                found = await events.next_events()
                values = [event.value or b"0" for event in found if event.kind == "put"]
                yield len(values), lambda position, values=values: float(values[position])  # type: ignore[misc]

        return writer.set, watch

    return Contender("haptera", node.pid, connect)


class _Item(msgspec.Struct, array_like=True):
    """An ITEM of a watch, with its events as they came."""

    revision: int
    events: msgspec.Raw
    more: bool


def undecoded_contender(node: processes.Node) -> Contender:
    """A node, with a reader that counts the events of each ITEM by their revisions: each write makes one."""
    decode = msgspec.msgpack.Decoder(_Item).decode

    async def connect(stack: AsyncExitStack, load: Load) -> tuple[Any, Any]:
        writer = await stack.enter_async_context(haptera.connect(node.url))
        peers = [
            await stack.enter_async_context(haptera.dial(node.url, groups=("kv_watch",)))
            for _ in range(_connections(load))
        ]
        begun: dict[int, float] = {}

        async def put(key: str, value: bytes) -> None:
            begun[await writer.set(key, value)] = float(value)

        async def watch(number: int) -> AsyncIterator[Batch]:
            argument = msgspec.msgpack.encode([load.target(number)])
            async for payload in peers[number // PER_CONNECTION].stream("kv", "watch", argument):
                item = decode(payload)
                count = len(msgspec.msgpack.decode(item.events, type=list[msgspec.Raw]))
                first = item.revision - count + 1
                yield count, lambda position, first=first: begun.get(first + position)  # type: ignore[misc]

        return put, watch

    return Contender("haptera, not decoded", node.pid, connect)


def etcd_contender(port: int, pid: int) -> Contender:
    aetcd = importlib.import_module("aetcd")

    async def connect(stack: AsyncExitStack, load: Load) -> tuple[Any, Any]:
        writer = await stack.enter_async_context(aetcd.Client("127.0.0.1", port, timeout=60))
        readers = [
            await stack.enter_async_context(aetcd.Client("127.0.0.1", port, timeout=60))
            for _ in range(_connections(load))
        ]

        async def watch(number: int) -> AsyncIterator[Batch]:
            client, target = readers[number // PER_CONNECTION], load.target(number)
            begin = client.watch if load.own_keys else client.watch_prefix
            async for event in await begin(next(iter(target.values())).encode()):
                yield 1, lambda _, value=event.kv.value: float(value)  # type: ignore[misc]

        async def put(key: str, value: bytes) -> None:
            await writer.put(key.encode(), value)

        return put, watch

    return Contender("etcd, aetcd", pid, connect)


def _connections(load: Load) -> int:
    return -(-load.watches // PER_CONNECTION)


class _Readings:
    """The events that the watches of a round were told of, and how late some of them were."""

    def __init__(self, load: Load) -> None:
        self.told = [0] * load.watches
        self._part = SAMPLES / load.told(int(load.rate * SECONDS))
        self._samples: list[tuple[float, Callable[[int], float | None], int]] = []

    async def read(self, number: int, batches: AsyncIterator[Batch]) -> None:
        """Count the events of a watch, and choose some of them by chance."""
        async for count, begun in batches:
            self.told[number] += count
            if count and random.random() < count * self._part:
                self._samples.append((time.perf_counter(), begun, random.randrange(count)))

    def restart(self) -> None:
        """Forget what came so far."""
        self.told = [0] * len(self.told)
        self._samples.clear()

    def late(self) -> list[float]:
        """The seconds between the beginning of a write and the arrival of its event, in order."""
        found = [(arrived, begun(position)) for arrived, begun, position in self._samples]
        return sorted(arrived - start for arrived, start in found if start) or [0.0]


async def _begin(load: Load, put: Callable[[str, bytes], Awaitable[object]], readings: _Readings) -> bool:
    """Write until each watch was told of something, and of all that was written; whether that came in time."""
    deadline = time.perf_counter() + BEGIN_SECONDS
    while not all(readings.told):
        if time.perf_counter() > deadline:
            return False
        waiting = [number for number, told in enumerate(readings.told) if not told]
        keys = [load.written(number) for number in waiting] if load.own_keys else [load.written(0)]
        for start in range(0, len(keys), 50):
            await asyncio.gather(*(put(key, b"0") for key in keys[start : start + 50]))
        await asyncio.sleep(0.5)
    before = -1
    while sum(readings.told) != before:
        before = sum(readings.told)
        await asyncio.sleep(2.0)
    return True


async def run_round(contender: Contender, load: Load) -> Figures | None:
    """Write at the rate for so many seconds, and wait until each watch was told of every write, if it ever is. None
    where the watches do not begin.
    """
    readings, writes = _Readings(load), int(load.rate * SECONDS)
    took: list[float] = []
    async with AsyncExitStack() as stack:
        put, watch = await contender.connect(stack, load)

        async def write(number: int) -> None:
            begun = time.perf_counter()
            await put(load.written(number), b"%.6f" % begun)
            took.append(time.perf_counter() - begun)

        reading = [asyncio.create_task(readings.read(number, watch(number))) for number in range(load.watches)]
        if not await _begin(load, put, readings):
            for each in reading:
                each.cancel()
            return None
        readings.restart()
        started = time.perf_counter()
        before, own = processes.cpu_seconds(contender.pid), processes.cpu_seconds()
        writing: set[asyncio.Task[None]] = set()
        for number in range(writes):
            await asyncio.sleep(max(0.0, started + number / load.rate - time.perf_counter()))
            task = asyncio.ensure_future(write(number))
            writing.add(task)
            task.add_done_callback(writing.discard)
        await asyncio.gather(*writing)
        deadline = time.perf_counter() + DRAIN_SECONDS
        while sum(readings.told) < load.told(writes) and time.perf_counter() < deadline:
            await asyncio.sleep(0.05)
        seconds = time.perf_counter() - started
        late, told = readings.late(), sum(readings.told)
        figures = Figures(
            told=told / seconds,
            share=told / load.told(writes),
            least_share=min(
                count / due for number, count in enumerate(readings.told) if (due := load.told_to(number, writes))
            ),
            p50_ms=statistics.median(late) * 1000,
            p99_ms=late[len(late) * 99 // 100] * 1000,
            write_p99_ms=sorted(took)[len(took) * 99 // 100] * 1000,
            server_cores=(processes.cpu_seconds(contender.pid) - before) / seconds,
            client_cores=(processes.cpu_seconds() - own) / seconds,
        )
        for each in reading:
            each.cancel()
        await asyncio.wait(reading)
    return figures


def measure(directory: Path, loads: list[Load]) -> dict[str, Any]:
    """Run all rounds."""
    rows = []
    with processes.scratch(directory) as path, ExitStack() as servers:
        node = servers.enter_context(processes.node(path / "node"))
        contenders = [haptera_contender(node), undecoded_contender(node)]
        if processes.etcd_version() is not None and importlib.util.find_spec("aetcd") is not None:
            etcd = servers.enter_context(processes.etcd_server(path / "etcd"))
            contenders.append(etcd_contender(etcd.port, etcd.pid))
        for load in loads:
            for contender in contenders:
                figures = asyncio.run(run_round(contender, load))
                measured = None if figures is None else figures._asdict()
                rows.append({"client": contender.name, **load._asdict(), "figures": measured})
        return {"environment": report.environment(path), "etcd-server": processes.etcd_version(), "watches": rows}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    report.show_environment(result["environment"])
    rows = []
    for row in result["watches"]:
        load = f"{row['watches']:,}{' of own keys' if row['own_keys'] else ''} at {row['rate']:,}/s"
        found = row["figures"]
        if found is None:
            rows.append([load, row["client"], f"not begun within {BEGIN_SECONDS:.0f} s", *[""] * 7])
            continue
        rows.append(
            [
                load,
                row["client"],
                f"{found['told']:,.0f}",
                f"{found['share']:.0%}",
                f"{found['least_share']:.0%}",
                f"{found['p50_ms']:,.1f}",
                f"{found['p99_ms']:,.1f}",
                f"{found['write_p99_ms']:,.1f}",
                f"{found['server_cores']:.2f}",
                f"{found['client_cores']:.2f}",
            ]
        )
    head = ["watches", "client", "events/s", "told", "least", "p50 ms", "p99 ms", "write p99 ms", "server", "client"]
    report.show("Watches", head, rows)


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments("Watches, beside etcd's.")
    parser.add_argument(
        "--load", action="append", metavar="WATCHES:RATE[:keys]", help="one load, in place of all; keys: of own keys"
    )
    options = parser.parse_args(argv)
    given = [load.split(":") for load in options.load or ()]
    loads = [Load(int(watches), int(rate), bool(rest)) for watches, rate, *rest in given] or list(LOADS)
    result = measure(options.dir, loads)
    report.emit(result) if options.json else show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())

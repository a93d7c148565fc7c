"""Watches beside etcd's: how late events are, and what they cost, while keys are written at a fixed rate.

The watches are all of one prefix, so that each is told of every write, or each is of a key of its own, so that each
write is told to one. Node and etcd have the same load and the same readers, `lean_readers`, which count the events of a
message and decode none: so the server is what is measured. A third contender reads the watches of a node by the Python
client in one process, as a program does that uses the events. The servers sync every write. All are measured in the
same run, one after the other. etcd is measured where it is installed, and the lean readers where Go is.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from contextlib import AsyncExitStack, ExitStack, aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import grpc.aio

import haptera
from bench import lean_readers, processes, report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class Load(NamedTuple):
    """So many watches, of one prefix or each of its own key, and the writes a second."""

    watches: int
    rate: int
    own_keys: bool = False

    def target(self, number: int) -> tuple[str, str]:
        """The key or the prefix of a watch: the name of the field, and its text."""
        return ("key", f"{PREFIX}{number}") if self.own_keys else ("prefix", PREFIX)

    def written(self, number: int) -> str:
        """The key of a write."""
        return f"{PREFIX}{number % (self.watches if self.own_keys else 100)}"

    def told(self, writes: int) -> int:
        """The events of so many writes, of all watches together."""
        return writes if self.own_keys else writes * self.watches

    def targets(self) -> list[list[tuple[str, str]]]:
        """The watches of each connection."""
        numbers = range(self.watches)
        return [
            [self.target(number) for number in numbers[first : first + PER_CONNECTION]]
            for first in range(0, self.watches, PER_CONNECTION)
        ]


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
SAMPLES: Final = 100_000
#: Gets in a second, whose time is noted.
GETS: Final = 20
#: The Python client reads in one process: what more watches are told shows nothing of the node.
CLIENT_WATCHES_MAX: Final = 1000


class Server(Protocol):
    """The calls of a server that is written to."""

    async def put(self, key: str, value: bytes) -> object:
        """Write a key, durably."""

    async def get(self, key: str) -> object:
        """Read a key."""


class Readers(Protocol):
    """Readers of all watches of a round."""

    async def begun(self, seconds: float) -> bool:
        """Whether all watches have begun within this time."""

    async def restart(self, part: float) -> None:
        """Forget what was counted, and look at the lateness of this part of the events."""

    async def told(self) -> list[int]:
        """The events of each watch, in no order."""

    async def late(self) -> list[float]:
        """The seconds between the beginning of a write and the arrival of its event, of a part of the events."""

    def cpu_seconds(self) -> float:
        """Seconds of the processor that they have taken, beside this process."""


class Contender(NamedTuple):
    """A server and readers of its watches: ``connect`` gives both for a load, until the stack is closed."""

    name: str
    pid: int
    watches_max: int
    connect: Callable[[AsyncExitStack, Load], Awaitable[tuple[Server, Readers]]]


class Figures(NamedTuple):
    """The figures of a round: events that all watches were told in a second, their part of all, and that of the watch
    with the fewest; how late they were; how long a write and a get took; cores in use by the server and by the readers;
    and the processor time of the server for an event that a watch was told.
    """

    told: float
    share: float
    least_share: float
    p50_ms: float
    p99_ms: float
    write_p99_ms: float
    get_p99_ms: float
    server_cores: float
    reader_cores: float
    server_us: float


class NodeServer:
    """A node, by the Python client."""

    def __init__(self, db: haptera.Database) -> None:
        self._db = db

    async def put(self, key: str, value: bytes) -> object:
        """Write a key."""
        return await self._db.set(key, value, timeout=60)

    async def get(self, key: str) -> object:
        """Read a key."""
        return await self._db.get_many([key], timeout=60)


class EtcdServer:
    """An etcd, by gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._put: Any = channel.unary_unary("/etcdserverpb.KV/Put")
        self._range: Any = channel.unary_unary("/etcdserverpb.KV/Range")

    async def put(self, key: str, value: bytes) -> object:
        """Write a key."""
        return await self._put(lean_readers.etcd_put(key, value))

    async def get(self, key: str) -> object:
        """Read a key."""
        return await self._range(lean_readers.etcd_range(key))


class ClientReaders:
    """Reads each watch by a coroutine of this process, through the Python client."""

    def __init__(self, clients: list[haptera.Database], load: Load) -> None:
        self._told = [0] * load.watches
        self._late: list[float] = []
        self._part = 0.0
        targets = [load.target(number) for number in range(load.watches)]
        self._watches = [
            clients[number // PER_CONNECTION].watch(**{field: text})  # type: ignore[arg-type]
            for number, (field, text) in enumerate(targets)
        ]
        self._tasks = [asyncio.create_task(self._read(*each)) for each in enumerate(self._watches)]

    async def begun(self, seconds: float) -> bool:
        """Whether all watches have begun within this time."""
        deadline = time.perf_counter() + seconds
        while not all(watch.revision is not None for watch in self._watches):
            if time.perf_counter() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    async def restart(self, part: float) -> None:
        """Forget what was counted."""
        self._told = [0] * len(self._told)
        self._late.clear()
        self._part = part

    async def told(self) -> list[int]:
        """The events of each watch."""
        return self._told

    async def late(self) -> list[float]:
        """The lateness of the part of the events that was looked at."""
        return self._late

    def cpu_seconds(self) -> float:
        """The time of this process, which writes as well."""
        return processes.cpu_seconds()

    async def aclose(self) -> None:
        """End the watches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _read(self, number: int, events: haptera.Watch) -> None:
        while True:
            found = await events.next_events()
            self._told[number] += len(found)
            if random.random() < len(found) * self._part:
                self._late.append(time.time() - float(random.choice(found).value or b"0"))


def client_contender(node: processes.Node) -> Contender:
    """A node, and the Python client."""

    async def connect(stack: AsyncExitStack, load: Load) -> tuple[Server, Readers]:
        clients = [await stack.enter_async_context(haptera.connect(node.url, timeout=60)) for _ in load.targets()]
        readers = await stack.enter_async_context(aclosing(ClientReaders(clients, load)))
        return NodeServer(await stack.enter_async_context(haptera.connect(node.url))), readers

    return Contender("haptera, client", node.pid, CLIENT_WATCHES_MAX, connect)


def node_contender(node: processes.Node, program: Path) -> Contender:
    """A node, and lean readers."""

    async def connect(stack: AsyncExitStack, load: Load) -> tuple[Server, Readers]:
        readers = lean_readers.LeanReaders(program, "haptera", node.url, load.targets())
        await stack.enter_async_context(readers)
        return NodeServer(await stack.enter_async_context(haptera.connect(node.url))), readers

    return Contender("haptera", node.pid, sys.maxsize, connect)


def etcd_contender(etcd: processes.Etcd, program: Path) -> Contender:
    """An etcd, and lean readers."""

    async def connect(stack: AsyncExitStack, load: Load) -> tuple[Server, Readers]:
        address = f"127.0.0.1:{etcd.port}"
        readers = lean_readers.LeanReaders(program, "etcd", address, load.targets())
        await stack.enter_async_context(readers)
        return EtcdServer(await stack.enter_async_context(grpc.aio.insecure_channel(address))), readers

    return Contender("etcd", etcd.pid, sys.maxsize, connect)


async def run_round(contender: Contender, load: Load) -> Figures | None:
    """Write at the rate for so many seconds, and wait until each watch was told of every write, if it ever is. None
    where the watches do not begin.
    """
    writes = int(load.rate * SECONDS)
    took: list[float] = []
    got: list[float] = []
    async with AsyncExitStack() as stack:
        server, readers = await contender.connect(stack, load)

        async def write(number: int) -> None:
            begun = time.perf_counter()
            await server.put(load.written(number), b"%.6f" % time.time())
            took.append(time.perf_counter() - begun)

        async def get() -> None:
            while True:
                begun = time.perf_counter()
                await server.get(load.written(0))
                got.append(time.perf_counter() - begun)
                await asyncio.sleep(1 / GETS)

        if not await readers.begun(BEGIN_SECONDS):
            return None
        await readers.restart(min(1.0, SAMPLES / load.told(writes)))
        started = time.perf_counter()
        before, own = processes.cpu_seconds(contender.pid), readers.cpu_seconds()
        getting = asyncio.create_task(get())
        writing: set[asyncio.Task[None]] = set()
        for number in range(writes):
            await asyncio.sleep(max(0.0, started + number / load.rate - time.perf_counter()))
            task = asyncio.ensure_future(write(number))
            writing.add(task)
            task.add_done_callback(writing.discard)
        await asyncio.gather(*writing)
        getting.cancel()
        deadline = time.perf_counter() + DRAIN_SECONDS
        while (told := sum(await readers.told())) < load.told(writes) and time.perf_counter() < deadline:
            await asyncio.sleep(0.05)
        seconds = time.perf_counter() - started
        cpu = processes.cpu_seconds(contender.pid) - before
        counts, late = await readers.told(), sorted(await readers.late()) or [0.0]
        due = writes // load.watches if load.own_keys else writes
        return Figures(
            told=told / seconds,
            share=told / load.told(writes),
            least_share=min(counts) / due if due else told / load.told(writes),
            p50_ms=statistics.median(late) * 1000,
            p99_ms=late[len(late) * 99 // 100] * 1000,
            write_p99_ms=sorted(took)[len(took) * 99 // 100] * 1000,
            get_p99_ms=sorted(got)[len(got) * 99 // 100] * 1000,
            server_cores=cpu / seconds,
            reader_cores=(readers.cpu_seconds() - own) / seconds,
            server_us=cpu / max(told, 1) * 1e6,
        )


def measure(directory: Path, loads: list[Load]) -> dict[str, Any]:
    """Run all rounds."""
    rows = []
    with processes.scratch(directory) as path, ExitStack() as servers:
        node = servers.enter_context(processes.node(path / "node"))
        contenders = [client_contender(node)]
        program = lean_readers.build(path)
        if program is not None:
            contenders.append(node_contender(node, program))
            if processes.etcd_version() is not None:
                etcd = servers.enter_context(processes.etcd_server(path / "etcd"))
                contenders.append(etcd_contender(etcd, program))
        for load in loads:
            for contender in contenders:
                if load.watches > contender.watches_max:
                    continue
                figures = asyncio.run(run_round(contender, load))
                measured = None if figures is None else figures._asdict()
                rows.append({"client": contender.name, **load._asdict(), "figures": measured})
        return {"environment": report.environment(path), "etcd-server": processes.etcd_version(), "watches": rows}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    report.show_environment(result["environment"])
    head = ["watches", "of", "events/s", "told", "least", "p50 ms", "p99 ms", "write p99 ms", "get p99 ms"]
    head += ["server", "readers", "server, µs an event"]
    rows = []
    for row in result["watches"]:
        load = f"{row['watches']:,}{' of own keys' if row['own_keys'] else ''} at {row['rate']:,}/s"
        found = row["figures"]
        if found is None:
            rows.append([load, row["client"], f"not begun within {BEGIN_SECONDS:.0f} s", *[""] * (len(head) - 3)])
            continue
        figures = Figures(**found)
        times = (figures.p50_ms, figures.p99_ms, figures.write_p99_ms, figures.get_p99_ms)
        rows.append(
            [
                load,
                row["client"],
                f"{figures.told:,.0f}",
                f"{figures.share:.0%}",
                f"{figures.least_share:.0%}",
                *(f"{each:,.1f}" for each in times),
                f"{figures.server_cores:.2f}",
                f"{figures.reader_cores:.2f}",
                f"{figures.server_us:,.2f}",
            ]
        )
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

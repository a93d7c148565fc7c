"""Memory that a node keeps after waves of calls that are refused, given up or never read to their end.

A node in a process of its own meets five equal waves of one situation, and everything ends after each. Then the memory
that it uses is counted, by Python's allocator (`blocks`) and by the C library (`used`), and the memory that it has
(`resident`). The first two waves warm it up: all that grows from the second to the fifth is kept for good. The last
situation is measured in the client's own process, which is the one that calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec

import haptera
from bench import processes, report
from bench.memory import resident
from haptera.errors import ConnectionLost, HapteraError
from haptera.node import Node, NodeConfig, NodeServer, raise_limit, return_large_blocks
from haptera.wire import MORE, STREAMING, FrameType, encode_frame, encode_route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from pathlib import Path

    Situation = Callable[["At"], Coroutine[Any, Any, None]]

WAVES: Final = 5
#: The wave after which the node counts as warm.
WARM: Final = 2
#: Calls that a client has under way.
TOGETHER: Final = 64
KIB: Final = 1024
encode: Final = msgspec.msgpack.encode


class At:
    """A node under measurement: ``url`` and ``signed`` are its listeners, ``count`` is how large a wave is."""

    def __init__(self, url: str, signed: str, count: int) -> None:
        self.url = url
        self.signed = signed
        self.count = count

    async def each(self, one: Callable[[int], Awaitable[Any]], share: int = 1) -> None:
        """Do something ``count / share`` times, some at once; errors of the store are what is measured."""
        numbers = iter(range(max(1, self.count // share)))

        async def work() -> None:
            for number in numbers:
                with contextlib.suppress(HapteraError, OSError):
                    await one(number)

        await asyncio.gather(*(work() for _ in range(TOGETHER)))

    async def raw(self, data: bytes, url: str | None = None, seconds: float = 0.0) -> None:
        """Send bytes on a connection of their own, wait, and cut it off."""
        _, _, address = (url or self.url).partition("://")
        host, _, port = address.partition("?")[0].partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        await asyncio.sleep(seconds)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def hello(**fields: Any) -> bytes:
    """A HELLO frame."""
    said = {"versions": [1], "agent": "raw/1", "session": os.urandom(16), "nonce": os.urandom(32), **fields}
    return encode_frame(FrameType.HELLO, 0, 0, b"", encode({"capabilities": ["pipelining"], **said}))


def request(stream: int, method: str, *argument: Any, flags: int = 0) -> bytes:
    """A REQUEST of the service kv."""
    return encode_frame(FrameType.REQUEST, flags, stream, encode_route("kv", method), encode(argument))


async def refused_changes(at: At) -> None:
    """Changes whose conditions fail, each with an id."""
    async with haptera.connect(at.url) as db:
        await at.each(lambda number: db.set("there", b"%d" % number, if_absent=True))
        await at.each(lambda number: db.set("there", b"%d" % number, if_version=1))


async def strange_names(at: At) -> None:
    """Services and methods that are not there, each with a name of its own."""
    peer = await haptera.dial(at.url)
    await at.each(lambda number: peer.call("kv", f"method-{number}-{os.urandom(60).hex()}"))
    await at.each(lambda number: peer.call(f"service-{number}-{os.urandom(60).hex()}", "get"))
    await peer.aclose()


async def unread_answers(at: At) -> None:
    """Connections that ask for 20 large values, read none, and are cut off."""
    asked = b"".join(request(2 * number + 1, "get", "large") for number in range(20))
    await at.each(lambda _: at.raw(hello() + asked, seconds=0.2), 50)


async def left_scans(at: At) -> None:
    """Scans that are left after the first row."""
    async with haptera.connect(at.url) as db:

        async def leave(_: int) -> None:
            scan = db.scan(prefix="k")
            await anext(aiter(scan))
            await scan.aclose()

        await at.each(leave, 5)


async def dropped_watches(at: At) -> None:
    """Watches of a prefix each, opened and dropped."""
    async with haptera.connect(at.url) as db:

        async def drop(number: int) -> None:
            watch = db.watch(prefix=f"watched-{number}")
            waiting = asyncio.ensure_future(anext(aiter(watch)))
            await asyncio.sleep(0.01)
            await db.get("there")
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await watch.aclose()

        await at.each(drop, 5)


async def expired_leases(at: At) -> None:
    """Leases with a key each, which end because nothing renews them."""
    async with haptera.connect(at.url) as db:

        async def grant(number: int) -> None:
            lease = await db.grant_lease(1)
            await db.set(f"leased-{number}", b"", lease=lease)

        await at.each(grant, 5)
        while await db.count(prefix="leased-"):
            await asyncio.sleep(0.5)


async def refused_transactions(at: At) -> None:
    """Transactions whose compare fails, or one of whose operations does."""
    async with haptera.connect(at.url) as db:
        await at.each(lambda _: db.transact(compare=[("there", "version", "=", 1)], then=[("delete", ["there"])]), 2)
        await at.each(lambda number: db.transact(then=[("set", [f"t{number}", b"x"]), ("rename", ["none", "k"])]), 2)


async def refused_sessions(at: At) -> None:
    """Connections to the listener that signs, with another key or without one."""

    async def dial(number: int) -> None:
        peer = await haptera.dial(at.signed, signing_key=os.urandom(32) if number % 2 else None)
        with contextlib.suppress(ConnectionLost):
            await peer.call("kv", "get", encode(["there"]))
        await peer.aclose()

    await at.each(dial, 20)


async def half_handshakes(at: At) -> None:
    """Connections that end in the middle of HELLO, or behind a part of a request."""
    words = hello() + encode_frame(FrameType.REQUEST, MORE, 1, encode_route("kv", "set"), os.urandom(KIB))
    await at.each(lambda number: at.raw(words[: number % len(words)]), 5)


async def short_connections(at: At) -> None:
    """Connections that make one call."""

    async def call(_: int) -> None:
        async with haptera.connect(at.url) as db:
            await db.get("there")

    await at.each(call, 5)


async def long_details(at: At) -> None:
    """Errors about keys, options and globs of many bytes."""
    peer = await haptera.dial(at.url)
    await at.each(lambda _: peer.call("kv", "get", encode(["k" * 5000])), 5)
    await at.each(lambda _: peer.call("kv", "set", encode(["k", b"", {"o" * 5000: 1}])), 5)
    await at.each(lambda _: peer.call("kv", "scan", encode([{"glob": "[" * 4000}])), 5)
    await peer.aclose()


async def cancelled_uploads(at: At) -> None:
    """Large values of which a part is sent before the caller takes them back, or is cut off."""
    part = encode_frame(FrameType.REQUEST, MORE, 1, encode_route("kv", "set"), os.urandom(32 * KIB))
    taken_back = encode_frame(FrameType.CANCEL, 0, 1)
    await at.each(lambda number: at.raw(hello() + part + (taken_back if number % 2 else b""), seconds=0.01), 10)


async def lost_watchers(at: At) -> None:
    """Connections with watches, scans and metrics streams that are cut off."""
    asked = [request(2 * number + 1, "watch", {"prefix": f"{number}"}, flags=STREAMING) for number in range(20)]
    asked += [request(2 * number + 101, "scan", {"prefix": "k"}, flags=STREAMING) for number in range(4)]
    capabilities = ["pipelining", "kv_watch"]
    await at.each(lambda _: at.raw(hello(capabilities=capabilities) + b"".join(asked), seconds=0.05), 20)


async def failing_calls(at: At) -> None:
    """The client itself: its own tables after calls that fail in each way."""
    async with haptera.connect(at.url) as db:
        await at.each(lambda number: db.set("there", b"", if_absent=True, timeout=10 + number))
        await at.each(lambda number: db.get(f"{number}", at_revision=10**9 + number))
        await at.each(lambda _: db.get("there", timeout=0.000001))
        for _ in range(20):
            task = asyncio.ensure_future(db.count(glob="*1*"))
            await asyncio.sleep(0)
            task.cancel()
    peer = await haptera.dial(at.url)
    await at.each(lambda number: peer.call("kv", f"{number}"))
    await peer.aclose()


SITUATIONS: Final = (
    refused_changes,
    strange_names,
    unread_answers,
    left_scans,
    dropped_watches,
    lost_watchers,
    expired_leases,
    refused_transactions,
    refused_sessions,
    half_handshakes,
    short_connections,
    long_details,
    cancelled_uploads,
    failing_calls,
)
#: The situations whose memory is that of the client.
OF_CLIENT: Final = (failing_calls,)


class _Allocated(ctypes.Structure):
    """The answer of mallinfo2(3): ten sizes, of which two matter here."""

    _fields_ = [
        *((f"other_{number}", ctypes.c_size_t) for number in range(4)),
        ("mapped", ctypes.c_size_t),
        *((f"other_{number}", ctypes.c_size_t) for number in range(5, 7)),
        ("used", ctypes.c_size_t),
        *((f"other_{number}", ctypes.c_size_t) for number in range(8, 10)),
    ]


def memory() -> dict[str, int]:
    """The memory of this process: blocks of Python's allocator, bytes used of the C library's, bytes that it has."""
    gc.collect()
    told = ctypes.CDLL(None).mallinfo2
    told.restype = _Allocated
    found = told()
    return {
        "blocks": sys.getallocatedblocks(),
        "used": found.used + found.mapped,
        "resident": resident(os.getpid()),
    }


async def serve(data_dir: str, key_file: str) -> None:
    """Serve, and answer each line of standard input with this process's memory, until it ends."""
    listen = ("haptera://127.0.0.1:0", f"haptera://127.0.0.1:0?signed=psk&key_file={key_file}")
    node = await Node.open(
        NodeConfig(data_dir=data_dir, listen=listen, no_auth=True, durability="os", history_events=1000)
    )
    server = NodeServer(node)
    try:
        node.freeze()
        await server.start()
        print(json.dumps(server.urls[:2]), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(memory()), flush=True)
    finally:
        await server.aclose()
        await node.aclose()


@contextlib.contextmanager
def node(directory: Path) -> Iterator[tuple[list[str], Callable[[], dict[str, int]]]]:
    """A node in a process of its own: its URLs, and a function that asks it for its memory."""
    key_file = directory / "signing.key"
    key_file.write_bytes(os.urandom(32))
    key_file.chmod(0o600)
    command = [sys.executable, "-m", "bench.memory_after", "--serve", str(directory / "data"), str(key_file)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    try:

        def ask() -> dict[str, int]:
            process.stdin.write("\n")
            process.stdin.flush()
            found: dict[str, int] = json.loads(process.stdout.readline())
            return found

        yield json.loads(process.stdout.readline()), ask
    finally:
        process.communicate()


async def fill(url: str) -> None:
    """Write all that the situations read."""
    async with haptera.connect(url) as db:
        await db.set("there", b"1")
        await db.set("large", os.urandom(1024 * KIB))
        await db.set_many([(f"k{number:05}", bytes(100)) for number in range(10_000)])


async def settle(url: str) -> None:
    """Wait until nothing of a wave is under way, and let one more change tell the node which answers were read."""
    async with haptera.connect(url) as db:
        for _ in range(3):
            await asyncio.sleep(0.3)
            await db.set("there", b"1")


def measure(directory: Path, situation: Situation, count: int) -> dict[str, Any]:
    """The memory of the node, or of the client whose own calls are the situation: ``idle``, after the second wave
    (``warm``), and what it has ``grown`` by from then to the last wave.
    """
    with processes.scratch(directory) as path, node(path) as (urls, ask):
        counted = memory if situation in OF_CLIENT else ask
        asyncio.run(fill(urls[0]))
        waves = [counted()]
        for _ in range(WAVES):
            asyncio.run(situation(At(urls[0], urls[1], count)))
            asyncio.run(settle(urls[0]))
            waves.append(counted())
    idle, warm, last = waves[0], waves[WARM], waves[-1]
    grown = {name: last[name] - warm[name] for name in warm}
    return {"situation": situation.__name__.replace("_", " "), "idle": idle, "warm": warm, "grown": grown}


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["--serve"]:
        raise_limit()
        return_large_blocks()
        asyncio.run(serve(*arguments[1:]))
        return 0
    parser = report.arguments("Memory that a node keeps after waves of calls that come to nothing.")
    parser.add_argument("--count", type=int, default=5000, help="the size of a wave; costly calls are fewer [5,000]")
    parser.add_argument("--only", choices=[each.__name__ for each in SITUATIONS], help="one situation alone")
    options = parser.parse_args(arguments)
    found = report.environment(options.dir)
    situations = [each for each in SITUATIONS if options.only in (None, each.__name__)]
    results = [measure(options.dir, each, options.count) for each in situations]
    if options.json:
        report.emit({"environment": found, "results": results})
        return 0
    report.show_environment(found)
    rows = [
        [
            result["situation"],
            f"{result['idle']['resident'] / KIB:,.0f}",
            f"{result['warm']['resident'] / KIB:,.0f}",
            f"{result['grown']['blocks']:+,}",
            f"{result['grown']['used'] / KIB:+,.0f}",
            f"{result['grown']['resident'] / KIB:+,.0f}",
        ]
        for result in results
    ]
    head = ["situation", "KiB, idle", f"KiB after wave {WARM}", "more blocks", "more KiB used", "more KiB resident"]
    report.show(f"Memory after waves of {options.count:,}: what is more after wave {WAVES}", head, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What is measured of each contender, once: calls, a stream, bytes on the wire, idle connections."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.messaging.contender import HOST, Client

if TYPE_CHECKING:
    from bench.messaging.servers import Running

ITEM_SIZE: Final = 64 * 1024
PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")
TICKS: Final = os.sysconf("SC_CLK_TCK")
SETTLE_SECONDS: Final = 1.0


async def calls_per_second(client: Client, size: int, in_flight: int, calls: int) -> dict[str, float]:
    """Make ``calls`` calls with ``size`` bytes, ``in_flight`` of them under way at any time.

    Gives their rate and two percentiles of their times in ms.
    """
    payload = os.urandom(size)
    left = calls
    times: list[float] = []
    clock = time.perf_counter

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            started = clock()
            answer = await client.echo(payload)
            times.append(clock() - started)
            if answer != payload:
                raise RuntimeError("the echo is not what was sent")

    gc.collect()
    started = clock()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    seconds = clock() - started
    times.sort()
    return {
        "calls_per_second": calls / seconds,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[len(times) * 99 // 100] * 1000,
    }


async def stream_rate(client: Client, size: int) -> dict[str, float]:
    """Read ``size`` bytes in items of 64 KiB; megabytes (10**6) a second."""
    count = size // ITEM_SIZE
    received = 0
    started = time.perf_counter()
    async for item in client.stream(count, ITEM_SIZE):
        received += len(item)
    seconds = time.perf_counter() - started
    if received != count * ITEM_SIZE:
        raise RuntimeError("the stream is not what was asked for")
    return {"mb_per_second": received / seconds / 1e6}


@dataclass
class Proxy:
    """Forwards connections to a port, and counts the bytes of both directions."""

    port: int
    up: int = 0
    down: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(HOST, self.port)
        await asyncio.gather(self._copy(reader, server_writer, "up"), self._copy(server_reader, writer, "down"))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        try:
            while data := await reader.read(256 * 1024):
                setattr(self, direction, getattr(self, direction) + len(data))
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


async def bytes_per_call(server: Running, size: int, in_flight: int, calls: int) -> dict[str, float]:
    """The bytes of a TCP connection that a call costs beyond its payload, there and back; TCP's own are not counted."""
    proxy = Proxy(server.port)
    listener = await asyncio.start_server(proxy.accept, HOST, 0)
    port: int = listener.sockets[0].getsockname()[1]
    client = await server.contender.connect(port)
    try:
        await calls_per_second(client, size, in_flight, calls)  # what a connection learns, it has learnt
        up, down = proxy.up, proxy.down
        await calls_per_second(client, size, in_flight, calls)
        return {
            "up": (proxy.up - up) / calls - size,
            "down": (proxy.down - down) / calls - size,
        }
    finally:
        await client.aclose()
        listener.close()


def memory(pid: int) -> int:
    """The resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_SIZE


def processor_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def idle_connections(server: Running, connections: int, seconds: float) -> dict[str, float]:
    """What connections cost that made one call each and then do nothing: memory of both sides, processor time."""
    first = await server.contender.connect(server.port)
    await first.echo(b"x")
    gc.collect()
    before, own_before = memory(server.pid), memory(os.getpid())
    clients = []
    for _ in range(connections):
        client = await server.contender.connect(server.port)
        await client.echo(b"x")
        clients.append(client)
    await asyncio.sleep(min(SETTLE_SECONDS, seconds))
    gc.collect()
    used, own_used = processor_seconds(server.pid), processor_seconds(os.getpid())
    await asyncio.sleep(seconds)
    result = {
        "server_kib_per_connection": (memory(server.pid) - before) / connections / 1024,
        "client_kib_per_connection": (memory(os.getpid()) - own_before) / connections / 1024,
        "server_processor_percent": (processor_seconds(server.pid) - used) / seconds * 100,
        "client_processor_percent": (processor_seconds(os.getpid()) - own_used) / seconds * 100,
    }
    for client in [first, *clients]:
        await client.aclose()
    return result

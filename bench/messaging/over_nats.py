"""NATS by nats-py: a request goes through nats-server to a subscriber in a third process, and its answer back.

So a call crosses two connections where the others have one, and three processes share the cores. NATS has no flow
control from a subscriber to a publisher; a stream is asked for in windows, as its users must do.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import msgspec

from bench.messaging.contender import CALL_SECONDS_MAX, HOST

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsConnection
    from nats.aio.msg import Msg

try:
    import nats
except ModuleNotFoundError:
    MISSING: str | None = "the package nats-py is not installed"
else:
    MISSING = None if shutil.which("nats-server") else "nats-server is not on PATH (Debian: package nats-server)"

#: Bytes of a stream that are under way at once.
WINDOW_SIZE = 4 * 1024 * 1024


class NatsClient:
    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection

    async def echo(self, payload: bytes) -> bytes:
        return (await self._connection.request("bench.echo", payload, timeout=CALL_SECONDS_MAX)).data

    async def stream(self, count: int, size: int) -> AsyncIterator[bytes]:
        inbox = self._connection.new_inbox()
        subscription = await self._connection.subscribe(inbox, pending_bytes_limit=4 * WINDOW_SIZE)
        window = max(1, WINDOW_SIZE // size)
        for first in range(0, count, window):
            part = min(window, count - first)
            await self._connection.publish("bench.stream", msgspec.msgpack.encode((part, size)), reply=inbox)
            for _ in range(part):
                yield (await subscription.next_msg(timeout=CALL_SECONDS_MAX)).data
        await subscription.unsubscribe()

    async def aclose(self) -> None:
        await self._connection.close()


class Nats:
    name = "NATS"
    loop = "uvloop"

    def missing(self) -> str | None:
        return MISSING

    def version(self) -> str:
        said = subprocess.run(["nats-server", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        return f"nats-py {importlib.metadata.version('nats-py')}, {said}"

    async def connect(self, port: int) -> NatsClient:
        return NatsClient(await nats.connect(f"nats://{HOST}:{port}"))

    async def serve(self, announce: Callable[[int], None], broker: int) -> None:
        connection = await nats.connect(f"nats://{HOST}:{broker}")

        async def echo(message: Msg) -> None:
            await message.respond(message.data)

        async def stream(message: Msg) -> None:
            count, size = msgspec.msgpack.decode(message.data, type=tuple[int, int])
            item = bytes(size)
            for _ in range(count):
                await message.respond(item)

        await connection.subscribe("bench.echo", cb=echo)
        await connection.subscribe("bench.stream", cb=stream)
        await connection.flush()
        announce(broker)
        try:
            await asyncio.Event().wait()
        finally:
            await connection.close()

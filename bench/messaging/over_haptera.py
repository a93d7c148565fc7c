"""The contender itself: ``haptera.dial`` and ``haptera.listen``, a coroutine for each request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

import haptera
from bench.messaging.contender import CALL_SECONDS_MAX, HOST


class Bench(haptera.Service):
    name = "bench"

    @haptera.method
    async def echo(self, request: haptera.Request) -> bytes:
        return request.payload

    @haptera.method
    async def stream(self, request: haptera.Request) -> AsyncIterator[bytes]:
        count, size = msgspec.msgpack.decode(request.payload, type=tuple[int, int])
        item = bytes(size)
        for _ in range(count):
            yield item


class BatchBench(Bench):
    """Answers all requests that came in one read at once, without a task for each, as the node's services do."""

    def handle(self, requests: list[haptera.Request]) -> None:
        others = []
        for request in requests:
            if request.method == "echo":
                request.respond(request.payload)
            else:
                others.append(request)
        super().handle(others)


class HapteraClient:
    def __init__(self, peer: haptera.Peer) -> None:
        self._peer = peer

    def echo(self, payload: bytes) -> Awaitable[bytes]:
        return self._peer.call("bench", "echo", payload, timeout=CALL_SECONDS_MAX)

    async def stream(self, count: int, size: int) -> AsyncIterator[bytes]:
        async for item in self._peer.stream("bench", "stream", msgspec.msgpack.encode((count, size))):
            yield item

    async def aclose(self) -> None:
        await self._peer.aclose()


class Haptera:
    name = "haptera"
    loop = "uvloop"
    service: type[Bench] = Bench

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return haptera.__version__

    async def connect(self, port: int) -> HapteraClient:
        peer = await haptera.dial(f"haptera://{HOST}:{port}")
        await peer.ready()
        return HapteraClient(peer)

    async def serve(self, announce: Callable[[int], None], broker: int) -> None:
        async with haptera.listen(f"haptera://{HOST}:0", services=[self.service()]) as server:
            announce(int(server.url.rpartition(":")[2]))
            await asyncio.Event().wait()


class HapteraBatch(Haptera):
    name = "haptera, batch service"
    service = BatchBench

"""gRPC by ``grpc.aio``, with bytes as messages: what Protocol Buffers would cost is left out."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from bench.messaging.contender import CALL_SECONDS_MAX, HOST

try:
    import grpc
    import grpc.aio
except ModuleNotFoundError:
    MISSING: str | None = "the package grpcio is not installed"
else:
    MISSING = None

MESSAGE_SIZE_MAX = 16 * 1024 * 1024


class GrpcClient:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._echo: Any = channel.unary_unary("/bench.Bench/Echo")
        self._stream: Any = channel.unary_stream("/bench.Bench/Stream")

    def echo(self, payload: bytes) -> Awaitable[bytes]:
        call: Awaitable[bytes] = self._echo(payload, timeout=CALL_SECONDS_MAX)
        return call

    async def stream(self, count: int, size: int) -> AsyncIterator[bytes]:
        async for item in self._stream(msgspec.msgpack.encode((count, size))):
            yield item

    async def aclose(self) -> None:
        await self._channel.close()


async def _echo(request: bytes, context: object) -> bytes:
    return request


async def _stream(request: bytes, context: object) -> AsyncIterator[bytes]:
    count, size = msgspec.msgpack.decode(request, type=tuple[int, int])
    item = bytes(size)
    for _ in range(count):
        yield item


class Grpc:
    name = "gRPC"
    loop = "uvloop"

    def missing(self) -> str | None:
        return MISSING

    def version(self) -> str:
        return f"grpcio {importlib.metadata.version('grpcio')}"

    async def connect(self, port: int) -> GrpcClient:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", MESSAGE_SIZE_MAX)]
        channel = grpc.aio.insecure_channel(f"{HOST}:{port}", options=options)
        await channel.channel_ready()
        return GrpcClient(channel)

    async def serve(self, announce: Callable[[int], None], broker: int) -> None:
        server = grpc.aio.server()
        handlers: dict[str, Any] = {
            "Echo": grpc.unary_unary_rpc_method_handler(_echo),
            "Stream": grpc.unary_stream_rpc_method_handler(_stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bench", handlers),))
        port = server.add_insecure_port(f"{HOST}:0")
        await server.start()
        announce(port)
        try:
            await asyncio.Event().wait()
        finally:
            await server.stop(0)

"""ZeroMQ by ``zmq.asyncio``: a DEALER calls a ROUTER, with a number on each message to match the answers by.

ZeroMQ has messages, not calls: no timeouts, no errors, no cancelling, and here no task for each request. What its users
must add is left out, so its figures are those of an upper bound.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable

import msgspec

from bench.messaging.contender import HOST

try:
    import zmq
    import zmq.asyncio
except ModuleNotFoundError:
    MISSING: str | None = "the package pyzmq is not installed"
else:
    MISSING = None

ECHO, STREAM = b"e", b"s"
SOCKETS_MAX = 5000
#: Messages of a stream that may wait on either side: of 64 KiB, as much as Haptera's windows allow or more.
HIGH_WATER = 64


class ZeromqClient:
    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self._socket = socket
        self._numbers = itertools.count()
        self._calls: dict[bytes, asyncio.Future[bytes]] = {}
        self._streams: dict[bytes, asyncio.Queue[bytes]] = {}
        self._reader = asyncio.create_task(self._read())

    async def echo(self, payload: bytes) -> bytes:
        number = next(self._numbers).to_bytes(8, "big")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        await self._socket.send_multipart([number, ECHO, payload])
        return await answer

    async def stream(self, count: int, size: int) -> AsyncIterator[bytes]:
        number = next(self._numbers).to_bytes(8, "big")
        items: asyncio.Queue[bytes] = asyncio.Queue(HIGH_WATER)
        self._streams[number] = items
        await self._socket.send_multipart([number, STREAM, msgspec.msgpack.encode((count, size))])
        for _ in range(count):
            yield await items.get()
        del self._streams[number]

    async def _read(self) -> None:
        while True:
            number, payload = await self._socket.recv_multipart()
            call = self._calls.pop(number, None)
            if call is not None:
                call.set_result(payload)
            else:
                await self._streams[number].put(payload)

    async def aclose(self) -> None:
        self._reader.cancel()
        self._socket.close(linger=0)


class Zeromq:
    name = "ZeroMQ"
    loop = "asyncio"

    def __init__(self) -> None:
        self._context: zmq.asyncio.Context | None = None

    def missing(self) -> str | None:
        return MISSING

    def version(self) -> str:
        return f"pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}"

    async def connect(self, port: int) -> ZeromqClient:
        if self._context is None:
            self._context = zmq.asyncio.Context()
            self._context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
        socket = self._context.socket(zmq.DEALER)
        socket.set_hwm(0)  # calls are bounded by who makes them
        socket.connect(f"tcp://{HOST}:{port}")
        client = ZeromqClient(socket)
        await client.echo(b"")
        return client

    async def serve(self, announce: Callable[[int], None], broker: int) -> None:
        socket = zmq.asyncio.Context().socket(zmq.ROUTER)
        socket.set(zmq.ROUTER_MANDATORY, 1)  # to wait for a slow reader, where the default is to drop
        announce(socket.bind_to_random_port(f"tcp://{HOST}"))
        streams: set[asyncio.Task[None]] = set()
        while True:
            sender, number, kind, payload = await socket.recv_multipart()
            if kind == ECHO:
                await socket.send_multipart([sender, number, payload])
            else:
                task = asyncio.create_task(_stream(socket, sender, number, payload))
                streams.add(task)
                task.add_done_callback(streams.discard)


async def _stream(socket: zmq.asyncio.Socket, sender: bytes, number: bytes, order: bytes) -> None:
    count, size = msgspec.msgpack.decode(order, type=tuple[int, int])
    item = bytes(size)
    for _ in range(count):
        await socket.send_multipart([sender, number, item])

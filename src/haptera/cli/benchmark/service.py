"""The service that the messaging workloads call, and the process that hosts it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from haptera.errors import Code, failure
from haptera.peer import Request, Server, Service, listen, method

SERVICE: Final = "bench"

ITEMS_MAX: Final = 1_000_000_000
#: Bytes that one call may ask for: a stranger must not fill the memory of a benchmark's server.
ITEM_SIZE_MAX: Final = 8 * 1024 * 1024

#: The argument of ``stream``: how many items, and the bytes of each.
encode_order: Callable[[tuple[int, int]], bytes] = msgspec.msgpack.Encoder().encode

_decode_order: Callable[[bytes], tuple[int, int]] = msgspec.msgpack.Decoder(tuple[int, int]).decode


class BenchService(Service):
    """Answers as an ordinary service does: a coroutine for each request."""

    name = SERVICE

    @method
    async def echo(self, request: Request) -> bytes:
        """Answer with the payload."""
        return request.payload

    @method
    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        """``[count, size]``: that many items of that size, as fast as the caller takes them."""
        try:
            count, size = _decode_order(request.payload)
        except msgspec.DecodeError:
            raise failure(Code.INVALID_ARGUMENT, {"reason": "the argument is [count, size]"}).exception() from None
        if not (0 <= count <= ITEMS_MAX and 0 <= size <= ITEM_SIZE_MAX):
            raise failure(Code.INVALID_ARGUMENT, {"reason": "too much is asked for"}).exception()
        item = bytes(size)
        for _ in range(count):
            yield item


async def serve(url: str, announce: Callable[[Server], None], *, until_input_ends: bool = False) -> None:
    """Host the service at ``url`` until SIGTERM or SIGINT, or until standard input ends.

    ``announce`` is called when it listens. Raises ``ConfigurationError`` for an address that cannot be used.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if until_input_ends:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    async with listen(url, services=[BenchService()]) as server:
        announce(server)
        await stop.wait()
        await server.drain(1.0)

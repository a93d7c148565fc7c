"""The events of a watch over connections: one that is lost is continued on the next, from where it was.

It is continued at the server where it has begun and at no other, because the same revision of another store is another
change. The connection that the request leaves on has told by then which server it leads to.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from haptera.client.channels.item_reader import next_item
from haptera.client.trouble import LEAVING, passes, passes_soon
from haptera.client.watches.watched import Happened, WatchPosition, decode_item
from haptera.errors import ConnectionLost, Failure, ServerError
from haptera.peer import Connector, Flight, Pauses

if TYPE_CHECKING:
    from haptera.client.calls.methods import Method
    from haptera.peer import Backoff, CallStream, Peer


class WatchStreams:
    """The watches of one client that have a stream now, so that a drain can end them: none of them ends by itself."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._streams: set[CallStream] = set()

    async def end(self) -> None:
        """End all of them."""
        for stream in list(self._streams):
            await stream.aclose()

    async def follow(
        self,
        connector: Connector,
        method: Method[Any],
        encode: Callable[[Any], bytes],
        position: WatchPosition,
        timeout: float | None,
    ) -> AsyncGenerator[list[Happened], None]:
        """The events of a watch, an ITEM at a time; ``timeout`` is how many seconds its beginning may take.

        Once it has begun it goes on for as long as its trouble takes to pass. Before that its caller is told, as of a
        call.
        """
        time = asyncio.get_running_loop().time
        deadline = math.inf if timeout is None else time() + timeout
        pauses = Pauses(self._backoff)
        while True:
            connector.check_open()
            by = None if position.begun or timeout is None else deadline
            peer = await connector.connected(by, Flight.WELCOMED if position.begun else Flight.FIRST)
            position.check_server(peer.server_id)
            try:
                async with aclosing(self._read(peer, method, encode((position.options(),)), position, by)) as items:
                    async for events in items:
                        connector.answered(peer)
                        pauses.begin_anew()
                        yield events
                connector.check_open()  # a drain has ended it
            except ConnectionLost as lost:
                connector.lost(peer, lost)
                given_up = not connector.hopeful or (not position.begun and time() >= deadline)
                if given_up or not position.resumable:
                    raise
            except ServerError as error:
                refusal = Failure(error.code, error.name, error.message, error.outcome, error.details)
                goes_on = passes(error) if position.begun else passes_soon(refusal, write=False) and time() < deadline
                if not goes_on or not position.resumable:
                    raise
                if refusal.code in LEAVING:
                    connector.leave(peer, refusal)
            await pauses.wait(math.inf if position.begun else max(deadline - time(), 0.0))

    async def _read(
        self, peer: Peer, method: Method[Any], payload: bytes, position: WatchPosition, by: float | None
    ) -> AsyncGenerator[list[Happened], None]:
        """The events of one request."""
        stream = peer.stream(method.service, method.name, payload, timeout=None)
        self._streams.add(stream)
        try:
            while True:
                try:
                    decoded = await next_item(peer, stream, method, decode_item, asyncio.timeout_at(by))
                except StopAsyncIteration:
                    return
                yield position.take(decoded, peer.server_id)
                by = None
        finally:
            self._streams.discard(stream)
            await stream.aclose()

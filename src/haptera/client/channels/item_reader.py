"""The items of a call over a connection, each checked while it is decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from haptera.client.calls.methods import Method, malformed
from haptera.errors import Code, ServerError, failure

if TYPE_CHECKING:
    from haptera.client.channels.channel import StreamEnd
    from haptera.peer import CallStream, Peer

E = TypeVar("E")
T = TypeVar("T")


async def next_item(
    peer: Peer, stream: CallStream, method: Method[Any], decode: Callable[[bytes], T], limit: asyncio.Timeout
) -> T:
    """Read the next item of a call of ``method``, within ``limit``; a peer that is silent for so long is probed.

    Raises ``StopAsyncIteration`` at the end, ``ServerError``, ``ConnectionLost``, and ``RemoteProtocolError`` for a
    malformed item.
    """
    try:
        async with limit:
            item = await anext(stream)
    except ServerError:
        raise  # one is a TimeoutError as well, and has come from the peer
    except TimeoutError:
        peer.probe()
        raise failure(Code.DEADLINE_EXCEEDED, outcome="not_applied").exception() from None
    try:
        return decode(item)
    except (ValueError, RecursionError) as error:
        raise malformed(method, error) from error


async def read_items(
    peer: Peer,
    method: Method[E],
    payload: bytes,
    decode: Callable[[bytes], T],
    end: StreamEnd[E],
    item_timeout: float | None,
    timeout: float | None,
) -> AsyncGenerator[T, None]:
    """Call ``method`` with the argument ``payload`` and yield its items; at the end ``end`` has the result.

    Each item may take ``item_timeout`` seconds, all of them together ``timeout``. Raises ``ServerError``,
    ``ConnectionLost``, and ``RemoteProtocolError`` for malformed items.
    """
    stream = peer.stream(method.service, method.name, payload, timeout=timeout)
    try:
        while True:
            try:
                decoded = await next_item(peer, stream, method, decode, asyncio.timeout(item_timeout))
            except StopAsyncIteration:
                break
            yield decoded
        assert stream.answer is not None
        try:
            end.result = method.decode(stream.answer.payload)
        except (ValueError, RecursionError) as error:
            raise malformed(method, error) from error
    finally:
        await stream.aclose()

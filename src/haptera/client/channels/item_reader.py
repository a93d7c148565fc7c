"""The items of a call over a connection, each checked while it is decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, TypeVar

from haptera.client.calls.methods import Method, malformed
from haptera.errors import Code, ServerError, failure

if TYPE_CHECKING:
    from haptera.client.channels.channel import StreamEnd
    from haptera.peer import Peer

E = TypeVar("E")
T = TypeVar("T")


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
    items = aiter(stream)
    try:
        while True:
            try:
                async with asyncio.timeout(item_timeout):
                    item = await anext(items)
            except StopAsyncIteration:
                break
            except ServerError:
                raise
            except TimeoutError:
                peer.probe()
                raise failure(Code.DEADLINE_EXCEEDED, outcome="not_applied").exception() from None
            try:
                decoded = decode(item)
            except (ValueError, RecursionError) as error:
                raise malformed(method, error) from error
            yield decoded
        assert stream.answer is not None
        try:
            end.result = method.decode(stream.answer.payload)
        except (ValueError, RecursionError) as error:
            raise malformed(method, error) from error
    finally:
        await stream.aclose()

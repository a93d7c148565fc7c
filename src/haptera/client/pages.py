"""The pages of a scan over a connection, each checked while it is decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from haptera.client.database import KvMethods
from haptera.client.methods import Row, decode_page, malformed
from haptera.errors import Code, ServerError, failure

if TYPE_CHECKING:
    from haptera.client.channel import ScanEnd
    from haptera.peer import Peer


async def read_pages(
    peer: Peer, payload: bytes, end: ScanEnd, page_timeout: float | None, timeout: float | None
) -> AsyncGenerator[list[Row], None]:
    """Scan with the argument ``payload`` and yield its pages; at the end ``end`` has the result.

    Each page may take ``page_timeout`` seconds, all of them together ``timeout``. Raises ``ServerError``,
    ``ConnectionLost``, and ``RemoteProtocolError`` for malformed pages.
    """
    stream = peer.stream(KvMethods.scan.service, KvMethods.scan.name, payload, timeout=timeout)
    items = aiter(stream)
    try:
        while True:
            try:
                async with asyncio.timeout(page_timeout):
                    item = await anext(items)
            except StopAsyncIteration:
                break
            except ServerError:
                raise
            except TimeoutError:
                peer.probe()
                raise failure(Code.DEADLINE_EXCEEDED, outcome="not_applied").exception() from None
            try:
                page = decode_page(item)
            except (ValueError, RecursionError) as error:
                raise malformed(KvMethods.scan, error) from error
            yield page
        assert stream.answer is not None
        try:
            end.result = KvMethods.scan.decode(stream.answer.payload)
        except (ValueError, RecursionError) as error:
            raise malformed(KvMethods.scan, error) from error
    finally:
        await stream.aclose()

"""Bytes of a connection that a client has given up arrive after the change that they carry was made on another."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from haptera import KeyNotFound
from haptera.client import connect
from haptera.testing import node, proxy, virtual_clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haptera.client import Database
    from haptera.testing import Proxy

#: Enough for any client to have said several times which answers it has read.
CHANGES = 100


@asynccontextmanager
async def detour() -> AsyncIterator[tuple[Database, Proxy]]:
    """A client whose first way to a node holds back what it sends, and whose second way is open."""
    async with (
        node(storage="memory", listen="tcp") as url,
        proxy(url) as first,
        proxy(url) as second,
        connect(f"{first.url},{second.url.removeprefix('haptera://')}", timeout=60) as db,
    ):
        await db.set("k", "0")
        first.to_acceptor.pause()
        first.to_acceptor.chunk = 64
        yield db, first


async def give_up(first: Proxy) -> None:
    """Let the client end its first connection: it finds damage in the header of the node's next PING."""
    first.refuse()
    first.to_dialer.corrupt(at=first.to_dialer.sent)
    while not first.to_dialer.corrupted:
        await asyncio.sleep(0.1)


async def arrive(db: Database, first: Proxy) -> None:
    """Let what was held back arrive, after many other changes."""
    for number in range(CHANGES):
        await db.set("other", str(number))
    delivered = first.to_acceptor.delivered
    first.to_acceptor.resume()
    while first.to_acceptor.delivered == delivered:
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.0)


@virtual_clock
async def test_a_change_that_was_sent_on_two_connections_is_made_once() -> None:
    """Trap: a change applied twice, because ``answered_below`` of the one connection had it forgotten."""
    async with detour() as (db, first):
        change = asyncio.ensure_future(db.increment("n"))
        await give_up(first)
        assert await change == 1
        await arrive(db, first)
        entry = await db.get("n")
        assert entry is not None
        assert entry.text == "1"


@virtual_clock
async def test_a_change_that_failed_on_the_second_connection_is_not_made_by_the_first() -> None:
    """Trap: a change applied after its caller was told that it was not."""
    async with detour() as (db, first):
        change = asyncio.ensure_future(db.set("late", "1", if_present=True))
        await give_up(first)
        with pytest.raises(KeyNotFound) as refused:
            await change
        assert refused.value.outcome == "not_applied"
        await db.set("late", "2")
        await arrive(db, first)
        entry = await db.get("late")
        assert entry is not None
        assert entry.text == "2"

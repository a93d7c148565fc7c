"""A watch as its reader has it: waits that are cancelled, and its end."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

import haptera
from haptera.errors import ConnectionLost
from haptera.testing import node, proxy, virtual_clock
from tests.support.places import URL


@virtual_clock
async def test_a_wait_that_is_cancelled_among_the_present_entries_ends_the_watch_with_an_error() -> None:
    """The rest of them would be of another revision."""
    async with node(storage="memory", listen=URL), proxy(URL) as link, haptera.connect(link.url) as db:
        await db.set_many({f"{number:04}": bytes(1000) for number in range(1000)})
        link.limit(100_000, "to_dialer")
        events = db.watch(initial=True)
        assert (await anext(events)).kind == "present"
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                assert {event.kind async for event in events} == set(), "it does not end"
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="among the present entries"):
                await anext(events)


@virtual_clock
async def test_a_watch_that_was_cancelled_before_its_beginning_begins_later() -> None:
    async with haptera.connect(URL) as db:
        events = db.watch(initial=True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.1)
        async with node(storage="memory", listen=URL), haptera.connect(URL) as writer:
            await writer.set("a", "")
            assert [(await anext(events)).kind for _ in range(2)] == ["present", "synced"]
            await events.aclose()

"""A watch as its reader has it: waits that are cancelled, and its end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.errors import ConnectionLost
from haptera.testing import node, proxy, virtual_clock
from tests.support.places import URL
from tests.support.stores import Kind, opened

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize("kind", ["served", "embedded"])
async def test_a_watch_that_another_task_closes_ends_its_loop_without_an_error(kind: Kind, tmp_path: Path) -> None:
    async with opened(kind, tmp_path) as db:
        events = db.watch(prefix="a/")
        begun = asyncio.Event()

        async def read() -> list[str]:
            async with events:
                begun.set()
                return [event.key async for event in events]

        reading = asyncio.ensure_future(read())
        await begun.wait()
        await db.set("a/1", "")
        await asyncio.sleep(0)
        await asyncio.gather(events.aclose(), events.aclose())
        assert await reading in ([], ["a/1"])
        assert reading.cancelling() == 0
        assert not events.ready
        await events.aclose()


@virtual_clock
async def test_a_watch_that_is_closed_before_its_beginning_ends_its_loop_without_an_error() -> None:
    async with haptera.connect(URL) as db:
        events = db.watch(prefix="a/")

        async def read() -> list[str]:
            async with events:
                return [event.key async for event in events]

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(1)
        await events.aclose()
        assert await reading == []
        assert events.server_id is None


@virtual_clock
async def test_a_task_that_is_cancelled_as_its_watch_is_closed_is_cancelled() -> None:
    async with node(storage="memory", listen=URL), haptera.connect(URL) as db, db.watch() as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(1)
        closing = asyncio.ensure_future(events.aclose())
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await closing
        with pytest.raises(StopAsyncIteration):
            await anext(events)


@virtual_clock
async def test_a_second_task_that_waits_for_a_watch_is_an_error_and_leaves_the_first_one_waiting() -> None:
    async with node(storage="memory", listen=URL), haptera.connect(URL) as db, db.watch() as events:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(1)
        with pytest.raises(RuntimeError, match="another task waits for the next events of this watch"):
            await anext(events)
        await db.set("a", "")
        assert (await waiting).key == "a"

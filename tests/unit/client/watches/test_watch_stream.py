"""The streams of a watch: where one that is lost goes on, and where it ends because the store is another one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import haptera
from haptera.client.database import Database
from haptera.errors import ConnectionLost, RevisionCompacted, StorageFull, failure
from haptera.testing import MemoryFileSystem, virtual_clock
from tests.support.places import URL, Place
from tests.support.refusals import LASTING, PASSING
from tests.unit.client.doubles import Dialler, FakePeer, FakeStream, channel

OTHER = b"o" * 16

MARK, EVENT, LOST = [3, []], [4, [[1, "a", b"", 4]]], ConnectionLost("cut", outcome="not_applied")


async def fill(count: int) -> int:
    async with haptera.connect(URL) as writer:
        for number in range(count):
            await writer.set(f"{number}", "")
        return writer.revision


@virtual_clock
async def test_a_watch_goes_on_at_its_server_after_a_restart() -> None:
    async with Place() as place, haptera.connect(URL) as db:
        await place.start()
        async with db.watch() as events:
            await fill(2)
            await place.start()
            await fill(2)
            assert [(await anext(events)).version for _ in range(4)] == [1, 2, 3, 4]


@pytest.mark.parametrize("count", [1, 3, 9])
@virtual_clock
async def test_trap_a_watch_goes_on_at_another_server_whose_revisions_are_of_another_history(count: int) -> None:
    """However far the other store is: the same revision of it is another change."""
    async with Place() as place, haptera.connect(URL) as db:
        await place.start()
        async with db.watch() as events:
            await fill(3)
            assert [(await anext(events)).version for _ in range(3)] == [1, 2, 3]
            waiting = asyncio.ensure_future(anext(events))
            other = await place.start(MemoryFileSystem())
            await fill(count)
            with pytest.raises(RevisionCompacted, match="another server") as ended:
                await waiting
            assert (ended.value.code, ended.value.details) == (4009, {"revision": 4})
            assert len(other.node.watches) == 0
            with pytest.raises(RevisionCompacted):
                await anext(events)


def database(*peers: FakePeer) -> Database:
    return Database(channel(Dialler(*peers)), "haptera://a:1", 5.0)


def streaming(*pages: Any, **options: Any) -> FakePeer:
    peer = FakePeer(**options)
    peer.streams.append(FakeStream(list(pages), None))
    return peer


@virtual_clock
async def test_a_watch_that_has_given_nothing_begins_at_any_server() -> None:
    first, second = streaming(LOST), streaming(MARK, EVENT, server_id=OTHER)
    async with database(first, second) as db, db.watch(start_revision=4) as events:
        assert (await anext(events)).version == 4
        assert [peer.streamed for peer in (first, second)] == [[[{"start_revision": 4}]]] * 2


@virtual_clock
async def test_a_watch_that_goes_on_is_sent_when_its_server_has_named_itself() -> None:
    first, silent, second = streaming(MARK, EVENT, LOST), FakePeer(server_id=None), streaming([4, []], [5, []])
    async with database(first, silent, second) as db, db.watch(start_revision=4) as events:
        assert (await anext(events)).version == 4
        going_on = asyncio.ensure_future(events.next_events())
        await asyncio.sleep(5)
        assert silent.streamed == []
        silent.lose()
        assert await going_on == []
        assert second.streamed == [[{"start_revision": 5}]]


def alike(*streams: list[Any]) -> list[FakePeer]:
    """Connections to one server, whose watches go so one after the other."""
    peers = [FakePeer() for _ in range(4)]
    peers[0].streams = [FakeStream(pages, None) for pages in streams]
    for peer in peers:
        peer.streams = peers[0].streams
    return peers


@pytest.mark.parametrize("name", PASSING)
@virtual_clock
async def test_a_watch_that_has_begun_goes_on_over_each_error_that_passes(name: str) -> None:
    meet = PASSING[name]
    peers = alike([MARK, EVENT, meet()], [[4, []], meet()], [[4, []], meet()], [[5, [[1, "b", b"", 5]]], ...])
    async with database(*peers) as db, db.watch(start_revision=4) as events:
        assert [(await anext(events)).version for _ in range(2)] == [4, 5]


@pytest.mark.parametrize("name", LASTING)
@virtual_clock
async def test_a_watch_ends_with_an_error_that_stays(name: str) -> None:
    error = LASTING[name]()
    async with database(*alike([MARK, error])) as db, db.watch() as events:
        with pytest.raises(type(error)) as told:
            await anext(events)
        assert told.value is error


@virtual_clock
async def test_a_watch_that_has_not_begun_tells_its_caller_of_trouble_that_outlasts_a_call() -> None:
    full = failure(5002).exception()
    async with database(*alike([failure(3007).exception()], [full])) as db:
        with pytest.raises(StorageFull) as told:
            await anext(db.watch())
        assert told.value is full

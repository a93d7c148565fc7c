"""Pipelines on a connection: calls that are answered late, cancelled, sent again, or lost."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import haptera
from haptera import Request, Service
from haptera.errors import Code, failure
from haptera.peer import link_of
from tests.unit.peer.hosts import Writes, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haptera import Database

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


class Store(Service):
    """A store that answers when the test says so. A key ``refused…`` is refused at first."""

    name = "kv"

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.waiting: list[Request] = []
        self.holds = False
        self.all_here = asyncio.Event()
        self.cancelled: list[str] = []

    def methods(self) -> list[str]:
        return ["get"]

    def handle(self, requests: list[Request]) -> None:
        for request in requests:
            key = decode(request.payload)[0]
            first = key not in self.arrived
            self.arrived.append(key)
            if self.holds:
                self.waiting.append(request)
                request.on_cancel = partial(self.cancelled.append, key)
            elif key.startswith("refused") and first:
                request.fail(failure(Code.TOO_MANY_REQUESTS, {"reason": "a test"}, outcome="not_applied"))
            else:
                request.respond(encode([key.encode(), 1, None]))
        self.all_here.set()


@asynccontextmanager
async def served(store: Store) -> AsyncIterator[Database]:
    async with (
        asyncio.timeout(30),
        haptera.listen("haptera://127.0.0.1:0", services=[store]) as server,
        haptera.connect(server.url) as db,
    ):
        await db.get("first")
        store.all_here.clear()
        yield db


async def piped_values(db: Database, count: int) -> list[bytes]:
    """The values of ``k0``, ``k1`` and so on, by one pipeline."""
    async with db.pipeline() as p:
        found = [p.get(f"k{number}") for number in range(count)]
    return [entry.value for each in found if (entry := each.result()) is not None]


async def test_the_calls_of_a_pipeline_are_sent_before_the_first_is_answered_and_answered_in_any_order() -> None:
    store = Store()
    async with served(store) as db:
        store.holds = True
        piping = asyncio.create_task(piped_values(db, 5))
        await store.all_here.wait()
        assert store.arrived[1:] == [f"k{number}" for number in range(5)]
        for request in reversed(store.waiting):
            request.respond(encode([decode(request.payload)[0].encode(), 1, None]))
        assert await piping == [b"k0", b"k1", b"k2", b"k3", b"k4"]


async def test_the_calls_of_a_pipeline_leave_16_at_a_time() -> None:
    async with served(Store()) as db:
        connector = db._channel._connector  # type: ignore[attr-defined]
        await eventually(lambda: connector.peer)
        written = Writes(connector.peer)
        assert await piped_values(db, 50) == [b"k%d" % number for number in range(50)]
        assert written.requests() == [16, 16, 16, 2]


async def test_a_pipeline_that_is_cancelled_cancels_its_calls_at_the_other_side() -> None:
    store = Store()
    async with served(store) as db:
        store.holds = True
        pipeline = db.pipeline()
        calls = [pipeline.get(f"k{number}") for number in range(3)]
        sending = asyncio.create_task(pipeline.send())
        await store.all_here.wait()
        store.waiting[0].respond(encode([b"k0", 1, None]))
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert all(call.done for call in calls)
        with pytest.raises(RuntimeError, match="interrupted before the call was answered"):
            calls[2].result()
        store.holds = False
        assert (entry := await db.get("next")) is not None  # behind the CANCELs
        assert entry.value == b"next"
        assert {"k1", "k2"} <= set(store.cancelled)


async def test_a_pipeline_that_is_cancelled_when_its_connection_is_lost_leaves_no_error_that_no_one_has_seen() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    store = Store()

    async def lose(db: Database) -> None:
        store.holds = True
        pipeline = db.pipeline()
        for number in range(3):
            pipeline.get(f"k{number}")
        sending = asyncio.create_task(pipeline.send())
        await store.all_here.wait()
        peer = db._channel._connector.peer  # type: ignore[attr-defined]
        link_of(store.waiting[0].peer).abort()
        while not peer.closed:
            await asyncio.sleep(0)
        sending.cancel()  # its answers have failed in this turn, and it has not looked at them yet
        await asyncio.wait((sending,))
        assert sending.cancelled()

    async with served(store) as db:
        await lose(db)
        gc.collect()
        await asyncio.sleep(0)
    assert told == []


async def test_a_call_of_a_pipeline_that_is_refused_for_a_while_is_sent_again() -> None:
    store = Store()
    async with served(store) as db:
        async with db.pipeline() as p:
            found = [p.get(key) for key in ("a", "refused/1", "b", "refused/2")]
        assert [entry.value for each in found if (entry := each.result()) is not None] == [
            b"a",
            b"refused/1",
            b"b",
            b"refused/2",
        ]
        assert sorted(store.arrived[1:]) == ["a", "b", *["refused/1"] * 2, *["refused/2"] * 2]


async def test_the_calls_of_a_pipeline_whose_connection_is_lost_are_sent_on_another() -> None:
    store = Store()
    async with served(store) as db:
        store.holds = True
        piping = asyncio.create_task(piped_values(db, 3))
        await store.all_here.wait()
        store.holds = False
        await store.waiting[0].peer.aclose()
        assert await piping == [b"k0", b"k1", b"k2"]
        assert sorted(store.arrived[1:]) == ["k0", "k0", "k1", "k1", "k2", "k2"]

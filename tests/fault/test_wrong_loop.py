"""Trap: use from the wrong loop or thread noticed after the effect. (From the wrong process: test_forks.)"""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.errors import Code, WrongLoop, failure
from haptera.testing import node, node_in_thread
from tests.unit.peer.hosts import Batches, Echo, connected, dispatcher_of, eventually, items_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

# A loop that is closed under a connection leaves its transport to the collector, which says so.
leaves_transports = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture
def url() -> Iterator[str]:
    with node_in_thread(storage="memory") as served:
        yield served
        gc.collect()  # while the warnings are ignored


@pytest.fixture(params=["served", "embedded"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[haptera.Database]:
    if request.param == "embedded":
        async with haptera.open(tmp_path / "data") as database:
            yield database
    else:
        async with node(storage="memory") as served, haptera.connect(served) as database:
            yield database


async def elsewhere(work: Callable[[], Awaitable[object]]) -> str:
    """Await what ``work`` gives on a loop of another thread, while this loop runs. Gives what it is refused with."""

    async def main() -> object:
        return await work()

    with pytest.raises(WrongLoop) as error:
        await asyncio.to_thread(asyncio.run, main())
    assert error.value.outcome == "not_applied"
    return str(error.value)


# -- one database, two loops -------------------------------------------------------------------------------------------


async def test_a_database_is_refused_on_the_loop_of_another_thread_and_nothing_is_sent(db: haptera.Database) -> None:
    assert await db.increment("n") == 1
    said = await elsewhere(lambda: db.increment("n"))
    assert f"belongs to the event loop {id(asyncio.get_running_loop()):#x} (in thread MainThread)" in said
    assert "and here the event loop 0x" in said
    assert "(in thread asyncio_" in said
    assert await db.increment("n") == 2


async def test_every_kind_of_use_is_refused(db: haptera.Database) -> None:
    await db.set_many([(f"k{number}", b"v") for number in range(3)])

    async def scan() -> list[haptera.Entry]:
        return [entry async for entry in db.scan()]

    for use in (lambda: db.get("k"), scan, lambda: db.count(glob="*1"), db.status, db.drain, db.aclose):
        assert "belongs to the event loop " in await elsewhere(use)
    assert len(await scan()) == 3


async def test_a_scan_goes_on_nowhere_but_on_its_loop(db: haptera.Database) -> None:
    await db.set_many([(f"k{number:04}", bytes(1000)) for number in range(1000)])
    rows = db.scan()
    await anext(rows)

    async def rest() -> list[haptera.Entry]:
        return [row async for row in rows]

    assert "belongs to the event loop " in await elsewhere(rest)
    await rows.aclose()
    assert await db.increment("n") == 1


def test_a_loop_that_does_not_run_and_is_not_closed_keeps_its_client(url: str) -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        db = haptera.connect(url)
        assert first.run_until_complete(db.increment("n")) == 1
        with pytest.raises(
            WrongLoop, match=rf"event loop {id(first):#x} \(not running\), .* {id(second):#x} \(in thread"
        ):
            second.run_until_complete(db.increment("n"))
        assert first.run_until_complete(db.increment("n")) == 2
        first.run_until_complete(db.aclose())
    finally:
        first.close()
        second.close()


@leaves_transports
def test_a_client_begins_afresh_when_its_loop_was_closed(url: str) -> None:
    db = haptera.connect(url)

    async def use() -> tuple[int, object]:
        return await db.increment("n"), (await db.status())["connections"]

    # The connection of each closed loop is closed: the node has one, that of the present loop.
    assert [asyncio.run(use()) for _ in range(3)] == [(1, 1), (2, 1), (3, 1)]
    asyncio.run(db.aclose())
    with pytest.raises(haptera.ConnectionLost, match="is closed"):
        asyncio.run(db.increment("n"))


@leaves_transports
def test_a_scan_can_be_the_first_use_under_another_loop(url: str) -> None:
    db = haptera.connect(url)

    async def fill() -> None:
        await db.set("k", b"v")

    async def scan() -> list[str]:
        return [entry.key async for entry in db.scan()]

    asyncio.run(fill())
    assert [asyncio.run(scan()) for _ in range(2)] == [["k"], ["k"]]
    asyncio.run(db.aclose())


def test_an_embedded_database_begins_afresh_when_its_loop_was_closed(tmp_path: Path) -> None:
    db = haptera.open(tmp_path)

    async def increment() -> int:
        return await db.increment("n")

    assert [asyncio.run(increment()) for _ in range(3)] == [1, 2, 3]
    asyncio.run(db.aclose())

    async def read() -> object:
        async with haptera.open(tmp_path) as other:  # so the directory is free
            return await other.increment("n", 0)

    assert asyncio.run(read()) == 3
    gc.collect()


def test_changes_that_an_interrupted_loop_left_are_stored_or_not_and_never_in_part(tmp_path: Path) -> None:
    db = haptera.open(tmp_path)

    async def leave() -> None:
        await db.set("k", b"v")
        writes = [asyncio.ensure_future(db.increment("n")) for _ in range(50)]
        await writes[0]

    async def look() -> tuple[object, int]:
        return await db.increment("n", 0), await db.count()

    asyncio.run(leave())
    stored, keys = asyncio.run(look())
    assert (stored, keys) == (50, 2)  # one batch
    asyncio.run(db.aclose())
    gc.collect()


# -- peers, listeners, requests ----------------------------------------------------------------------------------------


async def test_a_peer_and_its_listener_are_refused_elsewhere_and_nothing_is_sent(short_path: Path) -> None:
    async with (
        haptera.listen(f"haptera+unix://{short_path}/s", services=[Echo()]) as server,
        haptera.dial(server.url) as peer,
    ):
        await peer.call("echo", "one", b"x")
        sent = peer.bytes_sent

        async def items() -> list[bytes]:
            return [item async for item in peer.stream("echo", "many", b"3")]

        for use in (lambda: peer.call("echo", "one", b"y"), items, peer.ready, peer.drain, peer.aclose):
            assert (await elsewhere(use)).startswith("the connection to ")
        for use in (server.drain, server.aclose):
            assert (await elsewhere(use)).startswith(f"the listener at {server.url} belongs to ")
        assert peer.bytes_sent == sent
        assert await peer.call("echo", "one", b"goes on") == b"goes on"
        async with haptera.dial(server.url) as another:
            assert await another.call("echo", "one", b"too") == b"too"


async def test_items_are_read_on_the_calls_own_loop(short_path: Path) -> None:
    async with connected(short_path, Echo()) as (peer, _):
        stream = peer.stream("echo", "many", b"3")
        assert await anext(aiter(stream)) == b"0"

        async def rest() -> list[bytes]:
            return [item async for item in stream]

        assert "belongs to the event loop " in await elsewhere(rest)
        assert "belongs to the event loop " in await elsewhere(stream.aclose)
        assert await rest() == [b"1", b"2"]


async def test_the_items_of_a_request_are_read_on_its_own_loop(short_path: Path) -> None:
    service = Batches()
    async with connected(short_path, service) as (peer, _):
        call = asyncio.ensure_future(peer.call("batches", "anything", items=items_of(b"1", b"2")))
        await eventually(lambda: service.requests)
        (request,) = service.requests
        await eventually(lambda: dispatcher_of(request.peer).items[request.stream].ended)

        async def items() -> list[bytes]:
            return [item async for item in request.items]

        assert "belongs to the event loop " in await elsewhere(items)
        assert await items() == [b"1", b"2"]
        request.respond()
        await call


async def test_a_request_is_answered_on_its_own_loop(short_path: Path) -> None:
    service = Batches()
    async with connected(short_path, service) as (peer, _):
        call = peer.request("batches", "anything", b"", timeout=None)
        await eventually(lambda: service.requests)
        (request,) = service.requests

        def answers() -> list[Callable[[], object]]:
            return [
                lambda: request.respond(b"from a thread"),
                lambda: request.fail(failure(Code.HANDLER_FAILED)),
                lambda: request.try_send(b"item"),
                lambda: request.try_send_all([request], b"item"),
                lambda: asyncio.run(request.send(b"item")),
                lambda: asyncio.run(request.room()),
                lambda: asyncio.run(request.left()),
            ]

        for answer in answers():
            with pytest.raises(WrongLoop, match="and here "):
                await asyncio.to_thread(answer)
        request.respond(b"from the loop")
        assert (await call).payload == b"from the loop"


@leaves_transports
async def test_a_peer_whose_loop_was_closed_can_be_closed_by_another(short_path: Path) -> None:
    async with haptera.listen(f"haptera+unix://{short_path}/s", services=[Echo()]) as server:

        async def dial() -> haptera.Peer:
            peer = await haptera.dial(server.url)
            await peer.call("echo", "one", b"x")
            return peer

        peer = await asyncio.to_thread(asyncio.run, dial())
        assert len(server.peers) == 1
        with pytest.raises(WrongLoop, match=r"\(closed\)"):
            await peer.call("echo", "one", b"x")
        await peer.aclose()
        await eventually(lambda: not server.peers)
        del peer
        gc.collect()


@leaves_transports
async def test_a_listener_whose_loop_was_closed_can_be_closed_by_another(short_path: Path) -> None:
    address = f"haptera+unix://{short_path}/s"

    async def listen() -> haptera.Server:
        return await haptera.listen(address)

    server = await asyncio.to_thread(asyncio.run, listen())
    await server.aclose()
    assert not (short_path / "s").exists()
    async with haptera.listen(address, services=[Echo()]), haptera.dial(address) as peer:
        assert await peer.call("echo", "one", b"x") == b"x"
    del server
    gc.collect()

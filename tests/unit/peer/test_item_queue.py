"""Tasks of a service that wait on a request: how its end, and that of its connection, end them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from haptera import ConnectionLost, DeadlineExceeded, Peer, Request
from haptera.peer.item_queue import Items
from haptera.testing import virtual_clock
from tests.unit.peer.hosts import KIB, Batches, Echo, Gate, dispatcher_of, eventually, items_of, pair, turns


async def read(request: Request) -> None:
    async for _ in request.items:
        pass


async def fill(request: Request) -> None:
    while True:
        await request.send(bytes(64 * KIB))


async def read_slowly(items: AsyncIterator[bytes]) -> None:
    async for _ in items:
        await asyncio.sleep(0.3)


async def nothing() -> AsyncIterator[bytes]:
    """Items that never come."""
    await asyncio.get_running_loop().create_future()
    yield b""


async def waiting(
    peer: Peer, service: Batches, work: Callable[[Request], Coroutine[Any, Any, None]]
) -> tuple[Request, asyncio.Task[None], Any]:
    """A request on which a task waits, the task, and what its caller can cancel."""
    stream = peer.stream("batches", "anything", items=nothing() if work is read else None)
    await eventually(lambda: service.requests)
    (request,) = service.requests
    task = asyncio.create_task(work(request))
    await turns()
    assert not task.done()
    return request, task, stream


@pytest.mark.parametrize("work", [read, fill])
@virtual_clock
async def test_a_request_that_is_cancelled_cancels_those_that_wait_on_it(
    work: Callable[[Request], Coroutine[Any, Any, None]],
) -> None:
    service = Batches()
    async with pair(service) as (peer, _):
        request, task, stream = await waiting(peer, service, work)
        others = [asyncio.create_task(work(request)) for _ in range(2 if work is fill else 0)]
        await turns()
        await stream.aclose()
        for each in (task, *others):
            with pytest.raises(asyncio.CancelledError):
                await each
        assert request.cancelled
        assert request.under_way  # it is still owed an answer
        with pytest.raises(asyncio.CancelledError):
            await work(request)  # whoever comes later does not wait either
        request.respond()


@pytest.mark.parametrize("work", [read, fill])
@virtual_clock
async def test_the_end_of_the_connection_is_told_to_those_that_wait_on_a_request(
    work: Callable[[Request], Coroutine[Any, Any, None]],
) -> None:
    service = Batches()
    async with pair(service) as (peer, acceptor):
        request, task, stream = await waiting(peer, service, work)
        await acceptor.aclose()
        await stream.aclose()
        with pytest.raises(ConnectionLost):
            await task
        assert not request.under_way
        with pytest.raises(ConnectionLost):
            await request.send(b"x")


@virtual_clock
async def test_a_task_that_stops_waiting_for_room_does_not_stop_the_others() -> None:
    service = Batches()
    async with pair(service) as (peer, _):
        request, task, stream = await waiting(peer, service, fill)
        other = asyncio.create_task(fill(request))
        await turns()
        task.cancel()
        await turns()
        assert task.cancelled()
        assert not other.done()
        await stream.aclose()
        with pytest.raises(asyncio.CancelledError):
            await other
        request.respond()


@virtual_clock
async def test_items_that_are_given_up_cancel_each_wait_for_room_and_later_ones() -> None:
    items = Items()
    tasks = [asyncio.create_task(items.wait_room()) for _ in range(2)]
    await turns()
    items.give_up()
    for task in (*tasks, asyncio.create_task(items.wait_room())):
        with pytest.raises(asyncio.CancelledError):
            await task


@virtual_clock
async def test_tasks_that_stopped_waiting_for_room_leave_nothing_behind() -> None:
    """A handler may try again and again, each time with a timeout."""
    service = Batches()
    async with pair(service) as (peer, acceptor):
        request, task, stream = await waiting(peer, service, fill)
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(request.room(), 0.01)
        assert len(dispatcher_of(acceptor).items[request.stream]._senders) == 1
        await stream.aclose()
        with pytest.raises(asyncio.CancelledError):
            await task
        request.respond()


@virtual_clock
async def test_items_that_had_come_before_the_cancel_can_be_read() -> None:
    service = Batches()
    async with pair(service) as (peer, _):
        call = peer.stream("batches", "anything", items=items_of(b"1", b"2"))
        await eventually(lambda: service.requests)
        (request,) = service.requests
        await turns()
        await call.aclose()
        await eventually(lambda: request.cancelled)
        assert [item async for item in request.items] == [b"1", b"2"]
        request.respond()


@virtual_clock
async def test_nothing_stands_beside_requests_that_are_answered() -> None:
    gate = Gate()
    async with pair(Echo(), gate) as (peer, acceptor):
        dispatcher = dispatcher_of(acceptor)
        for _ in range(3):
            assert await peer.call("echo", "total", items=items_of(b"1", b"22")) == b"3"
            assert [item async for item in peer.stream("echo", "both", items=items_of(b"1", b"22"))] == [b"1", b"22"]
            assert len([item async for item in peer.stream("echo", "many", b"100")]) == 100
            with pytest.raises(DeadlineExceeded):
                await peer.call("gate", "wait", b"", timeout=1.0)
            with pytest.raises(DeadlineExceeded):
                await read_slowly(peer.stream("gate", "items", b"65536", timeout=1.0))
        await eventually(lambda: not dispatcher.requests)
        beside = (dispatcher.items, dispatcher.handlers.tasks, dispatcher._reasons)
        assert beside == ({}, {}, {})

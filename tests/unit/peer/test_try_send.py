"""Items of which only the newest matters: none waits behind another."""

from __future__ import annotations

import asyncio

import pytest

from haptera import ConnectionLost
from haptera.errors import LocalProtocolError
from haptera.testing import virtual_clock
from haptera.wire.payload import Limits
from tests.unit.peer.hosts import KIB, Batches, connection_of, eventually, pair, turns

WINDOW = 16 * KIB


@virtual_clock
async def test_what_is_tried_in_time_arrives_in_order() -> None:
    batches = Batches()
    async with pair(batches) as (dialer, _):
        stream = aiter(dialer.stream("batches", "anything"))
        first = asyncio.ensure_future(anext(stream))
        await eventually(lambda: batches.requests)
        (request,) = batches.requests
        assert request.try_send(b"0") is True
        assert await first == b"0"
        for number in range(1, 50):
            assert request.try_send(b"%d" % number) is True
            assert await anext(stream) == b"%d" % number
        request.respond(b"end")
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@virtual_clock
async def test_a_second_item_of_a_turn_is_not_sent() -> None:
    batches = Batches()
    async with pair(batches) as (dialer, _):
        stream = dialer.stream("batches", "anything")
        await eventually(lambda: batches.requests)
        (request,) = batches.requests
        assert [request.try_send(b"first"), request.try_send(b"second")] == [True, False]
        await turns()
        assert request.try_send(b"third") is True
        request.respond(b"")
        assert [item async for item in stream] == [b"first", b"third"]


@virtual_clock
async def test_who_does_not_read_gets_the_newest_next_and_nothing_waits_for_it() -> None:
    batches = Batches()
    async with pair(batches, dialer_config={"limits": Limits(stream_window=WINDOW)}) as (dialer, acceptor):
        stream = dialer.stream("batches", "anything")
        await eventually(lambda: batches.requests)
        (request,) = batches.requests
        sent = []
        for number in range(200):
            if request.try_send(number.to_bytes(4, "big") + bytes(KIB)):
                sent.append(number)
            await turns(1)
        # What the window held, and one that waits for credit.
        assert sent == list(range(len(sent)))
        assert 10 < len(sent) <= WINDOW // KIB + 1
        assert connection_of(acceptor).outbox.size < 2 * KIB
        reader = aiter(stream)
        for number in sent:
            assert int.from_bytes((await anext(reader))[:4], "big") == number
        await turns()
        assert request.try_send(b"newest") is True
        request.respond(b"")
        assert [item async for item in reader] == [b"newest"]


@virtual_clock
async def test_nothing_is_sent_once_nobody_wants_it() -> None:
    batches = Batches()
    async with pair(batches) as (dialer, acceptor):
        calls = [dialer.request("batches", "anything", b"", timeout=None) for _ in range(3)]
        await eventually(lambda: len(batches.requests) == 3)
        cancelled, answered, lost = batches.requests
        calls[0].cancel()
        await eventually(lambda: cancelled.cancelled)
        assert cancelled.try_send(b"x") is False
        cancelled.fail(LocalProtocolError(1008).failure("unknown"))
        answered.respond(b"answer")
        with pytest.raises(LocalProtocolError):
            answered.try_send(b"x")
        assert (await calls[1]).payload == b"answer"
        await acceptor.aclose()
        assert lost.try_send(b"x") is False
        with pytest.raises(ConnectionLost):
            await calls[2]


@virtual_clock
async def test_an_item_that_cannot_be_sent_at_all_is_an_error() -> None:
    batches = Batches()
    async with pair(batches, dialer_config={"limits": Limits(max_message=64 * KIB)}) as (dialer, _):
        call = dialer.request("batches", "anything", b"", timeout=None)
        await eventually(lambda: batches.requests)
        (request,) = batches.requests
        with pytest.raises(LocalProtocolError) as caught:
            request.try_send(bytes(64 * KIB + 1))
        assert caught.value.code == 3004
        with pytest.raises(TypeError):
            request.try_send("text")  # type: ignore[arg-type]
        request.respond(b"")
        await call


@virtual_clock
async def test_one_item_is_sent_on_many_requests_at_once() -> None:
    batches = Batches()
    async with pair(batches, dialer_config={"limits": Limits(max_message=64 * KIB)}) as (dialer, acceptor):
        calls = [dialer.request("batches", "anything", b"", timeout=None) for _ in range(2)]
        streams = [aiter(dialer.stream("batches", "anything")) for _ in range(3)]
        firsts = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await eventually(lambda: len(batches.requests) == 5)
        cancelled, answered, *reading = batches.requests
        calls[0].cancel()
        await eventually(lambda: cancelled.cancelled)
        answered.respond(b"answer")
        assert reading[0].try_send_all([cancelled, *reading, answered], b"item") == [0, 4]
        assert [await first for first in firsts] == [b"item"] * 3
        with pytest.raises(LocalProtocolError) as caught:
            reading[0].try_send_all(reading, bytes(64 * KIB + 1))
        assert caught.value.code == 3004
        with pytest.raises(TypeError):
            reading[0].try_send_all(reading, "text")  # type: ignore[arg-type]
        cancelled.fail(LocalProtocolError(1008).failure("unknown"))
        await acceptor.aclose()
        assert reading[0].try_send_all(reading, b"item") == [0, 1, 2]


@virtual_clock
async def test_who_makes_an_item_late_waits_until_those_before_it_have_left() -> None:
    batches = Batches()
    async with pair(batches, dialer_config={"limits": Limits(stream_window=WINDOW)}) as (dialer, _):
        stream = dialer.stream("batches", "anything")
        await eventually(lambda: batches.requests)
        (request,) = batches.requests
        await request.left()
        for _ in range(3):
            await request.send(bytes(6 * KIB))
        waiting = asyncio.ensure_future(request.left())
        await turns()
        assert not waiting.done(), "one waits for credit"
        reader = aiter(stream)
        assert [len(await anext(reader)) for _ in range(3)] == [6 * KIB] * 3
        await waiting
        waiting = asyncio.ensure_future(request.left())
        await waiting
        request.respond(b"")

"""Slow readers: what waits for them, and what does not (spec/protocol.md, section 3)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera import Peer, Request, Service, method
from haptera.connection.config import Budget
from haptera.peer import limits, link_of
from haptera.testing import virtual_clock
from haptera.wire.frame import FrameType, encode_frame
from tests.unit.peer.hosts import (
    ANY_PORT,
    KIB,
    MIB,
    Batches,
    Echo,
    Gate,
    connection_of,
    dispatcher_of,
    eventually,
    items_of,
    other_side,
    pair,
    served,
    transport_of,
    turns,
)
from tests.unit.peer.raw import RawPeer
from tests.unit.peer.raw import request as raw_request

if TYPE_CHECKING:
    from pathlib import Path


class Large(Service):
    """Answers with as many bytes as the payload says, and counts what it was asked."""

    name = "large"

    def __init__(self) -> None:
        self.started = 0

    def handle(self, requests: list[Request]) -> None:
        for request in requests:
            self.started += 1
            request.respond(bytes(int(request.payload)))


class Source(Service):
    """Sends items for ever and counts those that were taken from it."""

    name = "source"

    def __init__(self) -> None:
        self.sent = 0

    @method
    async def items(self, request: Request) -> AsyncIterator[bytes]:
        while True:
            yield bytes(int(request.payload))
            self.sent += 1


def now() -> float:
    return asyncio.get_running_loop().time()


async def settled(count: object) -> None:
    """Wait until what ``count()`` returns no longer changes."""
    assert callable(count)
    before = None
    while (now := count()) != before:
        before = now
        await turns()


@virtual_clock
async def test_while_a_mebibyte_of_answers_waits_new_requests_are_kept_and_then_started() -> None:
    service = Large()
    async with served(ANY_PORT, service) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        await eventually(lambda: server.peers)
        for number in range(100):
            await raw.request(1 + 2 * number, "large", "x", b"%d" % (100 * KIB))
            await turns(1)  # what arrives together is one batch, started together
        await settled(lambda: service.started)
        acceptor = other_side(server)
        assert acceptor.writable is False
        # What the socket and the transport took, the mebibyte, and what was started with the last of it.
        assert 10 <= service.started < 60
        assert len(dispatcher_of(acceptor).arrived) == 100 - service.started
        answers = [await raw.answer(1 + 2 * number) for number in range(100)]
        assert [len(answer) for answer in answers] == [100 * KIB] * 100
        await eventually(lambda: acceptor.writable)
        await raw.close()


@virtual_clock
async def test_a_kept_request_keeps_its_items_and_its_cancel() -> None:
    large, echo = Large(), Echo()
    async with served(ANY_PORT, large, echo) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        await eventually(lambda: server.peers)
        for number in range(50):
            await raw.request(1 + 2 * number, "large", "x", b"%d" % (100 * KIB))
        await settled(lambda: large.started)
        await raw.request(201, "echo", "total", b"", streaming=True)
        await raw.item(201, b"abc")
        await raw.item(201, b"de")
        await raw.finish(201)
        await raw.request(203, "echo", "one", b"never")
        await raw.cancel(203)
        acceptor = other_side(server)
        await eventually(lambda: 203 not in acceptor._dispatcher.requests and 201 in acceptor._dispatcher.requests)
        assert await raw.answer(201) == b"5"
        error = await raw.error(203)
        assert (error.code, error.outcome) == (3006, "not_applied")
        await raw.close()


@virtual_clock
async def test_one_slow_reader_does_not_starve_other_connections() -> None:
    """Trap: one slow reader starves all."""
    service = Large()
    async with served(ANY_PORT, service, Echo()) as server:
        slow = await RawPeer.open(server.url)
        await slow.hello()
        for number in range(100):
            await slow.request(1 + 2 * number, "large", "x", b"%d" % (100 * KIB))
        await settled(lambda: service.started)
        started = service.started
        peer = await haptera.dial(server.url)
        for number in range(100):
            assert await peer.call("large", "x", b"%d" % number) == bytes(number)
        assert await peer.call("echo", "one", bytes(MIB)) == bytes(MIB)
        assert service.started == started + 100
        await peer.aclose()
        await slow.close()


@virtual_clock
async def test_a_producer_of_items_waits_for_its_window() -> None:
    source = Source()
    async with pair(source) as (peer, acceptor), peer.stream("source", "items", b"10000") as stream:
        await settled(lambda: source.sent)
        # The window of 256 KiB, and one turn of 64 KiB that is queued behind it.
        assert 25 <= source.sent <= 33
        assert connection_of(acceptor).outbox.size < 2 * 64 * KIB
        before = source.sent
        for _ in range(100):
            await anext(stream)
        await settled(lambda: source.sent)
        assert before + 60 <= source.sent <= before + 110


@virtual_clock
async def test_a_producer_that_goes_on_makes_as_many_items_as_can_leave() -> None:
    source = Source()
    async with pair(source) as (peer, _), peer.stream("source", "items", b"65536") as stream:
        await settled(lambda: source.sent)
        made: list[int] = []
        for _ in range(20):
            before = source.sent
            await anext(stream)
            await settled(lambda: source.sent)
            made.append(source.sent - before)
        assert set(made) == {0, 2}


@pytest.mark.parametrize("streams", [1, 2])
@virtual_clock
async def test_the_credit_of_the_only_stream_leaves_at_once(streams: int) -> None:
    """Its sender goes on while the reader works on the item. The credits of several streams leave together."""
    source = Source()
    async with pair(source) as connected:
        calls = [connected.dialer.stream("source", "items", b"65536") for _ in range(streams)]
        await settled(lambda: source.sent)
        written = connected.link.to_acceptor
        before = written.writes
        for call in calls:
            await anext(call)
        assert written.writes == before
        for call in calls:
            await anext(call)  # half of the window
        assert written.writes == before + (streams == 1)
        await turns()
        assert written.writes == before + 1
        for call in calls:
            await call.aclose()


async def test_the_other_side_of_a_local_socket_is_near_from_the_start(short_path: Path) -> None:
    async with served(f"haptera+unix://{short_path}/s", Source()) as server:
        peer = await haptera.dial(server.url)
        await peer.ready()
        assert connection_of(peer).outbox.near
        acceptor = connection_of(other_side(server))
        assert acceptor.outbox.near
        assert acceptor.outbox.turns.whole_cost_max == 128 * KIB
        await peer.aclose()
    async with pair() as (peer, _):
        assert not connection_of(peer).outbox.near


@virtual_clock
async def test_a_caller_that_sends_items_waits_for_the_window_of_the_handler() -> None:
    service = Batches()
    taken = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(10_000)

    async with pair(service) as (peer, _), peer.stream("batches", "x", items=source()):
        await settled(lambda: taken)
        assert 25 <= taken <= 34


@virtual_clock
async def test_a_slow_reader_of_one_stream_stops_no_other_on_its_connection() -> None:
    """Trap: one shared window, so that one slow reader starves all."""
    source = Source()
    async with pair(source, Echo()) as (peer, acceptor):
        unread = [peer.stream("source", "items", b"%d" % size) for size in (100, 10_000, MIB, 8 * MIB, 8 * MIB)]
        await settled(lambda: source.sent)
        for number in range(20):
            assert await peer.call("echo", "one", b"%d" % number) == b"%d" % number
        assert await peer.call("echo", "one", bytes(3 * MIB)) == bytes(3 * MIB)
        assert await peer.call("echo", "total", items=items_of(*[bytes(MIB)] * 8)) == b"%d" % (8 * MIB)
        assert len([item async for item in peer.stream("echo", "many", b"5000")]) == 5000
        assert acceptor.writable
        for stream in unread:
            assert set(await anext(stream)) == {0}
            await stream.aclose()


@virtual_clock
async def test_an_unread_large_item_keeps_no_request_of_its_reader_waiting() -> None:
    """Trap: a reader that waits for a writer (deadlock).

    The reader asks the writer something before it reads on. What waits for credit is no answer that waits to be
    written.
    """

    class Reader(Service):
        name = "reader"

        @method
        async def read(self, request: Request) -> bytes:
            await turns(50)  # one item is here and the next waits for credit
            size = len(await request.peer.call("echo", "one", bytes(10), timeout=60.0))
            async for item in request.items:
                size += len(item)
            return b"%d" % size

    async with pair(Reader(), Echo(), dialer_services=(Reader(), Echo())) as (dialer, acceptor):
        sizes = await asyncio.gather(
            *(
                side.call("reader", "read", items=items_of(*[bytes(8 * MIB)] * 3), timeout=60.0)
                for side in (dialer, acceptor)
            )
        )
        assert sizes == [b"%d" % (3 * 8 * MIB + 10)] * 2


@virtual_clock
async def test_two_peers_that_stream_8_mib_items_at_each_other_both_finish() -> None:
    """Trap: an item larger than the window that can never finish."""

    async def duplex(peer: Peer) -> int:
        stream = peer.stream("echo", "both", items=items_of(*[bytes(8 * MIB)] * 3))
        return sum([len(item) async for item in stream])

    async with pair(Echo(), dialer_services=(Echo(),)) as sides:
        assert await asyncio.gather(*(duplex(side) for side in sides)) == [24 * MIB] * 2
        assert not any(connection_of(side).open_streams for side in sides)


@virtual_clock
async def test_a_side_that_reads_nothing_is_disconnected_with_3009(caplog: pytest.LogCaptureFixture) -> None:
    assert (limits.WRITE_TIMEOUT_S, limits.WRITTEN_MIN) == (30.0, 64 * KIB)
    service = Large()
    async with served(ANY_PORT, service, ping_interval_ms=0) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        for number in range(50):
            await raw.request(1 + 2 * number, "large", "x", b"%d" % (100 * KIB))
        start = now()
        await eventually(lambda: server.accepted and not server.peers)
        # What its buffers take counts in the first half minute.
        assert 30.0 <= now() - start <= 60.0 + limits.LINGER_S + 0.1
        (record,) = caplog.records
        assert vars(record)["code_name"] == "SLOW_CONSUMER"
        await raw.close()


@virtual_clock
async def test_a_side_that_reads_slowly_but_enough_is_kept() -> None:
    service = Large()
    async with served(ANY_PORT, service, ping_interval_ms=0) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        for number in range(100):
            await raw.request(1 + 2 * number, "large", "x", b"%d" % (100 * KIB))
        for _ in range(100):
            await asyncio.sleep(10.0)
            assert await raw.read()
        assert server.peers
        await raw.close()


@virtual_clock
async def test_a_reader_of_an_open_stream_that_takes_nothing_is_not_a_slow_consumer() -> None:
    """Its window is closed, and its connection's socket empty: nothing waits to be written."""
    source = Source()
    async with served(ANY_PORT, source, Echo()) as server:
        peer = await haptera.dial(server.url)
        stream = peer.stream("source", "items", b"10000")
        await anext(stream)
        await asyncio.sleep(600.0)
        assert not other_side(server).closed
        assert await peer.call("echo", "one", b"x") == b"x"
        await stream.aclose()


async def test_tcp_leaves_without_delay() -> None:
    async with served("haptera://127.0.0.1:0", Echo()) as server:
        peer = await haptera.dial(server.url)
        assert await peer.call("echo", "one", b"x") == b"x"
        for side in (peer, other_side(server)):
            sock = transport_of(side).get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await peer.aclose()


@virtual_clock
async def test_a_stream_that_waits_for_room_ends_with_its_connection() -> None:
    gate = Gate()
    async with pair(gate) as (peer, _):
        stream = peer.stream("gate", "items", b"100000")
        await anext(stream)
        await turns()
        await peer.aclose()
        await eventually(lambda: gate.ended)
        with pytest.raises(haptera.ConnectionLost):
            async for _item in stream:
                pass


class Turns(Service):
    """Counts how many requests are handed over in each turn of the loop."""

    name = "turns"

    def __init__(self) -> None:
        self.counts: list[int] = []
        self._counting = False

    def handle(self, requests: list[Request]) -> None:
        if not self._counting:
            self._counting = True
            self.counts.append(0)
            asyncio.get_running_loop().call_soon(self._end_turn)
        self.counts[-1] += len(requests)
        for request in requests:
            request.respond(b"")

    def _end_turn(self) -> None:
        self._counting = False


async def test_what_one_connection_sends_at_once_is_worked_on_over_several_turns() -> None:
    """The others have theirs in between: uvloop would read 8 MiB of one socket before it looks at the next."""
    service = Turns()
    async with served(ANY_PORT, service) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        await raw.send(b"".join(raw_request(1 + 2 * number, "turns", "x", bytes(100)) for number in range(1000)))
        await raw.answer(1999)
        assert sum(service.counts) == 1000
        assert max(service.counts) <= 512
        await raw.close()


class Rows(Service):
    """Makes large items, and counts them."""

    name = "rows"

    def __init__(self) -> None:
        self.made = 0

    @method
    async def all(self, request: Request) -> AsyncIterator[bytes]:
        while True:
            self.made += 1
            yield bytes(512 * KIB)


async def test_items_are_made_when_they_can_leave_and_forgotten_when_their_connection_is_gone() -> None:
    """A hundred streams of a peer that takes none of them: without a bound each would have its item in memory."""
    service = Rows()
    async with served(ANY_PORT, service, budget=4 * MIB) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        await raw.send(b"".join(raw_request(1 + 2 * number, "rows", "all") for number in range(100)))
        reading = asyncio.create_task(raw.read_to_end())  # what the windows let through, and no more of them
        await eventually(lambda: service.made >= 8)
        await turns(200)
        assert service.made <= 10
        peer = other_side(server)
        assert connection_of(peer).outbox.size > 3 * MIB
        raw.writer.transport.abort()
        await eventually(lambda: peer.closed)
        await reading
        assert connection_of(peer).outbox.size == 0
        assert not dispatcher_of(peer).requests


@virtual_clock
async def test_those_who_fill_the_memory_of_the_process_are_the_ones_to_go() -> None:
    async with served(ANY_PORT, Large(), Echo(), process_budget=Budget(16 * MIB)) as server:
        hoarders = []
        for _ in range(5):
            raw = await RawPeer.open(server.url)
            await raw.hello()
            await raw.request(1, "large", "x", str(4 * MIB).encode())
            hoarders.append(raw)
        await turns()
        peer = await haptera.dial(server.url)
        # The small go on. A large answer has to wait for room.
        assert await peer.call("echo", "one", b"small") == b"small"
        with pytest.raises(haptera.errors.TooManyRequests) as refused:
            await peer.call("large", "x", str(MIB).encode())
        assert refused.value.outcome == "unknown"
        await asyncio.sleep(2.5 * limits.HOLDING_LOOK_S)
        assert len(await peer.call("large", "x", str(MIB).encode())) == MIB
        # No more of them had to go than that.
        assert sum(link_of(each).ending is not None for each in server.peers) == 1
        for raw in hoarders:
            await raw.close()


class Ending(Service):
    """Fills the window of its caller and goes on until it is stopped, or fails by itself."""

    name = "ending"

    @method
    async def never(self, request: Request) -> AsyncIterator[bytes]:
        while True:
            yield bytes(100 * KIB)

    @method
    async def fails(self, request: Request) -> AsyncIterator[bytes]:
        yield b"sent"
        raise haptera.CallError(10_001, "FULL", "it is full")


@virtual_clock
async def test_a_deadline_is_answered_though_the_items_before_it_wait_for_credit() -> None:
    """Trap: waiting behind what waits. The caller reads its connection and gives no credit."""
    async with served(ANY_PORT, Ending()) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello(capabilities=["pipelining", "request_deadline"])
        route = b"\x06ending\x05never"
        await raw.send(encode_frame(FrameType.REQUEST, 0, 1, route + bytes((2, 4)) + (2000).to_bytes(4, "big")))
        before = asyncio.get_running_loop().time()
        error = await raw.error(1)
        assert error.code == 3005
        assert asyncio.get_running_loop().time() - before < 3.0, "virtual seconds: its own time, not that of a timer"
        acceptor = other_side(server)
        assert connection_of(acceptor).open_streams == 0
        assert connection_of(acceptor).outbox.size == 0
        await raw.close()


@virtual_clock
async def test_items_that_may_leave_are_sent_before_an_error_though_both_are_made_in_one_turn() -> None:
    async with pair(Ending()) as (peer, _):
        stream = peer.stream("ending", "fails")
        assert await anext(stream) == b"sent"
        with pytest.raises(haptera.CallError):
            await anext(stream)

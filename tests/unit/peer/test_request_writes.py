"""The writes in which the requests of one turn of the loop leave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from haptera import ConnectionLost, Peer, Request, Service, method
from haptera.peer import link_of
from haptera.peer.early_writes import EarlyWrites
from haptera.peer.limits import REQUESTS_PER_WRITE, TRANSPORT_HIGH, WRITE_SIZE
from haptera.testing import connected_peers, virtual_clock
from haptera.wire.payload import Limits
from tests.unit.peer.hosts import KIB, Echo, Gate, Writes, connected, connection_of, items_of, pair, turns

if TYPE_CHECKING:
    from pathlib import Path

#: How 50 requests of one turn leave.
FIFTY = [16, 16, 16, 2]


def request_many(peer: Peer, count: int, *, method: str = "one", size: int = 2) -> list[asyncio.Future[Any]]:
    """Make calls in one turn of the loop."""
    return [peer.request("echo", method, b"%d" % number + bytes(size), timeout=None) for number in range(count)]


def test_a_write_has_16_requests() -> None:
    """The counts below are written out, so that they can be read."""
    assert REQUESTS_PER_WRITE == 16


@pytest.mark.parametrize(
    ("count", "writes"), [(1, [1]), (15, [15]), (16, [16]), (17, [16, 1]), (32, [16, 16]), (50, FIFTY)]
)
@virtual_clock
async def test_calls_of_one_turn_leave_16_at_a_time_and_the_rest_at_its_end(count: int, writes: list[int]) -> None:
    async with pair(Echo()) as (peer, _):
        written = Writes(peer)
        calls = request_many(peer, count)
        early = sum(size == REQUESTS_PER_WRITE for size in writes)
        assert len(written.pieces) == early  # before the turn has ended
        answers = [(await call).payload for call in calls]
        assert answers == [b"%d" % number + bytes(2) for number in range(count)]
        assert written.requests() == writes


@virtual_clock
async def test_the_calls_of_many_tasks_leave_16_at_a_time() -> None:
    async with pair(Echo()) as (peer, _):
        written = Writes(peer)
        for _ in range(3):
            await asyncio.gather(*(peer.call("echo", "one", b"x") for _ in range(50)))
            assert written.requests() == FIFTY


class Disk(Service):
    """Answers after some seconds, all that came together at once."""

    name = "disk"
    seconds = 0.0

    @method
    async def one(self, request: Request) -> bytes:
        await asyncio.sleep(self.seconds)
        return request.payload


@virtual_clock
async def test_calls_leave_together_where_the_answers_take_long() -> None:
    """A disk would sync the first of them, and have the others wait for that."""
    disk = Disk()
    async with pair(disk) as (peer, _):
        written = Writes(peer)
        link_of(peer)._early = EarlyWrites(asyncio.get_running_loop().time)

        async def fifty() -> list[int]:
            await asyncio.gather(*(peer.call("disk", "one", b"x") for _ in range(50)))
            return written.requests()

        assert await fifty() == [50]  # nothing is known yet
        assert await fifty() == FIFTY
        disk.seconds = 0.010
        assert await fifty() == FIFTY
        assert await fifty() == [50]
        assert await fifty() == [50]
        disk.seconds = 0.0
        assert await fifty() == [50]
        assert await fifty() == FIFTY


@virtual_clock
async def test_the_first_calls_of_a_connection_leave_together() -> None:
    """How long an answer takes is known behind the first that is watched."""
    async with pair(Echo()) as (peer, _):
        written = Writes(peer)
        link_of(peer)._early = EarlyWrites(asyncio.get_running_loop().time)
        found = []
        for _ in range(3):
            await asyncio.gather(*request_many(peer, 50))
            found.append(written.requests())
        assert found == [[50], FIFTY, FIFTY]


@virtual_clock
async def test_each_turn_counts_its_own_requests() -> None:
    async with pair(Gate(), Echo()) as (peer, _):
        written = Writes(peer)
        for _ in range(4):
            calls = request_many(peer, 10)
            await asyncio.gather(*calls)
        assert written.requests() == [10] * 4


@virtual_clock
async def test_the_first_call_of_a_burst_behind_lone_calls_leaves_at_once() -> None:
    async with pair(Echo()) as (peer, _):
        for _ in range(20):
            await peer.call("echo", "one", b"x")
        written = Writes(peer)
        await asyncio.gather(*request_many(peer, 35))
        assert written.requests() == [1, 16, 16, 2]


@virtual_clock
async def test_requests_with_items_leave_with_the_others_and_their_items_behind_them() -> None:
    async with pair(Echo()) as (peer, _):
        written = Writes(peer)
        calls = [peer.call("echo", "total", items=items_of(b"a", b"b")) for _ in range(20)]
        assert await asyncio.gather(*calls) == [b"2"] * 20
        assert written.requests() == [16, 4]


@virtual_clock
async def test_a_paused_transport_gets_nothing_before_it_asks_for_more() -> None:
    async with pair(Echo()) as (peer, _):
        written = Writes(peer)
        link = link_of(peer)
        link.pause_writing()
        calls = request_many(peer, 50)
        await turns()
        assert written.pieces == []
        link.resume_writing()
        await asyncio.gather(*calls)
        assert written.requests() == [50]


@virtual_clock
async def test_large_requests_leave_no_faster_than_the_transport_takes_them() -> None:
    """It holds one write that did not fit, as it does of all that leaves at the end of a turn."""
    async with pair(Echo()) as (peer, other):
        written = Writes(peer)
        size = 40 * KIB
        calls = request_many(peer, 100, size=size)
        assert [len((await call).payload) for call in calls[:10]] == [size + 1] * 10
        await asyncio.gather(*calls)
        assert max(map(len, written.pieces)) < WRITE_SIZE + 2 * size
        assert max(written.unsent_before) <= TRANSPORT_HIGH
        assert sum(written.requests()) == 100
        await turns()
        for side in (peer, other):
            connection = connection_of(side)
            connection.check()
            assert connection.outbox.settle() == 0


@virtual_clock
async def test_unsent_bytes_of_early_writes_are_charged_at_the_end_of_the_turn() -> None:
    async with pair(Echo()) as connected:
        peer, _ = connected
        connected.link.pause("to_acceptor")
        calls = request_many(peer, 64, size=3 * KIB)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        connection = connection_of(peer)
        transport = link_of(peer).transport
        assert transport is not None
        unsent = transport.get_write_buffer_size() + connection.outbox.size
        assert unsent > 0
        assert connection.outbox.settle(transport.get_write_buffer_size()) == unsent
        connected.link.resume("to_acceptor")
        await asyncio.gather(*calls)


@virtual_clock
async def test_requests_that_answers_made_room_for_leave_in_the_one_write_of_that_read() -> None:
    gate = Gate()
    async with pair(gate, acceptor_config={"limits": Limits(max_streams=64)}) as (peer, _):
        written = Writes(peer)
        calls = [peer.request("gate", "wait", b"%d" % number, timeout=None) for number in range(114)]
        await turns()
        assert written.requests() == [16, 16, 16, 16]
        gate.open.set()
        await asyncio.gather(*calls)
        assert written.requests() == [50]
        assert sorted(gate.ended) == sorted(b"%d" % number for number in range(114))


@virtual_clock
async def test_calls_behind_the_end_of_a_connection_write_nothing() -> None:
    async with pair(Echo()) as (peer, _):
        written = Writes(peer)
        calls = request_many(peer, 10)
        link_of(peer).connection_lost(ConnectionResetError("a test"))
        written.pieces.clear()
        calls += request_many(peer, 40)
        await turns()
        assert written.pieces == []
        for call in calls:
            with pytest.raises(ConnectionLost):
                await call


async def test_signed_requests_leave_16_at_a_time(short_path: Path) -> None:
    """Each frame is signed for its place in the order of the wire."""
    key = bytes(range(32))
    async with connected(short_path, Echo(), listen_with={"signing_key": key}, signing_key=key) as (peer, _):
        written = Writes(peer)
        calls = request_many(peer, 50)
        assert [(await call).payload for call in calls] == [b"%d" % number + bytes(2) for number in range(50)]
        assert len(written.pieces) == 4


async def test_requests_behind_the_loss_of_a_transport_are_not_written_to_it(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A transport tells of its loss in a later turn of the loop, and warns of many writes before that."""
    async with connected(short_path, Echo()) as (peer, _):
        written = Writes(peer)
        written.transport.abort()
        calls = request_many(peer, 16 * REQUESTS_PER_WRITE)
        for call in calls:
            with pytest.raises(ConnectionLost):
                await call
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


@virtual_clock
async def test_calls_that_waited_to_be_sent_are_no_lone_calls() -> None:
    async with connected_peers((), (Echo(),), dialer_config={"flies": False}) as peers:
        peer = peers.dialer
        await asyncio.gather(*request_many(peer, 20), peer.ready())
        written = Writes(peer)
        await asyncio.gather(*request_many(peer, 35))
        assert written.requests() == [16, 16, 3]

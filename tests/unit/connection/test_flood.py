"""Frames that make work and do none (protocol, section 8), and that honest peers never come near the bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from haptera.connection import Connection, Role
from haptera.connection.config import HELD_MIN, Budget
from haptera.connection.events import (
    CancelReceived,
    Closed,
    Event,
    GoawayReceived,
    ItemReceived,
    PongReceived,
    RequestReceived,
)
from haptera.connection.flood import Bucket, FloodError
from haptera.connection.stream_law import ConnectionState
from haptera.errors import failure
from tests.unit.connection.machines import (
    CANCEL,
    ERROR,
    GOAWAY,
    ITEM,
    PING,
    PONG,
    REQUEST,
    STREAMING,
    Pair,
    credit,
    damaged,
    frame,
    open_machine,
    send,
    sent,
    shaken,
)

KIB = 1024
WINDOWS = {"stream_window": 64 * KIB, "connection_window": 256 * KIB}


def _ping(_: int) -> bytes:
    return frame(PING, payload=bytes(8))


def _unasked_pong(_: int) -> bytes:
    return frame(PONG, payload=bytes(8))


def _later_goaway(number: int) -> bytes:
    """Each one lowers its last stream, so that none of them is wrong."""
    fields = {"code": 1014, "name": "", "message": "", "last_stream": 10**6 - number}
    return frame(GOAWAY, payload=msgspec.msgpack.encode(fields))


def _skipped(_: int) -> bytes:
    return frame(0xF0, payload=b"?")


def _damaged_request(number: int) -> bytes:
    return damaged(REQUEST, 101 + 2 * number)


def _critical_flag(number: int) -> bytes:
    return frame(REQUEST, 101 + 2 * number, flags=0x20)


def _bad_metadata(number: int) -> bytes:
    return frame(REQUEST, 101 + 2 * number, metadata=b"\xff")


def _critical_tag(number: int) -> bytes:
    return frame(REQUEST, 101 + 2 * number, metadata=b"\x01s\x01m\x90\x00")


def _small_credit(_: int) -> bytes:
    return credit(0, 16 * KIB - 1)


def _small_stream_credit(_: int) -> bytes:
    return credit(1, 4 * KIB - 1)


def _small_credit_of_an_ended_stream(_: int) -> bytes:
    return credit(3, 1)


def _second_cancel(_: int) -> bytes:
    return frame(CANCEL, 1)


FLOODS: list[Callable[[int], bytes]] = [
    _ping,
    _unasked_pong,
    _later_goaway,
    _skipped,
    _damaged_request,
    _critical_flag,
    _bad_metadata,
    _critical_tag,
    _small_credit,
    _small_stream_credit,
    _small_credit_of_an_ended_stream,
    _second_cancel,
]


def _victim(**config: Any) -> Connection:
    """An acceptor with a request under way on stream 1, cancelled once, and one that has ended on stream 3.

    Its peer has said that it goes away.
    """
    peer = {"stream_window": 16 * KIB, "connection_window": 64 * KIB}
    connection = open_machine(Role.ACCEPTOR, peer=peer, **config)
    send(connection, frame(REQUEST, 1), frame(REQUEST, 3), frame(CANCEL, 1), _later_goaway(-1))
    connection.respond(3, b"")
    sent(connection)
    return connection


def _flooded(connection: Connection, events: list[Event]) -> None:
    (closed,) = [event for event in events if isinstance(event, Closed)]
    assert closed.error is not None
    assert closed.error.code == 3008
    last = sent(connection)[-1]
    assert (last.type, last.map["code"], last.map["name"]) == (GOAWAY, 3008, "RATE_LIMITED")
    assert connection.state is ConnectionState.CLOSING
    assert send(connection, frame(REQUEST, 9999)) == []


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_frames_without_work_ends_the_connection_with_goaway(flood: Callable[[int], bytes]) -> None:
    connection = _victim()
    events = send(connection, *(flood(number) for number in range(1000)))
    assert not [event for event in events if isinstance(event, Closed)]
    sent(connection)
    _flooded(connection, send(connection, flood(1000)))


@pytest.mark.parametrize("flood", FLOODS)
def test_a_hundred_a_second_are_taken_for_ever_and_no_more(flood: Callable[[int], bytes]) -> None:
    connection = _victim(ping_interval_ms=0)
    send(connection, *(flood(number) for number in range(1000)))
    for second in range(1, 5):
        frames = (flood(1000 + second * 100 + number) for number in range(100))
        events = send(connection, *frames, now=float(second))
        assert not [event for event in events if isinstance(event, Closed)]
        sent(connection)
    _flooded(connection, send(connection, flood(9000), now=4.0))


def test_the_bounds_are_configurable() -> None:
    connection = _victim(idle_frames_burst=3, idle_frames_per_s=1)
    assert send(connection, *map(_ping, range(3))) == []
    assert send(connection, _ping(0), now=1.0) == []
    sent(connection)
    _flooded(connection, send(connection, _ping(0), now=1.5))


def test_too_many_streams_cost_a_token_each() -> None:
    connection = open_machine(Role.ACCEPTOR, limits={"max_streams": 64}, idle_frames_burst=10)
    send(connection, *(frame(REQUEST, 1 + 2 * number) for number in range(64)))
    send(connection, *(frame(REQUEST, 201 + 2 * number) for number in range(10)))
    assert [each.map["code"] for each in sent(connection)] == [3007] * 10
    _flooded(connection, send(connection, frame(REQUEST, 301)))


def test_work_costs_no_token() -> None:
    connection = open_machine(Role.ACCEPTOR, idle_frames_burst=1, peer=WINDOWS)
    for number in range(200):
        stream = 1 + 2 * number
        send(connection, frame(REQUEST, stream, flags=STREAMING), frame(ITEM, stream, b"x"), frame(CANCEL, stream))
        connection.ping(number.to_bytes(8, "big"))
        send(connection, credit(stream, 16 * KIB), credit(0, 64 * KIB), frame(PONG, payload=number.to_bytes(8, "big")))
        send(connection, frame(ITEM, stream, b"late"))
        connection.fail(stream, failure(3006, outcome="unknown"))
        send(connection, frame(ITEM, stream, b"late"), frame(CANCEL, stream), credit(stream, 16 * KIB))
        sent(connection)
    assert connection.state is ConnectionState.OPEN


def test_a_late_pong_is_free_however_late_and_whatever_came_before_it() -> None:
    """Bytes of any kind end a silence, so that the next one has a PING of its own before the first was answered."""
    connection = open_machine(Role.ACCEPTOR, idle_frames_burst=1, idle_frames_per_s=0.001, ping_interval_ms=1000)
    pings = []
    for silence in range(50):
        connection.tick(2.0 * silence + 1.0)
        pings += [each.payload for each in sent(connection) if each.type == PING]
        send(connection, frame(REQUEST, 1 + 2 * silence), now=2.0 * silence + 1.5)
    assert len(pings) == 50
    for ping in pings:
        assert send(connection, frame(PONG, payload=ping), now=101.0) == [PongReceived(ping)]
    assert send(connection, frame(PONG, payload=ping), now=101.0) == [PongReceived(ping)]
    _flooded(connection, send(connection, frame(PONG, payload=ping), now=101.0))


def test_the_first_goaway_is_free() -> None:
    connection = open_machine(Role.ACCEPTOR, idle_frames_burst=1)
    for number in range(2):
        (event,) = send(connection, _later_goaway(number))
        assert isinstance(event, GoawayReceived)
    _flooded(connection, send(connection, _later_goaway(2)))


def test_a_cancel_flood_frees_no_slot_while_the_handlers_run() -> None:
    """Trap: cancel floods that free slots while handlers still run. The first CANCEL is free, and frees nothing."""
    connection = open_machine(Role.ACCEPTOR, limits={"max_streams": 64})
    for number in range(64):
        events = send(connection, frame(REQUEST, 1 + 2 * number), frame(CANCEL, 1 + 2 * number))
        assert [type(event) for event in events] == [RequestReceived, CancelReceived]
    assert connection.open_streams == 64
    assert sent(connection) == []
    assert send(connection, frame(REQUEST, 201), frame(CANCEL, 201)) == []
    (refused,) = sent(connection)
    assert (refused.type, refused.stream, refused.map["code"]) == (ERROR, 201, 3007)
    connection.fail(1, failure(3006, outcome="unknown"))
    assert [type(event) for event in send(connection, frame(REQUEST, 203))] == [RequestReceived]


def test_a_peer_that_is_told_learns_that_it_is_to_go() -> None:
    pair = shaken()
    for _ in range(1001):
        pair.dialer.ping(bytes(8))
    events, _ = pair.run()
    assert [event.goaway.code for event in events if isinstance(event, GoawayReceived)] == [3008]


# -- an honest peer -------------------------------------------------------------------------------------------------


def _left(pair: Pair) -> float:
    return min(connection._streams._bucket.left(pair.now) for connection in (pair.dialer, pair.acceptor))


def test_credit_of_an_honest_receiver_is_never_a_flood_even_beyond_its_budget() -> None:
    """Unread ITEMs leave little of the window, whose credit is small then: it is paced."""
    process = Budget(limit=100 * KIB)
    pair = Pair(dialer={"process": process, "limits": WINDOWS}, acceptor={})
    pair.run()
    slow = [pair.dialer.request("s", "m", b"") for _ in range(4)]
    fast = pair.dialer.request("s", "m", b"")
    pair.run()
    for stream in slow:
        for _ in range(60):
            pair.acceptor.send_item(stream, bytes(1000))
    pair.run()
    inflow = pair.dialer._inflow
    withheld = inflow._withheld
    assert withheld > 130 * KIB, "over half of the window is not given back"
    received = 0
    for _ in range(3000):
        pair.now += 0.001
        pair.acceptor.send_item(fast, bytes(20 * KIB))
        pair.dialer.tick(pair.now)
        events, _ = pair.run()
        for event in events:
            if isinstance(event, ItemReceived):
                assert isinstance(event.payload, bytes)
                received += len(event.payload)
                pair.dialer.take_item(event.stream, now=pair.now)
    assert received > 3 * 1024 * KIB, "and the fast stream goes on"
    assert inflow._withheld >= withheld
    assert _left(pair) > 900


def test_credit_that_is_paced_leaves_in_time() -> None:
    process = Budget(limit=0)
    pair = Pair(dialer={"process": process, "limits": WINDOWS, "ping_interval_ms": 0}, acceptor={"ping_interval_ms": 0})
    pair.run()
    pair.dialer.ledger.charged = HELD_MIN  # what a connection may hold whatever others do is used up
    streams = [pair.dialer.request("s", "m", b"") for _ in range(5)]
    pair.run()
    for stream in streams[:4]:
        pair.acceptor.send_item(stream, bytes(56 * KIB))
    pair.run()
    times = []
    inflow = pair.dialer._inflow
    for _ in range(3):
        pair.acceptor.send_item(streams[4], bytes(16 * KIB))
        pair.run()
        window = inflow._window
        pair.dialer.take_item(streams[4], now=pair.now)
        if pair.dialer.unfinished:
            pair.now = pair.dialer.next_tick()
            assert pair.dialer.tick(pair.now - 0.001) == []
            assert inflow._window == window
            pair.dialer.tick(pair.now)
        assert inflow._window > window
        times.append(pair.now)
        assert not pair.dialer.unfinished
    assert times == [0.0, 0.02, 0.04]


def test_a_bucket_gives_back_with_time_and_never_more_than_it_holds() -> None:
    bucket = Bucket(2, 10, 5.0)
    bucket.spend(5.0)
    bucket.spend(5.0)
    with pytest.raises(FloodError):
        bucket.spend(5.09)
    bucket.spend(5.125)
    assert bucket.left(100.0) == 2

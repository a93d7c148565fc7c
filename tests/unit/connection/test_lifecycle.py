"""How a connection lives and ends: PING, silence, GOAWAY, half a frame, no more input (protocol, sections 3 and 8)."""

from __future__ import annotations

import gc
import weakref

import msgspec
import pytest

from haptera.connection import Connection, Role
from haptera.connection.events import (
    Closed,
    ErrorReceived,
    GoawayReceived,
    PongReceived,
    RequestReceived,
    ResponseReceived,
)
from haptera.connection.stream_law import ConnectionState
from haptera.errors import LocalProtocolError, RemoteProtocolError
from tests.unit.connection.machines import (
    ERROR,
    GOAWAY,
    PING,
    PONG,
    REQUEST,
    connection_error,
    drain,
    error,
    frame,
    hello,
    machine,
    open_machine,
    parse,
    send,
    sent,
    shaken,
)


def _goaway(last_stream: int) -> bytes:
    fields = {"code": 1014, "name": "GOING_AWAY", "message": "", "last_stream": last_stream}
    return frame(GOAWAY, payload=msgspec.msgpack.encode(fields))


# -- PING and silence --------------------------------------------------------------------------------------------


def test_a_ping_comes_back_with_its_bytes() -> None:
    pair = shaken()
    pair.dialer.ping(b"12345678")
    ours, theirs = pair.run()
    assert (ours, theirs) == ([PongReceived(b"12345678")], [])


@pytest.mark.parametrize("role", list(Role))
def test_silence_is_met_with_a_ping_and_then_with_1015(role: Role) -> None:
    connection = open_machine(role)
    assert connection.next_tick() == 30.0
    assert connection.tick(29.9) == []
    assert sent(connection) == []
    assert connection.tick(30.0) == []
    assert [each.type for each in sent(connection)] == [PING]
    assert connection.next_tick() == 60.0
    assert connection.tick(59.9) == []
    assert sent(connection) == [], "one is enough"
    assert connection_error(connection, connection.tick(60.0))[0] == 1015


def test_anything_received_breaks_the_silence() -> None:
    connection = open_machine(Role.ACCEPTOR)
    connection.tick(30.0)
    (ping,) = sent(connection)
    send(connection, frame(PONG, payload=ping.payload), now=40.0)
    assert connection.next_tick() == 70.0
    send(connection, frame(0xF0), now=50.0)
    assert connection.next_tick() == 80.0
    assert connection.tick(79.0) == []
    assert sent(connection) == []


def test_a_ping_sent_at_time_0_is_remembered() -> None:
    connection = machine(Role.ACCEPTOR, now=-30.0)
    send(connection, hello(), now=-30.0)
    sent(connection)
    connection.tick(0.0)
    assert connection.next_tick() == 30.0


def test_an_interval_of_0_allows_silence_for_ever() -> None:
    connection = open_machine(Role.ACCEPTOR, ping_interval_ms=0)
    assert connection.next_tick() == float("inf")
    assert connection.tick(10**9) == []
    assert connection.state is ConnectionState.OPEN


# -- half a frame ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 27, 28, 30, 1000])
def test_half_a_frame_and_then_nothing_ends_the_connection(size: int) -> None:
    connection = open_machine(Role.ACCEPTOR, ping_interval_ms=0)
    data = frame(REQUEST, 1, bytes(32 * 1024))
    wanted = 28 if size < 28 else len(data)
    assert send(connection, data[:size], now=100.0) == []
    assert connection.unfinished
    due = 100.0 + 10.0 + wanted / (64 * 1024)
    assert connection.next_tick() == due
    assert connection.tick(due - 0.001) == []
    assert connection_error(connection, connection.tick(due))[0] == 1015


def test_a_frame_that_trickles_in_does_not_get_more_time_by_it() -> None:
    connection = open_machine(Role.ACCEPTOR, ping_interval_ms=0)
    data = frame(REQUEST, 1, bytes(1000))
    for number in range(100):
        send(connection, data[number : number + 1], now=100.0 + number / 10)
    assert connection.next_tick() < 110.1
    assert connection_error(connection, connection.tick(111.0))[0] == 1015


def test_each_frame_has_its_own_time() -> None:
    connection = open_machine(Role.ACCEPTOR, ping_interval_ms=0)
    data = frame(PING, payload=bytes(8))
    for number in range(100):
        send(connection, data[20:] + data[:20] if number else data[:20], now=100.0 + number * 9)
        assert connection.tick(100.0 + number * 9 + 8.9) == []
    assert connection.state is ConnectionState.OPEN


# -- the end of the input ----------------------------------------------------------------------------------------


def test_the_end_between_frames_is_orderly() -> None:
    connection = open_machine(Role.ACCEPTOR)
    send(connection, frame(REQUEST, 1))
    assert connection.receive_eof() == [Closed(None)]
    assert connection.receive_eof() == []
    assert connection.open_streams == 0
    assert connection.next_tick() == float("inf")


@pytest.mark.parametrize("role", list(Role))
def test_the_end_within_a_frame_or_the_handshake_is_not(role: Role) -> None:
    opened = open_machine(role)
    send(opened, frame(PING, payload=bytes(8))[:-1])
    greeted = machine(role)
    send(greeted, hello()[:-1])
    for connection in (opened, greeted):
        (closed,) = connection.receive_eof()
        assert isinstance(closed, Closed)
        assert isinstance(closed.error, RemoteProtocolError)
        assert closed.error.code == 1002


def test_who_looks_whether_somebody_listens_does_nothing_wrong() -> None:
    assert machine(Role.ACCEPTOR).receive_eof() == [Closed(None)]
    (closed,) = machine(Role.DIALER).receive_eof()  # but a dialer that is left without an answer is told so
    assert isinstance(closed, Closed)
    assert closed.error is not None
    assert closed.error.message == "the connection ended before HELLO was answered"


def test_the_end_comes_once_whatever_follows() -> None:
    connection = open_machine(Role.ACCEPTOR)
    events = send(connection, b"rubbish")
    assert [type(event) for event in events] == [Closed]
    assert connection.receive_eof() == []
    assert connection.tick(1000.0) == []
    assert connection.fail_connection(RemoteProtocolError(3009)) == []
    assert [each.type for each in sent(connection)] == [ERROR]
    connection.close()
    assert not connection.data_to_send(1)


def test_closing_forgets_streams_and_refuses_commands() -> None:
    connection = open_machine(Role.DIALER)
    stream = connection.request("s", "m", b"", streaming=True)
    connection.close()
    assert connection.open_streams == 0
    for command in (
        lambda: connection.request("s", "m", b""),
        lambda: connection.send_item(stream, b""),
        lambda: connection.finish(stream),
        lambda: connection.ping(bytes(8)),
    ):
        with pytest.raises(LocalProtocolError):
            command()
    connection.cancel(stream)
    connection.respond(2, b"")
    connection.go_away(1014)
    assert connection.tick(100.0) == []


def test_what_was_answered_leaves_before_the_error_that_ends_the_connection() -> None:
    connection = open_machine(Role.ACCEPTOR)
    send(connection, *(frame(REQUEST, 1 + 2 * number) for number in range(100)))
    for number in range(100):
        connection.respond(1 + 2 * number, bytes(1000))
    send(connection, b"rubbish")
    seen = parse(connection.data_to_send(10))
    assert [each.stream for each in seen] == [1 + 2 * number for number in range(100)] + [0]
    assert seen[-1].type == ERROR


def test_the_owner_may_find_fault_too() -> None:
    connection = open_machine(Role.ACCEPTOR)
    events = connection.fail_connection(RemoteProtocolError(3009))
    assert connection_error(connection, events)[0] == 3009


def test_the_peer_s_connection_error_is_ours_to_answer_for() -> None:
    connection = open_machine(Role.DIALER)
    connection.request("s", "m", b"")
    (closed,) = send(connection, error(1008, message="why", details={"reason": "x"}))
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, LocalProtocolError)
    assert (closed.error.code, closed.error.message) == (1008, "why")
    assert closed.failure is not None
    assert closed.failure.details == {"reason": "x"}


# -- GOAWAY ------------------------------------------------------------------------------------------------------


def test_goaway_names_the_last_stream_that_is_answered() -> None:
    pair = shaken()
    first = pair.dialer.request("s", "m", b"")
    pair.run()
    pair.acceptor.go_away(1014)
    late = pair.dialer.request("s", "m", b"")  # crosses GOAWAY on its way
    ours, theirs = pair.run()
    assert isinstance(ours[0], GoawayReceived)
    assert (ours[0].goaway.code, ours[0].goaway.name, ours[0].goaway.last_stream) == (1014, "GOING_AWAY", first)
    assert isinstance(ours[1], ErrorReceived)
    assert (ours[1].stream, ours[1].failure.code, ours[1].failure.outcome) == (late, 1014, "not_applied")
    assert theirs == []
    pair.acceptor.respond(first, b"")
    ours, _ = pair.run()
    assert isinstance(ours[0], ResponseReceived)
    assert pair.dialer.open_streams == pair.acceptor.open_streams == 0


def test_behind_goaway_neither_side_opens_streams() -> None:
    pair = shaken()
    pair.acceptor.go_away(1014)
    pair.run()
    for connection in (pair.acceptor, pair.dialer):
        assert connection.going_away
        assert not connection.can_request(0)
        with pytest.raises(LocalProtocolError) as caught:
            connection.request("s", "m", b"")
        assert caught.value.code == 1014


def test_goaway_ends_nothing_that_is_under_way_not_even_a_message() -> None:
    connection = open_machine(Role.ACCEPTOR)
    send(connection, frame(REQUEST, 1, bytes(2000), flags=0x01))
    connection.go_away(1014)
    assert [each.map["last_stream"] for each in sent(connection)] == [1]
    (event,) = send(connection, frame(REQUEST, 1, b"rest", flags=0x10))
    assert isinstance(event, RequestReceived)


def test_a_later_goaway_may_only_lower_its_last_stream() -> None:
    connection = open_machine(Role.DIALER)
    assert len(send(connection, _goaway(9), _goaway(9), _goaway(5))) == 3
    assert connection_error(connection, send(connection, _goaway(6)))[0] == 1008


def test_our_own_later_goaway_repeats_the_first() -> None:
    connection = open_machine(Role.ACCEPTOR)
    send(connection, frame(REQUEST, 1))
    connection.go_away(1014)
    send(connection, frame(REQUEST, 3))
    connection.go_away(5005)
    goaways = [each.map for each in sent(connection) if each.type == GOAWAY]
    assert [(each["code"], each["last_stream"]) for each in goaways] == [(1014, 1), (5005, 1)]


def test_a_malformed_goaway_ends_the_connection() -> None:
    connection = open_machine(Role.ACCEPTOR)
    assert connection_error(connection, send(connection, frame(GOAWAY, payload=b"\x80")))[0] == 1002


def test_before_the_handshake_there_is_no_going_away() -> None:
    connection = machine(Role.DIALER)
    drain(connection)
    connection.go_away(1014)
    assert sent(connection) == []


def test_a_connection_that_failed_is_freed_though_its_events_are_kept_where_they_were_given() -> None:
    def fail() -> weakref.ref[Connection]:
        connection = machine(Role.ACCEPTOR)
        events = connection.receive_data(b"rubbish", 0.0)
        assert len(events) == 1
        return weakref.ref(connection)

    left = fail()
    gc.collect()
    assert left() is None

"""What waits to be sent is bounded: by the connection's room for producers, and by the process's budget (section 3)."""

from __future__ import annotations

import pytest

from haptera.connection import Connection, Role
from haptera.connection.config import PRODUCED_MAX, TURN_SIZE, Budget
from haptera.connection.events import ErrorReceived
from haptera.errors import LocalProtocolError, failure
from tests.unit.connection.machines import (
    CANCEL,
    ERROR,
    PING,
    REQUEST,
    RESPONSE,
    credit,
    frame,
    hello,
    machine,
    send,
    sent,
    serving,
    shaken,
)

KIB = 1024
MIB = 1024 * KIB


def _grant(connection: Connection, *streams: int) -> None:
    """Give these streams, and the connection, credit without end."""
    send(connection, credit(0, 2**30), *(credit(stream, 2**30) for stream in streams))


def test_producers_wait_while_much_waits_for_the_socket() -> None:
    connection = serving(4)
    _grant(connection, 1, 3, 5, 7)
    assert connection.ask_room(1)
    assert not connection.send_item(1, bytes(8 * MIB))
    assert not connection.ask_room(3)
    assert not connection.ask_room(5)
    assert connection.take_writable() == []
    while connection.outbox.size >= PRODUCED_MAX:
        assert connection.take_writable() == []
        connection.data_to_send(1)
    assert connection.take_writable() == [3, 5]
    assert connection.ask_room(7)


def test_one_that_goes_on_may_fill_the_room_again() -> None:
    connection = serving(3)
    _grant(connection, 1, 3, 5)
    connection.send_item(1, bytes(2 * MIB))
    assert not connection.ask_room(3)
    assert not connection.ask_room(5)
    while not (writable := connection.take_writable()):
        connection.data_to_send(1)
    assert writable == [3, 5]
    assert not connection.send_item(3, bytes(8 * MIB))
    assert not connection.ask_room(5)


def test_what_waits_for_credit_stops_no_other_producer() -> None:
    """A slow reader of large items beside a fast one, on one connection."""
    connection = serving(2)
    send(connection, credit(0, 2**30))
    assert not connection.send_item(1, bytes(8 * MIB))
    assert sum(len(each.payload) for each in sent(connection)) < 300 * KIB  # its window
    assert connection.outbox.size > 7 * MIB
    assert connection.ask_room(3)


def test_what_waits_for_credit_is_bounded_for_a_connection() -> None:
    limit = 64 * MIB
    connection = serving(100, budget=limit)
    made = 0
    for stream in range(1, 201, 2):
        if connection.ask_room(stream):
            connection.send_item(stream, bytes(8 * MIB))
            made += 1
        sent(connection)
    assert limit <= connection.outbox.size < limit + 8 * MIB
    assert made == 9
    # One of them is no longer wanted: the next may make its own.
    send(connection, frame(CANCEL, 1))
    connection.fail(1, failure(3006, outcome="not_applied"))
    sent(connection)
    assert len(connection.take_writable()) > 0


def test_all_that_waits_is_charged_to_the_process() -> None:
    process = Budget(limit=20 * MIB)
    first, second = (_with(process) for _ in range(2))
    for connection in (first, second):
        connection.send_item(1, bytes(8 * MIB))
    assert process.used >= 16 * MIB
    first.respond(3, bytes(4 * MIB))
    assert process.used >= process.limit
    assert second.outbox.over_budget
    for command in (second.ask_room, lambda stream: second.send_item(stream, b"")):
        with pytest.raises(LocalProtocolError) as refused:
            command(3)
        assert refused.value.code == 3007
    second.respond(5, bytes(65 * KIB))
    # And so is what comes in.
    send(second, frame(REQUEST, 99, payload=b"x"))
    errors = {each.stream: each for each in sent(second) if each.type == ERROR}
    assert {stream: (each.map["code"], each.map["outcome"]) for stream, each in errors.items()} == {
        5: (3007, "unknown"),
        99: (3007, "not_applied"),
    }
    # One that holds little is served as ever: those who fill the budget keep nobody out.
    third = _with(process)
    assert len(send(third, frame(REQUEST, 99, payload=bytes(KIB)))) == 1
    assert third.send_item(1, bytes(KIB))
    third.respond(99, bytes(60 * KIB))
    assert RESPONSE in [each.type for each in sent(third)]
    with pytest.raises(LocalProtocolError):
        third.send_item(3, bytes(65 * KIB))
    third.close()
    first.close()
    assert 8 * MIB <= process.used < 9 * MIB
    assert second.ask_room(3)
    second.close()
    assert process.used == 0


def test_small_answers_and_what_the_transport_holds_are_charged_when_it_is_settled() -> None:
    process = Budget()
    connection = _with(process)
    for stream in (1, 3, 5):
        connection.respond(stream, bytes(1000))
    connection.outbox.settle(unsent=500)
    assert connection.outbox.size > 3000
    assert process.used == connection.ledger.held + connection.outbox.size + 500
    sent(connection)
    connection.outbox.settle()
    assert process.used == connection.ledger.held


def test_frames_that_a_peer_causes_and_does_not_read_are_charged() -> None:
    process = Budget()
    connection = _with(process)
    send(connection, *(frame(PING, payload=bytes(8)) for _ in range(10)))
    connection.outbox.settle()
    assert process.used == connection.ledger.held + connection.outbox.control_size
    assert connection.outbox.control_size >= 10 * 36
    sent(connection)
    connection.outbox.settle()
    assert process.used == connection.ledger.held


def _with(process: Budget) -> Connection:
    connection = machine(Role.ACCEPTOR, process=process)
    send(connection, hello())
    sent(connection)
    send(connection, *(frame(REQUEST, 1 + 2 * number) for number in range(10)))
    return connection


def test_a_closed_connection_keeps_nothing_of_what_was_queued() -> None:
    connection = serving(3)
    connection.send_item(1, bytes(8 * MIB))
    connection.respond(3, bytes(4 * MIB))
    connection.respond(5, bytes(1000))
    streams = list(connection._streams.serves.values())
    connection.close()
    assert connection.outbox.size == 0
    assert not connection.outbox.pending
    assert not connection.data_to_send(TURN_SIZE)
    assert all(stream.id not in connection._streams.serves for stream in streams)


def test_a_call_whose_items_the_other_side_has_no_memory_for_is_told() -> None:
    pair = shaken()
    stream = pair.dialer.request("s", "m", b"", streaming=True)
    pair.run()
    pair.dialer.ledger.process.used = pair.dialer.ledger.process.limit
    with pytest.raises(LocalProtocolError):
        pair.dialer.send_item(stream, bytes(65 * KIB))
    pair.dialer.ledger.process.used = 0
    assert pair.dialer.send_item(stream, b"x")
    assert not any(isinstance(event, ErrorReceived) for event in pair.run()[0])


def test_an_item_that_may_be_left_out_is_sent_only_where_there_is_room() -> None:
    process = Budget(limit=20 * MIB)
    connection = _with(process)
    _grant(connection, 1, 3)
    assert connection.try_item(1, bytes(KIB))
    assert not connection.try_item(1, bytes(KIB)), "one of this stream waits"
    sent(connection)
    assert connection.try_item(1, bytes(KIB))
    connection.send_item(3, bytes(2 * MIB))
    assert not connection.try_item(5, bytes(KIB)), "much waits for the socket"
    sent(connection)
    connection.outbox.settle()
    process.used += process.limit
    assert not connection.try_item(5, bytes(65 * KIB)), "the memory of the process is used up"
    assert connection.try_item(5, bytes(KIB))

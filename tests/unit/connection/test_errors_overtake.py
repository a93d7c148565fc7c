"""An ERROR waits for no credit: ITEMs of its stream that have not left are dropped (section 3, "Flow control")."""

from __future__ import annotations

from typing import Final

import pytest

from haptera.connection import Connection, Role
from haptera.connection.config import Budget
from haptera.connection.events import ErrorReceived, ItemReceived, ResponseReceived
from haptera.connection.stream_law import ConnectionState
from haptera.errors import failure
from haptera.wire import encode_payload
from tests.unit.connection.machines import (
    CANCEL,
    CONTINUED,
    CREDIT,
    ERROR,
    FINISH,
    ITEM,
    MORE,
    REQUEST,
    STREAMING,
    Seen,
    credit,
    damaged,
    frame,
    hello,
    machine,
    open_machine,
    send,
    sent,
    serving,
    shaken,
)

KIB = 1024
WINDOW = 256 * KIB
TINY = {"stream_window": 16 * KIB, "connection_window": 64 * KIB}


def _starved(*, process: Budget | None = None) -> Connection:
    """An acceptor whose answer on stream 1 has used up its window, in the middle of an ITEM, and has more to send."""
    connection = machine(Role.ACCEPTOR, process=process)
    send(connection, hello(), frame(REQUEST, 1), credit(0, 2**30))
    connection.send_item(1, bytes(WINDOW))
    for _ in range(20):
        connection.send_item(1, bytes(10 * KIB))
    assert sent(connection)[-1].flags & MORE, "the ITEM has begun and is not whole"
    return connection


def _ended(frames: list[Seen]) -> list[tuple[int, int]]:
    assert [each.type for each in frames] == [ERROR], "nothing but the ERROR leaves"
    return [(each.stream, each.map["code"]) for each in frames]


@pytest.mark.parametrize("code", [3005, 3006, 3010, 4009])
def test_an_error_leaves_at_once_though_the_items_before_it_wait_for_credit(code: int) -> None:
    """Trap: waiting behind what waits."""
    connection = _starved()
    connection.fail(1, failure(code))
    assert _ended(sent(connection)) == [(1, code)]
    assert connection.open_streams == 0


@pytest.mark.parametrize("size", [100, 100 * KIB])
def test_an_error_of_any_size_overtakes_what_waits_for_the_connection_s_window(size: int) -> None:
    """Trap: waiting behind what waits. One stream has used up the window that all of them share."""
    pair = shaken(limits=dict(TINY))
    greedy = [pair.dialer.request("s", "m", b"") for _ in range(5)]
    pair.run()
    for stream in greedy:
        for _ in range(100):
            pair.acceptor.send_item(stream, bytes(4 * KIB))
    pair.run()
    waiting = pair.acceptor.outbox.size
    pair.acceptor.fail(greedy[2], failure(4009, {"revision": 7, "text": "x" * size}))
    ours, _ = pair.run()
    ends = [event for event in ours if not isinstance(event, ItemReceived)]
    assert [(type(event), event.failure.code) for event in ends if isinstance(event, ErrorReceived)] == [
        (ErrorReceived, 4009)
    ]
    assert len(ends) == 1
    assert pair.acceptor.outbox.size < waiting
    assert pair.dialer.open_streams == pair.acceptor.open_streams == 4


def test_an_error_cuts_an_unfinished_item_short_at_its_receiver_too() -> None:
    """Trap: waiting behind what waits. The half of an ITEM that came is given back, and never handed over."""
    pair = shaken(limits=dict(TINY))
    stream = pair.dialer.request("s", "m", b"")
    pair.run()
    pair.acceptor.send_item(stream, b"first")
    pair.acceptor.send_item(stream, bytes(100 * KIB))
    ours, _ = pair.run()
    assert [event.payload for event in ours if isinstance(event, ItemReceived)] == [b"first"]
    pair.acceptor.fail(stream, failure(3005))
    ours, _ = pair.run()
    assert [type(event) for event in ours] == [ErrorReceived]
    assert pair.dialer.ledger.held == 0
    # And the connection goes on, with its whole window.
    again = pair.dialer.request("s", "m", b"")
    pair.run()
    pair.acceptor.send_item(again, bytes(15 * KIB))
    pair.acceptor.respond(again, b"")
    ours, _ = pair.run()
    assert [type(event) for event in ours] == [ItemReceived, ResponseReceived]


def test_an_item_that_is_cut_short_by_an_error_of_several_frames_is_charged_no_longer() -> None:
    """Trap: dropped items that stay charged. The error may come slowly, and an ITEM before it is unread."""
    connection = open_machine(Role.DIALER)
    stream = connection.request("s", "m", b"")
    sent(connection)
    error = encode_payload(failure(4009, {"text": "x" * 4 * KIB}))
    send(connection, frame(ITEM, stream, b"unread"), frame(ITEM, stream, bytes(8 * KIB), flags=MORE))
    assert connection.ledger.held > 8 * KIB
    connection.check()
    send(connection, frame(ERROR, stream, error[: 2 * KIB], flags=MORE))
    assert connection.ledger.held < 3 * KIB
    connection.check()
    (event,) = send(connection, frame(ERROR, stream, error[2 * KIB :], flags=CONTINUED))
    assert isinstance(event, ErrorReceived)
    assert event.failure.code == 4009
    assert connection.ledger.held == 0
    connection.check()


def test_items_that_an_error_drops_are_charged_no_longer() -> None:
    """Trap: dropped items that stay charged. Neither the process's budget nor the connection's room keeps them."""
    process = Budget()
    connection = _starved(process=process)
    before = process.used
    connection.outbox.settle()
    assert process.used >= 200 * KIB
    assert process.used <= before
    connection.fail(1, failure(3005))
    # At once, not when the connection next writes: others ask meanwhile.
    assert process.used < KIB
    sent(connection)
    connection.outbox.settle()
    assert (process.used, connection.ledger.charged, connection.outbox.size) == (0, 0, 0)
    assert connection.outbox.has_room


def test_dropped_items_give_their_room_to_others() -> None:
    """Trap: dropped items that stay charged."""
    connection = serving(3, budget=1024 * KIB)
    send(connection, credit(0, 2**30))
    connection.send_item(1, bytes(2048 * KIB))
    sent(connection)
    assert not connection.ask_room(3)
    connection.fail(1, failure(3005))
    sent(connection)
    assert connection.take_writable() == [3]
    assert connection.ask_room(5)


def test_dropping_leaves_the_accounts_of_what_waits_for_credit_whole() -> None:
    """Trap: dropped items that stay charged: as bytes that are stuck, or in the list of who waits for credit."""
    connection = serving(2)
    send(connection, credit(1, 2**30))
    connection.send_item(1, bytes(1100 * KIB))  # uses up the connection's window
    connection.send_item(3, bytes(600 * KIB))
    sent(connection)
    connection.fail(1, failure(3005))
    connection.fail(3, failure(3005))
    assert {stream for stream, _ in [(each.stream, each.type) for each in sent(connection)]} == {1, 3}
    send(connection, frame(REQUEST, 5), credit(0, 2**30))
    assert sent(connection) == [], "no frame of a stream that has ended"
    connection.send_item(5, bytes(100 * KIB))
    assert sum(len(each.payload) for each in sent(connection) if each.type == ITEM) == 100 * KIB
    assert connection.outbox.turns.stuck == connection.outbox.turns.queued == 0


def test_a_response_still_waits_behind_its_items() -> None:
    connection = _starved()
    connection.respond(1, b"done")
    assert sent(connection) == []
    send(connection, credit(1, 2**30))
    frames = sent(connection)
    assert [each.type for each in frames[-2:]] == [ITEM, 0x12]
    assert sum(len(each.payload) for each in frames if each.type == ITEM) > 200 * KIB


_LATE: Final = {
    "damaged cancel": damaged(CANCEL, 1),
    "cancel": frame(CANCEL, 1),
    "finish": frame(FINISH, 1),
    "damaged finish": damaged(FINISH, 1),
    "item": frame(ITEM, 1, b"x"),
    "damaged item": damaged(ITEM, 1, b"x"),
    "credit of 0": credit(1, 0),
    "damaged credit": damaged(CREDIT, 1, b"\0\x10\0\0"),
    "credit of three bytes": frame(CREDIT, 1, b"\x10\0\0"),
    "credit in fragments": frame(CREDIT, 1, b"\0\x10\0\0", flags=MORE),
    "credit with an unknown critical flag": frame(CREDIT, 1, b"\0\x10\0\0", flags=0x20),
    "credit with an unknown critical tag": frame(CREDIT, 1, b"\0\x10\0\0", metadata=b"\x90\0"),
}


@pytest.mark.parametrize("late", _LATE.values(), ids=_LATE.keys())
def test_a_stream_whose_answer_is_decided_has_ended_for_its_responder(late: bytes) -> None:
    """Section 3: a stream has ended when its RESPONSE is decided, though that waits for credit behind its ITEMs."""
    connection = machine(Role.ACCEPTOR)
    send(connection, hello(), frame(REQUEST, 1, flags=STREAMING), frame(FINISH, 1))
    connection.send_item(1, bytes(WINDOW))
    connection.respond(1, b"done")
    sent(connection)
    send(connection, credit(0, 1024 * KIB))
    assert send(connection, late) == []
    assert connection.state is ConnectionState.OPEN
    assert [each for each in sent(connection) if each.type != CREDIT] == []
    send(connection, credit(1, 1024 * KIB))
    assert [each.type for each in sent(connection)][-1] == 0x12

"""Messages of several frames, their limits and their time (protocol, section 2)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from haptera.connection import Connection, Role
from haptera.connection.events import (
    CallFailed,
    CancelReceived,
    ErrorReceived,
    Event,
    ItemReceived,
    RequestAborted,
    RequestReceived,
    ResponseReceived,
)
from haptera.connection.stream_law import ConnectionState
from haptera.errors import LocalProtocolError, failure
from tests.unit.connection.machines import (
    CANCEL,
    CONTINUED,
    ERROR,
    ITEM,
    MORE,
    PING,
    PONG,
    REQUEST,
    RESPONSE,
    ROUTE,
    STREAMING,
    connection_error,
    credit,
    frame,
    open_machine,
    send,
    sent,
    shaken,
)

KIB = 1024
SMALL = {"max_message": 64 * KIB, "max_frame": 16 * KIB}


def _fragments(type_: int, stream: int, pieces: list[bytes], flags: int = 0) -> list[bytes]:
    last = len(pieces) - 1
    return [
        frame(type_, stream, piece, flags=(CONTINUED if number else flags) | (MORE if number < last else 0))
        for number, piece in enumerate(pieces)
    ]


def _goes_on(connection: Connection) -> None:
    assert connection.state is ConnectionState.OPEN
    assert send(connection, frame(PING, payload=bytes(8))) == []
    assert [each.type for each in sent(connection)] == [PONG]


# -- putting together --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [REQUEST, ITEM, RESPONSE])
def test_fragments_make_one_message(type_: int) -> None:
    connection = open_machine(Role.ACCEPTOR)
    stream = 1
    if type_ == ITEM:
        send(connection, frame(REQUEST, stream, flags=STREAMING))
    elif type_ == RESPONSE:
        stream = connection.request("s", "m", b"")
    pieces = [b"a" * 2000, b"b" * 1024, b"c" * 5000, b""]
    (event,) = send(connection, *_fragments(type_, stream, pieces))
    assert isinstance(event, RequestReceived | ItemReceived | ResponseReceived)
    assert event.payload == b"".join(pieces)


def test_fragments_of_several_streams_may_alternate() -> None:
    connection = open_machine(Role.ACCEPTOR)
    pieces = {stream: [bytes([stream]) * 1500] * 4 for stream in (1, 3, 5)}
    rows = zip(*(_fragments(REQUEST, stream, each) for stream, each in pieces.items()), strict=True)
    events = send(connection, *(each for row in rows for each in row))
    assert [event.payload for event in events if isinstance(event, RequestReceived)] == [
        b"".join(each) for each in pieces.values()
    ]


def test_between_fragments_come_cancel_and_credit_of_the_same_stream_and_anything_of_others() -> None:
    connection = open_machine(Role.ACCEPTOR)
    send(connection, frame(REQUEST, 1, flags=STREAMING))
    first, last = _fragments(ITEM, 1, [bytes(1024), b"end"])
    events = send(connection, first, credit(1, 10), frame(CANCEL, 1), frame(PING, payload=bytes(8)), last)
    assert [type(event) for event in events] == [CancelReceived, ItemReceived]


@pytest.mark.parametrize("type_", [REQUEST, ITEM, RESPONSE, ERROR])
@pytest.mark.parametrize("size", [0, 1, 1023])
@pytest.mark.parametrize("part", [MORE, MORE | CONTINUED])
def test_a_frame_with_more_to_come_has_at_least_1_kib(type_: int, size: int, part: int) -> None:
    connection = open_machine(Role.ACCEPTOR)
    stream = 1
    if type_ == ITEM:
        send(connection, frame(REQUEST, stream, flags=STREAMING))
    elif type_ != REQUEST:
        stream = connection.request("s", "m", b"")
    if part & CONTINUED:
        send(connection, frame(type_, stream, bytes(1024), flags=MORE))
    sent(connection)
    data = frame(type_, stream, bytes(size), flags=part)
    code, details = connection_error(connection, send(connection, data))
    assert (code, details["actual"]) == (1002, size)


def test_entries_stand_on_the_first_frame_and_hold_for_the_message() -> None:
    connection = open_machine(Role.ACCEPTOR)
    entry = b"\x01\x10" + b"i" * 16
    first = frame(REQUEST, 1, bytes(1024), flags=MORE, metadata=ROUTE + entry)
    (event,) = send(connection, first, frame(REQUEST, 1, b"end", flags=CONTINUED))
    assert isinstance(event, RequestReceived)
    assert (event.entries, event.request_id) == ({}, b"i" * 16)


def test_the_answer_always_echoes_the_request_id() -> None:
    answers: list[Callable[[Connection], None]] = [
        lambda connection: connection.respond(1, b"", b"\x0b\x08" + bytes(8)),
        lambda connection: connection.fail(1, failure(4001)),
        lambda connection: connection.respond(1, bytes(100_000)),
        lambda connection: connection.fail(1, failure(4001), b"\x09\x00"),
    ]
    for answer in answers:
        connection = open_machine(Role.ACCEPTOR)
        send(connection, frame(REQUEST, 1, metadata=ROUTE + b"\x01\x10" + b"i" * 16))
        answer(connection)
        assert sent(connection)[0].metadata.startswith(b"\x01\x10" + b"i" * 16)


@pytest.mark.parametrize("limits", [{"max_streams": 64}, None])
def test_a_refusal_echoes_the_request_id(limits: dict[str, int] | None) -> None:
    connection = open_machine(Role.ACCEPTOR, limits=limits or {})
    if limits:
        send(connection, *(frame(REQUEST, 1 + 2 * number) for number in range(64)))
    else:
        connection.go_away(1014)
        sent(connection)
    send(connection, frame(REQUEST, 999, metadata=ROUTE + b"\x01\x10" + b"i" * 16))
    (refusal,) = sent(connection)
    assert refusal.metadata == b"\x01\x10" + b"i" * 16
    assert refusal.map["code"] == (3007 if limits else 1014)
    assert refusal.map["outcome"] == "not_applied"


# -- too large ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [0, 1])
def test_a_request_ends_with_3004_as_soon_as_max_message_is_passed(extra: int) -> None:
    """Trap: an oversized message poisons the connection."""
    connection = open_machine(Role.ACCEPTOR, limits=dict(SMALL))
    pieces = [bytes(16 * KIB)] * 4 + [bytes(1024 if extra else 0)]
    frames = _fragments(REQUEST, 1, pieces + [b"end"] * extra)
    events = send(connection, *frames[:5])
    if not extra:
        assert len(events) == 1
        return
    assert events == []
    (refusal,) = sent(connection)
    assert (refusal.type, refusal.map["code"], refusal.map["outcome"]) == (ERROR, 3004, "not_applied")
    assert connection.ledger.held == 0
    assert send(connection, *frames[5:]) == [], "the rest of it is dropped"
    assert isinstance(send(connection, frame(REQUEST, 3))[0], RequestReceived)
    _goes_on(connection)


def test_a_frame_may_be_larger_than_a_message_may() -> None:
    """Trap: an oversized message poisons the connection. Here in one frame."""
    connection = open_machine(Role.ACCEPTOR, limits={"max_message": 64 * KIB, "max_frame": 1024 * KIB})
    send(connection, frame(REQUEST, 1, bytes(64 * KIB + 1)), frame(REQUEST, 3, flags=STREAMING))
    (refusal,) = sent(connection)
    assert (refusal.stream, refusal.map["code"], refusal.map["outcome"]) == (1, 3004, "not_applied")
    (aborted,) = send(connection, frame(ITEM, 3, bytes(64 * KIB + 1)))
    assert isinstance(aborted, RequestAborted)
    assert (aborted.failure.code, aborted.failure.outcome) == (3004, "unknown"), "its handler has started"
    call = connection.request("s", "m", b"")
    (failed,) = send(connection, frame(RESPONSE, call, bytes(64 * KIB + 1)))
    assert isinstance(failed, CallFailed)
    assert failed.failure.code == 3004
    sent(connection)
    _goes_on(connection)


@pytest.mark.parametrize("extra", [0, 1])
def test_an_item_may_be_as_large_as_a_message_may(extra: int) -> None:
    connection = open_machine(Role.ACCEPTOR, limits={"max_message": 64 * KIB, "max_frame": 1024 * KIB})
    send(connection, frame(REQUEST, 1, flags=STREAMING))
    (event,) = send(connection, frame(ITEM, 1, bytes(64 * KIB + extra)))
    assert isinstance(event, RequestAborted if extra else ItemReceived)


@pytest.mark.parametrize("type_", [ITEM, RESPONSE, ERROR])
def test_an_answer_above_max_message_fails_the_call_alone(type_: int) -> None:
    """Trap: an oversized message poisons the connection."""
    connection = open_machine(Role.DIALER, limits=dict(SMALL))
    call = connection.request("s", "m", b"")
    other = connection.request("s", "m", b"")
    sent(connection)
    events = send(connection, *_fragments(type_, call, [bytes(16 * KIB)] * 5 + [b"end"]))
    (failed,) = events
    assert isinstance(failed, CallFailed)
    assert (failed.failure.code, failed.failure.outcome) == (3004, "unknown")
    assert [each.stream for each in sent(connection) if each.type == CANCEL] == [call]
    assert send(connection, frame(RESPONSE, other, b"mine")) == [ResponseReceived(other, b"mine", {})]
    _goes_on(connection)


def test_an_item_of_a_request_above_max_message_stops_its_handler() -> None:
    connection = open_machine(Role.ACCEPTOR, limits=dict(SMALL))
    send(connection, frame(REQUEST, 1, flags=STREAMING))
    (aborted,) = send(connection, *_fragments(ITEM, 1, [bytes(16 * KIB)] * 5 + [b"end"]))
    assert isinstance(aborted, RequestAborted)
    assert (aborted.failure.code, aborted.failure.outcome) == (3004, "unknown")
    sent(connection)
    _goes_on(connection)


def test_our_own_too_large_messages_never_leave() -> None:
    connection = open_machine(Role.DIALER, peer={"max_message": 64 * KIB})
    with pytest.raises(LocalProtocolError) as caught:
        connection.request("s", "m", bytes(64 * KIB + 1))
    assert caught.value.code == 3004
    assert connection.request("s", "m", bytes(64 * KIB)) == 1


# -- in time -----------------------------------------------------------------------------------------------------


def _slow(type_: int) -> tuple[Connection, int]:
    """A machine that has the first KiB of a message on its first stream since time 10."""
    connection = open_machine(Role.ACCEPTOR, peer={}, ping_interval_ms=0)
    stream = 1
    if type_ == ITEM:
        send(connection, frame(REQUEST, stream, flags=STREAMING))
    elif type_ in {RESPONSE, ERROR}:
        stream = connection.request("s", "m", b"")
    sent(connection)
    send(connection, frame(type_, stream, bytes(32 * KIB), flags=MORE), now=10.0)
    sent(connection)
    return connection, stream


@pytest.mark.parametrize("type_", [REQUEST, ITEM, RESPONSE, ERROR])
def test_an_unfinished_message_has_60_s_and_its_length_at_64_kib_per_s(type_: int) -> None:
    connection, stream = _slow(type_)
    assert connection.unfinished
    assert connection.next_tick() == 70.5
    assert connection.tick(70.4) == []
    events = connection.tick(70.5)
    if type_ == REQUEST:
        assert events == []
        (refusal,) = sent(connection)
        assert (refusal.stream, refusal.map["code"], refusal.map["outcome"]) == (stream, 3005, "not_applied")
    else:
        (event,) = events
        assert isinstance(event, RequestAborted | CallFailed)
        assert (event.failure.code, event.failure.outcome) == (3005, "unknown")
        if type_ != ITEM:
            assert [each.type for each in sent(connection)] == [CANCEL]
    assert send(connection, frame(type_, stream, b"late", flags=CONTINUED), now=71.0) == []
    assert connection.next_tick() == float("inf")
    _goes_on(connection)


def test_a_message_that_grows_has_the_more_time() -> None:
    connection, _ = _slow(REQUEST)
    send(connection, frame(REQUEST, 1, bytes(32 * KIB), flags=MORE | CONTINUED), now=50.0)
    assert connection.tick(70.6) == []
    assert connection.next_tick() == 71.0
    assert isinstance(send(connection, frame(REQUEST, 1, b"end", flags=CONTINUED), now=70.9)[0], RequestReceived)
    assert not connection.unfinished


def test_time_without_credit_does_not_count() -> None:
    connection = open_machine(Role.ACCEPTOR, ping_interval_ms=0, limits={"stream_window": 16 * KIB})
    send(connection, frame(REQUEST, 1, flags=STREAMING), frame(ITEM, 1, bytes(8 * KIB)))
    send(connection, frame(ITEM, 1, bytes(7 * KIB), flags=MORE), now=10.0)
    assert connection.tick(1000.0) == [], "its sender has had less than a fragment's worth of credit"
    assert connection.next_tick() == float("inf")
    connection.take_item(1)
    due = 1000.0 + 60.0 + 7 / 64
    assert connection.next_tick() == due
    assert connection.tick(due - 0.001) == []
    (aborted,) = connection.tick(due)
    assert isinstance(aborted, RequestAborted)
    assert aborted.failure.code == 3005


# -- answers, and to whom they belong ----------------------------------------------------------------------------


def test_a_half_read_answer_never_leaks_into_the_next_call() -> None:
    """Trap: a half-read answer that leaks into the next call."""
    connection = open_machine(Role.DIALER)
    first = connection.request("s", "m", b"")
    send(connection, frame(RESPONSE, first, b"f" * 2000, flags=MORE))
    connection.cancel(first)
    second = connection.request("s", "m", b"")
    events: list[Event] = send(
        connection, frame(RESPONSE, second, b"second"), frame(RESPONSE, first, b"rest", flags=CONTINUED)
    )
    assert events == [ResponseReceived(second, b"second", {}), ResponseReceived(first, b"f" * 2000 + b"rest", {})]
    third = connection.request("s", "m", b"")
    send(connection, frame(RESPONSE, third, b"t" * 2000, flags=MORE, body_crc=1))
    fourth = connection.request("s", "m", b"")
    events = send(connection, frame(RESPONSE, third, b"rest", flags=CONTINUED), frame(RESPONSE, fourth, b"fourth"))
    assert events == [ResponseReceived(fourth, b"fourth", {})]


def test_ids_are_never_used_again_answered_or_not() -> None:
    """Trap: ids used again after a time-out."""
    pair = shaken()
    seen: list[int] = []
    for number in range(50):
        stream = pair.dialer.request("s", "m", b"")
        assert stream not in seen
        assert stream > max(seen, default=0)
        seen.append(stream)
        if number % 3 == 0:
            pair.dialer.cancel(stream)  # and its answer never comes
        elif number % 3 == 1:
            pair.run()
            pair.acceptor.respond(stream, b"")
        pair.run()
    assert seen == list(range(1, 100, 2))


def test_an_unanswered_stream_keeps_its_slot() -> None:
    """Trap: ids used again after a time-out. Both sides count slots alike until the answer has come."""
    connection = open_machine(Role.DIALER, peer={"max_streams": 64})
    streams = [connection.request("s", "m", b"") for _ in range(64)]
    assert not connection.can_request(0)
    connection.cancel(streams[0])
    assert not connection.can_request(0)
    (answer,) = send(connection, frame(RESPONSE, streams[0], b"late"))
    assert isinstance(answer, ResponseReceived)
    assert connection.can_request(0)


def test_answers_come_in_any_order() -> None:
    pair = shaken()
    streams = [pair.dialer.request("s", "m", str(number).encode()) for number in range(20)]
    _, theirs = pair.run()
    for event in reversed(theirs):
        assert isinstance(event, RequestReceived)
        pair.acceptor.respond(event.stream, event.payload)
    ours, _ = pair.run()
    answers = [(event.stream, event.payload) for event in ours if isinstance(event, ResponseReceived)]
    assert answers == [(stream, str(number).encode()) for number, stream in reversed(list(enumerate(streams)))]


def test_a_cancelled_request_may_still_be_answered_well() -> None:
    pair = shaken()
    stream = pair.dialer.request("s", "m", b"")
    pair.run()
    pair.dialer.cancel(stream)
    pair.acceptor.respond(stream, b"it was done already")
    ours, theirs = pair.run()
    assert ours == [ResponseReceived(stream, b"it was done already", {})]
    assert theirs == []


def test_an_error_carries_its_outcome_and_details() -> None:
    pair = shaken()
    stream = pair.dialer.request("s", "m", b"")
    pair.run()
    reason = failure(4001, {"key": "config:env"})
    pair.acceptor.fail(stream, reason, b"\x0b\x08" + bytes(7) + b"\x05")
    ours, _ = pair.run()
    assert ours == [ErrorReceived(stream, reason, {0x0B: bytes(7) + b"\x05"})]
    assert (reason.name, reason.outcome) == ("KEY_NOT_FOUND", "not_applied")

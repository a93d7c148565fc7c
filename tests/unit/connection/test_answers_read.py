"""``answered_below``: which answers to changes have been read (protocol, section 2.3)."""

from __future__ import annotations

import pytest

from haptera.connection import Connection, Role, answers_read
from haptera.connection.answers_read import TOLD_EVERY
from haptera.connection.events import CallFailed, GoawayReceived
from haptera.wire.metadata import Tag, decode_entries, route_length
from haptera.wire.payload import Limits
from tests.unit.connection.machines import (
    CANCEL,
    CONTINUED,
    ERROR,
    GOAWAY,
    ITEM,
    MORE,
    REQUEST,
    RESPONSE,
    ROUTE,
    damaged,
    frame,
    lowest_unanswered,
    open_machine,
    send,
    sent,
    shaken,
)

ID = bytes(range(16))


def change(connection: Connection) -> int:
    return connection.request("s", "m", b"", request_id=ID)


def told(connection: Connection) -> list[int | None]:
    """What each REQUEST that was sent says of the answers that have been read."""
    found: list[int | None] = []
    for seen in sent(connection):
        if seen.type == REQUEST:
            entries = decode_entries(seen.metadata, route_length(seen.metadata))
            value = entries.get(Tag.ANSWERED_BELOW)
            found.append(None if value is None else int.from_bytes(value, "big"))
    return found


def test_the_lowest_change_without_an_answer_is_what_answered_below_may_say() -> None:
    connection = open_machine(Role.DIALER)
    assert lowest_unanswered(connection) == 1
    first, second, third = (change(connection) for _ in range(3))
    send(connection, frame(RESPONSE, second))
    assert lowest_unanswered(connection) == first
    send(connection, frame(RESPONSE, first))
    assert lowest_unanswered(connection) == third
    connection.cancel(third)
    assert lowest_unanswered(connection) == third
    send(connection, frame(RESPONSE, third))
    assert lowest_unanswered(connection) == third + 2


def test_a_request_without_an_id_holds_nothing_back() -> None:
    """Trap: a bounded table for everyone that no client empties. A scan is open for hours, and changes go on."""
    connection = open_machine(Role.DIALER)
    connection.request("s", "scan", b"")
    first = change(connection)
    assert lowest_unanswered(connection) == first
    send(connection, frame(RESPONSE, first))
    assert lowest_unanswered(connection) == first + 2


def test_answers_that_were_read_are_told_with_the_next_change() -> None:
    connection = open_machine(Role.DIALER)
    for _ in range(2 * TOLD_EVERY + 1):
        stream = change(connection)
        connection.request("s", "m", b"")
        send(connection, frame(RESPONSE, stream))
    changes_alone = told(connection)[::2]
    assert changes_alone[:TOLD_EVERY] == [None] * TOLD_EVERY
    assert changes_alone[TOLD_EVERY] == 4 * TOLD_EVERY + 1
    assert changes_alone[2 * TOLD_EVERY] == 8 * TOLD_EVERY + 1


UNREADABLE = {
    "damage": lambda stream: damaged(RESPONSE, stream),
    "damage of an error": lambda stream: damaged(ERROR, stream),
    "no error map": lambda stream: frame(ERROR, stream, b"\x01"),
    "malformed metadata": lambda stream: frame(RESPONSE, stream, metadata=b"\x09\x01x"),
    "unknown critical tag": lambda stream: frame(RESPONSE, stream, metadata=b"\x90\x00"),
    "too large": lambda stream: (
        frame(RESPONSE, stream, bytes(60 * 1024), flags=MORE)
        + frame(RESPONSE, stream, bytes(8 * 1024), flags=CONTINUED)
    ),
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_an_answer_that_cannot_be_read_holds_its_change_from_the_moment_that_it_came(fault: str) -> None:
    """Trap: a change applied twice. Another change, sent before the caller hears of the damage, must not pass it."""
    limits = Limits(max_message=64 * 1024)
    connection = open_machine(Role.DIALER, limits=limits)
    first = change(connection)
    others = [change(connection) for _ in range(TOLD_EVERY)]
    faulty = UNREADABLE[fault](first)
    answers = b"".join(frame(RESPONSE, each) for each in others)
    events = send(connection, faulty, answers)
    assert [event.stream for event in events if isinstance(event, CallFailed)] == [first]
    sent(connection)
    again = change(connection)
    assert told(connection) == [first]
    send(connection, frame(RESPONSE, again))
    assert lowest_unanswered(connection) == first
    connection.release(first)
    assert lowest_unanswered(connection) == again + 2


def test_a_change_whose_stream_was_given_up_is_held_beyond_the_streams_end() -> None:
    connection = open_machine(Role.DIALER)
    first = change(connection)
    send(connection, damaged(ITEM, first))
    assert [seen.type for seen in sent(connection)] == [REQUEST, CANCEL]
    send(connection, frame(RESPONSE, first))
    assert lowest_unanswered(connection) == first
    connection.release(first)
    assert lowest_unanswered(connection) == first + 2


def test_a_change_that_is_released_before_its_stream_has_ended_waits_for_the_end() -> None:
    connection = open_machine(Role.DIALER)
    first = change(connection)
    send(connection, damaged(ITEM, first))
    connection.release(first)
    assert lowest_unanswered(connection) == first
    send(connection, frame(RESPONSE, first))
    assert lowest_unanswered(connection) == first + 2


def test_with_too_many_to_hold_nothing_more_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_read, "HELD_CHANGES_MAX", 2)
    connection = open_machine(Role.DIALER)
    before = change(connection)
    send(connection, frame(RESPONSE, before))
    streams = [change(connection) for _ in range(3)]
    for stream in streams:
        send(connection, damaged(RESPONSE, stream))
    for stream in streams:
        connection.release(stream)
    assert lowest_unanswered(connection) == streams[0]


def goaways(connection: Connection) -> list[bytes]:
    """The metadata of each GOAWAY that was sent."""
    return [seen.metadata for seen in sent(connection) if seen.type == GOAWAY]


def below(stream: int) -> bytes:
    return b"\x0a\x08" + stream.to_bytes(8, "big")


def test_goaway_tells_which_answers_have_been_read() -> None:
    """Trap: a bounded table for everyone that no client empties. An orderly end leaves nothing to be remembered."""
    connection = open_machine(Role.DIALER)
    first, second = change(connection), change(connection)
    send(connection, frame(RESPONSE, first))
    assert connection.has_untold
    connection.go_away(1014)
    assert goaways(connection) == [below(second)]
    connection.go_away(1014)
    assert goaways(connection) == [b""]
    send(connection, frame(RESPONSE, second))
    connection.go_away(1014)
    assert goaways(connection) == [below(second + 2)]


def test_goaway_of_a_side_without_changes_says_nothing_of_answers() -> None:
    connection = open_machine(Role.ACCEPTOR)
    connection.go_away(1014)
    assert goaways(connection) == [b""]


def test_what_goaway_says_of_answers_is_heard() -> None:
    pair = shaken()
    stream = change(pair.dialer)
    pair.run()
    pair.acceptor.respond(stream, b"")
    pair.run()
    pair.dialer.go_away(1014)
    _, theirs = pair.run()
    assert [event.answered_below for event in theirs if isinstance(event, GoawayReceived)] == [stream + 2]


def test_release_of_what_is_not_held_changes_nothing() -> None:
    connection = open_machine(Role.DIALER)
    read = connection.request("s", "m", b"")
    first = change(connection)
    for stream in (read, first, first + 2):
        connection.release(stream)
    assert lowest_unanswered(connection) == first
    assert ROUTE in sent(connection)[0].metadata

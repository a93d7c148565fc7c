"""Credit that was withheld beyond the budget is never lost (protocol, section 3, "Flow control")."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from haptera.connection import Connection, Role
from haptera.errors import failure
from tests.unit.connection.machines import CREDIT, ITEM, MORE, REQUEST, STREAMING, frame, open_machine, send, sent

KIB = 1024
WINDOW = 64 * KIB
COST = 64 + 8 * KIB


def _credited(connection: Connection) -> int:
    return sum(
        int.from_bytes(each.payload, "big") for each in sent(connection) if (each.type, each.stream) == (CREDIT, 0)
    )


def _answer(connection: Connection, stream: int) -> None:
    connection.respond(stream, b"")


def _refuse(connection: Connection, stream: int) -> None:
    connection.fail(stream, failure(3006))


def _take(connection: Connection, stream: int) -> None:
    connection.take_item(stream)


@pytest.mark.parametrize("end", [_answer, _refuse, _take])
def test_the_connection_s_window_is_whole_again_when_streams_end_with_items_unread(
    end: Callable[[Connection, int], None],
) -> None:
    """Otherwise each slow stream would take a piece of it away, until nothing moves any more."""
    limits = {"stream_window": 16 * KIB, "connection_window": WINDOW, "max_message": 64 * KIB}
    connection = open_machine(Role.ACCEPTOR, budget=256 * KIB, limits=limits)
    # Nearly all of the budget is taken by requests that are not answered.
    send(connection, *(frame(REQUEST, 1 + 2 * number, bytes(60 * KIB), flags=MORE) for number in range(4)))
    window = WINDOW
    for turn in range(10):
        streams = range(101 + 100 * turn, 121 + 100 * turn, 2)
        send(connection, *(frame(REQUEST, stream, flags=STREAMING) for stream in streams))
        filled = []
        for stream in streams:
            if window >= COST:
                send(connection, frame(ITEM, stream, bytes(8 * KIB)))
                filled.append(stream)
                window += _credited(connection) - COST
        assert 0 < len(filled) < len(streams), "the budget is what ends it, and the window has opened again"
        for stream in filled:
            end(connection, stream)
        for stream in streams:
            connection.respond(stream, b"")
        connection.tick(float(turn + 1))
        window += _credited(connection)
        assert window > WINDOW // 2

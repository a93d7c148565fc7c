"""Answers that are given together leave as answers that are given one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.connection import Connection, Role
from haptera.connection.outbox import JOINED_SIZE_MAX
from haptera.errors import LocalProtocolError, failure
from tests.unit.connection.machines import REQUEST, ROUTE, frame, open_machine, send, sent

KIB = 1024
REQUESTS = 6

answers = st.tuples(
    st.integers(0, REQUESTS).map(lambda number: 2 * number + 1),
    st.sampled_from([0, 3, JOINED_SIZE_MAX - 1, JOINED_SIZE_MAX, 60 * KIB, 70 * KIB, 200 * KIB]).map(bytes),
    st.sampled_from([b"", b"\x0b\x08" + bytes(8)]),
)


def _asked() -> Connection:
    """An acceptor with open requests, every second of them with a request id, whose peer takes 128 KiB at most."""
    connection = open_machine(Role.ACCEPTOR, peer={"max_message": 128 * KIB})
    for number in range(REQUESTS):
        metadata = ROUTE + (b"\x01\x10" + b"i" * 16 if number % 2 else b"")
        send(connection, frame(REQUEST, 2 * number + 1, metadata=metadata))
    return connection


@given(st.lists(answers, max_size=REQUESTS, unique_by=lambda answer: answer[0]))
def test_answers_together_leave_as_answers_one_by_one(given_: list[tuple[int, bytes, bytes]]) -> None:
    together, one_by_one = _asked(), _asked()
    together.respond_all(given_)
    for answer in given_:
        one_by_one.respond(*answer)
    together.check()
    assert sent(together) == sent(one_by_one)
    assert together.open_streams == one_by_one.open_streams


def test_the_answers_before_one_that_no_frame_can_carry_are_given() -> None:
    connection = _asked()
    with pytest.raises(LocalProtocolError):
        connection.respond_all([(1, b"a", b""), (3, b"b", bytes(4097)), (5, b"c", b"")])
    assert [connection.owes(stream) for stream in (1, 3, 5, 99)] == [False, True, True, False]
    assert [(each.stream, each.payload) for each in sent(connection)] == [(1, b"a")]
    connection.respond_all([(3, b"b", b""), (5, b"c", b"")])
    assert [(each.stream, each.payload) for each in sent(connection)] == [(3, b"b"), (5, b"c")]


def test_no_answer_is_owed_once_it_is_decided() -> None:
    connection = _asked()
    connection.respond(1, bytes(100 * KIB))
    connection.fail(3, failure(4001))
    assert [connection.owes(stream) for stream in (1, 3, 5)] == [False, False, True]

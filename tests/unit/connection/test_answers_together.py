"""Answers that are given together leave as answers that are given one by one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.connection import Connection, Role
from haptera.connection.events import RequestReceived
from haptera.connection.outbox import JOINED_SIZE_MAX
from haptera.errors import LocalProtocolError, failure
from haptera.wire.metadata import Tag, encode_entry
from tests.unit.connection.machines import REQUEST, ROUTE, Pair, frame, open_machine, send, sent

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


_KINDS = 7


def _owing(seed: int) -> tuple[Connection, list[int]]:
    """An acceptor that sends grease, and the streams of requests that it owes answers to, of all kinds."""
    pair = Pair(acceptor={"grease": True, "seed": seed})
    pair.run()
    for number in range(60):
        kind = number % _KINDS
        identified = bytes([number]) * 16 if kind < 3 else None
        stream = pair.dialer.request("s", "m", bytes(100 * kind), request_id=identified, streaming=kind == 3)
        if kind == 3:
            pair.dialer.send_item(stream, b"item")
        elif kind == 4:
            pair.dialer.cancel(stream)
    _, events = pair.run()
    return pair.acceptor, [event.stream for event in events if isinstance(event, RequestReceived)]


def _mixed(streams: list[int], seed: int) -> list[tuple[int, bytes, bytes]]:
    chance = random.Random(seed)
    answers: list[tuple[int, bytes, bytes]] = []
    for stream in chance.sample(streams, len(streams)):
        entries = encode_entry(Tag.REVISION, bytes(8)) * chance.randrange(2)
        size = chance.choice([0, 5, 1023, 1024, 20_000, 100_000]) if len(answers) > 3 else 7
        answers.append((stream, bytes(size), entries))
    return answers + answers[:3]  # the streams of these have ended


def test_all_kinds_of_requests_are_answered_together_as_one_by_one() -> None:
    for seed in range(10):
        together, streams = _owing(seed)
        one_by_one, same = _owing(seed)
        assert streams == same
        assert together.ledger.held == one_by_one.ledger.held > 0
        answers = _mixed(streams, seed)
        for connection in (together, one_by_one):
            connection.send_item(streams[4], b"an item before the answer")
        together.respond_all(answers)
        for answer in answers:
            one_by_one.respond(*answer)
        together.check()
        assert together.ledger.held == one_by_one.ledger.held
        assert together.data_to_send(1 << 30) == one_by_one.data_to_send(1 << 30)
        assert together.open_streams == one_by_one.open_streams

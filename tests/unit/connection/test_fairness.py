"""Turns by bytes between streams that send at once (protocol, section 2)."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haptera.connection import Connection, Role
from haptera.connection.config import QUEUED_FREELY_MAX, STREAM_QUEUE_SIZE, TURN_SIZE
from haptera.errors import failure
from haptera.wire.compression import Codec
from tests.unit.connection.machines import (
    COMPRESSED,
    CREDIT,
    ERROR,
    GOAWAY,
    ITEM,
    PING,
    REQUEST,
    RESPONSE,
    STREAMING,
    Seen,
    credit,
    frame,
    open_machine,
    parse,
    send,
    sent,
)

KIB = 1024
MIB = 1024 * KIB
PLENTY: dict[str, Any] = {"stream_window": 16 * MIB, "connection_window": 64 * MIB, "max_frame": 16 * MIB}
#: A turn may be overrun by one fragment of the least size.
SLACK = 1024 + 64


def _server(streams: int, *, peer: dict[str, Any] | None = None, **config: Any) -> Connection:
    """An acceptor with that many requests under way, whose requester takes all that it gets."""
    connection = open_machine(Role.ACCEPTOR, peer=PLENTY | (peer or {}), **config)
    send(connection, *(frame(REQUEST, 1 + 2 * number, flags=STREAMING) for number in range(streams)))
    sent(connection)
    return connection


def _size(each: Seen) -> int:
    return 28 + len(each.metadata) + len(each.payload)


@settings(max_examples=15)
@given(st.lists(st.sampled_from([0, 100, 1025, 5000, 64_000, 65_536, 70_000, 200_000]), min_size=2, max_size=4))
def test_streams_with_items_of_any_sizes_get_the_same_bytes(sizes: list[int]) -> None:
    connection = _server(len(sizes))
    streams = {1 + 2 * number: size for number, size in enumerate(sizes)}

    def fill() -> None:
        for stream, size in streams.items():
            # An empty item counts for more in the queue than it is on the wire.
            while connection._streams.serves[stream].sending.queued < 3 * TURN_SIZE:
                connection.send_item(stream, bytes(size))

    fill()
    sent_bytes: Counter[int] = Counter()
    for _ in range(5 * len(sizes)):
        for each in parse(connection.data_to_send(TURN_SIZE)):
            sent_bytes[each.stream] += _size(each)
        connection.take_writable()
        fill()
        # One may have had its turn in this round, and the other not yet.
        assert max(sent_bytes.values()) - min(sent_bytes[stream] for stream in streams) <= TURN_SIZE + SLACK
    assert min(sent_bytes.values()) >= 4 * TURN_SIZE


def test_an_item_is_not_cut_for_the_last_bytes_of_a_turn() -> None:
    """Its header makes an item of a turn's size larger than that: each would leave as two frames."""
    connection = _server(1)
    for _ in range(5):
        connection.send_item(1, bytes(TURN_SIZE))
    assert [len(each.payload) for each in sent(connection)] == [TURN_SIZE] * 5


def test_a_stream_of_small_items_keeps_its_share_beside_large_ones() -> None:
    connection = _server(5)
    for stream in (1, 3, 5, 7):
        connection.send_item(stream, bytes(8 * MIB))
    for number in range(1000):
        connection.send_item(9, number.to_bytes(4, "big"))
    rounds = []
    while connection._streams.serves[9].sending.queue:
        rounds.append(Counter(each.stream for each in parse(connection.data_to_send(TURN_SIZE * 5))))
    assert len(rounds) <= 2, "all 1,000 are little more than one turn"


def test_a_message_that_comes_late_waits_for_one_round_of_the_others_at_most() -> None:
    connection = _server(9)
    for number in range(8):
        connection.send_item(1 + 2 * number, bytes(8 * MIB))
    connection.data_to_send(TURN_SIZE)
    connection.send_item(17, b"late")
    before = 0
    while True:
        seen = parse(connection.data_to_send(TURN_SIZE))
        if any(each.stream == 17 for each in seen):
            break
        before += sum(map(_size, seen))
    assert before <= 8 * (TURN_SIZE + SLACK)


@pytest.mark.parametrize("what", ["response", "error", "request", "ping", "goaway", "credit"])
def test_what_is_small_leaves_with_the_next_pull_whatever_is_under_way(what: str) -> None:
    """Trap: heartbeats queued behind bulk."""
    connection = _server(9)
    for number in range(8):
        connection.send_item(1 + 2 * number, bytes(8 * MIB))
    connection.data_to_send(TURN_SIZE)
    expected = {"response": RESPONSE, "error": ERROR, "request": REQUEST, "ping": PING, "goaway": GOAWAY}
    match what:
        case "response":
            connection.respond(17, b"small")
        case "error":
            connection.fail(17, failure(3010))
        case "request":
            connection.request("s", "m", b"small")
        case "ping":
            connection.ping(bytes(8))
        case "goaway":
            connection.go_away(1014)
        case _:
            send(connection, *(frame(ITEM, 17, bytes(60 * KIB)) for _ in range(4)))
            for _ in range(4):
                connection.take_item(17)
    first = parse(connection.data_to_send(TURN_SIZE))[0]
    assert first.type == expected.get(what, CREDIT)


def test_small_messages_without_end_do_not_starve_a_large_one() -> None:
    connection = _server(1)
    connection.send_item(1, bytes(2 * MIB))
    pulls = 0
    while connection._streams.serves[1].sending.queue:
        for _ in range(1000):
            if connection.can_request(0):
                connection.cancel(connection.request("s", "m", b"x" * 100))
        connection.data_to_send(TURN_SIZE)
        send(connection, *(frame(RESPONSE, stream) for stream in list(connection.open_calls)))
        pulls += 1
    assert pulls <= 2 * MIB // TURN_SIZE + 1, "each pull gives it a turn"


def test_who_waits_for_credit_takes_no_turn_and_loses_none() -> None:
    connection = _server(3, peer={"stream_window": 16 * KIB})
    for stream in (1, 3, 5):
        connection.send_item(stream, bytes(10 * MIB))
    while connection.data_to_send(TURN_SIZE):
        pass
    assert not connection.outbox.pending
    sent_bytes: Counter[int] = Counter()
    send(connection, credit(1, 2 * MIB), credit(3, 2 * MIB))
    for _ in range(30):
        for each in parse(connection.data_to_send(TURN_SIZE)):
            sent_bytes[each.stream] += _size(each)
        assert abs(sent_bytes[1] - sent_bytes[3]) <= TURN_SIZE + SLACK
    assert sent_bytes[5] == 0
    send(connection, credit(5, 2 * MIB))
    assert {each.stream for each in parse(connection.data_to_send(3 * TURN_SIZE))} == {1, 3, 5}


def test_compressed_streams_have_turns_by_what_they_were_before() -> None:
    """So that the work of compressing is bounded, too, however small its result."""
    connection = _server(2, peer={"capabilities": ["zstd"]}, compression=Codec())
    noise = random.Random(3).randbytes(20_000)
    for stream, payload in ((1, b"text, again and again; " * 800), (3, noise)):
        while connection._streams.serves[stream].sending.queued < MIB:
            connection.send_item(stream, payload)
    raw: Counter[int] = Counter()
    for _ in range(6):
        for each in parse(connection.data_to_send(2 * TURN_SIZE)):
            compressed = each.flags & COMPRESSED
            raw[each.stream] += 28 + (int.from_bytes(each.metadata[-4:], "big") if compressed else len(each.payload))
        assert abs(raw[1] - raw[3]) <= TURN_SIZE + SLACK
    assert raw[1] > 5 * TURN_SIZE


def test_a_producer_is_held_back_by_its_own_stream_alone() -> None:
    connection = _server(2)
    assert not connection.send_item(1, bytes(QUEUED_FREELY_MAX))
    assert connection.send_item(3, bytes(STREAM_QUEUE_SIZE - 100))

"""One ITEM on many streams: its frames are made at once while they are few, and are the frames that any ITEM has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from haptera.connection.config import HELD_MIN, PRODUCED_MAX, READY_ITEMS_MAX, Budget
from haptera.connection.events import ErrorReceived, ItemReceived, PackedItem, ResponseReceived
from haptera.errors import LocalProtocolError, failure
from haptera.wire.compression import Codec
from tests.unit.connection.machines import (
    ERROR,
    ITEM,
    RESPONSE,
    Pair,
    credit,
    parse,
    send,
    sent,
    serving,
    shaken,
)

if TYPE_CHECKING:
    from haptera.connection import Connection

KIB = 1024


def _granted(count: int, **config: Any) -> Connection:
    """A connection with that many requests and credit without end."""
    connection = serving(count, **config)
    send(connection, credit(0, 2**30), *(credit(1 + 2 * number, 2**30) for number in range(count)))
    return connection


def _asked(count: int, **config: Any) -> Pair:
    """A pair whose dialer has made that many requests."""
    pair = shaken(**config)
    for _ in range(count):
        pair.dialer.request("s", "m", b"")
    pair.run()
    return pair


def _items(connection: Connection) -> list[tuple[int, bytes]]:
    return [(each.stream, each.payload) for each in sent(connection) if each.type == ITEM]


@pytest.mark.parametrize("config", [{}, {"signing_key": bytes(32)}, {"compression": Codec()}])
@pytest.mark.parametrize("size", [0, 3, 1023, 20 * KIB, 100 * KIB])
def test_each_stream_has_the_item_and_what_is_sent_before_and_behind_it(config: dict[str, Any], size: int) -> None:
    pair = _asked(5, **config)
    one, other, streams = b"0" * size, b"1" * size, (1, 3, 5, 7, 9)
    told: dict[int, list[bytes]] = {stream: [] for stream in streams}

    def read() -> None:
        pair.acceptor.check()
        for event in pair.run()[0]:
            if isinstance(event, ItemReceived):
                taken = pair.dialer.take_item(event.stream, event.payload)
                assert isinstance(taken, bytes)
                packed = "compression" in config and len(taken) >= KIB
                assert isinstance(event.payload, PackedItem) is packed
                told[event.stream].append(taken)
            elif isinstance(event, ResponseReceived):
                told[event.stream].append(event.payload)

    pair.acceptor.send_item(1, b"before")
    read()
    assert pair.acceptor.try_items([1, 5, 9], one) == []
    read()
    assert pair.acceptor.try_items([1, 3, 5, 7], other) == []
    for stream in streams:
        pair.acceptor.respond(stream, b"answer")
    read()
    read()
    end = b"answer"
    assert told == {
        1: [b"before", one, other, end],
        3: [other, end],
        5: [one, other, end],
        7: [other, end],
        9: [one, end],
    }
    assert pair.acceptor.outbox.turns.credit == pair.dialer._inflow._window


def test_few_are_made_at_once_and_the_rest_has_turns_as_far_as_there_is_room() -> None:
    connection = _granted(200)
    streams = [1 + 2 * number for number in range(200)]
    size = 20 * KIB
    unsent = connection.try_items(streams, bytes(size))
    made = READY_ITEMS_MAX // (size + 28)
    assert connection.outbox._ready_size == made * (size + 28)
    assert PRODUCED_MAX <= connection.outbox.size < PRODUCED_MAX + 2 * size
    assert unsent == list(range(200 - len(unsent), 200)), "the ones behind had no room"
    assert made < 200 - len(unsent) < 60
    connection.check()
    assert _items(connection) == [(stream, bytes(size)) for stream in streams[: 200 - len(unsent)]]
    assert connection.try_items(streams[-1:], b"x") == []


def test_answers_wait_for_no_more_items_than_one_write_has() -> None:
    connection = _granted(300)
    streams = [1 + 2 * number for number in range(299)]
    for _ in range(4):
        connection.try_items(streams, bytes(2 * KIB))
    connection.respond(599, b"answer")
    before = 0
    for each in sent(connection):
        if each.type == RESPONSE:
            break
        before += 28 + len(each.payload)
    assert READY_ITEMS_MAX // 2 < before <= READY_ITEMS_MAX


def test_a_stream_whose_items_wait_has_none_of_a_later_time() -> None:
    connection = serving(3)
    send(connection, credit(0, 2**30))
    connection.send_item(3, bytes(400 * KIB))
    assert connection.try_items([1, 3, 5], b"x") == [1]
    assert connection.try_items([1, 3, 5], b"y") == [1]
    connection.check()
    assert [each for each in _items(connection) if each[0] != 3] == [(1, b"x"), (5, b"x"), (1, b"y"), (5, b"y")]


def test_streams_that_have_ended_are_told() -> None:
    connection = serving(3)
    connection.respond(1, b"")
    connection.fail(3, failure(4001))
    assert connection.try_items([0, 1, 3, 5, 99], b"x") == [0, 1, 2, 4]
    assert [each.type for each in sent(connection)] == [RESPONSE, ERROR, ITEM]


def test_an_item_waits_for_the_credit_that_its_stream_lacks() -> None:
    connection = serving(2, peer={"stream_window": 16 * KIB})
    send(connection, credit(3, 2**20))
    assert connection.try_items([1, 3], bytes(17 * KIB)) == []
    assert (
        sum(size for stream, size in ((each[0], len(each[1])) for each in _items(connection)) if stream == 3)
        == 17 * KIB
    )
    connection.check()
    assert connection.outbox.size > 0
    send(connection, credit(1, 2**20))
    assert sum(len(each[1]) for each in _items(connection)) > 0
    assert connection.outbox.size == 0


def test_each_item_costs_its_stream_credit() -> None:
    connection = serving(2, peer={"stream_window": 16 * KIB})
    for _ in range(3):
        assert connection.try_items([1, 3], bytes(5 * KIB)) == []
        connection.check()
    assert len(_items(connection)) == 6
    assert connection.try_items([1, 3], bytes(5 * KIB)) == []
    assert _items(connection) == []
    send(connection, credit(3, 16 * KIB))
    assert [each[0] for each in _items(connection)] == [3]


def test_an_item_waits_for_the_credit_that_the_connection_lacks() -> None:
    connection = serving(100, peer={"connection_window": 64 * KIB})
    streams = [1 + 2 * number for number in range(100)]
    assert connection.try_items(streams, bytes(KIB)) == []
    assert connection.outbox.turns.credit == 64 * KIB % (KIB + 64)
    connection.check()
    first = _items(connection)
    assert len(first) == 64 * KIB // (KIB + 64)
    send(connection, credit(0, 2**20))
    assert sorted(first + _items(connection)) == [(stream, bytes(KIB)) for stream in streams]


def test_an_error_comes_behind_the_items_that_are_made() -> None:
    pair = _asked(2)
    assert pair.acceptor.try_items([1, 3], b"x") == []
    pair.acceptor.fail(1, failure(4001))
    events, _ = pair.run()
    assert [type(event) for event in events if event.stream == 1] == [ItemReceived, ErrorReceived]  # type: ignore[union-attr]
    assert pair.dialer.agreement is not None


def test_an_item_that_the_peer_does_not_take_is_sent_on_none() -> None:
    connection = serving(3, peer={"max_message": 64 * KIB})
    with pytest.raises(LocalProtocolError) as caught:
        connection.try_items([1, 3], bytes(64 * KIB + 1))
    assert caught.value.code == 3004
    assert sent(connection) == []


def test_nothing_is_made_while_the_memory_of_the_process_is_used_up() -> None:
    process = Budget(limit=20 * 1024 * KIB)
    connection = _granted(3, process=process)
    process.used += process.limit
    assert connection.try_items([1, 3], bytes(65 * KIB)) == [0, 1]
    assert connection.try_items([1, 3], bytes(KIB)) == []


@pytest.mark.parametrize("free", [-5, 0, 1, 20_000, 100_000, 400_000])
@pytest.mark.parametrize("size", [0, 1600, 8000, 20_000])
def test_as_many_are_made_at_once_as_the_memory_of_the_process_takes_one_by_one(size: int, free: int) -> None:
    process = Budget(limit=20 * 1024 * KIB)
    connection = _granted(60, process=process)
    before = process.used = process.limit - free
    streams = [1 + 2 * number for number in range(60)]
    sent_on = 60 - len(connection.try_items(streams, bytes(size)))
    charged = process.used - before
    assert charged == connection.outbox.size >= sent_on * (size + 28), "the budget is told at once"
    assert charged <= HELD_MIN or charged < free + size + 64
    assert sent_on == 60 or charged + size + 64 > max(free, HELD_MIN), "no more would have had memory"
    connection.outbox.settle()
    assert process.used - before == charged
    connection.check()
    _items(connection)
    connection.outbox.settle()
    assert process.used == before


def test_items_that_are_ready_are_no_answers() -> None:
    """They do not keep new REQUESTs from being started, whatever a pull takes of them."""
    connection = _granted(40)
    connection.respond(79, b"first")
    answer = connection.outbox.unwritten
    assert answer == 28 + 5
    assert connection.try_items([1 + 2 * number for number in range(30)], bytes(2 * KIB)) == []
    assert connection.outbox.unwritten == answer
    connection.respond(77, b"other")
    assert connection.outbox.unwritten == 2 * answer
    assert connection.try_items([61, 63], b"x") == []
    for unwritten in (answer, 0):
        while connection.outbox.unwritten > unwritten:
            assert connection.data_to_send(1)
            connection.check()
    while connection.data_to_send(1):
        connection.check()
        assert connection.outbox.unwritten == 0
    assert connection.try_items([61, 63], b"x") == []
    assert _items(connection)
    assert connection.try_items([61, 63], b"x") == []
    assert connection.outbox.unwritten == 0
    connection.outbox.close()
    connection.outbox.check([])
    assert connection.outbox.unwritten == 0


def test_a_producer_that_waits_until_all_has_left_goes_on_when_it_has() -> None:
    connection = serving(2)
    send(connection, credit(0, 2**30))
    assert connection.ask_left(1)
    for _ in range(3):
        connection.send_item(1, bytes(10 * KIB))
    assert connection.ask_room(1)
    assert not connection.ask_left(1)
    assert not connection.ask_room(1)
    assert connection.take_writable() == []
    connection.outbox.turns.credit = 25 * KIB
    drained = _items(connection)
    assert drained
    assert connection.take_writable() == [], "a part still waits"
    send(connection, credit(0, 2**20))
    _items(connection)
    assert connection.take_writable() == [1]
    assert connection.ask_left(1)
    connection.send_item(3, bytes(2 * PRODUCED_MAX))
    assert not connection.ask_left(1), "another stream fills the room"
    with pytest.raises(LocalProtocolError):
        connection.ask_left(7)


def test_a_later_item_of_a_stream_does_not_overtake_in_a_small_pull() -> None:
    """A pull gives a turn even where it has not taken all that is ready."""
    connection = _granted(3)
    assert connection.try_items([1, 3, 5], b"first") == []
    for stream in (5, 3, 1):
        connection.send_item(stream, b"second")
    data = b""
    while piece := connection.data_to_send(1):
        data += piece
        connection.check()
    told = [(each.stream, each.payload) for each in parse(data)]
    assert [payload for stream, payload in told if stream == 5] == [b"first", b"second"]
    assert [payload for stream, payload in told if stream == 1] == [b"first", b"second"]
    assert len(told) == 6

"""What leaves first: control, small messages, fair turns (protocol, sections 2 and 3)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.connection import Connection, Role
from haptera.connection.config import LARGE_MESSAGES_MAX, QUEUED_FREELY_MAX, TURN_SIZE
from haptera.connection.events import ErrorReceived, ItemReceived, RequestReceived, ResponseReceived
from haptera.connection.outbox import PIECE_SIZE_MIN, gathered
from haptera.errors import LocalProtocolError, failure
from tests.unit.connection.machines import (
    CANCEL,
    CONTINUED,
    ERROR,
    FINISH,
    ITEM,
    MORE,
    PING,
    PONG,
    REQUEST,
    RESPONSE,
    STREAMING,
    Seen,
    connection_error,
    credit,
    frame,
    open_machine,
    parse,
    receive,
    send,
    sent,
    serving,
    shaken,
)

KIB = 1024
MIB = 1024 * KIB


def _pull(connection: Connection, size: int) -> list[Seen]:
    return parse(connection.data_to_send(size))


def test_a_small_message_never_waits_behind_a_large_one_for_more_than_a_turn() -> None:
    connection = serving(2)
    connection.respond(1, bytes(8 * MIB))
    first = connection.data_to_send(1)
    assert len(first) <= TURN_SIZE + 28
    connection.respond(3, b"small")
    assert [(each.stream, each.payload) for each in _pull(connection, 1)[:1]] == [(3, b"small")]


def test_streams_take_turns_by_bytes() -> None:
    connection = serving(3)
    connection.respond(1, bytes(4 * MIB))
    for _ in range(4 * MIB // 1000):
        connection.send_item(3, bytes(1000))
    connection.respond(5, bytes(4 * MIB))
    send(connection, credit(3, 2**30), credit(0, 2**30))
    bytes_of = {1: 0, 3: 0, 5: 0}
    for _ in range(30):
        for each in _pull(connection, 1):
            bytes_of[each.stream] += len(each.payload)
            counts = bytes_of.values()
            assert max(counts) - min(counts) <= 2 * TURN_SIZE
    assert min(bytes_of.values()) > 9 * TURN_SIZE


def test_small_messages_without_end_do_not_starve_a_large_one() -> None:
    connection = serving(500)
    connection.respond(1, bytes(300 * KIB))
    large = 0
    for number in range(1, 100):
        for each in range(3):
            connection.respond(1 + 2 * (number * 4 + each), bytes(1000))
        large += sum(len(each.payload) for each in _pull(connection, 1000) if each.stream == 1)
    assert large == 300 * KIB


def test_control_leaves_first() -> None:
    connection = serving(2)
    connection.respond(1, bytes(MIB))
    connection.respond(3, b"ready")
    send(connection, frame(PING, payload=b"12345678"))
    assert [each.type for each in _pull(connection, 1)][:2] == [PONG, RESPONSE]


def test_a_pull_is_bounded_and_a_head_is_never_cut_from_its_payload() -> None:
    connection = serving(300)
    for number in range(300):
        connection.respond(1 + 2 * number, bytes(500))
    seen = []
    while pulled := _pull(connection, 2000):
        assert sum(28 + len(each.payload) for each in pulled) <= 2000 + 528
        send(connection, frame(PING, payload=bytes(8)))
        seen += [each.stream for each in pulled if each.type == RESPONSE]
        if len(seen) == 300:
            break
    assert seen == [1 + 2 * number for number in range(300)]


def test_requests_leave_in_order_of_their_streams() -> None:
    connection = open_machine(Role.DIALER)
    sizes = [10, 200 * KIB, 20, 300 * KIB, 0, 100 * KIB, 5]
    streams = [connection.request("s", "m", bytes(size)) for size in sizes]
    first = [each.stream for each in sent(connection) if each.type == REQUEST and not each.flags & CONTINUED]
    assert first == streams == sorted(streams)


def test_nothing_of_a_stream_overtakes_its_request() -> None:
    """Also when what is ready is more than one pull takes."""
    connection = open_machine(Role.DIALER)
    for _ in range(100):
        connection.request("s", "m", bytes(10 * KIB))
    streaming = connection.request("s", "m", b"", streaming=True)
    connection.send_item(streaming, b"item")
    large = connection.request("s", "m", bytes(200 * KIB))
    cancelled = connection.request("s", "m", bytes(200 * KIB))
    connection.cancel(cancelled)
    connection.finish(streaming)
    acceptor = open_machine(Role.ACCEPTOR)
    begun: dict[int, list[int]] = {}
    names = []
    while data := connection.data_to_send(16 * KIB):
        for each in parse(data):
            begun.setdefault(each.stream, []).append(each.type)
        names += [type(event).__name__ for event in acceptor.receive_data(data, 0.0)]
    assert begun[streaming] == [REQUEST, ITEM, FINISH]
    assert begun[cancelled] == [REQUEST, CANCEL]
    assert begun[large] == [REQUEST] * 4
    assert "Closed" not in names
    assert names.count("RequestReceived") == 102


def test_at_most_three_messages_of_several_frames_are_under_way() -> None:
    connection = serving(6)
    for number in range(6):
        connection.respond(1 + 2 * number, bytes(500 * KIB))
    unfinished: set[int] = set()
    ended = []
    while pulled := _pull(connection, 1):
        for each in pulled:
            if each.flags & MORE:
                unfinished.add(each.stream)
            else:
                unfinished.discard(each.stream)
                ended.append(each.stream)
            assert len(unfinished) <= LARGE_MESSAGES_MAX == 3
    assert sorted(ended) == [1, 3, 5, 7, 9, 11]


def test_a_fourth_large_request_has_to_wait_a_small_one_has_not() -> None:
    connection = open_machine(Role.DIALER)
    for _ in range(3):
        assert connection.can_request(200 * KIB)
        connection.request("s", "m", bytes(200 * KIB))
    assert not connection.can_request(200 * KIB)
    assert connection.can_request(1000)
    with pytest.raises(LocalProtocolError):
        connection.request("s", "m", bytes(200 * KIB))
    sent(connection)
    assert connection.can_request(200 * KIB)


def test_a_large_request_that_is_cancelled_makes_room_for_another() -> None:
    connection = open_machine(Role.DIALER)
    streams = [connection.request("s", "m", bytes(200 * KIB)) for _ in range(3)]
    connection.cancel(streams[1])
    assert connection.can_request(200 * KIB)
    seen = sent(connection)
    assert [each.type for each in seen if each.stream == streams[1]] == [REQUEST, CANCEL]
    assert connection.outbox.size == 0


def test_items_are_not_bounded_by_the_large_messages() -> None:
    connection = serving(6)
    for number in range(6):
        connection.send_item(1 + 2 * number, bytes(100 * KIB))
    pulled = _pull(connection, MIB)
    assert {each.stream for each in pulled} == {1 + 2 * number for number in range(6)}


def test_cancel_never_overtakes_its_own_request() -> None:
    connection = open_machine(Role.DIALER)
    streams = [connection.request("s", "m", bytes(1000)) for _ in range(20)]
    for stream in reversed(streams):
        connection.cancel(stream)
        connection.cancel(stream)
    seen: list[tuple[int, int]] = []
    while pulled := _pull(connection, 1500):
        seen += [(each.stream, each.type) for each in pulled]
    for stream in streams:
        assert [type_ for its, type_ in seen if its == stream] == [REQUEST, CANCEL]


def test_cancel_drops_what_has_not_been_sent_of_a_request() -> None:
    pair = shaken()
    stream = pair.dialer.request("s", "m", bytes(MIB), streaming=True)
    pair.acceptor.receive_data(pair.dialer.data_to_send(1), 0.0)
    pair.dialer.cancel(stream)
    ours, theirs = pair.run()
    assert theirs == []
    assert isinstance(ours[0], ErrorReceived)
    assert (ours[0].failure.code, ours[0].failure.outcome) == (3006, "not_applied")
    assert pair.dialer.outbox.size == 0
    assert pair.dialer.open_streams == pair.acceptor.open_streams == 0


def test_error_abandons_an_unfinished_item_of_a_cancelled_request() -> None:
    pair = shaken()
    stream = pair.dialer.request("s", "m", b"")
    pair.run()
    pair.acceptor.send_item(stream, bytes(4 * MIB))
    pair.step()
    pair.dialer.cancel(stream)
    pair.step()
    pair.acceptor.fail(stream, failure(3006))
    ours, _ = pair.run()
    assert [type(event) for event in ours] == [ErrorReceived]
    assert pair.dialer.open_streams == pair.acceptor.open_streams == 0


def test_a_large_error_leaves_although_the_items_before_it_lacked_credit() -> None:
    connection = serving(1, peer={"stream_window": 16 * KIB})
    connection.send_item(1, bytes(100 * KIB))
    sent(connection)
    send(connection, frame(CANCEL, 1))
    connection.fail(1, failure(3010, {"trace": "x" * 100_000}))
    assert [each.type for each in sent(connection)] == [ERROR, ERROR]
    assert connection.open_streams == 0


def test_an_error_may_abandon_a_message_and_be_of_several_frames_itself() -> None:
    """An honest peer of ours does not, but section 2 allows it."""
    connection = open_machine(Role.DIALER)
    stream = connection.request("s", "m", b"")
    fields = {"code": 4001, "name": "N", "message": "m" * 4000, "outcome": "not_applied", "details": {}}
    payload = msgspec.msgpack.encode(fields)
    events = send(
        connection,
        frame(RESPONSE, stream, bytes(2000), flags=MORE),
        frame(ERROR, stream, payload[:2000], flags=MORE),
        frame(ERROR, stream, payload[2000:], flags=CONTINUED),
    )
    assert [type(event) for event in events] == [ErrorReceived]
    assert connection.ledger.held == 0


def test_an_error_comes_behind_the_items_that_have_left_and_drops_the_others() -> None:
    pair = shaken()
    stream = pair.dialer.request("s", "m", b"")
    pair.run()
    pair.acceptor.send_item(stream, b"1")
    ours = receive(pair.dialer, pair.acceptor.data_to_send(KIB))
    pair.acceptor.send_item(stream, b"2")
    pair.acceptor.fail(stream, failure(4009))
    ours += pair.run()[0]
    assert [type(event) for event in ours] == [ItemReceived, ErrorReceived]


def test_a_producer_waits_while_a_turn_s_worth_is_queued_beyond_its_credit_and_is_told_when_not() -> None:
    connection = serving(1, peer={"stream_window": 96 * KIB})
    made = [connection.send_item(1, bytes(32 * KIB - 64)) for _ in range(5)]
    assert made == [True] * 4 + [False]
    assert connection.take_writable() == []
    sent(connection)
    assert connection.take_writable() == []
    assert TURN_SIZE <= connection.outbox.size < TURN_SIZE + KIB
    send(connection, credit(1, 32 * KIB))
    sent(connection)
    assert connection.take_writable() == [1]
    assert connection.take_writable() == []


def test_a_producer_with_the_connection_s_credit_used_up_has_a_turn_s_worth() -> None:
    connection = serving(2, peer={"stream_window": MIB, "connection_window": 64 * KIB})
    connection.send_item(1, bytes(64 * KIB))
    sent(connection)
    assert [connection.send_item(3, bytes(32 * KIB)) for _ in range(2)] == [True, False]


def test_what_may_leave_at_once_is_queued_up_to_one_write_for_all_streams_together() -> None:
    """A stream with nothing beside it makes several items at once; others have their turn's worth in any case."""
    connection = serving(3, peer={"stream_window": 16 * MIB, "connection_window": 64 * MIB})
    made = [connection.send_item(1, bytes(64 * KIB - 64)) for _ in range(4)]
    assert made == [True, True, True, False]
    assert connection.send_item(3, bytes(32 * KIB))
    assert not connection.send_item(3, bytes(32 * KIB))
    sent(connection)
    assert connection.take_writable() == [3, 1]
    assert connection.send_item(5, bytes(64 * KIB))


def test_what_waits_for_credit_leaves_other_streams_as_much_to_queue() -> None:
    connection = serving(2, peer={"stream_window": 512 * KIB, "connection_window": 64 * MIB})
    connection.send_item(1, bytes(MIB))
    sent(connection)
    assert connection.outbox.size > 2 * QUEUED_FREELY_MAX
    assert connection.send_item(3, bytes(64 * KIB))


def test_empty_items_are_not_free_to_queue() -> None:
    connection = serving(1, peer={"stream_window": 16 * KIB})
    count = 0
    while connection.send_item(1, b""):
        count += 1
        assert count <= (16 * KIB + TURN_SIZE) // 64
    assert count > TURN_SIZE // 64


def test_items_share_a_frame_s_turn_and_are_cut_no_smaller_than_1_kib() -> None:
    connection = serving(1)
    for size in (60 * KIB, 5000, 3000, 70 * KIB):
        connection.send_item(1, bytes(size))
    for each in sent(connection):
        assert not each.flags & MORE or len(each.payload) >= 1024
        assert len(each.payload) <= 64 * KIB


@pytest.mark.parametrize("max_frame", [16 * KIB, 20_000, 64 * KIB, 1024 * KIB])
def test_no_frame_is_larger_than_the_peer_accepts(max_frame: int) -> None:
    pair = shaken(limits={"max_frame": max_frame})
    stream = pair.dialer.request("s", "m", bytes(range(256)) * 1000)
    largest = 0
    events = []
    while data := pair.dialer.data_to_send(MIB):
        largest = max(largest, *(len(each.payload) for each in parse(data)))
        events += pair.acceptor.receive_data(data, 0.0)
    assert largest == min(max_frame, TURN_SIZE)
    assert isinstance(events[0], RequestReceived)
    assert events[0].payload == bytes(range(256)) * 1000
    pair.acceptor.respond(stream, events[0].payload)
    ours, _ = pair.run()
    assert isinstance(ours[0], ResponseReceived)
    assert ours[0].payload == events[0].payload


def test_metadata_and_flags_stand_on_the_first_frame_alone() -> None:
    connection = open_machine(Role.DIALER)
    connection.request("s", "m", bytes(150 * KIB), streaming=True, entries=b"\x08\x01x")
    seen = sent(connection)
    assert [each.flags for each in seen] == [MORE | STREAMING, MORE | CONTINUED, CONTINUED]
    assert [each.metadata for each in seen] == [b"\x01s\x01m\x08\x01x", b"", b""]


def test_what_a_command_refuses_changes_nothing() -> None:
    connection = serving(2, peer={"max_message": 64 * KIB})
    call = connection.request("s", "m", b"", streaming=True)
    plain = connection.request("s", "m", b"")
    sent(connection)
    with pytest.raises(LocalProtocolError) as caught:
        connection.send_item(call, bytes(64 * KIB + 1))
    assert caught.value.code == 3004
    for command in (
        lambda: connection.request("s", "m", bytes(64 * KIB + 1)),
        lambda: connection.request("", "m", b""),
        lambda: connection.request("s", "m", b"", entries=bytes(4096)),
        lambda: connection.send_item(plain, b""),
        lambda: connection.finish(plain),
        lambda: connection.send_item(99, b""),
        lambda: connection.send_item(1, b"", bytes(4097)),
        lambda: connection.respond(1, b"", bytes(4097)),
        lambda: connection.ping(b"short"),
    ):
        with pytest.raises(LocalProtocolError):
            command()
    assert sent(connection) == []
    assert connection.open_streams == 4
    connection.cancel(99)
    connection.take_item(99)
    connection.respond(99, b"")
    assert sent(connection) == []
    connection.respond(1, b"")  # the request is owed its answer still
    assert [each.stream for each in sent(connection)] == [1]


def test_an_answer_that_the_peer_does_not_take_becomes_an_error_that_it_does() -> None:
    connection = serving(2, peer={"max_message": 64 * KIB})
    connection.respond(1, bytes(64 * KIB + 1))
    connection.fail(3, failure(3010, {"trace": "x" * 70_000}))
    first, second = sent(connection)
    assert (first.map["code"], first.map["outcome"]) == (3004, "unknown")
    assert (second.map["code"], second.map["details"]) == (3010, {})


def test_a_request_is_answered_once() -> None:
    connection = serving(1)
    connection.respond(1, bytes(MIB))
    with pytest.raises(LocalProtocolError):
        connection.respond(1, b"")
    with pytest.raises(LocalProtocolError):
        connection.send_item(1, b"")
    sent(connection)
    connection.respond(1, b"")
    assert sent(connection) == []


def test_frames_that_a_peer_causes_and_does_not_read_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haptera.connection.connection.CONTROL_SIZE_MAX", 100 * KIB)
    for cause in (frame(PING, payload=bytes(8)), None):
        connection = open_machine(Role.ACCEPTOR, idle_frames_burst=10**6)
        for number in range(5000):
            # One that is read goes on for ever.
            assert send(connection, cause or frame(REQUEST, 1 + 2 * number, body_crc=1)) == []
            sent(connection)
        flood = [cause or frame(REQUEST, 1 + 2 * number, body_crc=1) for number in range(5000, 10_000)]
        events = send(connection, *flood)
        assert connection_error(connection, events)[0] == 3009


@given(st.lists(st.integers(0, 3 * PIECE_SIZE_MIN), max_size=12))
def test_gathered_pieces_are_the_same_bytes_the_large_ones_as_they_are(sizes: list[int]) -> None:
    parts = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    pieces = gathered(parts)
    assert b"".join(pieces) == b"".join(parts)
    assert [piece for piece in pieces if any(piece is part for part in parts if len(part) >= PIECE_SIZE_MIN)] == [
        part for part in parts if len(part) >= PIECE_SIZE_MIN
    ]
    assert len(pieces) <= 1 + 2 * sum(size >= PIECE_SIZE_MIN for size in sizes)


def test_a_large_payload_leaves_without_a_copy_and_small_frames_in_one_piece() -> None:
    connection = serving(40)
    payload = bytes(PIECE_SIZE_MIN)
    connection.respond(1, payload)
    for number in range(1, 30):
        connection.respond(1 + 2 * number, b"small")
    pieces = connection.pieces_to_send(1 << 20)
    assert [piece is payload for piece in pieces] == [False, True, False]
    assert [each.stream for each in parse(b"".join(pieces))] == [1 + 2 * number for number in range(30)]
    for number in range(30, 40):
        connection.respond(1 + 2 * number, b"small")
    (piece,) = connection.pieces_to_send(1 << 20)
    assert len(parse(piece)) == 10

"""Windows, credit and the buffer budget (protocol, section 3, "Flow control")."""

from __future__ import annotations

from typing import Any

import pytest

from haptera.connection import Connection, Role
from haptera.connection.config import Budget
from haptera.connection.events import (
    CallFailed,
    CancelReceived,
    Event,
    ItemReceived,
    RequestAborted,
    RequestReceived,
    ResponseReceived,
)
from haptera.connection.stream_law import ConnectionState
from haptera.errors import failure
from haptera.wire.payload import Limits
from tests.unit.connection.machines import (
    CANCEL,
    CONTINUED,
    CREDIT,
    ERROR,
    FINISH,
    ITEM,
    MORE,
    PING,
    PONG,
    REQUEST,
    RESPONSE,
    STREAMING,
    Pair,
    Seen,
    connection_error,
    credit,
    frame,
    open_machine,
    send,
    sent,
    shaken,
)

KIB = 1024
MIB = 1024 * KIB
#: The smallest windows that the handshake allows.
TINY = {"stream_window": 16 * KIB, "connection_window": 64 * KIB, "max_message": 256 * KIB}


def _credits(frames: list[Seen]) -> list[tuple[int, int]]:
    return [(each.stream, int.from_bytes(each.payload, "big")) for each in frames if each.type == CREDIT]


def _streaming(**config: Any) -> Connection:
    """An acceptor that has been sent a streaming request on stream 1."""
    connection = open_machine(Role.ACCEPTOR, limits=dict(TINY), **config)
    send(connection, frame(REQUEST, 1, flags=STREAMING))
    return connection


# -- what an ITEM costs, seen from its sender and its receiver -------------------------------------------------------


@pytest.mark.parametrize(("metadata", "payload"), [(0, 0), (0, 1000), (200, 0), (200, 3000)])
def test_an_item_costs_64_and_its_metadata_and_its_payload(metadata: int, payload: int) -> None:
    entries = b"\x08" + bytes((metadata - 2,)) + b"x" * (metadata - 2) if metadata else b""
    cost = 64 + metadata + payload
    peer = {"stream_window": 16 * KIB, "connection_window": 64 * KIB}
    connection = open_machine(Role.DIALER, peer=peer)
    stream = connection.request("s", "m", b"", streaming=True)
    for _ in range(500):
        connection.send_item(stream, bytes(payload), entries)
    whole = [each for each in sent(connection) if each.type == ITEM and not each.flags]
    assert len(whole) == 16 * KIB // cost


@pytest.mark.parametrize("extra", [0, 1])
def test_a_stream_s_window_may_be_used_up_but_not_overrun(extra: int) -> None:
    connection = _streaming()
    data = frame(ITEM, 1, bytes(16 * KIB - 64 - 18 + extra), metadata=b"\x08\x10" + b"x" * 16)
    events = send(connection, data)
    if extra:
        assert connection_error(connection, events)[0] == 1009
    else:
        assert [type(event) for event in events] == [ItemReceived]


@pytest.mark.parametrize("extra", [0, 1])
def test_the_connection_s_window_may_be_used_up_but_not_overrun(extra: int) -> None:
    """Its refill is sent behind the batch that used it up, so that much may come at once, and not a byte more."""
    connection = open_machine(Role.ACCEPTOR, limits=dict(TINY))
    send(connection, *(frame(REQUEST, 1 + 2 * number, flags=STREAMING) for number in range(5)))
    items = [frame(ITEM, 1 + 2 * number, bytes(16 * KIB - 64)) for number in range(4)]
    items[3] = frame(ITEM, 7, bytes(16 * KIB - 128))
    events = send(connection, *items, frame(ITEM, 9, bytes(extra)))
    if extra:
        assert connection_error(connection, events)[0] == 1009
    else:
        assert len(events) == 5
        assert connection.state is ConnectionState.OPEN


def test_items_for_ended_streams_cost_the_connection_and_are_given_back() -> None:
    connection = _streaming()
    connection.fail(1, failure(3010))
    sent(connection)
    for _ in range(100):
        assert send(connection, frame(ITEM, 1, bytes(16 * KIB))) == []
    assert sum(amount for stream, amount in _credits(sent(connection)) if stream == 0) >= 100 * 16 * KIB
    send(connection, frame(ITEM, 1, bytes(16 * KIB)))
    assert connection.state is ConnectionState.OPEN


def test_items_for_ended_streams_may_not_overrun_the_connection_s_window() -> None:
    connection = _streaming()
    connection.fail(1, failure(3010))
    sent(connection)
    items = [frame(ITEM, 1, bytes(16 * KIB - 64)) for _ in range(4)]
    assert connection_error(connection, send(connection, *items, frame(ITEM, 1)))[0] == 1009


# -- when credit goes back -------------------------------------------------------------------------------------------


def test_a_stream_s_credit_is_sent_when_half_of_its_window_is_owed_and_never_per_item() -> None:
    connection = _streaming()
    item = frame(ITEM, 1, bytes(1024 - 64))
    send(connection, *[item] * 16)
    sent(connection)
    for taken in range(1, 17):
        connection.take_item(1)
        given = [each for each in _credits(sent(connection)) if each[0] == 1]
        assert given == ([(1, 8 * KIB)] if taken in {8, 16} else [])


def test_nothing_goes_back_to_a_stream_before_the_application_takes() -> None:
    connection = _streaming()
    send(connection, frame(ITEM, 1, bytes(15 * KIB)))
    assert [stream for stream, _ in _credits(sent(connection))] == []
    connection.take_item(1)
    connection.take_item(1)  # there is no other: nothing is given twice
    assert _credits(sent(connection)) == [(1, 15 * KIB + 64)]


def test_the_connection_s_window_is_refilled_on_arrival() -> None:
    """Trap: one shared window, so that one slow reader starves all."""
    connection = open_machine(Role.ACCEPTOR, limits=dict(TINY))
    for number in range(20):
        stream = 1 + 2 * number
        send(connection, frame(REQUEST, stream, flags=STREAMING), frame(ITEM, stream, bytes(16 * KIB - 64)))
    assert connection.state is ConnectionState.OPEN, "320 KiB lie unread behind a window of 64 KiB"
    assert sum(amount for stream, amount in _credits(sent(connection)) if stream == 0) >= 256 * KIB


def test_a_reader_that_takes_nothing_does_not_hold_up_the_other_streams() -> None:
    """Trap: one shared window, so that one slow reader starves all."""
    pair = shaken(limits=dict(TINY))
    slow = [pair.dialer.request("s", "slow", b"") for _ in range(30)]
    pair.run()
    for stream in slow:
        for _ in range(50):
            pair.acceptor.send_item(stream, bytes(4 * KIB))
    pair.run()
    fast = pair.dialer.request("s", "fast", b"")
    pair.run()
    for _ in range(50):
        pair.acceptor.send_item(fast, bytes(4 * KIB))
        pair.acceptor.send_item(fast, bytes(4 * KIB))
        ours, _ = pair.run()
        assert [event.stream for event in ours if isinstance(event, ItemReceived)] == [fast] * 2
        pair.dialer.take_item(fast)
        pair.dialer.take_item(fast)
    pair.acceptor.respond(fast, b"")
    ours, _ = pair.run()
    assert isinstance(ours[-1], ResponseReceived)


def test_what_waits_for_credit_is_not_among_the_answers_that_wait_to_be_written() -> None:
    """Trap: one shared window, so that one slow reader starves all. New requests are kept while answers pile up."""
    pair = shaken(limits=dict(TINY))
    streams = [pair.dialer.request("s", "m", b"") for _ in range(30)]
    pair.run()
    for stream in streams:
        pair.acceptor.send_item(stream, b"unread")
        pair.acceptor.send_item(stream, bytes(200 * KIB))
    pair.run()
    assert pair.acceptor.outbox.size > 4 * MIB
    assert pair.acceptor.outbox.unwritten == 0
    pair.acceptor.respond(streams[0], bytes(100 * KIB))
    assert pair.acceptor.outbox.unwritten >= 100 * KIB


def test_credit_of_dropped_frames_goes_back_to_their_stream() -> None:
    """A call that failed here for damage: its responder may still have items to get rid of before its answer."""
    pair = shaken(limits=dict(TINY))
    stream = pair.dialer.request("s", "m", b"")
    pair.run()
    for _ in range(100):
        pair.acceptor.send_item(stream, bytes(3 * KIB))
    pair.acceptor.respond(stream, b"")
    data = bytearray(pair.acceptor.data_to_send(64 * KIB))
    data[28 + 1] ^= 1  # the first item's payload
    pair.dialer_events += pair.dialer.receive_data(bytes(data), 0.0)
    ours, theirs = pair.run()
    assert [type(event) for event in ours] == [CallFailed]
    assert theirs == [], "its answer is queued already: there is no handler that could be told"
    assert pair.dialer.open_streams == pair.acceptor.open_streams == 0


def test_credit_of_unread_items_goes_back_when_their_stream_is_given_up() -> None:
    connection = open_machine(Role.DIALER, limits=dict(TINY))
    stream = connection.request("s", "m", b"")
    send(connection, *[frame(ITEM, stream, bytes(3 * KIB - 64))] * 4)
    sent(connection)
    send(connection, frame(ITEM, stream, b"x", body_crc=1))
    assert _credits(sent(connection)) == [(stream, 12 * KIB + 65)]
    send(connection, frame(ITEM, stream, bytes(16 * KIB - 64)))
    assert _credits(sent(connection))[-1] == (stream, 16 * KIB)
    assert connection.state is ConnectionState.OPEN


def test_credit_of_an_unfinished_item_goes_back_when_its_stream_is_given_up() -> None:
    connection = _streaming()
    send(connection, frame(ITEM, 1, b"unread"), frame(ITEM, 1, bytes(10 * KIB - 64), flags=MORE))
    assert [each for each in _credits(sent(connection)) if each[0] == 1] == []
    send(connection, frame(ITEM, 1, b"x", flags=CONTINUED, body_crc=1))
    assert [each for each in _credits(sent(connection)) if each[0] == 1] == [(1, 10 * KIB + 70 + 65)]


# -- items larger than the windows -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16 * KIB, 100 * KIB, 200 * KIB])
def test_an_item_larger_than_both_windows_arrives(size: int) -> None:
    """Trap: an item larger than the window that can never finish."""
    pair = shaken(limits=dict(TINY))
    there = pair.dialer.request("s", "m", b"", streaming=True)
    pair.run()
    item = bytes(range(256)) * (size // 256)
    pair.dialer.send_item(there, item)
    pair.dialer.send_item(there, item)
    pair.acceptor.send_item(there, item)
    pair.acceptor.send_item(there, item)
    received: list[Event] = []
    for _ in range(20):
        ours, theirs = pair.run()
        received += ours + theirs
        # One after the other: what has been read makes room for the next.
        pair.dialer.take_item(there)
        pair.acceptor.take_item(there)
    assert [event.payload == item for event in received if isinstance(event, ItemReceived)] == [True] * 4


def test_a_window_is_used_up_by_a_part_of_an_item_that_does_not_fit() -> None:
    """A sender that waited for whole items would have less under way: over a long link, as much slower."""
    pair = shaken()
    stream = pair.dialer.request("s", "m", b"", streaming=True)
    pair.run()
    for _ in range(5):
        pair.dialer.send_item(stream, bytes(64 * KIB))
    items = [each for each in sent(pair.dialer) if each.type == ITEM]
    assert sum(64 + len(each.payload) for each in items) == 256 * KIB
    assert [bool(each.flags & MORE) for each in items] == [False, False, False, True]


def test_an_item_waits_whole_where_the_other_side_is_near() -> None:
    """Its receiver need not join it, and the credit for it comes before long."""
    connection = open_machine(Role.DIALER, near=True)
    stream = connection.request("s", "m", b"", streaming=True)
    for _ in range(6):
        connection.send_item(stream, bytes(64 * KIB))
    items = [each for each in sent(connection) if each.type == ITEM]
    assert [(len(each.payload), each.flags) for each in items] == [(64 * KIB, 0)] * 3
    send(connection, credit(stream, 128 * KIB))
    assert [(len(each.payload), each.flags) for each in sent(connection)] == [(64 * KIB, 0)] * 2
    connection.check()


def test_an_item_of_more_than_half_a_window_is_cut_though_the_other_side_is_near() -> None:
    """Trap: it waits for credit that its receiver gives back in halves, and never has all of it."""
    connection = open_machine(Role.DIALER, near=True, peer={"stream_window": 64 * KIB})
    stream = connection.request("s", "m", b"", streaming=True)
    sent(connection)
    sizes = [20 * KIB, 32 * KIB - 64, 32 * KIB - 63]
    for size in sizes:
        connection.send_item(stream, bytes(size))
    assert [len(each.payload) for each in sent(connection)] == sizes[:1] + sizes[1:2]
    send(connection, credit(stream, 20 * KIB))
    (part,) = sent(connection)
    assert part.flags & MORE
    connection.check()


def test_the_connection_s_window_is_used_up_though_the_other_side_is_near() -> None:
    """Slow readers of other streams may keep it as narrow as it is."""
    peer = {"stream_window": 256 * KIB, "connection_window": 128 * KIB}
    connection = open_machine(Role.DIALER, near=True, peer=peer)
    stream = connection.request("s", "m", b"", streaming=True)
    sent(connection)
    connection.send_item(stream, bytes(64 * KIB))
    connection.send_item(stream, bytes(64 * KIB))
    assert [bool(each.flags & MORE) for each in sent(connection)] == [False, True]


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("before", [0.1, 0.4, 0.49])
@pytest.mark.parametrize("windows", [1 / 3, 1 / 2, 0.6, 0.99, 1, 1.5])
def test_items_of_any_part_of_a_window_arrive_while_the_other_side_takes_them(
    windows: float, before: float, near: bool
) -> None:
    """Also behind one that is too small for its credit to be sent back by itself."""
    pair = shaken(limits=Limits(**TINY), near=near)
    stream = pair.dialer.request("s", "m", b"", streaming=True)
    parts = [before, windows] * 10
    items = [bytes([number]) * (int(part * 16 * KIB) - 64) for number, part in enumerate(parts)]
    for item in items:
        pair.dialer.send_item(stream, item)
    taken: list[object] = []
    for _ in range(100):
        arrived = [event.payload for event in pair.run()[1] if isinstance(event, ItemReceived)]
        taken += [pair.acceptor.take_item(stream, item) for item in arrived]
        pair.dialer.check()
        pair.acceptor.check()
    assert taken == items


@pytest.mark.parametrize("near", [False, True])
def test_an_unfinished_item_goes_on_with_as_little_credit_as_its_time_runs_with(near: bool) -> None:
    """The receiver stops the time only below 1,088 bytes (section 2): its sender may not wait for more."""
    peer = {"stream_window": 16 * KIB, "connection_window": 64 * KIB}
    connection = open_machine(Role.DIALER, near=near, peer=peer)
    stream = connection.request("s", "m", b"", streaming=True)
    sent(connection)
    connection.send_item(stream, bytes(20 * KIB))
    assert sum(len(each.payload) for each in sent(connection)) == 16 * KIB - 64
    send(connection, credit(stream, 1087))
    assert sent(connection) == []
    send(connection, credit(stream, 1))
    assert [len(each.payload) for each in sent(connection)] == [1024]


def test_two_machines_that_stream_8_mib_items_at_each_other_both_finish() -> None:
    """Trap: an item larger than the window that can never finish; with default windows, both ways at once."""
    pair = shaken()
    stream = pair.dialer.request("s", "m", b"", streaming=True)
    back = pair.acceptor.request("s", "m", b"", streaming=True)
    item = bytes(8 * MIB)
    for _ in range(2):
        pair.dialer.send_item(stream, item)
        pair.acceptor.send_item(back, item)
    counts = [0, 0]
    while pair.step():
        for side, (events, connection) in enumerate(
            ((pair.dialer_events, pair.dialer), (pair.acceptor_events, pair.acceptor))
        ):
            for event in events:
                if isinstance(event, ItemReceived):
                    assert isinstance(event.payload, bytes)
                    assert len(event.payload) == 8 * MIB
                    counts[side] += 1
                    connection.take_item(event.stream)
            events.clear()
    assert counts == [2, 2]


def test_while_an_item_is_unread_the_fragments_of_the_next_are_not_credited() -> None:
    connection = _streaming()
    send(connection, frame(ITEM, 1, b"unread"), *[frame(ITEM, 1, bytes(4 * KIB - 64), flags=MORE)])
    send(connection, *[frame(ITEM, 1, bytes(4 * KIB - 64), flags=MORE | CONTINUED)] * 2)
    assert [each for each in _credits(sent(connection)) if each[0] == 1] == []
    connection.take_item(1)
    assert [each for each in _credits(sent(connection)) if each[0] == 1] == [(1, 12 * KIB + 70)]


def test_each_byte_of_a_fragmented_item_is_credited_once() -> None:
    connection = _streaming()
    flags = [MORE] + [MORE | CONTINUED] * 3 + [CONTINUED]
    total = 0
    for flag in flags:
        send(connection, frame(ITEM, 1, bytes(8 * KIB - 64), flags=flag))
        total += sum(amount for stream, amount in _credits(sent(connection)) if stream == 1)
    connection.take_item(1)
    total += sum(amount for stream, amount in _credits(sent(connection)) if stream == 1)
    assert total == 5 * 8 * KIB


# -- CREDIT ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [0, 1])
def test_credit_of_0_is_malformed(stream: int) -> None:
    connection = _streaming()
    assert connection_error(connection, send(connection, credit(stream, 0)))[0] == 1002


@pytest.mark.parametrize("stream", [0, 1])
def test_a_window_may_be_2_to_the_31_minus_1_and_no_larger(stream: int) -> None:
    connection = _streaming(peer={"stream_window": 16 * KIB, "connection_window": 64 * KIB})
    window = 64 * KIB if stream == 0 else 16 * KIB
    assert send(connection, credit(stream, 2**31 - 1 - window)) == []
    assert connection.state is ConnectionState.OPEN
    assert connection_error(connection, send(connection, credit(stream, 1)))[0] == 1009


def test_a_credit_that_alone_is_too_much() -> None:
    connection = _streaming()
    assert connection_error(connection, send(connection, credit(1, 2**32 - 1)))[0] == 1009


def test_credit_for_ended_streams_is_dropped() -> None:
    """Trap: window updates for unknown streams treated as fatal."""
    connection = _streaming()
    send(connection, frame(REQUEST, 7))
    connection.fail(1, failure(3010))
    connection.respond(7, b"")
    call = connection.request("s", "m", b"")
    send(connection, frame(RESPONSE, call))
    sent(connection)
    for stream in (1, 3, 5, 7, call):
        assert send(connection, credit(stream, 2**32 - 1), credit(stream, 1), credit(stream, 0)) == []
    send(connection, frame(PING, payload=bytes(8)))
    assert [each.type for each in sent(connection)] == [PONG]


def test_a_sender_waits_for_whichever_window_it_lacks() -> None:
    connection = open_machine(Role.DIALER, peer={"stream_window": 16 * KIB, "connection_window": 64 * KIB})
    streams = [connection.request("s", "m", b"", streaming=True) for _ in range(5)]
    for stream in streams:
        connection.send_item(stream, bytes(60 * KIB))
    spent = sum(64 + len(each.payload) for each in sent(connection) if each.type == ITEM)
    assert spent == 64 * KIB
    for stream in streams:
        send(connection, credit(stream, 16 * KIB))
        assert sent(connection) == []
    send(connection, credit(0, 1000))
    assert sent(connection) == [], "a frame with more to come has at least 1 KiB"
    send(connection, credit(0, 20_000))
    assert sum(64 + len(each.payload) for each in sent(connection)) in range(19_000, 21_001)


def test_streams_that_wait_for_credit_do_not_add_up() -> None:
    """A peer that gives a stream's credit bit by bit, and the connection none, makes nothing grow."""
    connection = open_machine(Role.DIALER, peer={"stream_window": 16 * KIB, "connection_window": 64 * KIB})
    streams = [connection.request("s", "m", b"", streaming=True) for _ in range(5)]
    for stream in streams:
        connection.send_item(stream, bytes(60 * KIB))
    sent(connection)
    for _ in range(1000):
        send(connection, credit(streams[4], 1))
        sent(connection)
    assert len(connection.outbox.turns._starved) <= 5


def test_only_items_are_flow_controlled() -> None:
    pair = shaken(limits=dict(TINY))
    stream = pair.dialer.request("s", "m", bytes(200 * KIB))
    _, theirs = pair.run()
    assert isinstance(theirs[0], RequestReceived)
    pair.acceptor.respond(stream, bytes(200 * KIB))
    ours, _ = pair.run()
    assert isinstance(ours[0], ResponseReceived)


def test_an_answer_before_the_requester_has_finished_needs_no_finish() -> None:
    pair = shaken(limits=dict(TINY))
    stream = pair.dialer.request("s", "m", b"", streaming=True)
    pair.dialer.send_item(stream, bytes(100 * KIB))
    pair.step()
    pair.acceptor.respond(stream, b"enough")
    ours, _ = pair.run()
    assert isinstance(ours[0], ResponseReceived)
    assert pair.dialer.open_streams == pair.acceptor.open_streams == 0
    assert pair.dialer.outbox.size == 0


# -- the budget ------------------------------------------------------------------------------------------------------


def test_a_request_over_the_budget_is_refused_alone() -> None:
    connection = open_machine(Role.ACCEPTOR, budget=256 * KIB)
    requests = [frame(REQUEST, 1 + 2 * number, bytes(60 * KIB)) for number in range(5)]
    events = send(connection, *requests)
    assert len(events) == 4
    (refusal,) = sent(connection)
    assert (refusal.stream, refusal.map["code"], refusal.map["outcome"]) == (9, 3007, "not_applied")
    connection.respond(1, b"")
    assert len(send(connection, frame(REQUEST, 11, bytes(60 * KIB)))) == 1


@pytest.mark.parametrize("extra", [0, 1])
def test_the_budget_is_used_to_its_last_byte(extra: int) -> None:
    connection = open_machine(Role.ACCEPTOR, budget=256 * KIB)
    send(connection, frame(REQUEST, 1, bytes(1000)))
    overhead = connection.ledger.held - 1000
    sizes = [256 * KIB // 4] * 3 + [256 * KIB // 4 - overhead - 1000 + extra]
    requests = [frame(REQUEST, 3 + 2 * number, bytes(size - overhead)) for number, size in enumerate(sizes)]
    assert len(send(connection, *requests)) == 4 - extra
    assert (connection.ledger.held == 256 * KIB) is not bool(extra)


def test_what_the_application_takes_is_charged_no_longer() -> None:
    process = Budget()
    connection = _streaming(process=process)
    before = process.used
    send(connection, frame(ITEM, 1, bytes(1000)))
    assert process.used >= before + 1000
    connection.take_item(1)
    assert process.used == connection.ledger.held == before


def test_messages_that_are_not_whole_may_use_half_of_the_process_s_budget() -> None:
    process = Budget(1024 * KIB)
    connection = open_machine(Role.ACCEPTOR, process=process, limits={"max_frame": 256 * KIB})
    process.used += 480 * KIB
    assert send(connection, frame(REQUEST, 1, bytes(100 * KIB), flags=MORE)) == []
    (refusal,) = sent(connection)
    assert (refusal.stream, refusal.map["code"]) == (1, 3007)
    assert len(send(connection, frame(REQUEST, 3, bytes(100 * KIB)))) == 1, "a whole one has the other half"


def test_metadata_counts_to_the_budget() -> None:
    connection = open_machine(Role.ACCEPTOR, budget=256 * KIB)
    entries = b"".join(bytes((tag, 250)) + bytes(250) for tag in range(0x10, 0x1F))
    requests = [frame(REQUEST, 1 + 2 * number, metadata=b"\x01s\x01m" + entries) for number in range(100)]
    assert len(send(connection, *requests)) < 80


def test_the_budget_of_a_process_is_shared_and_given_back() -> None:
    process = Budget(200 * KIB)
    connections = [open_machine(Role.ACCEPTOR, process=process, seed=number) for number in range(3)]
    for connection in connections:
        send(connection, frame(REQUEST, 1, bytes(45 * KIB)), frame(REQUEST, 3, bytes(45 * KIB)))
    # Beyond it each still has a little.
    assert [connection.open_streams for connection in connections] == [2, 2, 1]
    assert sent(connections[2])[0].map["code"] == 3007
    connections[0].close()
    connections[1].receive_eof()
    connections[2].close()
    assert process.used == 0


def test_an_item_over_the_budget_ends_its_request_with_3007_and_an_unknown_outcome() -> None:
    connection = open_machine(Role.ACCEPTOR, budget=256 * KIB, limits={"connection_window": 4 * MIB})
    send(connection, *(frame(REQUEST, 3 + 2 * number, bytes(60 * KIB)) for number in range(4)))
    events = send(
        connection, frame(REQUEST, 99, flags=STREAMING), frame(ITEM, 99, bytes(30 * KIB), flags=MORE), frame(FINISH, 3)
    )
    assert connection.state is ConnectionState.CLOSING  # FINISH without STREAMING, to see that it goes on till there
    aborted = [event for event in events if isinstance(event, RequestAborted)]
    assert [(event.stream, event.failure.code, event.failure.outcome) for event in aborted] == [(99, 3007, "unknown")]


def test_an_unfinished_request_over_the_budget_is_3007_and_not_applied() -> None:
    connection = open_machine(Role.ACCEPTOR, budget=256 * KIB)
    send(connection, *(frame(REQUEST, 3 + 2 * number, bytes(60 * KIB)) for number in range(4)))
    flags = [MORE, MORE | CONTINUED]
    events = send(connection, *(frame(REQUEST, 99, bytes(10 * KIB), flags=flag) for flag in flags))
    assert events == []
    (refusal,) = sent(connection)
    assert (refusal.stream, refusal.map["code"], refusal.map["outcome"]) == (99, 3007, "not_applied")


@pytest.mark.parametrize("type_", [ITEM, RESPONSE, ERROR])
def test_an_answer_over_the_budget_fails_its_call_here(type_: int) -> None:
    connection = open_machine(Role.DIALER, budget=256 * KIB, limits={"connection_window": 4 * MIB})
    send(connection, *(frame(REQUEST, 2 + 2 * number, bytes(60 * KIB)) for number in range(4)))
    stream = connection.request("s", "m", b"")
    sent(connection)
    (failed,) = send(connection, frame(type_, stream, bytes(30 * KIB), flags=MORE))
    assert isinstance(failed, CallFailed)
    assert (failed.failure.code, failed.failure.outcome) == (3007, "unknown")
    assert [each.type for each in sent(connection)] == [CANCEL]


@pytest.mark.parametrize("type_", [RESPONSE, ERROR])
def test_an_answer_in_one_frame_is_taken_whatever_the_budget(type_: int) -> None:
    """It has arrived, and is handed over at once: to refuse it would lose the outcome for nothing."""
    connection = open_machine(Role.DIALER, budget=256 * KIB)
    stream = connection.request("s", "m", b"")
    process = connection.ledger.process
    process.used = process.limit
    payload = b"\x85\xa4code\x01\xa4name\xa0\xa7message\xa0\xa7outcome\xa7unknown\xa7details\x80"
    (answer,) = send(connection, frame(type_, stream, payload, flags=0x8000))
    assert type(answer).__name__ == {RESPONSE: "ResponseReceived", ERROR: "ErrorReceived"}[type_]


def test_beyond_the_budget_the_connection_s_window_opens_as_the_application_takes() -> None:
    connection = open_machine(Role.ACCEPTOR, budget=256 * KIB, limits=dict(TINY))
    send(connection, *(frame(REQUEST, 101 + 2 * number, bytes(60 * KIB)) for number in range(4)))
    streams = [1001 + 2 * number for number in range(4)]
    send(connection, *(frame(REQUEST, stream, flags=STREAMING) for stream in streams))
    sent(connection)
    events = send(connection, *(frame(ITEM, stream, bytes(15 * KIB)) for stream in streams))
    assert len(events) == 4, "a whole item that the windows allowed is kept"
    first = [amount for stream, amount in _credits(sent(connection)) if stream == 0]
    assert sum(first) < 32 * KIB
    for stream in streams:
        connection.take_item(stream)
    later = [amount for stream, amount in _credits(sent(connection)) if stream == 0]
    assert sum(first) + sum(later) > 32 * KIB


def test_a_cancelled_call_s_items_still_go_back_to_the_window() -> None:
    pair = Pair(dialer={"limits": dict(TINY)}, acceptor={"limits": dict(TINY)})
    pair.run()
    stream = pair.dialer.request("s", "m", b"")
    pair.run()
    for _ in range(20):
        pair.acceptor.send_item(stream, bytes(3 * KIB))
    pair.run()
    pair.dialer.cancel(stream)
    _, theirs = pair.run()
    assert theirs == [CancelReceived(stream)]
    pair.acceptor.fail(stream, failure(3006))
    ours, _ = pair.run()
    assert type(ours[-1]).__name__ == "ErrorReceived", "it does not wait behind items that nobody wants"
    assert pair.dialer.ledger.held == 0

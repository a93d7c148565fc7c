"""Compressed messages of two machines (protocol, sections 2 to 4)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from haptera.connection import Config, Connection, Role
from haptera.connection.config import Budget
from haptera.connection.events import (
    CallFailed,
    ErrorReceived,
    Event,
    ItemReceived,
    PackedItem,
    RequestAborted,
    RequestFinished,
    RequestReceived,
    ResponseReceived,
)
from haptera.connection.stream_law import ConnectionState
from haptera.errors import Failure, failure
from haptera.wire.compression import Codec
from haptera.wire.metadata import Tag, encode_entry
from tests.unit.connection.machines import (
    CANCEL,
    COMPRESSED,
    CONTINUED,
    CREDIT,
    ERROR,
    FINISH,
    GOAWAY,
    ITEM,
    MORE,
    PING,
    PONG,
    REQUEST,
    RESPONSE,
    ROUTE,
    STREAMING,
    Pair,
    Seen,
    connection_error,
    error,
    frame,
    hello,
    machine,
    open_machine,
    parse,
    send,
    sent,
)
from tests.unit.connection.signed import open_signed

KIB = 1024
CODEC = Codec()
TEXT = b"a row like the one before it; " * 400
NOISE = random.Random(1).randbytes(12_000)
SESSION_ROUTE = b"\x07session\x01m"


def _entry(raw_length: int) -> bytes:
    return encode_entry(Tag.RAW_LENGTH, raw_length.to_bytes(4, "big"))


def _packed(
    type_: int, stream: int, payload: bytes = TEXT, *, flags: int = 0, metadata: bytes = b"", raw: int | None = None
) -> bytes:
    """Make a compressed frame."""
    if type_ == REQUEST and not metadata and not flags & CONTINUED:
        metadata = ROUTE
    entry = _entry(len(payload) if raw is None else raw)
    return frame(type_, stream, CODEC.compress(payload), flags=flags | COMPRESSED, metadata=metadata + entry)


def _open(role: Role, **config: Any) -> Connection:
    connection = open_machine(role, peer={"capabilities": ["zstd"]}, compression=Codec(), **config)
    assert connection.agreement is not None
    assert "zstd" in connection.agreement.capabilities
    return connection


def _pair(**config: Any) -> Pair:
    pair = Pair(dialer={"compression": Codec(), **config}, acceptor={"compression": Codec(), **config})
    pair.run()
    return pair


def _taken(connection: Connection, events: list[Event]) -> list[bytes | Failure]:
    return [
        connection.take_item(event.stream, event.payload, now=0.0)
        for event in events
        if isinstance(event, ItemReceived)
    ]


# -- negotiated, or absent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("theirs", [True, False])
def test_it_is_used_where_both_sides_can(ours: bool, theirs: bool) -> None:
    pair = Pair(
        dialer={"compression": Codec() if ours else None}, acceptor={"compression": Codec() if theirs else None}
    )
    pair.run()
    assert pair.dialer.agreement is not None
    assert ("zstd" in pair.dialer.agreement.capabilities) is (ours and theirs)
    pair.dialer.request("s", "m", TEXT)
    (request,) = sent(pair.dialer)
    assert (request.flags == COMPRESSED) is (ours and theirs)
    assert (len(request.payload) < 1000) is (ours and theirs)


@pytest.mark.parametrize("type_", [REQUEST, ITEM, RESPONSE, ERROR, PING])
def test_the_flag_is_a_violation_where_it_was_not_accepted(type_: int) -> None:
    connection = open_machine(Role.ACCEPTOR, compression=Codec())
    assert connection_error(connection, send(connection, frame(type_, 1, flags=COMPRESSED)))[0] == 1008


@pytest.mark.parametrize("accepted", [[], ["zstd"]])
def test_the_flag_means_nothing_on_a_type_that_is_skipped(accepted: list[str]) -> None:
    connection = machine(Role.ACCEPTOR, compression=Codec())
    send(connection, hello(capabilities=accepted))
    sent(connection)
    assert send(connection, frame(0xF0, 1, flags=COMPRESSED), frame(PING, payload=bytes(8))) == []
    assert [each.type for each in sent(connection)] == [PONG]


def test_a_capability_without_a_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="codec"):
        Config(entropy=bytes, capabilities=("zstd",))


# -- what is compressed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "compressed"), [(TEXT, True), (TEXT[:1024], True), (TEXT[:1023], False), (NOISE, False), (b"", False)]
)
def test_the_sender_decides_per_frame_by_size_and_gain(payload: bytes, compressed: bool) -> None:
    pair = _pair()
    pair.dialer.request("s", "m", payload, entries=encode_entry(Tag.CONTENT_TYPE, b"x"))
    (request,) = sent(pair.dialer)
    assert (request.flags & COMPRESSED != 0) is compressed
    assert request.metadata == ROUTE + b"\x08\x01x" + (_entry(len(payload)) if compressed else b"")
    if compressed:
        assert CODEC.decompress(request.payload, len(payload)) == payload
        assert len(request.payload) + 6 < len(payload)
    else:
        assert request.payload == payload


def test_the_first_flight_is_never_compressed() -> None:
    dialer = machine(Role.DIALER, compression=Codec())
    dialer.request("s", "m", TEXT)
    assert [each.flags for each in sent(dialer)] == [0, 0]


def _exchange(pair: Pair, service: str, payload: bytes) -> list[Seen]:
    """One call with items both ways, and an error; return every frame."""
    seen: list[Seen] = []
    stream = pair.dialer.request(service, "m", payload, streaming=True)
    refused = pair.dialer.request(service, "m", payload)
    for step in range(6):
        if step == 1:
            pair.dialer.send_item(stream, payload)
            pair.acceptor.send_item(stream, payload)
        if step == 2:
            pair.acceptor.respond(stream, payload)
            pair.acceptor.fail(refused, failure(3010, {"text": payload.decode("latin-1")}))
        for mine, theirs in ((pair.dialer, pair.acceptor), (pair.acceptor, pair.dialer)):
            while data := mine.data_to_send(1 << 22):
                seen += parse(data)
                theirs.receive_data(data, 0.0)
    return seen


@pytest.mark.parametrize("size", [2, 12])
def test_the_session_service_is_never_compressed(size: int) -> None:
    """Of one frame or of several, whatever carries it."""
    for service, compressed in (("session", False), ("sessions", True)):
        seen = _exchange(_pair(), service, TEXT * size)
        large = [each for each in seen if each.type in {REQUEST, ITEM, RESPONSE, ERROR} and len(each.payload) > 50]
        assert {each.type for each in large} == {REQUEST, ITEM, RESPONSE, ERROR}
        assert all((each.flags & COMPRESSED != 0) is compressed for each in large)


def test_a_compressed_frame_of_the_session_service_is_a_violation() -> None:
    for flags in (0, MORE):
        acceptor = _open(Role.ACCEPTOR)
        events = send(acceptor, _packed(REQUEST, 1, metadata=SESSION_ROUTE, flags=flags))
        assert connection_error(acceptor, events)[0] == 1008
    acceptor = _open(Role.ACCEPTOR)
    send(acceptor, frame(REQUEST, 1, bytes(1024), metadata=SESSION_ROUTE, flags=MORE))
    assert connection_error(acceptor, send(acceptor, _packed(REQUEST, 1, flags=CONTINUED)))[0] == 1008
    acceptor = _open(Role.ACCEPTOR)
    send(acceptor, frame(REQUEST, 1, metadata=SESSION_ROUTE, flags=STREAMING))
    assert connection_error(acceptor, send(acceptor, _packed(ITEM, 1)))[0] == 1008
    for type_ in (RESPONSE, ITEM, ERROR):
        dialer = _open(Role.DIALER)
        stream = dialer.request("session", "m", b"")
        assert connection_error(dialer, send(dialer, _packed(type_, stream)))[0] == 1008


@pytest.mark.parametrize("type_", [RESPONSE, ITEM, ERROR])
def test_a_compressed_frame_of_the_session_service_is_a_violation_damaged_or_not(type_: int) -> None:
    """Order of checks, section 2: the stream tells it before the body is looked at."""
    dialer = _open(Role.DIALER)
    stream = dialer.request("session", "m", b"")
    damaged = frame(type_, stream, bytes(100), flags=COMPRESSED, body_crc=1)
    assert connection_error(dialer, send(dialer, damaged))[0] == 1008


@pytest.mark.parametrize("type_", [PING, PONG, GOAWAY, CREDIT, CANCEL, FINISH, ERROR])
def test_only_messages_on_streams_are_compressed(type_: int) -> None:
    connection = _open(Role.ACCEPTOR)
    send(connection, frame(REQUEST, 1, flags=STREAMING))
    stream = 1 if type_ in {CANCEL, FINISH} else 0
    assert connection_error(connection, send(connection, _packed(type_, stream)))[0] == 1008


# -- what arrives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 20, 100])
@pytest.mark.parametrize("limits", [{}, {"stream_window": 16 * KIB, "connection_window": 64 * KIB}])
def test_messages_of_any_size_arrive_as_they_were(size: int, limits: dict[str, int]) -> None:
    pair = _pair(limits=limits)
    payloads = [(TEXT + NOISE) * size, TEXT * size, NOISE * size, TEXT[:900]]
    for number, payload in enumerate(payloads):
        stream = pair.dialer.request("s", "m", payload, streaming=True)
        for each in payloads:
            pair.dialer.send_item(stream, each)
        pair.dialer.finish(stream)
        received: list[bytes | Failure] = []
        finished = False
        answered: list[Event] = []
        while pair.dialer.outbox.pending or pair.acceptor.outbox.pending:
            _, events = pair.run()
            for event in events:
                if isinstance(event, RequestReceived):
                    assert event.payload == payload
                    assert Tag.RAW_LENGTH not in event.entries
                finished = finished or isinstance(event, RequestFinished)
            received += _taken(pair.acceptor, events)
        assert received == payloads
        assert finished
        pair.acceptor.respond(stream, payload)
        answered, _ = pair.run()
        assert answered == [ResponseReceived(stream, payload, {})], number
    assert pair.dialer.ledger.held == pair.acceptor.ledger.held == 0


def test_an_error_may_be_compressed_too() -> None:
    pair = _pair()
    stream = pair.dialer.request("s", "m", b"")
    pair.run()
    pair.acceptor.fail(stream, failure(3010, {"text": "x" * 5000}))
    (answer,) = sent(pair.acceptor)
    assert answer.flags & COMPRESSED
    dialer = _open(Role.DIALER)
    stream = dialer.request("s", "m", b"")
    payload = error(3010, details={"text": "x" * 5000})[28:]
    (event,) = send(dialer, _packed(ERROR, stream, payload))
    assert isinstance(event, ErrorReceived)
    assert event.failure.details == {"text": "x" * 5000}


def test_an_item_costs_what_it_is_as_sent_and_is_kept_so() -> None:
    process = Budget()
    connection = _open(Role.ACCEPTOR, process=process, limits={"stream_window": 16 * KIB})
    send(connection, frame(REQUEST, 1, flags=STREAMING))
    held = process.used
    item = _packed(ITEM, 1, TEXT)
    cost = 64 + len(item) - 28
    events = send(connection, *[item] * (16 * KIB // cost))
    assert process.used - held == cost * len(events)
    assert all(isinstance(event, ItemReceived) and isinstance(event.payload, PackedItem) for event in events)
    assert connection.state is ConnectionState.OPEN
    assert sum(len(TEXT) for _ in events) > 10 * 16 * KIB
    assert _taken(connection, events) == [TEXT] * len(events)
    assert process.used == held


def test_an_item_of_several_frames_may_be_compressed_in_part() -> None:
    connection = _open(Role.ACCEPTOR)
    send(connection, frame(REQUEST, 1, flags=STREAMING))
    events = send(
        connection,
        frame(ITEM, 1, NOISE, flags=MORE),
        _packed(ITEM, 1, TEXT, flags=MORE | CONTINUED),
        frame(ITEM, 1, b"end", flags=CONTINUED),
    )
    assert _taken(connection, events) == [NOISE + TEXT + b"end"]
    events = send(connection, _packed(ITEM, 1, flags=MORE), _packed(ITEM, 1, flags=CONTINUED))
    assert _taken(connection, events) == [TEXT * 2]


def test_an_item_can_be_taken_after_its_stream_has_ended() -> None:
    connection = _open(Role.DIALER)
    stream = connection.request("s", "m", b"")
    (item, _) = send(connection, _packed(ITEM, stream), frame(RESPONSE, stream))
    assert _taken(connection, [item]) == [TEXT]


# -- what is wrong ---------------------------------------------------------------------------------------------------


def _wrong(type_: int, stream: int, fault: str, flags: int) -> bytes:
    metadata = ROUTE if type_ == REQUEST and not flags & CONTINUED else b""
    packed = CODEC.compress(TEXT)
    match fault:
        case "no zstd":
            return frame(type_, stream, b"x" * 40, flags=flags | COMPRESSED, metadata=metadata + _entry(len(TEXT)))
        case "too short":
            return frame(type_, stream, packed, flags=flags | COMPRESSED, metadata=metadata + _entry(len(TEXT) - 1))
        case "too long":
            return frame(type_, stream, packed, flags=flags | COMPRESSED, metadata=metadata + _entry(len(TEXT) + 1))
        case "above max_frame":
            return _packed(type_, stream, bytes(64 * KIB + 1), flags=flags, metadata=metadata)
        case "below 1 KiB":
            return _packed(type_, stream, bytes(1023), flags=flags, metadata=metadata)
        case "without the tag":
            return frame(type_, stream, packed, flags=flags | COMPRESSED, metadata=metadata)
        case _:
            return frame(type_, stream, packed, flags=flags, metadata=metadata + _entry(len(TEXT)))


FAULTS = {
    "no zstd": 1010,
    "too short": 1010,
    "too long": 1010,
    "above max_frame": 1010,
    "below 1 KiB": 1010,
    "without the tag": 1002,
    "without the flag": 1002,
}


#: What only decompressing shows: of a message of several frames, when it is whole.
FOUND_LATE = {"no zstd", "too short", "too long"}


@pytest.mark.parametrize("flags", [0, MORE])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_that_cannot_be_decompressed_is_refused(fault: str, flags: int) -> None:
    if fault == "without the flag" and flags:
        flags = 0  # that fragment would be too small: another fault
    process = Budget()
    connection = _open(Role.ACCEPTOR, process=process)
    assert send(connection, _wrong(REQUEST, 1, fault, flags)) == []
    if flags and fault in FOUND_LATE:
        assert sent(connection) == []
        assert send(connection, frame(REQUEST, 1, flags=CONTINUED)) == []
    (refusal,) = sent(connection)
    assert (refusal.stream, refusal.map["code"], refusal.map["outcome"]) == (1, FAULTS[fault], "not_applied")
    assert process.used == 0
    assert connection._streams._bucket.left(0.0) == 999
    assert len(send(connection, frame(REQUEST, 1, flags=CONTINUED), frame(REQUEST, 3))) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_whose_later_frame_cannot_be_decompressed_is_refused(fault: str) -> None:
    process = Budget()
    connection = _open(Role.ACCEPTOR, process=process)
    send(connection, frame(REQUEST, 1, bytes(1024), flags=MORE))
    assert send(connection, _wrong(REQUEST, 1, fault, CONTINUED)) == []
    (refusal,) = sent(connection)
    assert (refusal.stream, refusal.map["code"], refusal.map["outcome"]) == (1, FAULTS[fault], "not_applied")
    assert process.used == 0
    assert not connection.unfinished


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("part", [0, MORE, CONTINUED])
@pytest.mark.parametrize("type_", [RESPONSE, ERROR])
def test_an_answer_that_cannot_be_decompressed_fails_its_call(type_: int, part: int, fault: str) -> None:
    if fault == "without the flag" and part == MORE:
        part = 0
    connection = _open(Role.DIALER)
    stream = connection.request("s", "m", b"")
    sent(connection)
    if part == CONTINUED:
        send(connection, frame(type_, stream, bytes(1024), flags=MORE))
    events = send(connection, _wrong(type_, stream, fault, part))
    if part == MORE and fault in FOUND_LATE:
        assert events == []
        part = CONTINUED
        events = send(connection, frame(type_, stream, flags=CONTINUED))
    (event,) = events
    assert isinstance(event, CallFailed)
    assert (event.failure.code, event.failure.outcome) == (FAULTS[fault], "unknown")
    assert [each.type for each in sent(connection)] == ([CANCEL] if part == MORE else [])
    send(connection, frame(type_, stream, flags=CONTINUED))
    assert connection.open_streams == 0


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in {"no zstd", "too short", "too long"}])
@pytest.mark.parametrize("call", [True, False])
def test_an_item_whose_announcement_is_wrong_ends_its_stream_when_it_arrives(call: bool, fault: str) -> None:
    connection = _open(Role.DIALER if call else Role.ACCEPTOR)
    stream = connection.request("s", "m", b"") if call else 1
    send(connection, frame(REQUEST, 1, flags=STREAMING)) if not call else None
    (event,) = send(connection, _wrong(ITEM, stream, fault, 0))
    assert isinstance(event, CallFailed if call else RequestAborted)
    assert event.failure.code == FAULTS[fault]


@pytest.mark.parametrize("fault", ["no zstd", "too short", "too long"])
@pytest.mark.parametrize("call", [True, False])
def test_an_item_that_cannot_be_decompressed_ends_its_stream_when_it_is_taken(call: bool, fault: str) -> None:
    process = Budget()
    connection = _open(Role.DIALER if call else Role.ACCEPTOR, process=process)
    stream = connection.request("s", "m", b"") if call else 1
    if not call:
        send(connection, frame(REQUEST, 1, flags=STREAMING))
    sent(connection)
    events = send(connection, _wrong(ITEM, stream, fault, 0), _packed(ITEM, stream))
    assert [type(event) for event in events] == [ItemReceived, ItemReceived]
    assert isinstance(events[0], ItemReceived)
    taken = connection.take_item(stream, events[0].payload)
    assert isinstance(taken, Failure)
    assert (taken.code, taken.outcome) == (1010, "unknown")
    (event,) = connection.take_events()
    assert isinstance(event, CallFailed if call else RequestAborted)
    assert event.failure.code == 1010
    assert [each.type for each in sent(connection)] == ([CANCEL] if call else [])
    if not call:
        connection.fail(1, event.failure)
        (answer,) = sent(connection)
        assert answer.map["code"] == 1010
    assert process.used == 0 or call


def test_an_item_that_cannot_be_decompressed_after_its_stream_has_ended_is_a_failure_alone() -> None:
    connection = _open(Role.DIALER)
    stream = connection.request("s", "m", b"")
    (item, _) = send(connection, _wrong(ITEM, stream, "too long", 0), frame(RESPONSE, stream))
    (taken,) = _taken(connection, [item])
    assert isinstance(taken, Failure)
    assert connection.take_events() == []


def test_metadata_of_its_own_is_still_wrong_in_a_continued_frame() -> None:
    for metadata in (_entry(1024) + b"\x08\x01x", b"\x08\x01x" + _entry(1024), b"\x7f\x00" + _entry(1024), b"\x7f\x00"):
        connection = _open(Role.ACCEPTOR)
        send(connection, frame(REQUEST, 1, bytes(1024), flags=MORE))
        packed = CODEC.compress(bytes(1024))
        send(connection, frame(REQUEST, 1, packed, flags=CONTINUED | COMPRESSED, metadata=metadata))
        assert [each.map["code"] for each in sent(connection)] == [1002]


# -- limits first ----------------------------------------------------------------------------------------------------


class _Counting(Codec):
    """Counts what it is asked to decompress."""

    asked = 0

    def decompress(self, data: bytes, raw_length: int) -> bytes:
        self.asked += 1
        return super().decompress(data, raw_length)


def _counted(role: Role, **config: Any) -> tuple[Connection, _Counting]:
    codec = _Counting()
    connection = open_machine(role, peer={"capabilities": ["zstd"]}, compression=codec, **config)
    return connection, codec


def test_max_message_counts_what_comes_out_and_is_checked_before() -> None:
    """Trap: decompression before the signature or the limit is checked."""
    limits = {"max_message": 64 * KIB, "max_frame": 1024 * KIB}
    connection, codec = _counted(Role.ACCEPTOR, limits=limits)
    send(connection, _packed(REQUEST, 1, bytes(64 * KIB + 1)))
    assert [each.map["code"] for each in sent(connection)] == [3004]
    send(connection, frame(REQUEST, 3, flags=STREAMING))
    (aborted,) = send(connection, _packed(ITEM, 3, bytes(64 * KIB + 1)))
    assert isinstance(aborted, RequestAborted)
    assert aborted.failure.code == 3004
    assert codec.asked == 0
    send(connection, _packed(REQUEST, 5, bytes(60 * KIB), flags=MORE))
    send(connection, _packed(REQUEST, 5, bytes(5 * KIB), flags=CONTINUED))
    assert codec.asked == 0
    assert [each.map["code"] for each in sent(connection)] == [3004]
    connection, codec = _counted(Role.DIALER, limits=limits)
    stream = connection.request("s", "m", b"")
    (failed,) = send(connection, _packed(RESPONSE, stream, bytes(64 * KIB + 1)))
    assert isinstance(failed, CallFailed)
    assert failed.failure.code == 3004
    assert codec.asked == 0


def test_budgets_count_what_comes_out_and_are_checked_before() -> None:
    """Trap: decompression before the signature or the limit is checked."""
    process = Budget(limit=100 * KIB)
    connection, codec = _counted(Role.ACCEPTOR, process=process)
    assert len(send(connection, _packed(REQUEST, 1, bytes(60 * KIB)))) == 1
    assert process.used >= 60 * KIB
    send(connection, _packed(REQUEST, 3, bytes(60 * KIB)))
    assert [each.map["code"] for each in sent(connection)] == [3007]
    assert codec.asked == 1


def test_a_message_that_is_not_whole_costs_what_was_sent_of_it() -> None:
    """Some bytes that announce a thousand times as many would fill the budget of the process for minutes."""
    process = Budget(limit=1000 * KIB)
    connection, codec = _counted(Role.ACCEPTOR, process=process)
    packed = _packed(REQUEST, 1, bytes(64 * KIB), flags=MORE)
    send(connection, packed, *[_packed(REQUEST, 1, bytes(64 * KIB), flags=CONTINUED | MORE)] * 9)
    assert sent(connection) == []
    assert codec.asked == 0
    assert process.used < 10 * len(packed)
    # Its time goes by what was sent of it, too.
    assert connection.next_tick() < 61.0
    # When it is whole there must be room for all that it is.
    process.used += 500 * KIB
    send(connection, _packed(REQUEST, 1, bytes(KIB), flags=CONTINUED))
    assert [(each.stream, each.map["code"]) for each in sent(connection)] == [(1, 3007)]
    assert codec.asked == 0
    assert process.used == 500 * KIB


def test_messages_that_are_not_whole_leave_half_of_the_process_to_whole_ones() -> None:
    process = Budget(limit=400 * KIB)
    connection = _open(Role.ACCEPTOR, process=process)
    for stream in (1, 3, 5):
        send(connection, frame(REQUEST, stream, bytes(60 * KIB), flags=MORE))
    assert sent(connection) == []
    send(connection, frame(REQUEST, 7, bytes(60 * KIB), flags=MORE))
    assert [(each.stream, each.map["code"]) for each in sent(connection)] == [(7, 3007)]
    assert len(send(connection, frame(REQUEST, 9, bytes(60 * KIB)))) == 1
    # What has begun goes on when others have ended.
    send(connection, frame(CANCEL, 1), frame(CANCEL, 3))
    sent(connection)
    assert len(send(connection, frame(REQUEST, 5, bytes(KIB), flags=CONTINUED))) == 1


def test_what_is_refused_for_another_reason_is_not_decompressed() -> None:
    """Trap: decompression before the signature or the limit is checked."""
    connection, codec = _counted(Role.ACCEPTOR, limits={"max_streams": 64})
    send(connection, *(frame(REQUEST, 1 + 2 * number) for number in range(64)))
    send(connection, _packed(REQUEST, 201))
    damaged = bytearray(_packed(REQUEST, 203))
    damaged[-1] ^= 1
    send(connection, bytes(damaged), _packed(REQUEST, 205, flags=0x20))
    assert [each.map["code"] for each in sent(connection)] == [3007, 1003, 1006]
    connection.go_away(1014)
    sent(connection)
    send(connection, _packed(REQUEST, 207))
    assert [each.map["code"] for each in sent(connection)] == [1014]
    assert codec.asked == 0


def test_a_wrong_tag_is_found_before_anything_is_decompressed() -> None:
    """Trap: decompression before the signature or the limit is checked."""
    codec = _Counting()
    by = open_signed(Role.ACCEPTOR, peer={"capabilities": ["zstd", "hmac_sha256"]}, compression=codec)
    payload = CODEC.compress(TEXT)
    given: dict[str, Any] = {"flags": COMPRESSED, "metadata": ROUTE + _entry(len(TEXT))}
    (request,) = by.send(by.frame(REQUEST, 1, payload, **given))
    assert isinstance(request, RequestReceived)
    assert request.payload == TEXT
    by.send(by.frame(REQUEST, 3, payload, **given)[:-1] + b"?")
    assert codec.asked == 1
    assert [each.map["code"] for each in by.sent()] == [1011]


def test_items_that_nobody_takes_are_never_decompressed() -> None:
    connection, codec = _counted(Role.DIALER)
    stream = connection.request("s", "m", b"")
    send(connection, *[_packed(ITEM, stream)] * 5)
    connection.take_item(stream)
    connection.cancel(stream)
    send(connection, frame(RESPONSE, stream))
    assert codec.asked == 0
    assert connection.ledger.held == 0

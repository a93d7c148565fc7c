"""Damage and unknown elements, for each frame and both sides (protocol, section 3, "Damage", and section 2)."""

from __future__ import annotations

from typing import Any, Final

import google_crc32c
import msgspec
import pytest

from haptera.connection import Connection, Role
from haptera.connection.events import CallFailed, Event, RequestAborted, RequestReceived, ResponseReceived
from haptera.connection.stream_law import ConnectionState
from haptera.errors import failure
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
    SIGNED,
    STREAMING,
    Seen,
    connection_error,
    frame,
    open_machine,
    other,
    own,
    send,
    sent,
)

CRC: Final = 0x0BADF00D
ERROR_MAP: Final = msgspec.msgpack.encode(
    {"code": 4001, "name": "N", "message": "m" * 3000, "outcome": "not_applied", "details": {}}
)

#: What may be wrong behind the header: how a frame gets it, and the code that names it. In the order of section 2.
FAULTS: Final[dict[str, tuple[dict[str, Any], int]]] = {
    "damage": ({"body_crc": CRC}, 1003),
    "unknown critical flag": ({"flags": 0x20}, 1006),
    "malformed metadata": ({"metadata": b"\x09\x01x"}, 1002),
    "raw length alone": ({"metadata": b"\x85\x04\0\0\0\1"}, 1002),
    "unknown critical tag": ({"metadata": b"\x90\x00"}, 1007),
}


def _faulty(fault: str, type_: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    change = dict(FAULTS[fault][0])
    if type_ == REQUEST and not flags & CONTINUED:
        change["metadata"] = ROUTE + change.get("metadata", b"")
    return frame(type_, stream, payload, **(change | {"flags": flags | change.get("flags", 0)}))


def _check_details(fault: str, details: dict[str, Any], body: bytes) -> None:
    if fault == "damage":
        assert details == {"expected": CRC, "actual": google_crc32c.value(body)}
    elif fault == "unknown critical flag":
        assert details == {"flags": 0x20}
    elif fault == "unknown critical tag":
        assert details == {"tag": 0x90}


def _goes_on(connection: Connection) -> None:
    assert connection.state is ConnectionState.OPEN
    assert send(connection, frame(PING, payload=bytes(8))) == []
    assert [each.type for each in sent(connection)] == [PONG]


def _refusal(connection: Connection, stream: int) -> Seen:
    (refusal,) = sent(connection)
    assert (refusal.type, refusal.stream) == (ERROR, stream)
    return refusal


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("flags", [0, STREAMING, MORE, MORE | STREAMING])
def test_a_faulty_request_counts_as_opened_and_ended(role: Role, fault: str, flags: int) -> None:
    """Trap: silence instead of a structured error on a bad checksum or version."""
    connection = open_machine(role)
    stream = own(other(role))
    payload = bytes(1024)
    assert send(connection, _faulty(fault, REQUEST, stream, payload, flags)) == []
    said = _refusal(connection, stream).map
    assert (said["code"], said["outcome"]) == (FAULTS[fault][1], "not_applied")
    _check_details(fault, said["details"], ROUTE + payload)
    assert connection.open_streams == 0
    # Later frames are dropped, and the stream may not be opened again.
    later = [
        frame(REQUEST, stream, bytes(10), flags=CONTINUED),
        frame(ITEM, stream, b"x"),
        frame(FINISH, stream),
        frame(CANCEL, stream),
    ]
    assert send(connection, *later) == []
    _goes_on(connection)
    assert isinstance(send(connection, frame(REQUEST, stream + 2))[0], RequestReceived)


@pytest.mark.parametrize("route", [b"", b"\x01s", b"\x05s\x01m", b"\x00\x01m", b"\x01s\x01\xff"])
def test_a_request_that_says_not_where_it_goes(route: bytes) -> None:
    connection = open_machine(Role.ACCEPTOR)
    assert send(connection, frame(REQUEST, 1, metadata=route)) == []
    said = _refusal(connection, 1).map
    assert (said["code"], said["outcome"]) == (1002, "not_applied")
    _goes_on(connection)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "raw length alone"])
@pytest.mark.parametrize("flags", [CONTINUED, CONTINUED | MORE])
def test_a_faulty_later_fragment_of_a_request_ends_it_before_any_handler(fault: str, flags: int) -> None:
    connection = open_machine(Role.ACCEPTOR)
    entry = b"\x01\x10" + b"i" * 16
    send(connection, frame(REQUEST, 1, bytes(2000), flags=MORE, metadata=ROUTE + entry))
    payload = bytes(1024)
    assert send(connection, _faulty(fault, REQUEST, 1, payload, flags)) == []
    refusal = _refusal(connection, 1)
    assert (refusal.map["code"], refusal.map["outcome"]) == (FAULTS[fault][1], "not_applied")
    assert refusal.metadata == entry, "the answer echoes the request id"
    assert send(connection, frame(REQUEST, 1, bytes(10), flags=CONTINUED)) == []
    _goes_on(connection)
    assert connection.ledger.held == 0


def test_a_continued_frame_has_no_metadata() -> None:
    connection = open_machine(Role.ACCEPTOR)
    send(connection, frame(REQUEST, 1, bytes(2000), flags=MORE))
    send(connection, frame(REQUEST, 1, b"x", flags=CONTINUED, metadata=b"\x08\x01x"))
    assert _refusal(connection, 1).map["code"] == 1002


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_faulty_item_of_a_request_stops_its_handler(role: Role, fault: str) -> None:
    connection = open_machine(role)
    stream = own(other(role))
    send(connection, frame(REQUEST, stream, flags=STREAMING))
    events = send(connection, _faulty(fault, ITEM, stream, b"item"), frame(ITEM, stream, b"next"))
    (aborted,) = events
    assert isinstance(aborted, RequestAborted)
    assert (aborted.failure.code, aborted.failure.outcome) == (FAULTS[fault][1], "unknown")
    _check_details(fault, aborted.failure.details, b"item")
    assert connection.open_streams == 1, "the handler has not ended"
    connection.fail(stream, aborted.failure)
    assert _refusal(connection, stream).map["code"] == FAULTS[fault][1]
    assert connection.open_streams == 0
    _goes_on(connection)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("type_", [RESPONSE, ERROR])
def test_a_faulty_answer_fails_the_call_here(role: Role, fault: str, type_: int) -> None:
    """A half-read or faulty answer must not leak: the stream has ended, and the next call gets its own answer."""
    connection = open_machine(role)
    stream = connection.request("s", "m", b"")
    sent(connection)
    (failed,) = send(connection, _faulty(fault, type_, stream, ERROR_MAP))
    assert isinstance(failed, CallFailed)
    assert (failed.failure.code, failed.failure.outcome) == (FAULTS[fault][1], "unknown")
    _check_details(fault, failed.failure.details, ERROR_MAP)
    assert connection.open_streams == 0
    assert sent(connection) == [], "no CANCEL for a stream that has ended, and never an ERROR from the requester"
    _goes_on(connection)


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("type_", [ITEM, RESPONSE, ERROR])
def test_fault_in_an_unfinished_answer_fails_the_call_and_cancels_it(fault: str, type_: int) -> None:
    connection = open_machine(Role.DIALER)
    stream = connection.request("s", "m", b"")
    sent(connection)
    first, rest = ERROR_MAP[:1024], ERROR_MAP[1024:]
    (failed,) = send(connection, _faulty(fault, type_, stream, first, MORE))
    assert isinstance(failed, CallFailed)
    assert (failed.failure.code, failed.failure.outcome) == (FAULTS[fault][1], "unknown")
    assert [(each.type, each.stream) for each in sent(connection)] == [(CANCEL, stream)]
    assert connection.open_streams == 1, "the slot is taken until the responder has ended the stream"
    assert send(connection, frame(type_, stream, rest, flags=CONTINUED)) == []
    if type_ == ITEM:
        assert send(connection, frame(RESPONSE, stream)) == []
    assert connection.open_streams == 0
    _goes_on(connection)


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_faulty_item_of_an_answer_fails_the_call_and_what_follows_is_dropped(fault: str) -> None:
    connection = open_machine(Role.DIALER)
    stream = connection.request("s", "m", b"")
    sent(connection)
    events = send(connection, _faulty(fault, ITEM, stream, b"x"), frame(ITEM, stream, b"y"), frame(RESPONSE, stream))
    assert [type(event) for event in events] == [CallFailed]
    assert [each.type for each in sent(connection)] == [CANCEL]
    assert connection.open_streams == 0


def test_an_error_whose_payload_is_malformed_fails_the_call() -> None:
    connection = open_machine(Role.DIALER)
    stream = connection.request("s", "m", b"")
    (failed,) = send(connection, frame(ERROR, stream, b"\x93\x01\x02\x03"))
    assert isinstance(failed, CallFailed)
    assert (failed.failure.code, failed.failure.outcome) == (1002, "unknown")
    assert connection.open_streams == 0


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("type_", [CANCEL, FINISH, CREDIT])
def test_faults_of_small_frames_of_a_stream(fault: str, type_: int) -> None:
    """With a bad checksum they end the connection; otherwise the stream, as any frame would."""
    connection = open_machine(Role.ACCEPTOR)
    send(connection, frame(REQUEST, 1, flags=STREAMING))
    payload = b"\0\0\0\1" if type_ == CREDIT else b""
    events = send(connection, _faulty(fault, type_, 1, payload))
    if fault == "damage":
        code, details = connection_error(connection, events)
        assert code == 1003
        _check_details(fault, details, payload)
        return
    (aborted,) = events
    assert isinstance(aborted, RequestAborted)
    assert aborted.failure.code == FAULTS[fault][1]
    _goes_on(connection)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "damage"])
def test_a_faulty_credit_of_a_call_fails_it(fault: str) -> None:
    connection = open_machine(Role.DIALER)
    stream = connection.request("s", "m", b"")
    sent(connection)
    events = send(connection, *[_faulty(fault, CREDIT, stream, b"\0\0\0\1")] * 2)
    assert [type(event) for event in events] == [CallFailed]
    assert [each.type for each in sent(connection)] == [CANCEL]


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("type_", [PING, PONG, GOAWAY, CREDIT, ERROR])
def test_on_stream_0_all_of_these_are_connection_errors(role: Role, fault: str, type_: int) -> None:
    connection = open_machine(role)
    goaway = msgspec.msgpack.encode({"code": 1014, "name": "", "message": "", "last_stream": 0})
    payload = {CREDIT: b"\0\0\0\1", ERROR: ERROR_MAP, GOAWAY: goaway}.get(type_, bytes(8))
    code, details = connection_error(connection, send(connection, _faulty(fault, type_, 0, payload)))
    assert code == FAULTS[fault][1]
    _check_details(fault, details, payload)


@pytest.mark.parametrize("type_", [0x00, 0x03, 0x0F, 0x17, 0x1F, 0x23, 0x7F])
@pytest.mark.parametrize("stream", [0, 1, 2, 99])
def test_an_unknown_critical_type_ends_the_connection(type_: int, stream: int) -> None:
    connection = open_machine(Role.ACCEPTOR)
    assert connection_error(connection, send(connection, frame(type_, stream, b"x"))) == (1005, {"type": type_})


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("stream", [1, 2, 99, 2**53])
@pytest.mark.parametrize("flags", [0, COMPRESSED, MORE])
def test_an_unknown_critical_type_is_told_before_whatever_else_is_wrong(fault: str, stream: int, flags: int) -> None:
    """Order of checks, section 2: a receiver cannot tell what else a type that it does not know demands."""
    connection = open_machine(Role.ACCEPTOR)
    events = send(connection, _faulty(fault, 0x60, stream, b"x", flags=flags))
    assert connection_error(connection, events) == (1005, {"type": 0x60})


@pytest.mark.parametrize("type_", [0x80, 0x9A, 0xEF, 0xF0, 0xFF])
@pytest.mark.parametrize("stream", [0, 1, 2, 2**53 - 1])
@pytest.mark.parametrize("change", [{}, {"body_crc": CRC}, {"flags": 0x3B}, {"metadata": b"\xff\xff"}])
def test_other_types_are_skipped_damaged_or_not(type_: int, stream: int, change: dict[str, Any]) -> None:
    connection = open_machine(Role.DIALER)
    assert send(connection, frame(type_, stream, b"whatever", **change)) == []
    assert sent(connection) == []
    _goes_on(connection)


@pytest.mark.parametrize("flags", [0x0100, 0x8000, 0xFF00])
def test_unknown_ignorable_flags_and_tags_are_skipped(flags: int) -> None:
    skipped = b"\x7f\x03abc\x0d\x00"
    connection = open_machine(Role.ACCEPTOR)
    request = frame(REQUEST, 1, b"p", flags=flags | STREAMING, metadata=ROUTE + skipped)
    item = frame(ITEM, 1, b"i", flags=flags, metadata=skipped)
    events = send(connection, request, item, frame(FINISH, 1, flags=flags), frame(CANCEL, 1, flags=flags))
    names = [type(event).__name__ for event in events]
    assert names == ["RequestReceived", "ItemReceived", "RequestFinished", "CancelReceived"]
    stream = connection.request("s", "m", b"")
    (answer,) = send(connection, frame(RESPONSE, stream, b"r", flags=flags, metadata=skipped))
    assert answer == ResponseReceived(stream, b"r", {})
    assert send(connection, frame(CREDIT, 0, b"\0\0\0\1", flags=flags, metadata=skipped)) == []
    assert send(connection, frame(PING, 0, bytes(8), flags=flags, metadata=skipped)) == []
    assert connection.state is ConnectionState.OPEN


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(
    ("flag", "type_"),
    [
        *((flag, type_) for flag in (COMPRESSED, SIGNED) for type_ in (REQUEST, ITEM, RESPONSE, ERROR, PING, CREDIT)),
        (SIGNED, 0x60),
        (SIGNED, 0xF0),
    ],
)
def test_a_flag_whose_capability_was_not_accepted_ends_the_connection(role: Role, flag: int, type_: int) -> None:
    """Beside any other fault, and of any type for SIGNED: such a frame is followed by bytes that are no frame."""
    connection = open_machine(role)
    data = frame(type_, own(other(role)), bytes(8), flags=flag, body_crc=CRC)
    assert connection_error(connection, send(connection, data))[0] == 1008


@pytest.mark.parametrize(("earlier", "later"), [(1003, 1006), (1006, 1002), (1002, 1007), (1003, 1007)])
def test_the_first_of_several_faults_is_named(earlier: int, later: int) -> None:
    changes: dict[str, Any] = {}
    metadata = ROUTE
    for code in (earlier, later):
        if code == 1003:
            changes["body_crc"] = CRC
        elif code == 1006:
            changes["flags"] = 0x40
        else:
            metadata += b"\x90\x00" if code == 1007 else b"\x09\x00\x09\x00"
    connection = open_machine(Role.ACCEPTOR)
    send(connection, frame(REQUEST, 1, b"x", metadata=metadata, **changes))
    assert _refusal(connection, 1).map["code"] == earlier


def test_a_place_in_the_table_is_checked_before_the_body() -> None:
    """Order of checks, section 2: stream (section 3), then body_crc."""
    for stream, state in ((1, ConnectionState.CLOSING), (3, ConnectionState.OPEN)):
        connection = open_machine(Role.ACCEPTOR)
        send(connection, frame(REQUEST, 1))
        events = send(connection, frame(REQUEST, stream, b"x", body_crc=CRC))
        assert connection.state is state
        if state is ConnectionState.CLOSING:
            assert connection_error(connection, events)[0] == 1008


@pytest.mark.parametrize("type_", [ITEM, FINISH, CANCEL, CREDIT])
def test_damage_on_an_ended_stream_is_dropped(type_: int) -> None:
    connection = open_machine(Role.ACCEPTOR)
    send(connection, frame(REQUEST, 1, flags=STREAMING))
    connection.fail(1, failure(3010))
    sent(connection)
    assert send(connection, frame(type_, 1, b"xx", body_crc=CRC)) == []
    _goes_on(connection)


def test_a_tag_of_a_capability_that_was_not_accepted_is_ignored() -> None:
    """No `request_deadline` and no `trace_context` here: their tags are no reason to refuse."""
    connection = open_machine(Role.ACCEPTOR)
    entries = b"\x02\x04\0\0\0\0" + b"\x03\x1a" + bytes(26)
    events: list[Event] = send(connection, frame(REQUEST, 1, metadata=ROUTE + entries))
    assert isinstance(events[0], RequestReceived)

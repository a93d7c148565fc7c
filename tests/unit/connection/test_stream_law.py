"""Every cell of the table of section 3 of the protocol, for both roles.

What is expected is written down here from the text of the specification; the code's own tables are not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from haptera.connection import Connection, Role
from haptera.connection.stream_law import ConnectionState
from tests.unit.connection.machines import (
    CANCEL,
    CONTINUED,
    CREDIT,
    ERROR,
    FINISH,
    GOAWAY,
    HELLO,
    ITEM,
    MORE,
    PING,
    PONG,
    REQUEST,
    RESPONSE,
    STREAMING,
    WELCOME,
    connection_error,
    credit,
    frame,
    open_machine,
    other,
    own,
    send,
    sent,
)

if TYPE_CHECKING:
    from haptera.connection.events import Event

#: An ERROR that is long enough to be sent in three frames.
_ERROR_MAP: Final = {"code": 4001, "name": "N", "message": "m" * 3000, "outcome": "unknown", "details": {}}
_ERROR: Final = msgspec.msgpack.encode(_ERROR_MAP)
_PARTS: Final = {"whole": 0, "first": MORE, "middle": MORE | CONTINUED, "last": CONTINUED}
_PLACES: Final = {"whole": slice(None), "first": slice(1024), "middle": slice(1024, 2048), "last": slice(1024, None)}


def _payload(type_: int, part: str) -> bytes:
    return _ERROR[_PLACES[part]] if type_ == ERROR else bytes(1024)


def _message(type_: int, part: str) -> Any:
    return lambda stream: frame(type_, stream, _payload(type_, part), flags=_PARTS[part])


#: All frames that one may try on a stream, by the names that the expectations use.
_FRAMES: Final = {
    "REQUEST": lambda stream: frame(REQUEST, stream),
    "REQUEST MORE": lambda stream: frame(REQUEST, stream, bytes(1024), flags=MORE),
    "REQUEST STREAMING": lambda stream: frame(REQUEST, stream, flags=STREAMING),
    "REQUEST STREAMING MORE": lambda stream: frame(REQUEST, stream, bytes(1024), flags=STREAMING | MORE),
    "REQUEST middle": _message(REQUEST, "middle"),
    "REQUEST last": _message(REQUEST, "last"),
    "CANCEL": lambda stream: frame(CANCEL, stream),
    "FINISH": lambda stream: frame(FINISH, stream),
    "CREDIT": lambda stream: credit(stream, 1),
    **{f"ITEM {part}": _message(ITEM, part) for part in _PARTS},
    **{f"RESPONSE {part}": _message(RESPONSE, part) for part in _PARTS},
    **{f"ERROR {part}": _message(ERROR, part) for part in _PARTS},
    "HELLO": lambda stream: frame(HELLO, stream),
    "WELCOME": lambda stream: frame(WELCOME, stream),
    "PING": lambda stream: frame(PING, stream, bytes(8)),
    "PONG": lambda stream: frame(PONG, stream, bytes(8)),
    "GOAWAY": lambda stream: frame(GOAWAY, stream),
}
_OPENING: Final = {"REQUEST", "REQUEST MORE", "REQUEST STREAMING", "REQUEST STREAMING MORE"}

#: The states of a stream that the peer opened, as the frames that lead there. None: no such stream.
_SERVED: Final[dict[str, tuple[str, ...] | None]] = {
    "not yet used": None,
    "ended": ("REQUEST",),  # and answered
    "skipped": None,
    "open": ("REQUEST",),
    "open, cancelled": ("REQUEST", "CANCEL"),
    "begun": ("REQUEST MORE",),
    "begun, two frames": ("REQUEST MORE", "REQUEST middle"),
    "begun, streaming": ("REQUEST STREAMING MORE",),
    "streaming": ("REQUEST STREAMING",),
    "streaming, of two frames": ("REQUEST STREAMING MORE", "REQUEST last"),
    "streaming, cancelled": ("REQUEST STREAMING", "CANCEL"),
    "streaming, item begun": ("REQUEST STREAMING", "ITEM first"),
    "streaming, item of two frames begun": ("REQUEST STREAMING", "ITEM first", "ITEM middle"),
    "streaming, item begun, cancelled": ("REQUEST STREAMING", "ITEM first", "CANCEL"),
    "finished": ("REQUEST STREAMING", "ITEM whole", "FINISH"),
    "finished, cancelled": ("REQUEST STREAMING", "FINISH", "CANCEL"),
}

#: The states of a stream that this side opened, as the peer's frames that lead there.
_CALLED: Final[dict[str, tuple[str, ...] | None]] = {
    "not yet used": None,
    "ended": ("RESPONSE whole",),
    "open": (),
    "open, after an item": ("ITEM whole",),
    "item begun": ("ITEM first",),
    "item begun, two frames": ("ITEM first", "ITEM middle"),
    "response begun": ("RESPONSE first",),
    "response begun, two frames": ("RESPONSE first", "RESPONSE middle"),
    "error begun": ("ERROR first",),
    "response abandoned by an error": ("RESPONSE first", "ERROR first"),
}


def _expected_on_served(state: str, name: str) -> str:
    """What section 3 says of a frame from the requester: 1008, dropped, or the names of the events."""
    if name.split(maxsplit=1)[0] in {"HELLO", "WELCOME", "PING", "PONG", "GOAWAY"}:
        return "1008"  # a type on the wrong stream
    if name.split(maxsplit=1)[0] in {"RESPONSE", "ERROR"}:
        return "1008"  # a frame from the wrong side
    if state == "not yet used":
        return _opened(name) if name in _OPENING else "1008"
    if name in _OPENING:
        return "1008"
    if state in {"ended", "skipped"}:
        return "dropped"
    if name == "CREDIT":
        return ""
    if name == "CANCEL":
        # The second is dropped; a request that is not whole has no handler that could answer.
        return "dropped" if "cancelled" in state else "3006" if state.startswith("begun") else "CancelReceived"
    if name.startswith("REQUEST"):
        if not state.startswith("begun"):
            return "1008"
        return "RequestReceived" if name == "REQUEST last" else ""
    # ITEM and FINISH: with STREAMING and before FINISH; a fragment's place is kept.
    if not state.startswith("streaming"):
        return "1008"
    begun = "begun" in state
    if name == "FINISH":
        return "1008" if begun else "RequestFinished"
    if begun:
        return {"ITEM middle": "", "ITEM last": "ItemReceived"}.get(name, "1008")
    return {"ITEM first": "", "ITEM whole": "ItemReceived"}.get(name, "1008")


def _opened(name: str) -> str:
    return "" if "MORE" in name else "RequestReceived"


def _expected_on_called(state: str, name: str) -> str:
    """What section 3 says of a frame on a stream that this side opened."""
    kind, _, part = name.partition(" ")
    if kind not in {"ITEM", "RESPONSE", "ERROR", "CREDIT"}:
        return "1008"  # of the wrong parity, from the wrong side, or on the wrong stream
    if state == "not yet used":
        return "1008"
    if state == "ended":
        return "dropped"
    if kind == "CREDIT":
        return ""
    event = {"ITEM": "ItemReceived", "RESPONSE": "ResponseReceived", "ERROR": "ErrorReceived"}[kind]
    begun = {"item begun": "ITEM", "response begun": "RESPONSE", "error begun": "ERROR"}.get(
        state.split(",", maxsplit=1)[0]
    )
    if state == "response abandoned by an error":
        begun = "ERROR"
    if begun == kind:
        if part in {"middle", "last"}:
            return event if part == "last" else ""
        return "1008"
    if part in {"middle", "last"} or (begun is not None and kind != "ERROR"):
        return "1008"  # a misplaced fragment, or one message within another; an ERROR abandons what is unfinished
    return event if part == "whole" else ""


def _outcome(connection: Connection, events: list[Event]) -> str:
    """Say what a machine made of a frame, in the words of the expectations."""
    if connection.state is ConnectionState.CLOSING:
        assert len(events) == 1
        return str(connection_error(connection, events)[0])
    refusals = [str(each.map["code"]) for each in sent(connection) if each.type == ERROR]
    outcome = " ".join(refusals + [type(event).__name__ for event in events])
    # Whatever it was, the connection goes on.
    assert send(connection, frame(PING, payload=b"12345678")) == []
    assert [(each.type, each.payload) for each in sent(connection)] == [(PONG, b"12345678")]
    return outcome


def _served(role: Role, state: str) -> tuple[Connection, int]:
    connection = open_machine(role)
    stream = own(other(role), 1)
    frames = _SERVED[state]
    if state == "skipped":
        send(connection, frame(REQUEST, own(other(role), 2)))
    for name in frames or ():
        send(connection, _FRAMES[name](stream))
    if state == "ended":
        connection.respond(stream, b"")
    sent(connection)
    return connection, stream


def _called(role: Role, state: str) -> tuple[Connection, int]:
    connection = open_machine(role)
    frames = _CALLED[state]
    stream = own(role) if frames is None else connection.request("s", "m", b"")
    for name in frames or ():
        send(connection, _FRAMES[name](stream))
    sent(connection)
    return connection, stream


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("name", list(_FRAMES))
@pytest.mark.parametrize("state", list(_SERVED))
def test_a_frame_on_a_stream_that_the_peer_opened(role: Role, state: str, name: str) -> None:
    connection, stream = _served(role, state)
    before = connection.open_streams
    outcome = _outcome(connection, send(connection, _FRAMES[name](stream)))
    expected = _expected_on_served(state, name)
    assert outcome == ("" if expected == "dropped" else expected)
    if expected == "dropped":
        assert connection.open_streams == before
    if expected == "3006":
        assert connection.open_streams == 0


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("name", list(_FRAMES))
@pytest.mark.parametrize("state", list(_CALLED))
def test_a_frame_on_a_stream_that_this_side_opened(role: Role, state: str, name: str) -> None:
    connection, stream = _called(role, state)
    outcome = _outcome(connection, send(connection, _FRAMES[name](stream)))
    expected = _expected_on_called(state, name)
    assert outcome == ("" if expected == "dropped" else expected)
    if expected in {"ResponseReceived", "ErrorReceived"}:
        assert connection.open_streams == 0


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("name", [name for name in _FRAMES if name.split()[0] not in {"PING", "PONG", "GOAWAY"}])
def test_a_frame_of_a_stream_on_stream_0(role: Role, name: str) -> None:
    connection = open_machine(role)
    events = send(connection, _FRAMES[name](0))
    if name == "CREDIT":
        assert _outcome(connection, events) == ""
    elif name == "ERROR whole":
        assert [type(event).__name__ for event in events] == ["Closed"]
    else:
        assert connection_error(connection, events)[0] == 1008


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("stream", [2**53, 2**53 + 1, 2**64 - 1, 2**64 - 2])
@pytest.mark.parametrize("name", [*_FRAMES, "ignorable"])
def test_a_stream_above_2_to_the_53_minus_1(role: Role, stream: int, name: str) -> None:
    connection = open_machine(role)
    data = frame(0xF0, stream) if name == "ignorable" else _FRAMES[name](stream)
    assert connection_error(connection, send(connection, data))[0] == 1008


@pytest.mark.parametrize("role", list(Role))
def test_the_highest_stream_may_be_used(role: Role) -> None:
    connection = open_machine(role)
    stream = 2**53 - 1 if role is Role.ACCEPTOR else 2**53 - 2
    assert [type(event).__name__ for event in send(connection, frame(REQUEST, stream))] == ["RequestReceived"]


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("name", ["REQUEST", "REQUEST MORE", "REQUEST STREAMING"])
def test_a_request_of_the_wrong_parity(role: Role, name: str) -> None:
    connection = open_machine(role)
    assert connection_error(connection, send(connection, _FRAMES[name](own(role, 3))))[0] == 1008


@pytest.mark.parametrize("type_", [CANCEL, FINISH, CREDIT])
@pytest.mark.parametrize("flags", [MORE, CONTINUED, STREAMING])
def test_flags_of_messages_on_frames_that_are_none(type_: int, flags: int) -> None:
    connection, stream = _served(Role.ACCEPTOR, "streaming")
    payload = b"\0\0\0\1" if type_ == CREDIT else b""
    assert connection_error(connection, send(connection, frame(type_, stream, payload, flags=flags)))[0] == 1008


@pytest.mark.parametrize("flags", [MORE, CONTINUED, STREAMING])
@pytest.mark.parametrize("type_", [PING, PONG, GOAWAY, ERROR, CREDIT])
def test_flags_of_messages_on_stream_0(type_: int, flags: int) -> None:
    connection = open_machine(Role.DIALER)
    payload = {CREDIT: b"\0\0\0\1", ERROR: _ERROR, GOAWAY: _ERROR}.get(type_, bytes(8))
    assert connection_error(connection, send(connection, frame(type_, 0, payload, flags=flags)))[0] == 1008


@pytest.mark.parametrize("name", ["ITEM whole", "RESPONSE whole", "ERROR whole"])
def test_streaming_is_a_flag_of_requests_alone(name: str) -> None:
    connection, stream = _called(Role.DIALER, "open")
    type_ = {"ITEM": ITEM, "RESPONSE": RESPONSE, "ERROR": ERROR}[name.split(maxsplit=1)[0]]
    data = frame(type_, stream, _payload(type_, "whole"), flags=STREAMING)
    assert connection_error(connection, send(connection, data))[0] == 1008


@pytest.mark.parametrize(("type_", "right"), [(PING, 8), (PONG, 8), (CREDIT, 4), (CANCEL, 0), (FINISH, 0)])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 7, 8, 9, 1024])
def test_a_fixed_size_payload_of_another_size(type_: int, right: int, size: int) -> None:
    connection, stream = _served(Role.ACCEPTOR, "streaming")
    on = 0 if type_ in {PING, PONG} else stream
    events = send(connection, frame(type_, on, b"\1" * size))
    if size == right:
        assert connection.state is ConnectionState.OPEN
    else:
        assert connection_error(connection, events) == (1002, {"expected": right, "actual": size})


def test_a_violation_ends_only_what_comes_after_it() -> None:
    connection = open_machine(Role.ACCEPTOR)
    events = send(connection, frame(REQUEST, 1), frame(REQUEST, 1), frame(REQUEST, 3))
    assert [type(event).__name__ for event in events] == ["RequestReceived", "Closed"]


def test_nothing_behind_the_peer_s_error_is_read_not_even_to_find_fault_with_it() -> None:
    connection = open_machine(Role.ACCEPTOR)
    events = send(connection, frame(ERROR, 0, _ERROR), b"rubbish" * 10)
    assert [type(event).__name__ for event in events] == ["Closed"]
    assert sent(connection) == []
    assert connection.state is ConnectionState.CLOSED

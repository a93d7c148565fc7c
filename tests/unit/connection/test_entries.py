"""Metadata entries that belong to capabilities (protocol, sections 2.3 and 4.1)."""

from __future__ import annotations

import pytest

from haptera.connection import Role
from haptera.connection.events import CallFailed, ErrorReceived, RequestReceived, ResponseReceived
from haptera.wire.metadata import CAPABILITY_TAGS, Tag, encode_entry
from tests.unit.connection.machines import (
    ERROR,
    MORE,
    REQUEST,
    RESPONSE,
    ROUTE,
    error,
    frame,
    open_machine,
    send,
    sent,
)

REQUEST_ID = encode_entry(Tag.REQUEST_ID, bytes(range(16)))
OF_REQUESTS = {
    "request_deadline": {Tag.TIMEOUT_MS: (1500).to_bytes(4, "big")},
    "trace_context": {Tag.TRACEPARENT: bytes(range(1, 27)), Tag.TRACESTATE: b"vendor=1"},
}
OF_ANSWERS = {"server_metrics": {Tag.SERVER_TIME_US: bytes(4), Tag.QUEUE_TIME_US: b"\0\0\0\7"}}


def _encoded(entries: dict[Tag, bytes]) -> bytes:
    return b"".join(encode_entry(tag, value) for tag, value in entries.items())


@pytest.mark.parametrize("accepted", OF_REQUESTS)
@pytest.mark.parametrize("flags", [0, MORE])
def test_a_request_s_entries_reach_its_handler_only_where_their_capability_was_accepted(
    accepted: str, flags: int
) -> None:
    """Trap: trace and deadline fields that nothing reads."""
    connection = open_machine(Role.ACCEPTOR, peer={"capabilities": [accepted, "pipelining"]})
    everything = {tag: value for entries in OF_REQUESTS.values() for tag, value in entries.items()}
    events = send(
        connection, frame(REQUEST, 1, bytes(1024), metadata=ROUTE + _encoded(everything) + REQUEST_ID, flags=flags)
    )
    if flags:
        events = send(connection, frame(REQUEST, 1, flags=0x10))
    (event,) = events
    assert isinstance(event, RequestReceived)
    assert (event.entries, event.request_id) == (OF_REQUESTS[accepted], bytes(range(16)))


@pytest.mark.parametrize("capabilities", [[], ["server_metrics"]])
@pytest.mark.parametrize("type_", [RESPONSE, ERROR])
def test_an_answer_s_times_reach_its_caller_only_where_they_were_accepted(capabilities: list[str], type_: int) -> None:
    connection = open_machine(Role.DIALER, peer={"capabilities": capabilities})
    stream = connection.request("s", "m", b"")
    times = OF_ANSWERS["server_metrics"]
    payload = b"" if type_ == RESPONSE else error(3010)[28:]
    (event,) = send(connection, frame(type_, stream, payload, metadata=_encoded(times)))
    assert isinstance(event, ResponseReceived | ErrorReceived)
    assert event.entries == (times if capabilities else {})


def test_a_timeout_of_0_is_an_invalid_argument_of_that_request_alone() -> None:
    connection = open_machine(Role.ACCEPTOR, peer={"capabilities": ["request_deadline"]})
    metadata = ROUTE + encode_entry(Tag.TIMEOUT_MS, bytes(4)) + REQUEST_ID
    assert send(connection, frame(REQUEST, 1, metadata=metadata)) == []
    (refusal,) = sent(connection)
    assert (refusal.stream, refusal.map["code"], refusal.map["outcome"]) == (1, 3003, "not_applied")
    assert refusal.metadata == REQUEST_ID
    assert connection.open_streams == 0
    assert len(send(connection, frame(REQUEST, 3))) == 1


def test_a_timeout_of_0_is_ignored_where_timeouts_were_not_accepted() -> None:
    connection = open_machine(Role.ACCEPTOR)
    metadata = ROUTE + encode_entry(Tag.TIMEOUT_MS, bytes(4))
    (event,) = send(connection, frame(REQUEST, 1, metadata=metadata))
    assert isinstance(event, RequestReceived)
    assert event.entries == {}


@pytest.mark.parametrize("tag", [tag for tags in CAPABILITY_TAGS.values() for tag in tags if tag != Tag.TRACESTATE])
def test_an_entry_of_a_wrong_length_is_malformed_whether_or_not_it_is_ignored(tag: int) -> None:
    metadata = encode_entry(tag, bytes(3))
    acceptor = open_machine(Role.ACCEPTOR)
    assert send(acceptor, frame(REQUEST, 1, metadata=ROUTE + metadata)) == []
    assert [each.map["code"] for each in sent(acceptor)] == [1002]
    dialer = open_machine(Role.DIALER)
    (event,) = send(dialer, frame(RESPONSE, dialer.request("s", "m", b""), metadata=metadata))
    assert isinstance(event, CallFailed)
    assert event.failure.code == 1002

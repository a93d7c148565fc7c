"""HELLO and WELCOME: what is agreed, what is refused, and what may follow at once (protocol, section 4)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from haptera.connection import Config, Role
from haptera.connection.config import FIRST_FLIGHT_REQUESTS_MAX, FIRST_FLIGHT_SIZE_MAX
from haptera.connection.events import Closed, ErrorReceived, Established, Event, RequestReceived, ResponseReceived
from haptera.connection.handshake import answer_hello
from haptera.connection.stream_law import ConnectionState
from haptera.errors import LocalProtocolError, RemoteProtocolError, failure
from haptera.wire.payload import Hello, Limits
from tests.unit.connection.machines import (
    CANCEL,
    COMPRESSED,
    CONTINUED,
    ERROR,
    FINISH,
    GOAWAY,
    HELLO,
    ITEM,
    MORE,
    PING,
    REQUEST,
    RESPONSE,
    SIGNED,
    STREAMING,
    WELCOME,
    Pair,
    connection_error,
    damaged,
    entropy,
    error,
    frame,
    hello,
    hello_map,
    machine,
    open_machine,
    parse,
    send,
    sent,
    shaken,
    welcome_map,
)


def _answer(**changes: Any) -> tuple[Any, list[Event]]:
    """Let a dialer read a WELCOME with these changes."""
    dialer = machine(Role.DIALER)
    session = sent(dialer)[0].map["session"]
    fields = welcome_map(session) | changes
    fields = {key: value for key, value in fields.items() if value is not ...}
    return dialer, send(dialer, frame(WELCOME, payload=msgspec.msgpack.encode(fields)))


def test_both_sides_learn_the_same_of_the_connection() -> None:
    pair = Pair(
        dialer={"agent": "d/1", "services": ("a", "b"), "limits": {"max_frame": 20_000}},
        acceptor={"agent": "s/2", "services": ("kv",), "server_id": b"i" * 16, "ping_interval_ms": 7},
    )
    pair.run()
    ours, theirs = pair.dialer.agreement, pair.acceptor.agreement
    assert ours is not None
    assert theirs is not None
    assert ours.session == theirs.session != bytes(16)
    defaults = {"pipelining", "idempotency", "request_deadline", "server_metrics", "trace_context"}
    assert ours.capabilities == theirs.capabilities == defaults
    assert (ours.peer_agent, theirs.peer_agent) == ("s/2", "d/1")
    assert (ours.peer_services, theirs.peer_services) == (("kv",), ("a", "b"))
    assert theirs.peer_limits.max_frame == 20_000
    assert ours.server_id == b"i" * 16
    assert ours.ping_interval_ms == theirs.ping_interval_ms == 7
    assert ours.version == theirs.version == 1


def test_each_handshake_has_nonces_of_its_own() -> None:
    """Section 4: 32 random bytes of either side. The keys of signed frames are made of them."""
    nonces = set()
    for seed in range(3):
        pair = Pair(dialer={"seed": seed}, acceptor={"seed": seed})
        (hello_frame,) = sent(pair.dialer)
        send(pair.acceptor, frame(HELLO, payload=hello_frame.payload))
        welcome_frame, *_ = sent(pair.acceptor)
        nonces |= {hello_frame.map["nonce"], welcome_frame.map["nonce"]}
    assert {len(nonce) for nonce in nonces} == {32}
    assert len(nonces) == 6


def test_the_required_fields_of_hello_are_enough_and_the_rest_has_its_defaults() -> None:
    acceptor = open_machine(Role.ACCEPTOR)
    assert acceptor.agreement is not None
    assert acceptor.agreement.peer_limits == Limits()
    assert acceptor.agreement.capabilities == frozenset()
    assert acceptor.agreement.peer_services == ()


def test_unknown_keys_of_the_handshake_are_ignored() -> None:
    acceptor = machine(Role.ACCEPTOR)
    assert send(acceptor, hello(later={"more": [1, None, b"x"]})) == [Established()]
    assert _answer(later=1.5)[1] == [Established()]


@pytest.mark.parametrize("missing", ["versions", "agent", "session", "nonce"])
def test_hello_without_a_required_field_is_malformed(missing: str) -> None:
    fields = hello_map()
    del fields[missing]
    acceptor = machine(Role.ACCEPTOR)
    events = send(acceptor, frame(HELLO, payload=msgspec.msgpack.encode(fields)))
    assert connection_error(acceptor, events)[0] == 1002


def test_the_highest_common_version_is_chosen() -> None:
    config = Config(entropy=entropy(1), versions=(1, 2, 5))
    asked = Hello(versions=[9, 5, 2, 1], agent="x", session=bytes(16), nonce=bytes(32))
    welcome, _, agreement = answer_hello(config, asked, None)
    assert welcome.version == agreement.version == 5
    assert welcome.versions == [1, 2, 5]


def test_a_newer_dialer_that_also_speaks_version_1_is_welcome() -> None:
    acceptor = machine(Role.ACCEPTOR)
    assert send(acceptor, hello(versions=[1, 2, 3])) == [Established()]
    welcome = sent(acceptor)[0]
    assert (welcome.type, welcome.map["version"], welcome.map["versions"]) == (WELCOME, 1, [1])


@pytest.mark.parametrize("versions", [[2], [7, 8], []])
def test_no_common_version_is_refused_with_those_that_the_acceptor_speaks(versions: list[int]) -> None:
    """Trap: silence instead of a structured error on a bad checksum or version."""
    acceptor = machine(Role.ACCEPTOR)
    events = send(acceptor, hello(versions=versions), frame(REQUEST, 1))
    assert len(events) == 1
    assert connection_error(acceptor, events) == (1001, {"versions": [1]})


def test_a_dialer_learns_why_its_hello_was_refused_and_that_nothing_was_applied() -> None:
    pair = Pair(dialer={"versions": (7,)})
    pair.dialer.request("s", "m", b"")
    ours, theirs = pair.run()
    assert [type(event) for event in ours + theirs] == [Closed, Closed]
    closed = ours[0]
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, LocalProtocolError)
    assert closed.failure is not None
    assert (closed.failure.code, closed.failure.outcome) == (1001, "not_applied")
    assert pair.dialer.agreement is None


def test_capabilities_are_those_that_both_sides_want() -> None:
    acceptor = machine(Role.ACCEPTOR, capabilities=("pipelining", "idempotency"))
    send(acceptor, hello(capabilities=["x-other", "idempotency", "zstd"]))
    assert sent(acceptor)[0].map["capabilities"] == ["idempotency"]


@pytest.mark.parametrize(
    "lie",
    [
        {"version": 2},
        {"version": 2, "versions": [1, 2]},
        {"versions": [2]},
        {"versions": []},
        {"capabilities": ["zstd"]},
        {"capabilities": ["pipelining", "pipelining!"]},
        {"session": b"x" * 16},
    ],
)
def test_a_welcome_that_lies_is_a_violation(lie: dict[str, Any]) -> None:
    assert connection_error(*_answer(**lie))[0] == 1008


def test_a_welcome_that_does_not_choose_the_highest_version_is_a_violation() -> None:
    dialer = machine(Role.DIALER, versions=(1, 2))
    fields = welcome_map(sent(dialer)[0].map["session"]) | {"versions": [1, 2, 3], "version": 1}
    events = send(dialer, frame(WELCOME, payload=msgspec.msgpack.encode(fields)))
    assert connection_error(dialer, events) == (1008, {"chosen": 1})


@pytest.mark.parametrize(
    "change",
    [{"nonce": b"short"}, {"server_id": bytes(15)}, {"session": bytes(17)}, {"ping_interval_ms": -1}, {"agent": ...}],
)
def test_a_malformed_welcome_ends_the_connection(change: dict[str, Any]) -> None:
    assert connection_error(*_answer(**change))[0] == 1002


def test_what_is_enforced_is_what_the_peer_reads_as_announced() -> None:
    dialer = machine(Role.DIALER, limits={"stream_window": 1, "connection_window": 2**40, "max_message": 2**50})
    announced = sent(dialer)[0].map
    assert (announced["stream_window"], announced["connection_window"]) == (16 * 1024, 64 * 1024 * 1024)
    assert announced["max_message"] == 16 * 1024 * 1024, "a quarter of the connection's budget"


def test_limits_of_the_peer_outside_their_bounds_are_read_as_the_bounds() -> None:
    acceptor = open_machine(Role.ACCEPTOR, peer={"max_frame": 0, "max_message": -5, "max_streams": 10**9})
    assert acceptor.agreement is not None
    limits = acceptor.agreement.peer_limits
    assert (limits.max_frame, limits.max_message, limits.max_streams) == (16 * 1024, 64 * 1024, 65535)


def test_a_handshake_fits_into_its_16_kib_however_many_services_there_are() -> None:
    services = tuple(f"service-{number:04}" for number in range(3000))
    dialer = machine(Role.DIALER, services=services)
    said = sent(dialer)[0]
    assert 28 + len(said.payload) <= 16 * 1024
    assert said.map["services"] == list(services[: len(said.map["services"])])
    assert len(said.map["services"]) > 300
    for config in ({"agent": "x" * 5000}, {"capabilities": ("x" * 200,) * 30}, {"server_id": b"x"}, {"budget": 1000}):
        with pytest.raises(ValueError, match=r"handshake|server id|budget"):
            machine(Role.ACCEPTOR, **config)


@pytest.mark.parametrize("type_", [WELCOME, REQUEST, ITEM, RESPONSE, ERROR, CANCEL, FINISH, PING, GOAWAY, 0x60, 0xF3])
def test_the_first_frame_of_a_dialer_is_hello(type_: int) -> None:
    acceptor = machine(Role.ACCEPTOR)
    events = send(acceptor, frame(type_, 1 if type_ in (REQUEST, ITEM, RESPONSE, CANCEL, FINISH) else 0), hello())
    assert connection_error(acceptor, events)[0] == 1008


@pytest.mark.parametrize("type_", [HELLO, REQUEST, RESPONSE, PING, GOAWAY, 0x60, 0xF3])
def test_the_first_frame_of_an_acceptor_is_welcome_or_error(type_: int) -> None:
    dialer = machine(Role.DIALER)
    events = send(dialer, frame(type_, 2 if type_ in (REQUEST, RESPONSE) else 0))
    assert connection_error(dialer, events)[0] == 1008


@pytest.mark.parametrize("flags", [MORE, CONTINUED, STREAMING, COMPRESSED, SIGNED])
def test_a_handshake_is_never_fragmented_compressed_or_signed(flags: int) -> None:
    acceptor = machine(Role.ACCEPTOR)
    payload = msgspec.msgpack.encode(hello_map() | {"filler": bytes(2000)})
    assert connection_error(acceptor, send(acceptor, frame(HELLO, payload=payload, flags=flags)))[0] == 1008


def test_hello_on_a_stream_is_a_violation() -> None:
    acceptor = machine(Role.ACCEPTOR)
    events = send(acceptor, frame(HELLO, 1, msgspec.msgpack.encode(hello_map())))
    assert connection_error(acceptor, events)[0] == 1008


def test_a_damaged_hello_is_refused_with_both_checksums() -> None:
    """Trap: silence instead of a structured error on a bad checksum or version."""
    acceptor = machine(Role.ACCEPTOR)
    code, details = connection_error(acceptor, send(acceptor, damaged(HELLO, 0, msgspec.msgpack.encode(hello_map()))))
    assert code == 1003
    assert details["expected"] == 0x0BADF00D
    assert isinstance(details["actual"], int)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("type_", [HELLO, WELCOME])
def test_a_second_handshake_is_a_violation(role: Role, type_: int) -> None:
    connection = open_machine(role)
    payload = msgspec.msgpack.encode(hello_map() if type_ == HELLO else welcome_map(bytes(16)))
    assert connection_error(connection, send(connection, frame(type_, payload=payload)))[0] == 1008


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("some", [False, True])
def test_a_handshake_that_does_not_come_in_5_s_ends_the_connection(role: Role, some: bool) -> None:
    """Trap: no time-out before the hello."""
    connection = machine(role, now=100.0)
    sent(connection)
    if some:
        assert send(connection, hello()[:40], now=104.0) == []
    assert connection.next_tick() == 105.0
    assert connection.unfinished
    assert connection.tick(104.999) == []
    events = connection.tick(105.0)
    assert connection.next_tick() == float("inf")
    assert connection_error(connection, events)[0] == 1012


def test_an_error_before_welcome_is_understood_whatever_later_versions_add_to_it() -> None:
    dialer = machine(Role.DIALER)
    events = send(dialer, error(1013, later=[1], details={"limit": 3}))
    assert isinstance(events[0], Closed)
    assert events[0].failure is not None
    assert (events[0].failure.code, events[0].failure.details) == (1013, {"limit": 3})
    assert dialer.state is ConnectionState.CLOSED
    sent(dialer)
    assert send(dialer, error(1013)) == []
    assert sent(dialer) == []


def test_a_connection_error_with_a_code_of_a_later_version_is_still_an_error() -> None:
    connection = open_machine(Role.DIALER)
    events = send(connection, error(1999, name="LATER"))
    assert isinstance(events[0], Closed)
    assert isinstance(events[0].error, LocalProtocolError)
    assert (events[0].error.code, events[0].error.name) == (1999, "LATER")
    assert str(events[0].error).startswith("LATER (1999)")
    assert events[0].failure is not None
    assert events[0].failure.code == 1999


# -- the first flight ------------------------------------------------------------------------------------------------


def test_the_first_flight_leaves_with_hello_and_is_answered_behind_welcome() -> None:
    dialer = machine(Role.DIALER)
    stream = dialer.request("kv", "get", b"key")
    first = dialer.data_to_send(1 << 20)
    acceptor = machine(Role.ACCEPTOR)
    events = acceptor.receive_data(first, 0.0)
    assert [type(event) for event in events] == [Established, RequestReceived]
    acceptor.respond(stream, b"value")
    back = acceptor.data_to_send(1 << 20)
    assert [type(event) for event in dialer.receive_data(back, 0.0)] == [Established, ResponseReceived]
    assert dialer.first_flight == 1


def test_the_first_flight_is_at_most_64_requests() -> None:
    dialer = machine(Role.DIALER)
    for _ in range(64):
        assert dialer.can_request(0)
        dialer.request("s", "m", b"")
    assert not dialer.can_request(0)
    with pytest.raises(LocalProtocolError):
        dialer.request("s", "m", b"")
    assert FIRST_FLIGHT_REQUESTS_MAX == 64
    assert [each.type for each in sent(dialer)] == [HELLO] + [REQUEST] * 64


def test_the_first_flight_is_at_most_16_kib_with_headers_and_metadata() -> None:
    dialer = machine(Role.DIALER)
    while dialer.can_request(1000):
        dialer.request("s" * 100, "m" * 100, bytes(1000), entries=b"\x08\xff" + b"x" * 255)
    hello_frame, *flight = sent(dialer)
    assert hello_frame.type == HELLO
    assert 8 * 1024 < sum(28 + len(each.metadata) + len(each.payload) for each in flight) <= FIRST_FLIGHT_SIZE_MAX
    assert not dialer.can_request(16 * 1024)


def test_only_requests_leave_behind_hello() -> None:
    """Section 4: the dialer may send REQUESTs; ITEMs, FINISH and CANCEL wait for WELCOME."""
    pair = Pair()
    first = pair.dialer.request("s", "m", b"", streaming=True)
    second = pair.dialer.request("s", "m", b"", streaming=True)
    third = pair.dialer.request("s", "m", b"", streaming=True)
    pair.dialer.send_item(first, b"item")
    pair.dialer.send_item(first, b"")
    pair.dialer.finish(first)
    pair.dialer.finish(second)
    pair.dialer.cancel(third)
    with pytest.raises(LocalProtocolError):
        pair.dialer.ping(bytes(8))
    flight = pair.dialer.data_to_send(1 << 20)
    assert [each.type for each in parse(flight)] == [HELLO, REQUEST, REQUEST, REQUEST]
    pair.acceptor_events += pair.acceptor.receive_data(flight, 0.0)
    _, theirs = pair.run()
    names = [(type(event).__name__, getattr(event, "stream", 0)) for event in theirs]
    for stream, expected in (
        (first, ["RequestReceived", "ItemReceived", "ItemReceived", "RequestFinished"]),
        (second, ["RequestReceived", "RequestFinished"]),
        (third, ["RequestReceived", "CancelReceived"]),
    ):
        assert [name for name, its in names if its == stream] == expected


def test_an_item_queued_before_welcome_that_the_peer_does_not_take_fails_its_call() -> None:
    pair = Pair(acceptor={"limits": {"max_message": 64 * 1024}})
    stream = pair.dialer.request("s", "m", b"", streaming=True)
    pair.dialer.send_item(stream, bytes(70_000))
    ours, theirs = pair.run()
    assert [type(event).__name__ for event in ours] == ["Established", "CallFailed"]
    assert [type(event).__name__ for event in theirs] == ["Established", "RequestReceived", "CancelReceived"]


def test_the_first_flight_of_a_rejected_welcome_gets_no_answer() -> None:
    dialer, events = _answer(version=9)
    assert len(events) == 1
    assert dialer.open_streams == 0


def test_the_acceptor_applies_its_ordinary_limits_to_the_first_flight() -> None:
    """The 64 and 16 KiB bind the dialer."""
    acceptor = machine(Role.ACCEPTOR)
    flight = [frame(REQUEST, 1 + 2 * number, bytes(1000)) for number in range(100)]
    events = send(acceptor, hello(), *flight)
    assert sum(isinstance(event, RequestReceived) for event in events) == 100


def test_a_request_in_the_first_flight_above_max_streams_is_refused_alone() -> None:
    acceptor = machine(Role.ACCEPTOR, limits={"max_streams": 64})
    events = send(acceptor, hello(), *(frame(REQUEST, 1 + 2 * number) for number in range(65)))
    assert sum(isinstance(event, RequestReceived) for event in events) == 64
    welcome, refusal = sent(acceptor)
    assert (welcome.type, refusal.type, refusal.stream) == (WELCOME, ERROR, 129)
    assert (refusal.map["code"], refusal.map["outcome"]) == (3007, "not_applied")


def test_both_sides_may_call_as_soon_as_the_handshake_is_done() -> None:
    pair = shaken()
    ours = pair.dialer.request("a", "b", b"1")
    theirs = pair.acceptor.request("c", "d", b"2")
    assert (ours, theirs) == (1, 2)
    dialer_events, acceptor_events = pair.run()
    assert [event.stream for event in dialer_events if isinstance(event, RequestReceived)] == [2]
    assert [event.stream for event in acceptor_events if isinstance(event, RequestReceived)] == [1]
    pair.dialer.respond(2, b"")
    pair.acceptor.fail(1, failure(4001))
    dialer_events, acceptor_events = pair.run()
    assert isinstance(dialer_events[0], ErrorReceived)
    assert isinstance(acceptor_events[0], ResponseReceived)
    assert pair.dialer.open_streams == pair.acceptor.open_streams == 0


def test_an_acceptor_cannot_call_before_hello() -> None:
    acceptor = machine(Role.ACCEPTOR)
    assert not acceptor.can_request(0)
    with pytest.raises(LocalProtocolError):
        acceptor.request("s", "m", b"")


def test_the_errors_of_the_machine_say_who_was_wrong() -> None:
    pair = shaken()
    events = pair.acceptor.receive_data(b"GET / HTTP/1.1\r\n\r\n", 0.0)
    closed = events[0]
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, RemoteProtocolError)
    ours, _ = pair.run()
    assert isinstance(ours[0], Closed)
    assert isinstance(ours[0].error, LocalProtocolError)
    assert ours[0].error.code == closed.error.code == 1002

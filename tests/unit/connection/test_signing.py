"""Signed frames between two machines, and what a side that must sign refuses (protocol, sections 4 and 5.2)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from haptera.connection import Config, Role
from haptera.connection.events import (
    Closed,
    Established,
    Event,
    GoawayReceived,
    PongReceived,
    RequestReceived,
    ResponseReceived,
)
from haptera.connection.stream_law import ConnectionState
from haptera.errors import LocalProtocolError
from tests.unit.connection.machines import (
    CANCEL,
    ERROR,
    GOAWAY,
    HELLO,
    ITEM,
    MORE,
    PING,
    PONG,
    REQUEST,
    RESPONSE,
    SIGNED,
    STREAMING,
    WELCOME,
    Pair,
    connection_error,
    drain,
    frame,
    hello,
    machine,
    open_machine,
    own,
    parse,
    send,
    sent,
    welcome_map,
)
from tests.unit.connection.signed import SECRET, By, accepting, asking, open_signed

ROLES = list(Role)


def _ended(by: By, events: list[Event]) -> int:
    """Assert that the machine has ended its connection, said so in a signed ERROR, and reads no more."""
    closed = events[-1]
    assert isinstance(closed, Closed)
    assert closed.error is not None
    said = [each for each in by.sent() if each.type == ERROR and not each.stream]
    assert [each.map["code"] for each in said] == [closed.error.code]
    assert by.send(by.frame(PING, payload=bytes(8))) == []
    assert by.connection.open_streams == 0
    return closed.error.code


# -- the handshake -----------------------------------------------------------------------------------------------------


def test_the_handshake_asks_for_signed_frames_and_accepts_them_with_one_mechanism() -> None:
    dialer = machine(Role.DIALER, signing_key=SECRET)
    (asked,) = sent(dialer)
    assert asked.map["capabilities"][-1] == "hmac_sha256"
    acceptor = machine(Role.ACCEPTOR, signing_key=SECRET)
    send(acceptor, asking(capabilities=["pipelining", "hmac_sha256"]))
    (answered,) = sent(acceptor)
    assert answered.map["capabilities"] == ["pipelining", "hmac_sha256"]
    assert answered.map["mechanisms"] == ["PSK"]
    assert (asked.flags, answered.flags) == (0, 0), "the handshake itself is never signed"


def test_it_is_absent_where_no_key_is_configured() -> None:
    acceptor = machine(Role.ACCEPTOR)
    assert send(acceptor, asking()) == [Established()]
    (answered,) = sent(acceptor)
    assert answered.map["capabilities"] == []
    assert answered.map["mechanisms"] == []
    assert connection_error(acceptor, send(acceptor, frame(PING, payload=bytes(8), flags=SIGNED)))[0] == 1008


@pytest.mark.parametrize("capabilities", [[], ["pipelining"], ["hmac_sha256 "], ["HMAC_SHA256"]])
def test_an_acceptor_that_signs_refuses_who_does_not_ask_for_it(capabilities: list[str]) -> None:
    acceptor = machine(Role.ACCEPTOR, signing_key=SECRET)
    events = send(acceptor, hello(capabilities=capabilities), frame(REQUEST, 1))
    assert connection_error(acceptor, events)[0] == 1011
    assert [type(event) for event in events] == [Closed]


@pytest.mark.parametrize(
    "changes",
    [
        {"capabilities": []},
        {"capabilities": ["pipelining"]},
        {"mechanisms": []},
        {"mechanisms": ["SCRAM-SHA-256"]},
        {"mechanisms": ["PSK", "PSK"]},
        {"mechanisms": ["PSK", "PLAIN"]},
        {"mechanisms": ["PLAIN", "PSK"]},
        {"capabilities": [], "mechanisms": []},
    ],
)
def test_a_dialer_that_signs_refuses_a_welcome_that_would_not(changes: dict[str, Any]) -> None:
    dialer = machine(Role.DIALER, signing_key=SECRET)
    session = sent(dialer)[0].map["session"]
    events = send(dialer, accepting(session, **changes))
    assert connection_error(dialer, events)[0] == 1011


@pytest.mark.parametrize("handshake", [HELLO, WELCOME])
def test_a_handshake_that_claims_to_be_signed_is_refused(handshake: int) -> None:
    role = Role.ACCEPTOR if handshake == HELLO else Role.DIALER
    connection = machine(role, signing_key=SECRET)
    drain(connection)
    events = send(connection, frame(handshake, payload=b"\x80", flags=SIGNED), bytes(32))
    assert connection_error(connection, events)[0] == 1008


def test_the_dialer_sends_nothing_behind_hello() -> None:
    dialer = machine(Role.DIALER, signing_key=SECRET)
    assert not dialer.can_request(0)
    with pytest.raises(LocalProtocolError) as caught:
        dialer.request("s", "m", b"")
    assert caught.value.code == 3007
    assert [each.type for each in sent(dialer)] == [HELLO]
    assert machine(Role.DIALER).can_request(0), "which it may where it does not sign"


@pytest.mark.parametrize(
    "config",
    [
        {"signing_key": bytes(31)},
        {"signing_key": SECRET, "mechanisms": ("PLAIN",)},
        {"capabilities": ("hmac_sha256",)},
        {"mechanisms": ("PSK",)},
    ],
)
def test_a_configuration_that_could_not_sign_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"key|mechanism"):
        Config(entropy=bytes, **config)


def test_the_key_is_in_no_text() -> None:
    config = Config(entropy=bytes, signing_key=SECRET)
    pair = Pair(dialer={"signing_key": SECRET}, acceptor={"signing_key": bytes(32)})
    texts = [repr(config), str(config), repr(config.bounded()), repr(pair.run())]
    pair.dialer.ping(bytes(8))
    texts += [repr(pair.run()), repr(pair.dialer.agreement), repr(pair.acceptor.agreement)]
    assert "1011" in texts[4]
    assert not any("secret" in text or repr(SECRET) in text for text in texts)


# -- behind the handshake ------------------------------------------------------------------------------------------


def _chatter(pair: Pair) -> None:
    for mine in (pair.dialer, pair.acceptor):
        stream = mine.request("s", "m", b"x" * 150_000)
        mine.request("s", "m", b"small", streaming=True)
        mine.send_item(stream + 2, b"item")
        mine.finish(stream + 2)
        mine.ping(b"8 bytes!")
        mine.cancel(stream + 2)


def test_every_frame_behind_the_handshake_is_signed_in_the_order_in_which_it_leaves() -> None:
    """Control frames overtake what was queued before them, and the sequence counts what leaves."""
    dialer = machine(Role.DIALER, signing_key=SECRET)
    acceptor = machine(Role.ACCEPTOR, signing_key=SECRET)
    hello_frame = drain(dialer)
    acceptor.receive_data(hello_frame, 0.0)
    welcome_frame = drain(acceptor)
    dialer.receive_data(welcome_frame, 0.0)
    for connection in (dialer, acceptor):
        by = By(connection, hello_frame, welcome_frame)
        connection.request("s", "m", b"x" * 150_000)
        stream = connection.request("s", "m", b"small", streaming=True)
        connection.send_item(stream, b"item")
        connection.ping(b"8 bytes!")
        seen = []
        while data := connection.data_to_send(20_000):
            seen += by.read(data)
            if len(seen) < 5:
                connection.ping(b"overtake")
        types = [each.type for each in seen]
        assert types[0] == PING
        assert types.count(PING) >= 2
        assert {REQUEST, ITEM, PING} == set(types)
        assert sum(len(each.payload) for each in seen if each.stream == own(connection.role)) == 150_000


def test_two_machines_that_sign_understand_each_other() -> None:
    pair = Pair(dialer={"signing_key": SECRET}, acceptor={"signing_key": SECRET, "grease": True})
    assert pair.run() == ([Established()], [Established()])
    for _ in range(3):
        _chatter(pair)
        for connection, events in zip((pair.dialer, pair.acceptor), pair.run(), strict=True):
            for event in events:
                assert not isinstance(event, Closed)
                if isinstance(event, RequestReceived):
                    connection.respond(event.stream, event.payload)
        answers = [event for events in pair.run() for event in events if isinstance(event, ResponseReceived)]
        assert sorted(len(answer.payload) for answer in answers) == [5, 5, 150_000, 150_000]


def test_what_leaves_with_welcome_is_signed_and_read_with_the_keys_that_it_makes() -> None:
    """The decoder reads ahead, and must not do so across the handshake."""
    pair = Pair(dialer={"signing_key": SECRET}, acceptor={"signing_key": SECRET})
    pair.acceptor.receive_data(drain(pair.dialer), 0.0)
    pair.acceptor.ping(bytes(8))
    pair.acceptor.go_away(1014)
    events = pair.dialer.receive_data(drain(pair.acceptor), 0.0)
    assert [type(event) for event in events] == [Established, GoawayReceived]
    assert pair.acceptor.receive_data(drain(pair.dialer), 0.0) == [PongReceived(bytes(8))]


@pytest.mark.parametrize("size", [1, 7, 28, 100, 10_000])
def test_the_bytes_of_a_signed_session_may_come_in_any_pieces(size: int) -> None:
    dialer = machine(Role.DIALER, signing_key=SECRET)
    acceptor = machine(Role.ACCEPTOR, signing_key=SECRET)
    acceptor.receive_data(drain(dialer), 0.0)
    acceptor.request("s", "m", b"call" * 100)
    acceptor.ping(bytes(8))
    data = drain(acceptor)
    events: list[Event] = []
    for start in range(0, len(data), size):
        events += dialer.receive_data(data[start : start + size], 0.0)
    assert [type(event) for event in events] == [Established, RequestReceived]
    assert not dialer.unfinished


def test_frames_of_skipped_types_count_in_the_sequence() -> None:
    by = open_signed(Role.ACCEPTOR)
    assert by.send(by.frame(0xF3, payload=b"?"), by.frame(0x80), by.frame(PING, payload=bytes(8))) == []
    assert [each.type for each in by.sent()] == [PONG]


@pytest.mark.parametrize("role", ROLES)
def test_a_signed_body_has_no_checksum_to_check(role: Role) -> None:
    by = open_signed(role)
    assert by.send(by.frame(PING, payload=bytes(8), body_crc=12345)) == []
    assert [each.type for each in by.sent()] == [PONG]


# Each wrong in itself: misplaced, damaged, malformed, unknown.
_WRONG: list[tuple[str, dict[str, Any]]] = [
    ("nothing else", {"type_": PING, "payload": bytes(8)}),
    ("handshake again", {"type_": HELLO, "payload": b"\x80"}),
    ("critical type", {"type_": 0x60}),
    ("skipped type", {"type_": 0xF0}),
    ("no such stream", {"type_": ITEM, "stream": 99}),
    ("stream too large", {"type_": CANCEL, "stream": 2**53}),
    ("wrong side", {"type_": REQUEST, "stream": 2}),
    ("size", {"type_": PING, "payload": b"1"}),
    ("critical flag", {"type_": REQUEST, "stream": 1, "flags": 0x20}),
    ("fragment", {"type_": REQUEST, "stream": 1, "flags": MORE}),
    ("metadata", {"type_": REQUEST, "stream": 1, "metadata": b"\xff"}),
    ("compressed", {"type_": REQUEST, "stream": 1, "flags": 0x02}),
    ("request", {"type_": REQUEST, "stream": 1, "flags": STREAMING}),
    ("answer", {"type_": RESPONSE, "stream": 2}),
    ("error", {"type_": ERROR, "payload": b"no map"}),
]


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("fields", [fields for _, fields in _WRONG], ids=[name for name, _ in _WRONG])
def test_an_unsigned_frame_is_1011_whatever_else_is_wrong_with_it(fields: dict[str, Any], damaged: bool) -> None:
    """Trap: decompression, or anything, before the signature is checked."""
    by = open_signed(Role.ACCEPTOR)
    events = by.send(frame(**(fields | {"body_crc": 1} if damaged else fields)))
    assert [type(event) for event in events] == [Closed]
    assert _ended(by, events) == 1011


@pytest.mark.parametrize("fields", [fields for _, fields in _WRONG], ids=[name for name, _ in _WRONG])
def test_a_wrongly_signed_frame_is_1011_whatever_else_is_wrong_with_it(fields: dict[str, Any]) -> None:
    by = open_signed(Role.ACCEPTOR)
    flags = fields.get("flags", 0)
    events = by.send(by.frame(**(fields | {"flags": flags}))[:-1] + b"?")
    assert [type(event) for event in events] == [Closed]
    assert _ended(by, events) == 1011


def test_what_came_before_a_wrong_tag_counts_and_what_is_behind_it_does_not() -> None:
    by = open_signed(Role.ACCEPTOR)
    good, wrong, behind = by.frame(REQUEST, 1), by.frame(REQUEST, 3)[:-1] + b"?", by.frame(REQUEST, 5)
    events = by.send(good, wrong, behind)
    assert [type(event) for event in events] == [RequestReceived, Closed]
    assert _ended(by, events) == 1011


@pytest.mark.parametrize("role", ROLES)
def test_what_ends_a_connection_is_signed_too(role: Role) -> None:
    by = open_signed(role)
    assert _ended(by, by.send(by.frame(0x60))) == 1005


@pytest.mark.parametrize("role", ROLES)
def test_a_time_out_is_signed_too(role: Role) -> None:
    by = open_signed(role)
    connection = by.connection
    by.send(by.frame(PING, payload=bytes(8))[:40])
    connection.tick(1000.0)
    assert [each.map["code"] for each in by.sent()] == [1015]


@pytest.mark.parametrize("role", ROLES)
def test_another_secret_is_found_out_by_its_first_frame(role: Role) -> None:
    by = open_signed(role)
    stranger = By(by.connection, b"other", b"frames", b"another secret, of 32 bytes and more")
    stranger.sequence = 0
    events = by.send(stranger.frame(PING, payload=bytes(8)))
    assert _ended(by, events) == 1011


def test_frames_of_another_connection_with_the_same_secret_are_refused() -> None:
    """Both handshakes are in the keys, and each has a random session and nonce."""
    frames = []
    for seed in (1, 2):
        dialer = machine(Role.DIALER, signing_key=SECRET, seed=seed)
        acceptor = machine(Role.ACCEPTOR, signing_key=SECRET, seed=seed)
        acceptor.receive_data(drain(dialer), 0.0)
        dialer.receive_data(drain(acceptor), 0.0)
        dialer.request("s", "m", b"payload")
        frames.append((acceptor, drain(dialer)))
    (first, _), (second, own_frame) = frames
    assert [type(event) for event in second.receive_data(own_frame, 0.0)] == [RequestReceived]
    events = first.receive_data(own_frame, 0.0)
    assert isinstance(events[0], Closed)
    assert events[0].error is not None
    assert events[0].error.code == 1011


def test_a_replayed_handshake_does_not_make_a_recorded_session_valid() -> None:
    """An acceptor's nonce is new each time, so that a dialer's recorded frames fit no second connection."""
    dialer = machine(Role.DIALER, signing_key=SECRET)
    hello_frame = drain(dialer)
    first = machine(Role.ACCEPTOR, signing_key=SECRET, seed=1)
    second = machine(Role.ACCEPTOR, signing_key=SECRET, seed=2)
    first.receive_data(hello_frame, 0.0)
    second.receive_data(hello_frame, 0.0)
    dialer.receive_data(drain(first), 0.0)
    drain(second)
    dialer.request("s", "m", b"payload")
    recorded = drain(dialer)
    assert [type(event) for event in first.receive_data(recorded, 0.0)] == [RequestReceived]
    assert [type(event) for event in second.receive_data(recorded, 0.0)] == [Closed]


def test_an_own_frame_that_is_sent_back_is_refused() -> None:
    pair = Pair(dialer={"signing_key": SECRET}, acceptor={"signing_key": SECRET})
    pair.run()
    pair.dialer.ping(bytes(8))
    events = pair.dialer.receive_data(drain(pair.dialer), 0.0)
    assert [type(event) for event in events] == [Closed]


def test_an_error_before_welcome_is_read_unsigned() -> None:
    dialer = machine(Role.DIALER, signing_key=SECRET)
    drain(dialer)
    fields = {"code": 1001, "name": "N", "message": "m", "outcome": "not_applied", "details": {}}
    events = send(dialer, frame(ERROR, payload=msgspec.msgpack.encode(fields)))
    assert isinstance(events[0], Closed)
    assert events[0].failure is not None
    assert events[0].failure.code == 1001


def test_a_handshake_with_a_damaged_body_makes_no_keys() -> None:
    acceptor = machine(Role.ACCEPTOR, signing_key=SECRET)
    events = send(acceptor, asking()[:-1] + b"\x01")
    assert connection_error(acceptor, events)[0] == 1003


def test_unknown_keys_and_flags_of_the_handshake_are_part_of_what_is_signed() -> None:
    """The frames count as they were sent, not as they were understood."""
    acceptor = machine(Role.ACCEPTOR, signing_key=SECRET)
    payload = msgspec.msgpack.encode(
        {"grease-1": b"?", "versions": [1, 2], "agent": "x", "session": bytes(16), "nonce": bytes(32)}
        | {"capabilities": ["hmac_sha256", "grease-2"]}
    )
    said = frame(HELLO, payload=payload, flags=0x8000, metadata=b"\x7f\x01?")
    assert acceptor.receive_data(said, 0.0) == [Established()]
    by = By(acceptor, said, drain(acceptor))
    assert by.send(by.frame(PING, payload=bytes(8))) == []
    assert [each.type for each in by.sent()] == [PONG]
    assert acceptor.state is ConnectionState.OPEN


def test_the_dialer_says_unsigned_why_it_refuses_welcome() -> None:
    dialer = machine(Role.DIALER, signing_key=SECRET)
    session = sent(dialer)[0].map["session"]
    payload = msgspec.msgpack.encode(welcome_map(session))
    send(dialer, frame(WELCOME, payload=payload))
    assert [each.map["code"] for each in parse(drain(dialer))] == [1011]


def test_a_goaway_is_signed() -> None:
    by = open_signed(Role.ACCEPTOR)
    by.connection.go_away(1014)
    assert [each.type for each in by.sent()] == [GOAWAY]


def test_unsigned_frames_are_refused_by_machines_without_a_key_as_ever() -> None:
    connection = open_machine(Role.ACCEPTOR)
    assert connection_error(connection, send(connection, frame(REQUEST, 1, flags=SIGNED), bytes(32)))[0] == 1008

"""A recorded session with one edit on its way (protocol, sections 2, 3 "Damage" and 5.2).

Two honest machines talk, and between them every frame passes through hands that may change it. Without signatures one
flipped bit is always detected; with them, any edit, repetition, omission, insertion or swap of frames.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import google_crc32c
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haptera.connection import Connection, Role
from haptera.connection.events import (
    CallFailed,
    CancelReceived,
    Closed,
    ErrorReceived,
    Event,
    ItemReceived,
    PongReceived,
    RequestAborted,
    RequestFinished,
    RequestReceived,
    ResponseReceived,
)
from haptera.connection.stream_law import ConnectionState
from haptera.errors import Failure, failure
from haptera.wire.compression import Codec
from tests.unit.connection.machines import (
    CANCEL,
    CONTINUED,
    CREDIT,
    ERROR,
    FINISH,
    GOAWAY,
    HELLO,
    ITEM,
    PING,
    PONG,
    REQUEST,
    RESPONSE,
    WELCOME,
    frame,
    machine,
)
from tests.unit.connection.signed import SECRET, derive

EXAMPLES: Final = settings.default.max_examples if settings.default else 100
LIMITS: Final = {"max_frame": 16 * 1024, "stream_window": 16 * 1024, "connection_window": 64 * 1024}
HEADER_SIZE: Final = 28
TAG_SIZE: Final = 32
NOISE: Final = random.Random(7).randbytes(20_000)


class Passing(NamedTuple):
    """A frame on its way: whose, the how manieth of that side, and its bytes."""

    sender: Role
    number: int
    data: bytes


Hands = Callable[[Passing], list[bytes]]


def _untouched(passing: Passing) -> list[bytes]:
    return [passing.data]


def _what(event: Event) -> tuple[Any, ...]:
    """Return what an event means for an application, if it executes anything or answers anybody."""
    match event:
        case RequestReceived(stream, service, method, payload, streaming, _):
            return ("request", stream, service, method, payload, streaming)
        case ItemReceived(stream, payload):
            return ("item", stream, payload)
        case RequestFinished(stream):
            return ("finished", stream)
        case CancelReceived(stream):
            return ("cancelled", stream)
        case ResponseReceived(stream, payload, _):
            return ("response", stream, payload)
        case ErrorReceived(stream, reason, _):
            return ("error", stream, reason.code, reason.outcome)
        case PongReceived(payload):
            return ("pong", payload)
        case _:
            return ("other", type(event).__name__)


class Session:
    """Two machines with applications that do a bit of everything, and what both have learned."""

    def __init__(self, hands: Hands, *, signed: bool, packed: bool = False, **dialer: Any) -> None:
        config: dict[str, Any] = {"signing_key": SECRET if signed else None, "limits": dict(LIMITS)}
        self.signed = signed
        self.sides: dict[Role, Connection] = {
            role: machine(role, compression=Codec() if packed else None, **config, **(dialer if role else {}))
            for role in (Role.DIALER, Role.ACCEPTOR)
        }
        self.learned: dict[Role, list[Event]] = {Role.DIALER: [], Role.ACCEPTOR: []}
        self.frames: list[Passing] = []
        self._hands = hands
        self._counts = {Role.DIALER: 0, Role.ACCEPTOR: 0}
        self._calls: dict[str, int] = {}

    def run(self) -> Session:
        """Let both sides talk until they have nothing more to say."""
        for step in range(12):
            for role in (Role.DIALER, Role.ACCEPTOR):
                if self.sides[role].state is ConnectionState.OPEN:
                    self._act(role, step)
            for _ in range(4):
                for role in (Role.DIALER, Role.ACCEPTOR):
                    self._move(role)
        return self

    def _act(self, role: Role, step: int) -> None:
        """What an application does of its own accord."""
        mine = self.sides[role]
        if step == 1:
            stream = mine.request("rows", "sum", b"argument", streaming=True)
            for item in (b"text", NOISE[:10_000], b"text " * 500):
                mine.send_item(stream, item)
            mine.finish(stream)
            mine.request("kv", "set", b"small")
            mine.request("kv", "set", NOISE)
            mine.request("kv", "fail", b"")
            mine.cancel(mine.request("kv", "never", b""))
        elif step == 5:
            mine.request("kv", "get", b"again")
        elif step >= 10:
            # What was left out before is missed by what comes behind it.
            mine.ping(step.to_bytes(8, "big"))

    def _answer(self, role: Role, event: Event) -> None:
        """What an application does when it is told something."""
        mine = self.sides[role]
        match event:
            case RequestReceived(stream, _, "fail", _, _, _):
                mine.fail(stream, failure(4001, {"key": "k"}))
            case RequestReceived(stream, _, method, payload, False, _) if method != "never":
                mine.respond(stream, payload[::-1])
            case CancelReceived(stream):
                mine.fail(stream, failure(3006, outcome="not_applied"))
            case ItemReceived(stream, _):
                mine.take_item(stream)
                if stream & 1 != role:
                    mine.send_item(stream, b"seen")
            case RequestFinished(stream):
                mine.respond(stream, b"sum")
            case RequestAborted(stream, reason):
                mine.fail(stream, reason)
            case _:
                pass

    def _move(self, role: Role) -> None:
        other = Role(1 - role)
        data = self.sides[role].data_to_send(1 << 20)
        while data:
            size = HEADER_SIZE + int.from_bytes(data[6:8], "big") + int.from_bytes(data[16:20], "big")
            size += TAG_SIZE if data[5] & 0x04 else 0
            passing = Passing(role, self._counts[role], data[:size])
            data = data[size:]
            self._counts[role] += 1
            self.frames.append(passing)
            for each in self._hands(passing):
                events = self.sides[other].receive_data(each, 0.0)
                self.learned[other] += events
                if self.sides[other].state is ConnectionState.OPEN:
                    for event in events:
                        self._answer(other, event)

    def closed(self, role: Role) -> Closed | None:
        """Why that side has ended the connection, if it has."""
        ends = [event for event in self.learned[role] if isinstance(event, Closed)]
        return ends[0] if ends else None

    def did(self, role: Role) -> list[tuple[Any, ...]]:
        """All that the application of that side was told, but for the end."""
        return [_what(event) for event in self.learned[role] if not isinstance(event, Closed)]


@cache
def _honest(signed: bool, packed: bool = False) -> Session:
    session = Session(_untouched, signed=signed, packed=packed).run()
    assert session.closed(Role.DIALER) is None
    assert session.closed(Role.ACCEPTOR) is None
    return session


def test_the_session_has_a_bit_of_everything() -> None:
    for signed in (True, False):
        session = _honest(signed)
        types = {each.data[3] for each in session.frames}
        assert types >= {HELLO, WELCOME, REQUEST, ITEM, RESPONSE, ERROR, CANCEL, FINISH, CREDIT, PING, PONG}
        assert any(each.data[5] & CONTINUED for each in session.frames)
        signatures = [each.data[5] & 0x04 != 0 for each in session.frames]
        assert signatures == [signed and index > 1 for index in range(len(signatures))]
        for role in Role:
            kinds = {what[0] for what in session.did(role)}
            assert kinds >= {"request", "item", "finished", "cancelled", "response", "error", "pong"}
            assert session.sides[role].open_streams == 0


def _subject(session: Session, which: int) -> Passing:
    return session.frames[which % len(session.frames)]


def _detected(session: Session, honest: Session, victim: Role, codes: set[int]) -> None:
    """Assert that the side that got what was edited found it out, said so, and did nothing that was not asked for."""
    closed = session.closed(victim)
    assert closed is not None, "nobody noticed"
    assert closed.failure is None
    assert closed.error is not None
    assert closed.error.code in codes
    done = session.did(victim)
    assert done == honest.did(victim)[: len(done)]
    other = Role(1 - victim)
    told = session.closed(other)
    if told is not None and told.failure is not None:
        assert told.failure.code == closed.error.code
    assert all(what in honest.did(other) for what in session.did(other))


# -- signed --------------------------------------------------------------------------------------------------------


@settings(max_examples=3 * EXAMPLES)
@given(st.integers(0, 10_000), st.integers(0, 10**6), st.booleans())
def test_a_flipped_bit_of_a_signed_session_is_detected(which: int, bit: int, packed: bool) -> None:
    honest = _honest(True, packed)
    subject = _subject(honest, which)
    bit %= len(subject.data) * 8

    def flip(passing: Passing) -> list[bytes]:
        if passing[:2] != subject[:2]:
            return [passing.data]
        data = bytearray(passing.data)
        data[bit // 8] ^= 1 << bit % 8
        return [bytes(data)]

    session = Session(flip, signed=True, packed=packed).run()
    place = bit // 8
    handshake = subject.data[3] in {HELLO, WELCOME} and not subject.number
    code = 1002 if place < 2 else 1003 if place < HEADER_SIZE or handshake else 1011
    _detected(session, honest, Role(1 - subject.sender), {code})


EDITS = ["omit", "repeat", "repeat later", "swap", "forge", "unsign", "echo", "truncate", "rewrite"]


def _stranger(index: int) -> bytes:
    """A frame that somebody without the key makes."""
    frames = [
        frame(PING, payload=bytes(8)),
        frame(REQUEST, 101, b"evil"),
        frame(REQUEST, 101, b"evil", flags=0x04, body_crc=0) + bytes(32),
        frame(0xF0, payload=b"?"),
        frame(CREDIT, payload=b"\0\1\0\0"),
        frame(ERROR, payload=msgspec.msgpack.encode(msgspec.to_builtins(failure(5005)))),
        frame(GOAWAY, payload=b"\x84"),
    ]
    return frames[index % len(frames)]


def _unsigned(data: bytes) -> bytes:
    """The same frame without its signature, with checksums that are right."""
    return _resealed(data[:-TAG_SIZE], flags=data[5] & ~0x04)


def _resealed(data: bytes, *, flags: int) -> bytes:
    metadata_end = HEADER_SIZE + int.from_bytes(data[6:8], "big")
    return frame(
        data[3],
        int.from_bytes(data[8:16], "big"),
        data[metadata_end:],
        flags=flags,
        metadata=data[HEADER_SIZE:metadata_end],
        body_crc=0 if flags & 0x04 else None,
    )


@settings(max_examples=3 * EXAMPLES)
@given(st.sampled_from(EDITS), st.integers(0, 10_000), st.integers(0, 10_000))
def test_any_edit_of_the_frames_of_a_signed_session_is_detected(edit: str, which: int, other: int) -> None:
    honest = _honest(True)
    # Not the last frames of either side: that nothing comes behind them is for the end of the connection to tell.
    subjects = [each for each in honest.frames[2:] if each.number < honest._counts[each.sender] - 1]
    subject = subjects[which % len(subjects)]
    kept: list[bytes] = []

    def hands(passing: Passing) -> list[bytes]:
        data = passing.data
        if passing.sender is not subject.sender:
            return [data]
        here = passing.number == subject.number
        match edit:
            case "omit":
                return [] if here else [data]
            case "repeat":
                return [data, data] if here else [data]
            case "repeat later":
                if here:
                    kept.append(data)
                return [data, *kept] if passing.number == subject.number + 1 else [data]
            case "swap":
                if here:
                    kept.append(data)
                    return []
                return [data, *kept] if passing.number == subject.number + 1 else [data]
            case "forge":
                return [_stranger(other), data] if here else [data]
            case "unsign":
                return [_unsigned(data)] if here else [data]
            case "echo":
                theirs = [each.data for each in honest.frames[2:] if each.sender is not subject.sender]
                return [theirs[other % len(theirs)], data] if here else [data]
            case "truncate":
                # Shorter by some of its payload, or of its tag, and every checksum set right.
                size = int.from_bytes(data[16:20], "big")
                if not here or not size:
                    return [data[:-1] + bytes((data[-1] ^ 1,))] if here else [data]
                cut = data[: -TAG_SIZE - 1 - other % size]
                return [_resealed(cut, flags=data[5]) + data[-TAG_SIZE:]]
            case _:
                # Another payload of the same length.
                body = bytearray(data)
                place = HEADER_SIZE + other % (len(data) - HEADER_SIZE)
                body[place] ^= 0xFF
                return [bytes(body)] if here else [data]

    session = Session(hands, signed=True).run()
    # The first byte of the tag may stand where a header was expected, once the lengths behind it have changed.
    _detected(session, honest, Role(1 - subject.sender), {1011})


def test_a_frame_of_a_recorded_session_is_refused_in_another() -> None:
    """Every connection has keys of its own."""
    recorded = Session(_untouched, signed=True, seed=99).run()
    honest = _honest(True)
    for sender in Role:
        theirs = [each.data for each in recorded.frames[2:] if each.sender is sender]
        for number, data in enumerate(theirs[:20]):

            def hands(passing: Passing, number: int = number, data: bytes = data, sender: Role = sender) -> list[bytes]:
                return [data] if passing.sender is sender and passing.number == number + 1 else [passing.data]

            session = Session(hands, signed=True).run()
            _detected(session, honest, Role(1 - sender), {1011})


# -- a man in the middle of the handshake ----------------------------------------------------------------------------


def _rewritten(data: bytes, **changes: Any) -> bytes:
    """The same handshake frame with other fields, and every checksum right."""
    fields = msgspec.msgpack.decode(data[HEADER_SIZE:])
    return frame(data[3], payload=msgspec.msgpack.encode(fields | changes))


def _middle(kind: int, **changes: Any) -> Session:
    def hands(passing: Passing) -> list[bytes]:
        if passing.data[3] == kind and not passing.number:
            return [_rewritten(passing.data, **changes)]
        return [passing.data]

    return Session(hands, signed=True, versions=(1,)).run()


@pytest.mark.parametrize("capabilities", [[], ["pipelining"], ["pipelining", "hmac"]])
def test_who_strips_the_capability_from_hello_is_refused_by_the_acceptor(capabilities: list[str]) -> None:
    session = _middle(HELLO, capabilities=capabilities)
    _detected(session, _honest(True), Role.ACCEPTOR, {1011})
    assert session.did(Role.ACCEPTOR) == []


@pytest.mark.parametrize("changes", [{"capabilities": []}, {"mechanisms": []}, {"mechanisms": ["PLAIN"]}])
def test_who_strips_the_capability_from_welcome_is_refused_by_the_dialer(changes: dict[str, Any]) -> None:
    session = _middle(WELCOME, **changes)
    _detected(session, _honest(True), Role.DIALER, {1011})
    assert session.did(Role.DIALER) == []


def test_who_strips_it_from_both_is_refused_too() -> None:
    def hands(passing: Passing) -> list[bytes]:
        if passing.data[3] in {HELLO, WELCOME}:
            return [_rewritten(passing.data, capabilities=[], mechanisms=[])]
        return [passing.data]

    session = Session(hands, signed=True).run()
    _detected(session, _honest(True), Role.ACCEPTOR, {1011})


@pytest.mark.parametrize("kind", [HELLO, WELCOME])
@pytest.mark.parametrize(
    "changes",
    [
        {"agent": "someone/else"},
        {"max_frame": 20_000},
        {"max_streams": 65535},
        {"nonce": bytes(32)},
        {"services": ["evil"]},
        {"a new key": 1},
        {"capabilities": ["pipelining", "hmac_sha256"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_else_is_changed_in_the_handshake_makes_the_first_tag_wrong(
    kind: int, changes: dict[str, Any]
) -> None:
    session = _middle(kind, **changes)
    _detected(session, _honest(True), Role.ACCEPTOR, {1011})
    assert [what[0] for what in session.did(Role.ACCEPTOR)] == ["other"], "the handshake alone"


@pytest.mark.parametrize("both", [True, False])
def test_who_takes_the_best_version_away_is_refused(both: bool) -> None:
    """Both sides speak 1 and 2. Who hides 2 from the acceptor is found out by the list in its WELCOME, or the keys."""

    def hands(passing: Passing) -> list[bytes]:
        if passing.data[3] == HELLO or (passing.data[3] == WELCOME and both):
            return [_rewritten(passing.data, versions=[1])]
        return [passing.data]

    session = Session(hands, signed=True)
    for role in Role:
        session.sides[role] = machine(role, versions=(1, 2), signing_key=SECRET)
    session.run()
    closed = session.closed(Role.ACCEPTOR if both else Role.DIALER)
    assert closed is not None
    assert closed.error is not None
    assert closed.error.code == (1011 if both else 1008)
    assert not any(what[0] == "request" for what in session.did(Role.ACCEPTOR))


def test_another_key_that_was_derived_right_does_not_help() -> None:
    """Who knows all that is on the wire, and not the secret, can sign nothing."""
    frames: list[bytes] = []

    def hands(passing: Passing) -> list[bytes]:
        frames.append(passing.data)
        if passing.sender is Role.ACCEPTOR or not passing.number:
            return [passing.data]
        guess = derive(b"not the secret, but as long as it", frames[0], frames[1], b"haptera/1 dialer")
        assert len(guess) == 32
        return [passing.data[:-TAG_SIZE] + guess]

    session = Session(hands, signed=True).run()
    _detected(session, _honest(True), Role.ACCEPTOR, {1011})


# -- unsigned ------------------------------------------------------------------------------------------------------

_OF_CONNECTION: Final = {HELLO, WELCOME, PING, PONG, CREDIT, GOAWAY}


def _check_damage(session: Session, honest: Session, subject: Passing) -> None:
    """Assert what section 3 says of a body that is damaged, by the type of its frame."""
    victim, sender = Role(1 - subject.sender), subject.sender
    type_, stream = subject.data[3], int.from_bytes(subject.data[8:16], "big")
    if type_ in _OF_CONNECTION:
        _detected(session, honest, victim, {1003})
        return
    for role in Role:
        assert session.closed(role) is None, "only the stream is at an end"
        assert session.sides[role].open_streams == 0
    done, right = session.did(victim), honest.did(victim)
    served = stream & 1 != victim
    if served:
        # The responder executes nothing of it, and the requester is told.
        assert ("request", stream) not in {what[:2] for what in done} or type_ == ITEM
        (answer,) = [what for what in session.did(sender) if what[0] in {"response", "error"} and what[1] == stream]
        outcome = "unknown" if type_ == ITEM else "not_applied"
        assert answer == ("error", stream, 1003, outcome)
    else:
        failures = [event for event in session.learned[victim] if isinstance(event, CallFailed)]
        assert [(each.stream, each.failure.code, each.failure.outcome) for each in failures] == [
            (stream, 1003, "unknown")
        ]
    # Everything of the other streams is as it would have been.
    for role in Role:
        assert [what for what in session.did(role) if what[1] != stream and what[0] != "other"] == [
            what for what in honest.did(role) if what[1] != stream and what[0] != "other"
        ]
    assert all(what in right for what in done if what[:2] != ("cancelled", stream) and what[0] != "other")


@settings(max_examples=3 * EXAMPLES)
@given(st.integers(0, 10_000), st.integers(0, 10**6))
def test_a_flipped_bit_of_an_unsigned_session_is_detected(which: int, bit: int) -> None:
    """Trap: silence instead of a structured error on a bad checksum."""
    honest = _honest(False)
    subject = _subject(honest, which)
    # As often in the header as behind it.
    bit = bit % (HEADER_SIZE * 8) if bit & 1 else bit % (len(subject.data) * 8)

    def flip(passing: Passing) -> list[bytes]:
        if passing[:2] != subject[:2]:
            return [passing.data]
        data = bytearray(passing.data)
        data[bit // 8] ^= 1 << bit % 8
        return [bytes(data)]

    session = Session(flip, signed=False).run()
    place = bit // 8
    if place < HEADER_SIZE:
        _detected(session, honest, Role(1 - subject.sender), {1002 if place < 2 else 1003})
    else:
        _check_damage(session, honest, subject)


def test_a_checksum_finds_every_single_bit_of_a_header() -> None:
    """Why nothing else can happen above: CRC-32C of 24 bytes differs for any one bit, and so does its own field."""
    header = frame(REQUEST, 12345, b"payload")[:24]
    checksum = google_crc32c.value(header)
    for bit in range(24 * 8):
        changed = bytearray(header)
        changed[bit // 8] ^= 1 << bit % 8
        assert google_crc32c.value(bytes(changed)) != checksum


def test_a_failure_that_was_recorded_says_what_was_wrong() -> None:
    """Of a damaged request its sender learns both checksums."""
    honest = _honest(False)
    subject = next(each for each in honest.frames if each.data[3] == REQUEST and each.sender is Role.DIALER)

    def flip(passing: Passing) -> list[bytes]:
        return [passing.data[:-1] + b"?"] if passing[:2] == subject[:2] else [passing.data]

    session = Session(flip, signed=False).run()
    (reason,) = [
        event.failure
        for event in session.learned[Role.DIALER]
        if isinstance(event, ErrorReceived) and event.failure.code == 1003
    ]
    assert isinstance(reason, Failure)
    assert set(reason.details) == {"expected", "actual"}
    assert [event.stream for event in session.learned[Role.DIALER] if isinstance(event, ResponseReceived)]
    assert RESPONSE in {each.data[3] for each in session.frames}

"""Machines for the tests of a connection: one alone, against frames made by hand, or two against each other."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import msgspec

from haptera.connection import Config, Connection, Role
from haptera.connection.events import Closed, Established, Event
from haptera.connection.stream_law import ConnectionState
from haptera.wire.payload import Limits

if TYPE_CHECKING:
    from haptera.connection.config import Budget

# Written from section 2 of the specification, not from the code.
HEADER = struct.Struct(">HBBHHQII")
HELLO, WELCOME, REQUEST, ITEM, RESPONSE, ERROR = 0x01, 0x02, 0x10, 0x11, 0x12, 0x13
CANCEL, CREDIT, FINISH, PING, PONG, GOAWAY = 0x14, 0x15, 0x16, 0x20, 0x21, 0x22
MORE, COMPRESSED, SIGNED, STREAMING, CONTINUED = 0x01, 0x02, 0x04, 0x08, 0x10
ROUTE = b"\x01s\x01m"
SIZE = 64 * 1024


class Seen(NamedTuple):
    """A frame that a machine sent, as bytes of section 2."""

    type: int
    flags: int
    stream: int
    metadata: bytes
    payload: bytes

    @property
    def map(self) -> dict[str, Any]:
        """The payload as a map."""
        decoded: dict[str, Any] = msgspec.msgpack.decode(self.payload)
        return decoded


def frame(
    type_: int,
    stream: int = 0,
    payload: bytes = b"",
    *,
    flags: int = 0,
    metadata: bytes | None = None,
    version: int = 1,
    magic: int = 0xFA57,
    body_crc: int | None = None,
    header_crc: int | None = None,
) -> bytes:
    """Make one frame, with whatever is given wrong."""
    if metadata is None:
        metadata = ROUTE if type_ == REQUEST and not flags & CONTINUED else b""
    if body_crc is None:
        body_crc = google_crc32c.value(metadata + payload)
    head = HEADER.pack(magic, version, type_, flags, len(metadata), stream, len(payload), body_crc)
    if header_crc is None:
        header_crc = google_crc32c.value(head)
    return head + header_crc.to_bytes(4, "big") + metadata + payload


def damaged(type_: int, stream: int = 0, payload: bytes = b"", **rest: Any) -> bytes:
    """Make a frame whose body was damaged on its way."""
    return frame(type_, stream, payload, body_crc=0x0BADF00D, **rest)


def credit(stream: int, amount: int) -> bytes:
    """Make a CREDIT."""
    return frame(CREDIT, stream, amount.to_bytes(4, "big"))


def error(code: int, stream: int = 0, **changes: Any) -> bytes:
    """Make an ERROR."""
    fields = {"code": code, "name": "N", "message": "m", "outcome": "unknown", "details": {}}
    return frame(ERROR, stream, msgspec.msgpack.encode(fields | changes))


def hello(**changes: Any) -> bytes:
    """Make a HELLO."""
    return frame(HELLO, payload=msgspec.msgpack.encode(hello_map() | changes))


def hello_map() -> dict[str, Any]:
    """The required fields of HELLO."""
    return {"versions": [1], "agent": "test/1", "session": bytes(16), "nonce": bytes(32)}


def welcome_map(session: bytes) -> dict[str, Any]:
    """The fields of a WELCOME that an honest acceptor sends."""
    return {
        "version": 1,
        "versions": [1],
        "agent": "test/1",
        "capabilities": [],
        "server_id": bytes(16),
        "session": session,
        "nonce": bytes(32),
        "services": [],
        "mechanisms": [],
        "ping_interval_ms": 30_000,
        "idempotency_ms": 600_000,
    }


def parse(data: bytes) -> list[Seen]:
    """Take what a machine sent apart, checking what every frame must hold to."""
    seen = []
    start = 0
    while start < len(data):
        header = data[start : start + 28]
        magic, version, type_, flags, metadata_size, stream, size, body_crc = HEADER.unpack(header[:24])
        assert (magic, version) == (0xFA57, 1)
        assert int.from_bytes(header[24:], "big") == google_crc32c.value(header[:24])
        body = data[start + 28 : start + 28 + metadata_size + size]
        assert len(body) == metadata_size + size
        assert metadata_size <= 4096
        assert body_crc == google_crc32c.value(body)
        seen.append(Seen(type_, flags, stream, body[:metadata_size], body[metadata_size:]))
        start += 28 + len(body)
    return seen


def entropy(seed: int) -> Callable[[int], bytes]:
    """Return a source of random bytes that is the same in each run."""
    return random.Random(seed).randbytes


def machine(
    role: Role, *, now: float = 0.0, seed: int = 1, process: Budget | None = None, near: bool = False, **config: Any
) -> Connection:
    """Make a machine that has not met anyone, ``near`` its peer or not. No grease unless asked for."""
    limits = config.pop("limits", None)
    if isinstance(limits, dict):
        limits = Limits(**limits)
    if limits is not None:
        config["limits"] = limits
    config.setdefault("grease", False)
    connection = Connection(role, Config(entropy=entropy(seed * 2 + role), **config), now, process)
    connection.outbox.near = near
    return connection


def send(connection: Connection, *frames: bytes, now: float = 0.0) -> list[Event]:
    """Let a machine read frames, all at once."""
    return receive(connection, b"".join(frames), now)


def receive(connection: Connection, data: bytes, now: float = 0.0) -> list[Event]:
    """Let a machine read bytes, and all that they mean."""
    events = connection.receive_data(data, now)
    while connection.more:
        events += connection.receive_data(b"", now)
    return events


def sent(connection: Connection) -> list[Seen]:
    """Return all that a machine has to send now."""
    return parse(drain(connection))


def drain(connection: Connection) -> bytes:
    """Return all that a machine has to send now, as bytes."""
    data = b""
    while piece := connection.data_to_send(1 << 20):
        data += piece
    return data


def open_machine(role: Role, *, peer: dict[str, Any] | None = None, **config: Any) -> Connection:
    """Return a machine behind its handshake; ``peer`` is what the other side announced besides the required fields."""
    connection = machine(role, **config)
    if role is Role.ACCEPTOR:
        events = send(connection, hello(**(peer or {})))
    else:
        session = sent(connection)[0].map["session"]
        payload = msgspec.msgpack.encode(welcome_map(session) | (peer or {}))
        events = send(connection, frame(WELCOME, payload=payload))
    assert events == [Established()]
    sent(connection)
    return connection


def serving(count: int, **config: Any) -> Connection:
    """An acceptor with that many requests on streams 1, 3, …"""
    connection = open_machine(Role.ACCEPTOR, **config)
    send(connection, *(frame(REQUEST, 1 + 2 * number) for number in range(count)))
    return connection


def connection_error(connection: Connection, events: list[Event]) -> tuple[int, dict[str, Any]]:
    """Assert that a machine has ended its connection, said why, and reads no more; return the code and the details."""
    closed = events[-1]
    assert isinstance(closed, Closed), [type(event) for event in events]
    assert closed.error is not None
    assert connection.state is ConnectionState.CLOSING
    said = [each for each in sent(connection) if each.type == ERROR and each.stream == 0]
    assert [each.map["code"] for each in said] == [closed.error.code]
    assert send(connection, frame(PING, payload=bytes(8)), hello()) == []
    assert sent(connection) == []
    assert connection.open_streams == 0
    return said[0].map["code"], said[0].map["details"]


def own(role: Role, number: int = 0) -> int:
    """The id of the ``number``-th stream that ``role`` opens."""
    return (1 if role is Role.DIALER else 2) + 2 * number


def other(role: Role) -> Role:
    """The role of the other side."""
    return Role.ACCEPTOR if role is Role.DIALER else Role.DIALER


class Pair:
    """A dialer and an acceptor, and the bytes between them."""

    def __init__(self, *, dialer: dict[str, Any] | None = None, acceptor: dict[str, Any] | None = None) -> None:
        self.dialer = machine(Role.DIALER, **(dialer or {}))
        self.acceptor = machine(Role.ACCEPTOR, **(acceptor or {}))
        self.now = 0.0
        self.dialer_events: list[Event] = []
        self.acceptor_events: list[Event] = []

    def step(self) -> bool:
        """Move what either side has to send now to the other; False if there was nothing."""
        forth = self.dialer.data_to_send(SIZE)
        self.acceptor_events += receive(self.acceptor, forth, self.now) if forth else []
        back = self.acceptor.data_to_send(SIZE)
        self.dialer_events += receive(self.dialer, back, self.now) if back else []
        return bool(forth or back)

    def run(self) -> tuple[list[Event], list[Event]]:
        """Exchange bytes until both sides are quiet; return what the dialer and the acceptor learned by it."""
        while self.step():
            pass
        learned = self.dialer_events, self.acceptor_events
        self.dialer_events, self.acceptor_events = [], []
        return learned


def shaken(**config: Any) -> Pair:
    """Return a pair behind its handshake; ``config`` is for both sides."""
    pair = Pair(dialer=dict(config), acceptor=dict(config))
    assert pair.run() == ([Established()], [Established()])
    return pair


def lowest_unanswered(connection: Connection) -> int:
    """The lowest change of this side whose answer has not been read, as ``answered_below`` would say it now."""
    return connection._streams.changes.lowest(connection._streams.next_call)

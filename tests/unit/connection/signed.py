"""Signed frames made and read by hand (protocol, section 5.2), not by the code that is tested."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import msgspec

from haptera.connection import Connection, Role
from haptera.connection.events import Established
from tests.unit.connection.machines import (
    HELLO,
    SIGNED,
    WELCOME,
    Seen,
    drain,
    frame,
    hello_map,
    machine,
    parse,
    welcome_map,
)

if TYPE_CHECKING:
    from haptera.connection.events import Event

SECRET = b"a secret that both sides were given"


def derive(secret: bytes, hello_frame: bytes, welcome_frame: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 of one block, over both frames and 32 zero bytes."""
    salt = hashlib.sha256(hello_frame + welcome_frame + bytes(32)).digest()
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


class By:
    """The other side of one machine: it signs what it sends, and verifies what it gets."""

    def __init__(
        self, connection: Connection, hello_frame: bytes, welcome_frame: bytes, secret: bytes = SECRET
    ) -> None:
        self.connection = connection
        keys = {
            Role.DIALER: derive(secret, hello_frame, welcome_frame, b"haptera/1 dialer"),
            Role.ACCEPTOR: derive(secret, hello_frame, welcome_frame, b"haptera/1 acceptor"),
        }
        self._theirs = keys[connection.role]
        self.key = keys[Role(1 - connection.role)]
        self.sequence = 0
        self._read = 0

    def sign(self, data: bytes, sequence: int | None = None) -> bytes:
        """Put the tag behind a frame that was made with the SIGNED flag."""
        if sequence is None:
            sequence = self.sequence
            self.sequence += 1
        return data + hmac.new(self.key, sequence.to_bytes(8, "big") + data, hashlib.sha256).digest()

    def frame(self, type_: int, stream: int = 0, payload: bytes = b"", *, flags: int = 0, **rest: Any) -> bytes:
        """Make the next signed frame."""
        return self.sign(frame(type_, stream, payload, flags=flags | SIGNED, **({"body_crc": 0} | rest)))

    def send(self, *frames: bytes) -> list[Event]:
        """Let the machine read frames, all at once."""
        return self.connection.receive_data(b"".join(frames), 0.0)

    def sent(self) -> list[Seen]:
        """All that the machine has to send now, each frame signed and in its place."""
        return self.read(drain(self.connection))

    def read(self, data: bytes) -> list[Seen]:
        """Take apart what the machine sent, checking each tag."""
        seen = []
        while data:
            size = 28 + int.from_bytes(data[6:8], "big") + int.from_bytes(data[16:20], "big")
            whole, tag, data = data[:size], data[size : size + 32], data[size + 32 :]
            covered = self._read.to_bytes(8, "big") + whole
            assert tag == hmac.new(self._theirs, covered, hashlib.sha256).digest()
            self._read += 1
            metadata_end = 28 + int.from_bytes(whole[6:8], "big")
            flags = int.from_bytes(whole[4:6], "big")
            assert flags & SIGNED
            assert whole[20:24] == bytes(4)
            stream = int.from_bytes(whole[8:16], "big")
            seen.append(Seen(whole[3], flags & ~SIGNED, stream, whole[28:metadata_end], whole[metadata_end:]))
        return seen


def asking(**changes: Any) -> bytes:
    """Make a HELLO that asks for signed frames."""
    payload = msgspec.msgpack.encode(hello_map() | {"capabilities": ["hmac_sha256"]} | changes)
    return frame(HELLO, payload=payload)


def accepting(session: bytes, **changes: Any) -> bytes:
    """Make a WELCOME that accepts them."""
    fields = welcome_map(session) | {"capabilities": ["hmac_sha256"], "mechanisms": ["PSK"]} | changes
    return frame(WELCOME, payload=msgspec.msgpack.encode(fields))


def open_signed(role: Role, *, peer: dict[str, Any] | None = None, **config: Any) -> By:
    """Return the other side of a machine behind its handshake."""
    connection = machine(role, signing_key=SECRET, **config)
    if role is Role.ACCEPTOR:
        said = asking(**(peer or {}))
        assert connection.receive_data(said, 0.0) == [Established()]
        return By(connection, said, drain(connection))
    hello_frame = drain(connection)
    answer = accepting(parse(hello_frame)[0].map["session"], **(peer or {}))
    assert connection.receive_data(answer, 0.0) == [Established()]
    return By(connection, hello_frame, answer)

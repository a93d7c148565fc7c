"""Bytes to messages, incrementally (spec/cafe.md, section 4, "Order of checks")."""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, Final

from haptera.dialects.cafe.messages import (
    HEAD_SIZE,
    HEADER,
    HEADER_SIZE,
    KEY_FIELD_MAX,
    MAGIC,
    MAGIC_BYTES,
    NO_REQUEST,
    VALUE_FIELD_MAX,
    VERSION,
    Message,
    Opcode,
)
from haptera.errors import Code, RemoteProtocolError

if TYPE_CHECKING:
    from haptera.dialects.cafe.message_keys import ConnectionKey

#: After so many messages the rest waits until it is asked for: to prove and to do them stops everything else for a few
#: milliseconds at most.
MESSAGES_MAX: Final = 256


class MessageReader:
    """Takes bytes in any pieces, gives whole messages whose tags are right by ``key``.

    Behind a BIND nothing is read until it is asked for by ``receive(b"")``, because the rest has another key. The same
    call goes on while ``more`` is true: many messages come a part at a time. Memory grows only as bytes arrive, and
    each byte is copied twice at most.

    The first fault ends the reading for good: ``error`` then says why and ``refused_id`` of which message, and further
    bytes are ignored.
    """

    def __init__(self, key: ConnectionKey) -> None:
        self.key = key
        self.error: RemoteProtocolError | None = None
        self.refused_id: int = NO_REQUEST
        #: Whether more messages may be whole already.
        self.more: bool = False
        #: Size of the unfinished message, as far as it is known: its header's until that has arrived.
        self.wanted: int = HEADER_SIZE
        # Either a message that has begun is kept, or bytes that have not been looked at, or less than a header.
        self._begun = bytearray()
        self._rest = b""

    @property
    def held(self) -> int:
        """Bytes that are kept."""
        return len(self._begun) + len(self._rest)

    def receive(self, data: bytes, messages_max: int = MESSAGES_MAX) -> list[Message]:
        """Take the bytes that arrived and return messages that are whole now, in order, ``messages_max`` at most."""
        messages: list[Message] = []
        if self.error is not None:
            return messages
        if self._begun:
            self._begun += data
            if len(self._begun) < self.wanted:
                return messages
            data = bytes(self._begun)
            self._begun = bytearray()
        elif self._rest:
            data = self._rest + data
        self._read(data, messages, messages_max)
        return messages

    def _read(self, data: bytes, messages: list[Message], messages_max: int) -> None:
        """Append the messages of ``data``, and keep the rest."""
        unpack_from, tag = HEADER.unpack_from, self.key.tag
        start, end = 0, len(data)
        self.more = False
        self.wanted = HEADER_SIZE
        while end - start >= HEADER_SIZE:
            if len(messages) >= messages_max:
                self.more = True
                break
            magic, version, opcode, request_id, flags, reserved, key_len, value_len, sent_tag = unpack_from(data, start)
            if magic != MAGIC or version != VERSION or key_len > KEY_FIELD_MAX or value_len > VALUE_FIELD_MAX:
                self._refuse(*_fault(magic, version, request_id, key_len, value_len))
                return
            body = start + HEADER_SIZE
            stop = body + key_len + value_len
            if stop > end:
                self.wanted = stop - start
                self._begun += memoryview(data)[start:]
                self._rest = b""
                return
            head, content = data[start : start + HEAD_SIZE], data[body:stop]
            if not compare_digest(tag(head, content), sent_tag):
                self._refuse(request_id, RemoteProtocolError(Code.SIGNATURE_MISMATCH))
                return
            messages.append(Message(opcode, request_id, flags, reserved, head, content[:key_len], content[key_len:]))
            start = stop
            if opcode == Opcode.BIND:
                self.more = start < end
                break
        self._rest = data[start:] if start else data
        # A foreign protocol is told apart by its first two bytes, however few follow.
        if not self.more and len(self._rest) >= len(MAGIC_BYTES) and not self._rest.startswith(MAGIC_BYTES):
            self._refuse(*_fault(int.from_bytes(self._rest[: len(MAGIC_BYTES)], "big"), VERSION, NO_REQUEST, 0, 0))

    def _refuse(self, request_id: int, error: RemoteProtocolError) -> None:
        self.error, self.refused_id = error, request_id
        self.more = False
        self._rest = b""


def _fault(magic: int, version: int, request_id: int, key_len: int, value_len: int) -> tuple[int, RemoteProtocolError]:
    """Name the fault of a header, and the request that its answer names."""
    if magic != MAGIC:
        return NO_REQUEST, RemoteProtocolError(
            Code.MALFORMED_FRAME, f"the bytes are not CAFE: they begin with {magic:04x}, not {MAGIC:04x}"
        )
    if version != VERSION:
        # The fields of another version are not known to stand where they stand in this one.
        return NO_REQUEST, RemoteProtocolError(
            Code.UNSUPPORTED_VERSION, f"the message has version {version}, and this side speaks {VERSION}"
        )
    if key_len > KEY_FIELD_MAX:
        return request_id, RemoteProtocolError(
            Code.FRAME_TOO_LARGE, f"key_len is {key_len}, and at most {KEY_FIELD_MAX}"
        )
    return request_id, RemoteProtocolError(
        Code.FRAME_TOO_LARGE, f"value_len is {value_len}, and at most {VALUE_FIELD_MAX}"
    )

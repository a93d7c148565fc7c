"""One connection as a node sees it: messages become commands, and results become answers (spec/cafe.md, section 4).

It is pure: nonces are drawn by a function that its maker gives.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from haptera.dialects.cafe.bodies import message, opened, packed, unpacked
from haptera.dialects.cafe.message_reader import MessageReader
from haptera.dialects.cafe.messages import (
    CIPHER_NONCE_SIZE,
    CODE_SIZE,
    COMPRESSED,
    ENCRYPTED,
    FLAGS,
    NO_REQUEST,
    NONCE_SIZE,
    TEXT_SIZE_MAX,
    VERSION_SIZE,
    Message,
    Opcode,
)
from haptera.errors import Code, Failure, RemoteProtocolError, failure
from haptera.node.commands import Result, operations

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.dialects.cafe.message_keys import ConnectionKey
    from haptera.wire import Codec

#: The texts of refusals.
_NOT_GREATER: Final = "the request_id is not greater than the one before"
_RESERVED: Final = "a flag or a reserved bit is set that version 1 does not define"
_LATE_BIND: Final = "BIND is the first message of a connection or none"
_FLAGS_OF_BIND: Final = "BIND has no flags"
_NONCE_OF_BIND: Final = f"BIND has no key, and a nonce of {NONCE_SIZE} bytes as its value"
_UNBOUND: Final = "this listener wants BIND as the first message"

Command = operations.Get | operations.Set | operations.Delete


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A command that a message asks for, and what its answer needs. ``size`` is that of its key and its value."""

    op: Command
    request_id: int
    flags: int
    size: int


class Conversation:
    """The messages of one connection, and their answers.

    ``receive`` takes bytes, `asked` gives the commands in them, and ``answer`` makes the answer to each. ``refusals``
    are the answers to messages that ask for nothing. Once it has ``ended``, nothing is read any more, and the
    connection closes behind the last refusal.
    """

    def __init__(
        self, key: ConnectionKey, *, require_bind: bool, entropy: Callable[[int], bytes], codec: Codec
    ) -> None:
        """``entropy(n)`` gives n random bytes."""
        self.ended: bool = False
        #: Whether a message has proved that the other side has the key.
        self.proved: bool = False
        #: Whole messages that have come.
        self.received: int = 0
        self.refusals: list[bytes] = []
        #: Why this side has ended it; None where it has not.
        self.fault: Failure | None = None
        self._key = key
        self._reader = MessageReader(key)
        self._waiting: deque[Message] = deque()  # messages that `asked` has not given: those of one `receive`
        self._waiting_size = 0
        self._entropy = entropy
        self._codec = codec
        self._require_bind = require_bind
        self._bound = False
        self._last_id = NO_REQUEST

    @property
    def held(self) -> int:
        """Bytes that are kept of messages that were not given."""
        return self._reader.held + self._waiting_size

    @property
    def expected(self) -> int | None:
        """The size of a message that has begun and is not whole, as far as it is known; None where there is none."""
        reader = self._reader
        return reader.wanted if reader.held and not reader.more else None

    @property
    def more(self) -> bool:
        """Whether `asked` may give something without further bytes."""
        return not self.ended and (bool(self._waiting) or self._reader.more)

    def receive(self, data: bytes) -> None:
        """Take bytes that have come."""
        self._take(self._reader.receive(data))

    def asked(self, count_max: int, size_max: int) -> list[Asked]:
        """Return the next commands: ``count_max`` at most, and no more once they have ``size_max`` bytes together."""
        found: list[Asked] = []
        size = 0
        while len(found) < count_max and size < size_max and not self.ended:
            if not self._waiting:
                if not self._reader.more and self._reader.error is None:
                    break
                self._take(self._reader.receive(b""))
                if not self._waiting:
                    self._end_of_reading()
                    break
            sent = self._waiting.popleft()
            self._waiting_size -= len(sent.key) + len(sent.value)
            command = self._judge(sent)
            if command is not None:
                found.append(command)
                size += command.size
        return found

    def answer(self, asked: Asked, result: Result) -> bytes:
        """Return the answer to a command."""
        op = asked.op
        if isinstance(result, Failure):
            if result.code == Code.KEY_NOT_FOUND:
                return self._message(Opcode.NOTFOUND, asked.request_id, asked.flags & ENCRYPTED, b"")
            return self._error(asked.request_id, asked.flags & ENCRYPTED, result)
        assert isinstance(result, tuple), "a command without a request id is never replayed"
        flags = asked.flags & ENCRYPTED
        if isinstance(op, operations.Get):
            value = result[0]
            if asked.flags & COMPRESSED:
                compressed, value = packed(self._codec, value)
                flags |= compressed
            return self._message(Opcode.OK, asked.request_id, flags, value)
        version = result[_VERSION_AT[type(op)]]
        if version is None:
            return self._message(Opcode.NOTFOUND, asked.request_id, flags, b"")
        return self._message(Opcode.OK, asked.request_id, flags, version.to_bytes(VERSION_SIZE, "big"))

    def farewell(self, reason: Failure) -> bytes:
        """Return the last message of a connection that this side ends, and end it."""
        self.ended = True
        return self._error(NO_REQUEST, 0, reason)

    def _take(self, messages: list[Message]) -> None:
        self._waiting += messages
        self._waiting_size += sum(len(sent.key) + len(sent.value) for sent in messages)
        self.received += len(messages)
        self.proved = self.received > 0

    def _end_of_reading(self) -> None:
        """Refuse the message at which reading has ended, if it has."""
        error = self._reader.error
        if error is not None and not self.ended:
            self._fail(self._reader.refused_id, error.failure("unknown"))

    def _judge(self, sent: Message) -> Asked | None:
        """Return the command of a message; None where it asks for none. The order is that of section 4."""
        if sent.request_id <= self._last_id:
            self._refuse(sent, failure(Code.PROTOCOL_VIOLATION, message=_NOT_GREATER))
            return None
        first, self._last_id = self._last_id == NO_REQUEST, sent.request_id
        if sent.flags & ~FLAGS or sent.reserved:
            self._refuse(sent, failure(Code.UNSUPPORTED_FLAG, message=_RESERVED))
            return None
        if sent.opcode == Opcode.BIND:
            self._bind(sent, first=first)
            return None
        if self._require_bind and not self._bound:
            self._fail(sent.request_id, failure(Code.AUTHENTICATION_REQUIRED, message=_UNBOUND))
            return None
        try:
            return self._command(sent)
        except RemoteProtocolError as error:
            self._refuse(sent, error.failure("not_applied"))
            return None

    def _bind(self, sent: Message, *, first: bool) -> None:
        if not first:
            self._refuse(sent, failure(Code.PROTOCOL_VIOLATION, message=_LATE_BIND))
        elif sent.flags:
            self._refuse(sent, failure(Code.UNSUPPORTED_FLAG, message=_FLAGS_OF_BIND))
        elif sent.key or len(sent.value) != NONCE_SIZE:
            self._refuse(sent, failure(Code.INVALID_ARGUMENT, message=_NONCE_OF_BIND))
        else:
            nonce = self._entropy(NONCE_SIZE)
            self.refusals.append(self._message(Opcode.OK, sent.request_id, 0, nonce))
            self._bound = True
            self._key = self._reader.key = self._key.bound(sent.value, nonce)

    def _command(self, sent: Message) -> Asked:
        """Return the command of a message. Raises the error of a body that has none."""
        if sent.opcode not in _COMMANDS:
            raise RemoteProtocolError(Code.UNKNOWN_FRAME_TYPE, f"{sent.opcode} is not the opcode of a request")
        name, value = opened(self._key, sent)
        try:
            key = name.decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError(Code.INVALID_KEY, "a key is not UTF-8") from None
        op: Command
        if sent.opcode == Opcode.SET:
            value = unpacked(self._codec, sent.flags, value)
            op = operations.Set(key, value)
        elif value:
            raise RemoteProtocolError(Code.INVALID_ARGUMENT, "GET and DEL have no value")
        elif sent.opcode == Opcode.GET:
            op = operations.Get(key)
        else:
            op = operations.Delete(key)
        return Asked(op, sent.request_id, sent.flags, len(name) + len(value))

    def _fail(self, request_id: int, reason: Failure) -> None:
        """End the conversation for a fault of the other side."""
        self.ended = True
        self.fault = reason
        self.refusals.append(self._error(request_id, 0, reason))

    def _refuse(self, sent: Message, reason: Failure) -> None:
        self.refusals.append(self._error(sent.request_id, 0, reason))

    def _error(self, request_id: int, flags: int, reason: Failure) -> bytes:
        text = reason.message.encode("utf-8", "replace")[:TEXT_SIZE_MAX].decode("utf-8", "ignore").encode()
        return self._message(Opcode.ERR, request_id, flags, reason.code.to_bytes(CODE_SIZE, "big") + text)

    def _message(self, opcode: int, request_id: int, flags: int, value: bytes) -> bytes:
        nonce = self._entropy(CIPHER_NONCE_SIZE) if flags & ENCRYPTED else b""
        return message(self._key, opcode, request_id, flags, b"", value, nonce=nonce)


_COMMANDS: Final = frozenset({Opcode.GET, Opcode.SET, Opcode.DEL})
#: The place of the version in a result.
_VERSION_AT: Final = {operations.Set: operations.Set.version_at, operations.Delete: operations.Delete.version_at}

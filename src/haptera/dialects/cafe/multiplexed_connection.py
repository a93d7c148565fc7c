"""One connection of a client: requests leave with rising ids, and answers are matched by theirs (spec/cafe.md, 6)."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from haptera import forks
from haptera.dialects.cafe.bodies import message, opened, packed, unpacked
from haptera.dialects.cafe.message_reader import MESSAGES_MAX, MessageReader
from haptera.dialects.cafe.messages import (
    CIPHER_NONCE_SIZE,
    CODE_SIZE,
    COMPRESSED,
    ENCRYPTED,
    FLAGS,
    NO_REQUEST,
    NONCE_SIZE,
    REQUEST_ID_MAX,
    VERSION_SIZE,
    Message,
    Opcode,
)
from haptera.errors import TABLE, Code, ConnectionLost, Failure, RemoteProtocolError, failure, printable
from haptera.transport import Home, TlsTransport, let_go, read_into_place, tune
from haptera.wire import Codec

if TYPE_CHECKING:
    from haptera.dialects.cafe.message_keys import ConnectionKey

#: Requests whose answers are waited for: as many as a server of ours takes up at once. Further ones wait for room.
IN_FLIGHT_MAX: Final = 4096

#: Errors by which a server ends a connection, or that show another hand in it: nothing is believed any more.
_ENDING: Final = frozenset(
    {
        Code.UNSUPPORTED_VERSION,
        Code.MALFORMED_FRAME,
        Code.FRAME_TOO_LARGE,
        Code.PROTOCOL_VIOLATION,
        Code.SIGNATURE_MISMATCH,
    }
)
_U16: Final = Struct(">H")
_KEYS_DIFFER: Final = "the tag of an answer is wrong: the shared keys differ, or the bytes were changed on their way"


class Sending(NamedTuple):
    """How the requests of a client leave."""

    bind: bool
    encrypt: bool
    compress: bool


class MultiplexedConnection(asyncio.Protocol):
    """The requests of one connection, and their answers.

    ``send`` gives a future, whose result is the value of OK, None for NOTFOUND, or the `Failure` of ERR. ``bound`` is
    done when requests may be sent. The end of the connection fails every future with `ConnectionLost`.
    """

    def __init__(self, key: ConnectionKey, sending: Sending, loop: asyncio.AbstractEventLoop) -> None:
        self.bound: asyncio.Future[None] = loop.create_future()
        #: Why the connection has ended; None while it is open.
        self.lost: ConnectionLost | None = None
        self.closed: asyncio.Future[None] = loop.create_future()
        self.home: Home = Home(loop)
        self.home.name = "the client of CAFE"
        self._loop = loop
        self._key = key
        self._sending = sending
        self._flags = ENCRYPTED if sending.encrypt else 0
        self._codec = Codec()
        self._reader = MessageReader(key)
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, tuple[Opcode, asyncio.Future[bytes | Failure | None]]] = {}
        self._last_id = NO_REQUEST
        self._nonce = b""  # of this side, while the answer to BIND is waited for
        self._out: list[bytes] = []
        self._flushing = False
        self._paused = False
        self._retired = False
        self._for_room: deque[asyncio.Future[None]] = deque()
        forks.watch(self)

    @property
    def spent(self) -> bool:
        """Whether no request_id is left."""
        return self._last_id >= REQUEST_ID_MAX

    @property
    def has_room(self) -> bool:
        """Whether a further request may be sent now."""
        return len(self._waiting) < IN_FLIGHT_MAX and not self._paused

    async def room(self) -> None:
        """Wait until there may be room for a request, or the connection has ended."""
        if not self.has_room and self.lost is None:
            future = self._loop.create_future()
            self._for_room.append(future)
            try:
                await future
            finally:
                if future in self._for_room:
                    self._for_room.remove(future)

    def send(self, opcode: Opcode, name: bytes, value: bytes) -> asyncio.Future[bytes | Failure | None]:
        """Send a request, together with the others of this turn of the loop."""
        future: asyncio.Future[bytes | Failure | None] = self._loop.create_future()
        flags = self._flags
        if self._sending.compress:
            if opcode == Opcode.SET:
                compressed, value = packed(self._codec, value)
                flags |= compressed
            elif opcode == Opcode.GET:
                flags |= COMPRESSED
        self._last_id = request_id = self._last_id + 1
        self._waiting[request_id] = opcode, future
        nonce = os.urandom(CIPHER_NONCE_SIZE) if flags & ENCRYPTED else b""
        self._write(message(self._key, opcode, request_id, flags, name, value, nonce=nonce))
        return future

    def retire(self) -> None:
        """Close the connection once the requests under way are answered."""
        self._retired = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Close the connection; requests under way fail."""
        if self._transport is not None and self.lost is None:
            self._flush()
            self._end(ConnectionLost("the client is closed"))

    def disown(self, owner: int) -> None:
        """Leave the connection to the process ``owner`` that this one was forked from (``haptera.forks`` calls this).

        Its object is of no use here, and a client makes another connection.
        """
        self.home.disown(owner)
        if self._transport is not None and self.lost is None:
            let_go(self._transport.get_extra_info("socket"), may_be_stale=False)

    # -- the transport ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is open: say BIND, or say that requests may be sent."""
        self._transport = stream = cast("asyncio.Transport", transport)
        tune(stream)
        if not isinstance(stream, TlsTransport):
            read_into_place(stream, self)
        if self._sending.bind:
            self._nonce = os.urandom(NONCE_SIZE)
            self._last_id = 1
            self._write(message(self._key, Opcode.BIND, self._last_id, 0, b"", self._nonce))
        else:
            self.bound.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Bytes have been read: give each answer to its request."""
        reader = self._reader
        try:
            while self.lost is None:
                if self._nonce:
                    for answer in reader.receive(data, 1):
                        self._take_nonce(answer)
                else:
                    for answer in reader.receive(data, MESSAGES_MAX):
                        self._answered(answer)
                data = b""
                if reader.error is not None:
                    raise _own_words(reader.error)
                if not reader.more:
                    break
        except RemoteProtocolError as error:
            self._end(_lost_to(error))

    def pause_writing(self) -> None:
        """The socket takes less than is written."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket has caught up."""
        self._paused = False
        self._make_room()

    def eof_received(self) -> bool:
        """The other side sends no more, and so gives no more answers."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        because = "the connection was ended by the other side" if exc is None else f"the connection was lost: {exc}"
        lost = ConnectionLost(because)
        lost.__cause__ = exc
        self._end(lost)
        if not self.closed.done():
            self.closed.set_result(None)

    # -- answers ----------------------------------------------------------------------------------------------------

    def _take_nonce(self, answer: Message) -> None:
        """Take the answer to BIND. Raises the error of one that is none."""
        _check_form(answer)
        if answer.opcode == Opcode.ERR:
            self._end(_ended_by(_failure_in(answer.value)))
        elif answer.opcode != Opcode.OK or answer.request_id != self._last_id or len(answer.value) != NONCE_SIZE:
            raise _violation("the answer to BIND is none")
        else:
            self._key = self._reader.key = self._key.bound(self._nonce, answer.value)
            self._nonce = b""
            if not self.bound.done():  # its client may have given it up
                self.bound.set_result(None)

    def _answered(self, answer: Message) -> None:
        """Give an answer to its request. Raises the error of one that has none, or has a wrong form."""
        _check_form(answer)
        if answer.request_id == NO_REQUEST and answer.opcode == Opcode.ERR:
            self._end(_ended_by(_failure_in(answer.value)))
            return
        waiting = self._waiting.pop(answer.request_id, None)
        if waiting is None:
            if self.lost is not None:
                return  # an answer behind the one with which the connection has ended
            raise _violation("an answer came for which no request waits")
        opcode, future = waiting
        try:
            result = self._result(opcode, answer)
        except RemoteProtocolError:
            self._waiting[answer.request_id] = waiting  # it fails with all others
            raise
        if isinstance(result, Failure) and result.code in _ENDING:
            self._waiting[answer.request_id] = waiting
            self._end(_ended_by(result))
            return
        if not future.done():  # its caller may have gone
            future.set_result(result)
        if self._for_room:
            self._make_room()
        if self._retired and not self._waiting:
            self.close()

    def _result(self, asked: Opcode, answer: Message) -> bytes | Failure | None:
        """Return the result that an answer is to a request. Raises the error of one that is no answer to it."""
        _, value = opened(self._key, answer)
        if answer.opcode == Opcode.ERR:
            return _failure_in(value)
        if self._sending.encrypt and not answer.flags & ENCRYPTED:
            raise _violation("the answer to an encrypted request is not encrypted")
        if answer.opcode == Opcode.NOTFOUND and not value and asked != Opcode.SET:
            return None
        if answer.opcode == Opcode.OK:
            if asked == Opcode.GET:
                return unpacked(self._codec, answer.flags, value)
            if len(value) == VERSION_SIZE:
                return value
        raise _violation("an answer has not the form of one to its request")

    # -- sending and the end ----------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        self._out.append(data)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._out and self._transport is not None and self.lost is None:
            out, self._out = self._out, []
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _make_room(self) -> None:
        room = IN_FLIGHT_MAX - len(self._waiting)
        while self._for_room and room > 0:
            future = self._for_room.popleft()
            if not future.done():
                future.set_result(None)
                room -= 1

    def _end(self, lost: ConnectionLost) -> None:
        """End the connection for this reason, unless it has ended."""
        if self.lost is not None:
            return
        self.lost = lost
        waiting, self._waiting = self._waiting, {}
        self._out.clear()
        for _, future in waiting.values():
            if not future.done():
                future.set_exception(_again(lost))
        while self._for_room:
            future_of_room = self._for_room.popleft()
            if not future_of_room.done():
                future_of_room.set_result(None)
        if not self.bound.done():
            self.bound.set_exception(_again(lost, applied=False))
            self.bound.exception()  # it is no loss if no one waits
        if self._transport is not None:
            self._transport.close()


def _check_form(answer: Message) -> None:
    """Raise the error of a message that is no answer."""
    if answer.opcode not in {Opcode.OK, Opcode.ERR, Opcode.NOTFOUND}:
        raise _violation("a message came that is no answer")
    if answer.flags & ~FLAGS or answer.reserved or answer.key:
        raise _violation("an answer has a flag, a reserved bit or a key that no answer has")


def _failure_in(value: bytes) -> Failure:
    """Return the failure that the value of ERR is. Raises the error of one that is none."""
    if len(value) < CODE_SIZE:
        raise _violation("an ERR has no code")
    (code,) = _U16.unpack_from(value)
    name, _, outcome = TABLE.get(code, (f"CODE_{code}", "", "unknown"))
    return Failure(code, name, value[CODE_SIZE:].decode("utf-8", "replace"), outcome, {})


def _violation(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(Code.PROTOCOL_VIOLATION, reason)


def _own_words(error: RemoteProtocolError) -> RemoteProtocolError:
    if error.code != Code.SIGNATURE_MISMATCH:
        return error
    return RemoteProtocolError(Code.SIGNATURE_MISMATCH, _KEYS_DIFFER)


def _lost_to(error: RemoteProtocolError) -> ConnectionLost:
    """Return the end of a connection whose other side broke the protocol."""
    lost = ConnectionLost(
        f"the connection was ended: {error.message}", failure=failure(error.code, message=error.message)
    )
    lost.__cause__ = error
    return lost


def _ended_by(reason: Failure) -> ConnectionLost:
    """Return the end of a connection that the other side has ended."""
    return ConnectionLost(f"the other side ended the connection: {printable(reason.message)}", failure=reason)


def _again(lost: ConnectionLost, *, applied: bool = True) -> ConnectionLost:
    """Return the error once more, for one caller: each has a traceback of its own."""
    made = ConnectionLost(lost.message, outcome="unknown" if applied else "not_applied", failure=lost.failure)
    made.__cause__ = lost.__cause__
    return made

"""The link to a peer: one connection on its transport, the pumps between the two, and its end.

It moves bytes and events, and knows neither calls nor services: events go to the ``EventRouter`` above it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, cast

from haptera import forks
from haptera.connection import HELD_MIN, Closed, Connection, PackedItem
from haptera.errors import ConnectionLost, Failure, Outcome, ProtocolError
from haptera.peer.closing import Closing
from haptera.peer.early_writes import EarlyWrites
from haptera.peer.end_reasons import describe_end, log_end, log_opening, outcome_of_sent
from haptera.peer.event_log import EventLog, guard
from haptera.peer.limits import (
    READ_SIZE_SMALL,
    REQUESTS_PER_WRITE,
    TRANSPORT_HIGH,
    TRANSPORT_LOW,
    UNWRITTEN_MAX,
    WRITE_SIZE,
)
from haptera.peer.loop_fairness import Round
from haptera.peer.remote_address import Credentials, describe_remote, unix_credentials
from haptera.peer.timers import Timers
from haptera.transport import (
    READ_SIZE_MAX,
    Home,
    TlsSession,
    TlsTransport,
    gathers,
    is_near,
    read_into_place,
    tune,
)

if TYPE_CHECKING:
    from haptera.peer.event_router import EventRouter


class Link(asyncio.Protocol):
    """Pumps bytes between a transport, whose protocol it is, and the state machine of a connection."""

    # Servers have thousands of them; a dictionary each would be the largest part.
    __slots__ = (
        "__weakref__",
        "_early",
        "_flushing",
        "_gathers",
        "_on_close",
        "_paused",
        "_reading",
        "_requests",
        "_timers",
        "_when_writable",
        "above",
        "bytes_received",
        "bytes_sent",
        "closed",
        "closing",
        "connection",
        "credentials",
        "draining",
        "ending",
        "error",
        "gone",
        "home",
        "kept",
        "log",
        "loop",
        "on_read",
        "read_at",
        "ready",
        "remote",
        "round",
        "transport",
        "waits_turn",
    )

    #: The receiver of the connection's events. The router sets it.
    above: EventRouter

    def __init__(
        self, connection: Connection, loop: asyncio.AbstractEventLoop, log: EventLog, *, write_timeout_s: float
    ) -> None:
        self.connection: Connection = connection
        self.loop: asyncio.AbstractEventLoop = loop
        self.home: Home = Home(loop)
        #: Where the lines about the connection's beginning and end go.
        self.log: EventLog = log
        self.transport: asyncio.Transport | None = None
        #: The other end of the transport, and on a Unix socket the process there.
        self.remote: str = ""
        self.credentials: Credentials | None = None
        #: Whether another object closes the connection, and is the one to warn where it is dropped open.
        self.kept: bool = False
        self.closed: bool = False
        self.bytes_received: int = 0
        self.bytes_sent: int = 0
        #: The fault that ended the connection: a ``RemoteProtocolError`` that this side found in the other, a
        #: ``LocalProtocolError`` that the other side says it found in this one.
        self.error: ProtocolError | None = None
        #: Why the connection is over, from the moment on at which it is.
        self.ending: ConnectionLost | None = None
        self.ready: asyncio.Future[None] = loop.create_future()  # when the handshake, and a proof behind it, are done
        self.gone: asyncio.Future[None] = loop.create_future()  # when the transport is closed
        #: Called before bytes are looked at; the time of the loop at which they were read.
        self.on_read: Callable[[], None] | None = None
        self.read_at: float = 0.0
        #: Whether the link is on its way to an orderly end: no new request is sent on it.
        self.draining: bool = False
        #: The turns that the connections of the loop have, and whether this one waits for the next of its own.
        self.round: Round = Round.of(loop)
        self.waits_turn: bool = False
        self._paused = False
        self._gathers = False
        self._flushing = False
        self._reading = False
        self._requests = 0  # scheduled since the last write
        self._early = EarlyWrites()
        self._when_writable: list[Callable[[], None]] = []
        self._on_close: list[Callable[[], None]] = []
        self._timers = Timers(self, write_timeout_s)
        self.closing: Closing = Closing(self)

    @property
    def established(self) -> bool:
        """Whether the handshake is done."""
        return self.connection.agreement is not None

    @property
    def admitted(self) -> bool:
        """Whether the two sides serve each other: the handshake, and a proof that is asked for, are done."""
        return self.connection.admitted

    @property
    def has_spoken(self) -> bool:
        """Whether the other side has sent anything, of the handshake of TLS too."""
        transport = self.transport
        return self.bytes_received > 0 or (isinstance(transport, TlsTransport) and transport.has_spoken)

    @property
    def tls(self) -> TlsSession | None:
        """The session of TLS that the bytes are inside of."""
        return self.transport.session if isinstance(self.transport, TlsTransport) else None

    @property
    def binding(self) -> bytes:
        """The value C that an authentication is bound to (spec/protocol.md, section 5.1), 32 zero bytes outside TLS."""
        return bytes(32) if self.tls is None else self.tls.binding

    def log_fields(self, **fields: Any) -> dict[str, Any]:
        """Return the fields of a log line about this connection, with ``fields`` added."""
        agreement = self.connection.agreement
        session = None if agreement is None else agreement.session.hex()
        return {"connection": session, "remote": self.remote, **fields}

    # -- reading ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes have been read: act on their events, and write the answers that are ready."""
        self.bytes_received += len(data)
        if self.ending is not None:
            return
        self._reading = True
        self.read_at = now = self.loop.time()
        if self.on_read is not None:
            self.on_read()
        connection, round_, size = self.connection, self.round, len(data)
        frames = connection.frames_received
        try:
            events = connection.receive_data(data, now, round_.part)
            round_.spend(connection.frames_received - frames, size)
            waits = self.above.take(events)
        finally:
            self._reading = False
        if not connection.outbox.idle or self._when_writable or self.ending is not None:
            self.flush()
        elif waits:
            self._go_on()  # there is nothing to write
        if connection.unfinished:
            self._timers.watch()
        if connection.more or size >= READ_SIZE_MAX or (size >= READ_SIZE_SMALL and not round_.has_room):
            self._let_others()

    def _let_others(self) -> None:
        """Read no more of this connection in this turn of the loop: the others have theirs."""
        transport = self.transport
        if self.ending is None and transport is not None and not transport.is_closing():
            transport.pause_reading()
            self.wait_turn()

    def wait_turn(self) -> None:
        """Read and begin no more in this turn of the loop, but in a later one."""
        if not self.waits_turn:
            self.waits_turn = True
            self.round.add(self._take_turn)

    def _take_turn(self) -> None:
        self.waits_turn = False
        self._read_on()
        self.above.go_on()

    def _read_on(self) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self.connection.more:
            self.data_received(b"")
        # A connection that ends is read to its end, and the bytes are thrown away.
        if not self.connection.more and not transport.is_closing():
            transport.resume_reading()

    def eof_received(self) -> None:
        """The other side sends no more: that ends the connection, and the transport."""
        self.above.take(self.connection.receive_eof())

    def take_item(self, stream: int, item: bytes | PackedItem = b"") -> bytes | Failure:
        """Hand an item over: its window opens, and its payload is unpacked, which may fail."""
        connection = self.connection
        payload = connection.take_item(stream, item, now=self.loop.time())
        if isinstance(payload, Failure):
            self.above.take(connection.take_events())
        if connection.outbox.pending:
            if connection.open_streams == 1:
                self.send_now()  # no other stream's credit will join it
            else:
                self.schedule_flush()
        if connection.unfinished:
            self._timers.watch()
        return payload

    # -- writing ----------------------------------------------------------------------------------------------------

    def schedule_flush(self) -> None:
        """Write at the end of this turn of the loop, together with everything else that becomes ready until then."""
        if not self._flushing and not self._reading:
            self._flushing = True
            self.loop.call_soon(self.flush)

    def schedule_request(self, stream: int, unanswered: Container[int]) -> None:
        """Write a request as ``schedule_flush`` does, or now with the others before it, where they are enough and an
        early write is worth it. ``unanswered`` are the streams of the calls under way.

        Two writes are left as they are: that of a read, at its end, and that of HELLO with the first flight. A
        transport that is lost, which it tells in a later turn of the loop, gets none.
        """
        if not self._flushing:
            self._early.begin_turn()
            self.schedule_flush()
        self._requests += 1
        if self._requests % REQUESTS_PER_WRITE or self._reading or self.ending is not None or not self.established:
            return
        transport = self.transport
        if transport and not transport.is_closing() and self._early.are_worth_it(stream, self._requests, unanswered):
            self._write(transport)  # the flush that is scheduled does the rest of its work

    def send_now(self) -> None:
        """Write at once, because no more bytes are expected in this turn: that saves a turn of the loop."""
        transport = self.transport
        if self._flushing or self._reading:
            return
        if transport is None or self.ending is not None:
            self.schedule_flush()
            return
        self._write(transport)
        if transport.get_write_buffer_size() or not self.connection.outbox.idle:
            self.schedule_flush()

    def flush(self) -> None:
        """Write all ready bytes, and let producers go on that had to wait for room."""
        self._flushing = False
        transport = self.transport
        if transport is None or self.ending is not None:
            return
        outbox = self.connection.outbox
        self._write(transport)
        if outbox.writable:
            self.above.make_room(self.connection.take_writable())
        unsent = transport.get_write_buffer_size()
        if outbox.settle(unsent) > HELD_MIN or unsent:
            self._timers.watch_reader(transport)
        if self._when_writable and self.writable:
            callbacks, self._when_writable = self._when_writable, []
            for callback in callbacks:
                guard(callback)
        self._go_on()

    def _go_on(self) -> None:
        """Start requests that had to wait until the rest was written, and see that their answers are written, too."""
        self.above.flushed()
        if self.connection.outbox.pending and not self._paused:
            self.schedule_flush()

    def _write(self, transport: asyncio.Transport) -> None:
        """Hand the transport the bytes that may leave now, unless it takes no more."""
        self._requests = 0
        if not self._paused:
            pieces = self.connection.pieces_to_send(WRITE_SIZE)
            if len(pieces) > 1 and self._gathers:
                self.bytes_sent += sum(map(len, pieces))
                transport.writelines(pieces)
                return
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if data:
                self.bytes_sent += len(data)
                transport.write(data)

    def write_before_error(self, stream: int) -> None:
        """An ERROR is about to drop a stream's items that have not left: let the ones leave that may.

        A handler that yields an item and then fails has sent it, although both happened in one turn of the loop.
        """
        if self.transport is not None and self.ending is None and self.connection.keeps_items(stream):
            self._write(self.transport)

    @property
    def writable(self) -> bool:
        """Whether little enough waits to be written that more answers may be produced."""
        transport = self.transport
        if transport is None:
            return False
        outbox = self.connection.outbox
        waiting = outbox.unwritten + transport.get_write_buffer_size()
        # With the budget of the process used up each connection has a little of it: all that there are go on.
        return waiting < HELD_MIN or (waiting < UNWRITTEN_MAX and not outbox.over_budget)

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once as soon as ``writable`` is true again; never if the connection ends first."""
        if self.ending is None:
            self._when_writable.append(callback)
            self.schedule_flush()

    def pause_writing(self) -> None:
        """The socket takes less than is written."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket has caught up."""
        self._paused = False
        self.schedule_flush()

    def probe(self) -> None:
        """Doubt that the other side is there: end the connection (1015) if it gives no sign of life within 2 seconds.

        Nothing is asked of a side that was heard within the last second. A side that still takes what it was sent
        before, over a slow link, has longer.
        """
        if self.ending is None:
            self._timers.probe()
            self.schedule_flush()

    # -- the beginning ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is open."""
        self.transport = stream = cast("asyncio.Transport", transport)
        stream.set_write_buffer_limits(high=TRANSPORT_HIGH, low=TRANSPORT_LOW)
        self.remote = describe_remote(stream)
        self.home.name = f"the connection to {self.remote or 'a peer'}"
        self.credentials = unix_credentials(stream)
        forks.watch(self)
        tune(stream)
        self._gathers = gathers(stream)
        self.connection.outbox.near = is_near(stream)
        if not isinstance(stream, TlsTransport):  # which hands on a copy already
            read_into_place(stream, self)
        self._timers.watch()
        log_opening(self.log, self.log_fields)
        self.above.opened()

    def establish(self) -> None:
        """The handshake is done, or the proof of an identity behind it."""
        self._timers.watch()  # from now on it is for silence, of which less may be allowed than of a handshake
        if self.admitted and not self.ready.done():
            self.ready.set_result(None)

    async def wait_ready(self) -> None:
        """Wait for the end of the handshake, and of the exchange behind it. Raises ``ConnectionLost`` if it fails."""
        self.home.check()
        await asyncio.shield(self.ready)

    # -- the end ----------------------------------------------------------------------------------------------------

    def lost_error(self, outcome: Outcome) -> ConnectionLost:
        """Return the error of the calls that were under way when the connection ended."""
        assert self.ending is not None
        error = ConnectionLost(str(self.ending), outcome=outcome, failure=self.ending.failure)
        error.__cause__ = self.ending.__cause__
        return error

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the connection has ended; at once if it has."""
        if self.closed:
            callback()
        else:
            self._on_close.append(callback)

    def disown(self, owner: int) -> None:
        """Leave the connection to the process ``owner`` that this one was forked from (``haptera.forks`` calls this).

        From here on it is neither written to nor closed: each of that would reach the parent's connection.
        """
        self.home.disown(owner)
        self.closing.let_go()

    def abort(self) -> None:
        """Close at once, as if it had never been accepted."""
        if self.transport is not None:
            self.transport.abort()

    def end(
        self,
        event: Closed,
        reason: str,
        cause: Exception | None = None,
        *,
        half: bool = False,
        refusal: Failure | None = None,
    ) -> None:
        """The connection is over: fail calls, stop handlers, close the transport.

        ``reason`` is for the log, if neither ``event`` nor ``cause``, the transport's error, has one. ``refusal`` is
        why this side ends it, where that is no fault of the protocol.
        """
        if self.ending is not None:
            return
        self.ending = describe_end(event, cause, refusal, admitted=self.admitted, remote=self.remote)
        self.error = event.error
        log_end(self.log, event, cause, reason, self.log_fields)
        if not self.ready.done():
            self.ready.set_exception(self.lost_error("not_applied"))
            self.ready.exception()  # it is no loss if no task waits for it
        self.above.ended(outcome_of_sent(event, cause, self.connection))
        self._when_writable.clear()
        found_fault = event.error is not None and event.failure is None
        self._timers.stop()
        self.closing.begin(half=half or found_fault)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self.end(Closed(None), "it is gone", exc)
        self._timers.stop()
        self.closing.stop()
        self.connection.close()
        self.closed = True
        if not self.gone.done():
            self.gone.set_result(None)
        callbacks, self._on_close = self._on_close, []
        for callback in callbacks:
            guard(callback)
        self.above.lost()

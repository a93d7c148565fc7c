"""One connection and the transport that carries it: how it opens, what both its directions share, how it ends."""

import asyncio
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from haptera import forks
from haptera.connection import Connection, Role
from haptera.connection.config import HELD_MIN
from haptera.connection.events import Closed, Event, PackedItem
from haptera.errors import ConnectionLost, Failure, Outcome, ProtocolError, RemoteProtocolError, WrongLoop
from haptera.peer.ending import describe_end, log_end, log_opening
from haptera.peer.event_log import EventLog
from haptera.peer.limits import DRAIN_S, LINGER_S, UNWRITTEN_MAX, WRITE_SIZE
from haptera.peer.timers import ReaderWatch, Ticker
from haptera.transport import let_go, running_loop, tune, unacknowledged, wrong_loop

if TYPE_CHECKING:
    from haptera.transport import Place

_logger = logging.getLogger("haptera.peer")
_LOG: Final = EventLog()
#: What is owed while answers are: everything that is sent until the last of them.
_ALL: Final = sys.maxsize


class Line(ABC):
    """The life of one connection, whatever is said on it.

    ``haptera.peer.peer.Peer`` is one that can be called, ``haptera.peer.exchange.Exchange`` one whose requests are
    served as well. These are classes and not objects of one another because every read, write and request would pay
    for the steps between them.
    """

    # Servers have thousands of them; a dictionary each would be the largest part.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_connection",
        "_draining",
        "_ending",
        "_flushing",
        "_forked_from",
        "_gone",
        "_linger",
        "_loop",
        "_on_close",
        "_owed",
        "_patience",
        "_paused",
        "_reader",
        "_reading",
        "_ready",
        "_said_goaway",
        "_taken",
        "_thread",
        "_ticker",
        "_transport",
        "_when_writable",
        "_write_timeout_s",
        "bytes_received",
        "bytes_sent",
        "closed",
        "dialled",
        "error",
        "kept",
        "remote",
    )

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop, *, write_timeout_s: float) -> None:
        self.remote = ""
        #: The host of the URL by which this side has dialled it, or the path; None if it was accepted.
        self.dialled: Place | None = None
        #: Whether another object closes the connection, and is the one to warn where it is dropped open.
        self.kept = False
        self.closed = False
        self.bytes_received = 0
        self.bytes_sent = 0
        #: What was wrong, if that ended the connection: a ``RemoteProtocolError`` that this side found in the other, a
        #: ``LocalProtocolError`` that the other side says it found in this one.
        self.error: ProtocolError | None = None
        self._connection = connection
        self._loop = loop
        self._write_timeout_s = write_timeout_s
        self._thread = get_ident()  # where its loop runs; 0 in a forked child
        self._forked_from = 0  # in a forked child, the process that has the connection
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._flushing = False
        self._reading = False
        self._ready: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._ending: ConnectionLost | None = None
        self._draining: asyncio.Future[None] | None = None
        self._said_goaway = False
        #: How many of the bytes that were sent the other side is owed once nothing is under way, and until when an end
        #: waits for it to take them.
        self._owed = 0
        self._patience = 0.0
        self._when_writable: list[Callable[[], None]] = []
        self._on_close: list[Callable[[], None]] = []
        self._ticker = Ticker(loop, connection, self._tick)
        self._reader: ReaderWatch | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._taken = 0  # bytes that the other side had taken when this was last looked at

    # -- what whoever extends it does --------------------------------------------------------------------------------

    @abstractmethod
    def _receive(self, data: bytes) -> None:
        """Take bytes that were read."""

    @abstractmethod
    def _take(self, events: Sequence[Event]) -> None:
        """Act on what the state machine tells."""

    @abstractmethod
    def _flush(self) -> None:
        """Write what is ready."""

    @abstractmethod
    def _stop(self, sent: Outcome) -> None:
        """The connection is over: fail what waits, stop what runs. ``sent`` is the outcome of calls that were sent."""

    @abstractmethod
    async def _wait_stopped(self) -> None:
        """Wait until what ``_stop`` has stopped is at its end."""

    @property
    @abstractmethod
    def _accepted(self) -> bool:
        """Whether a listener has accepted the connection; else this side has dialled it."""

    @property
    def _log(self) -> EventLog:
        """Where the lines about this connection's beginning and end go."""
        return _LOG

    # -- what is known of the other side ----------------------------------------------------------------------------

    @property
    def established(self) -> bool:
        """Whether the handshake is done; the properties below are empty before."""
        return self._connection.agreement is not None

    @property
    def agent(self) -> str:
        """The other side's name and version."""
        agreement = self._connection.agreement
        return "" if agreement is None else agreement.peer_agent

    @property
    def capabilities(self) -> frozenset[str]:
        """What both sides agreed to use."""
        agreement = self._connection.agreement
        return frozenset() if agreement is None else agreement.capabilities

    @property
    def peer_services(self) -> tuple[str, ...]:
        """The names of the services that the other side hosts, as a hint."""
        agreement = self._connection.agreement
        return () if agreement is None else agreement.peer_services

    @property
    def session(self) -> bytes:
        """The connection's random name, 16 bytes, for logs and traces only."""
        agreement = self._connection.agreement
        return b"" if agreement is None else agreement.session

    @property
    def server_id(self) -> bytes | None:
        """The acceptor's id, 16 bytes; None before the handshake is done."""
        agreement = self._connection.agreement
        return None if agreement is None else agreement.server_id

    @property
    def max_message(self) -> int:
        """The largest message, in bytes, that the other side takes; 0 before the handshake is done."""
        agreement = self._connection.agreement
        return 0 if agreement is None else agreement.peer_limits.max_message

    @property
    def frames_received(self) -> int:
        """Frames that have come whole."""
        return self._connection.frames_received

    @property
    def frames_sent(self) -> int:
        """Frames that were handed to the transport."""
        return self._connection.outbox.frames_sent

    @property
    def going_away(self) -> bool:
        """Whether the other side takes no more requests on this connection."""
        return self._connection.going_away

    def log_fields(self, **fields: Any) -> dict[str, Any]:
        """Return what a log line about this connection says, with ``fields`` added."""
        return {"connection": self.session.hex() or None, "remote": self.remote, **fields}

    def __repr__(self) -> str:
        state = "closed" if self.closed else self._connection.state.name.lower()
        return f"<Peer {self.remote or 'not connected'} {state}>"

    # -- what both directions share ----------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether little enough waits to be written that more answers may be produced."""
        transport = self._transport
        if transport is None:
            return False
        outbox = self._connection.outbox
        waiting = outbox.unwritten + transport.get_write_buffer_size()
        # With the budget of the process used up each connection has a little of it: all that there are go on.
        return waiting < HELD_MIN or (waiting < UNWRITTEN_MAX and not outbox.over_budget)

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once as soon as ``writable`` is true again; never if the connection ends first."""
        if self._ending is None:
            self._when_writable.append(callback)
            self._schedule_flush()

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the connection has ended; at once if it has."""
        if self.closed:
            callback()
        else:
            self._on_close.append(callback)

    @staticmethod
    def _guard(callback: Callable[[], None]) -> None:
        """Call what an application gave: its fault is logged, and is not the connection's."""
        try:
            callback()
        except Exception as error:
            _logger.error("callback_failed", exc_info=error)

    def _check_alive(self) -> None:
        if get_ident() != self._thread:
            self.check_loop()
        if self._ending is not None:
            raise self._lost_error("unknown")

    def _take_item(self, stream: int, item: bytes | PackedItem = b"") -> bytes | Failure:
        """Hand an item over: its window opens, and its payload is unpacked, which may fail."""
        connection = self._connection
        payload = connection.take_item(stream, item, now=self._loop.time())
        if isinstance(payload, Failure):
            self._take(connection.take_events())
        if connection.outbox.pending:
            self._schedule_flush()
        if connection.unfinished:
            self._ticker.watch()
        return payload

    def _schedule_flush(self) -> None:
        if not self._flushing and not self._reading:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _write(self, transport: asyncio.Transport) -> None:
        """Hand the transport what may leave now, unless it takes no more."""
        if not self._paused:
            data = self._connection.data_to_send(WRITE_SIZE)
            if data:
                self.bytes_sent += len(data)
                transport.write(data)

    def _write_before_error(self, stream: int) -> None:
        """An ERROR is about to drop a stream's items that have not left: let those leave that may.

        A handler that yields an item and then fails has sent it, although both happened in one turn of the loop.
        """
        if self._transport is not None and self._ending is None and self._connection.keeps_items(stream):
            self._write(self._transport)

    def _pause(self) -> None:
        self._paused = True

    def _resume(self) -> None:
        self._paused = False
        self._schedule_flush()

    # -- time -------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._ending is not None:
            return
        now = self._loop.time()
        if now >= self._connection.next_tick():
            if self._is_taking():
                self._connection.postpone_probe(now)
            self._take(self._connection.tick(now))
            self._flush()
        if self._ending is None:
            self._ticker.watch()

    def probe(self) -> None:
        """Doubt that the other side is there: end the connection (1015) if it gives no sign of life within 2 seconds.

        A call that has had no answer in time does this by itself. Nothing is asked of a side that was heard within the
        last second. A side that still takes what it was sent before, over a slow link, has longer.
        """
        if self._ending is None:
            if self._connection.probe(self._loop.time()):
                self._is_taking()
            self._schedule_flush()
            self._ticker.watch()

    def _is_taking(self) -> bool:
        """Whether the other side has taken some of what it was sent since the last look, and not all of it yet."""
        transport = self._transport
        if transport is None:
            return False
        untaken = transport.get_write_buffer_size() + unacknowledged(transport)
        before, self._taken = self._taken, self.bytes_sent - untaken
        return untaken > 0 and self._taken > before

    def _watch_reader(self, transport: asyncio.Transport) -> None:
        """Something waits to be read by the other side: see that it is."""
        if self._reader is None:
            self._reader = ReaderWatch(
                self._loop,
                self._connection.outbox,
                self._write_timeout_s,
                progress=lambda: (self.bytes_sent, transport.get_write_buffer_size()),
                end=self._end_slow,
            )
        self._reader.watch()

    def _end_slow(self, waiting: int) -> None:
        self._take(self._connection.fail_connection(RemoteProtocolError(3009, None, {"waiting": waiting})))

    def _stop_timers(self) -> None:
        self._ticker.stop()
        if self._reader is not None:
            self._reader.stop()
            self._reader = None
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    # -- from the beginning to the end ------------------------------------------------------------------------------

    def _open(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        forks.watch(self)
        tune(transport)
        self._ticker.watch()
        log_opening(self._log, self.log_fields)

    def disown(self, owner: int) -> None:
        """Leave the connection to the process ``owner`` that this one was forked from (``haptera.forks`` calls this).

        From here on it is neither written to nor closed: each of that would reach the parent's connection.
        """
        self._forked_from = self._forked_from or owner
        self._thread = 0
        self._let_go()

    def abandon(self) -> None:
        """End a connection whose loop is closed, so that nothing can be written, waited for or called any more."""
        self._let_go()
        self.closed = True

    def _let_go(self) -> None:
        if self._transport is not None:
            stale = self._transport.is_closing() or self._loop.is_closed()
            let_go(self._transport.get_extra_info("socket"), may_be_stale=stale)
        if not self.closed:
            self._connection.close()  # what it holds is charged to this process no longer

    def _wrong_loop(self) -> WrongLoop:
        return wrong_loop(f"the connection to {self.remote or 'a peer'}", self._loop, self._forked_from)

    @property
    def has_loop(self) -> bool:
        """Whether the connection's loop is one of this process, and open."""
        return not (self._forked_from or self._loop.is_closed())

    def left_behind(self) -> bool:
        """Whether the connection's loop or process is gone, so that nothing is left to end in an orderly way.

        Raises ``WrongLoop`` where the loop is there and does not run here.
        """
        if self.has_loop:
            if not self.closed:
                self.check_loop()
            return False
        if not self._forked_from:
            self.abandon()
        return True

    def check_loop(self) -> None:
        """Raise ``WrongLoop`` unless the connection's own loop runs here."""
        if running_loop() is not self._loop or self._forked_from:
            raise self._wrong_loop()
        self._thread = get_ident()

    async def ready(self) -> None:
        """Wait for the other side's half of the handshake. Raises ``ConnectionLost`` if it refuses or is gone."""
        self.check_loop()
        await asyncio.shield(self._ready)

    async def drain(self, timeout: float = DRAIN_S) -> None:
        """End in an orderly way: take no more requests, answer those under way, wait for calls, then close.

        Calls made from now on end with 1014, outcome ``not_applied``. After ``timeout`` seconds what is left is given
        up. A forked child has nothing to drain or to close.
        """
        if self.left_behind():
            return
        deadline = self._loop.time() + timeout
        if self._draining is None:
            self._draining = self._loop.create_future()
        if self._ending is None:
            self._schedule_flush()
            await asyncio.wait((self._draining, self._gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if self._ending is None:
            # Not a plain close: that would be a reset, which destroys answers on their way, if anything is unread.
            self._patience = deadline
            self._tell_answers()
            self._end(Closed(None), "it is drained", half=True)
        await self._wait_gone()

    def _advance_drain(self) -> None:
        """Nothing waits to be sent any longer, which could not leave behind GOAWAY: go on with the end."""
        connection = self._connection
        if not self.established and connection.role is Role.ACCEPTOR:
            # Who dialled may have sent requests behind HELLO, and learns that they can be made elsewhere.
            self._refuse(1014)
            return
        if self.established and not self._said_goaway:
            # GOAWAY itself is not owed: a side that is frozen or gone never takes it.
            self._said_goaway = True
            self._owed = self.bytes_sent
            connection.go_away(1014)
        if connection.awaited:
            self._owed = _ALL
        elif not connection.outbox.pending:
            if self._owed == _ALL:
                self._owed = self.bytes_sent
            assert self._draining is not None
            if not self._draining.done():
                self._draining.set_result(None)

    def _tell_answers(self) -> None:
        """Say which answers to changes have been read since the other side was told. It leaves with what ends all."""
        if self._ending is None and self._connection.has_untold:
            self._connection.go_away(1014)

    async def aclose(self) -> None:
        """Close the connection. Calls under way fail with ``ConnectionLost``, handlers are cancelled.

        The other side is told which answers to changes have been read, so that it need not remember them.
        """
        if self.left_behind():
            return
        self._patience = 0.0
        self._tell_answers()
        self._end(Closed(None), "it is closed here")
        await self._wait_gone()

    async def _wait_gone(self) -> None:
        await asyncio.shield(self._gone)
        await self._wait_stopped()

    def _refuse(self, code: int, details: dict[str, Any] | None = None, *, linger: bool = True) -> None:
        """End a connection whose handshake is not done, and say why: nothing that was sent behind HELLO is applied.

        With ``linger`` the other side has a second to read it. Without, the transport is closed as soon as the kernel
        has the few bytes: the other side reads them unless what it still sends is answered with a reset first.
        """
        if self._ending is None:
            self._connection.fail_connection(RemoteProtocolError(code, details=details))
            self._end(Closed(None), "it is refused", half=linger)

    def _abort(self) -> None:
        """Close at once, as if it had never been accepted."""
        if self._transport is not None:
            self._transport.abort()

    def _receive_eof(self) -> bool:
        self._take(self._connection.receive_eof())
        return False

    def _lost_error(self, outcome: Outcome) -> ConnectionLost:
        assert self._ending is not None
        error = ConnectionLost(str(self._ending), outcome=outcome, failure=self._ending.failure)
        error.__cause__ = self._ending.__cause__
        return error

    def _end(
        self,
        event: Closed,
        reason: str,
        cause: Exception | None = None,
        *,
        half: bool = False,
    ) -> None:
        """The connection is over: fail what waits, stop what runs, close the transport.

        ``reason`` is for the log, if neither ``event`` nor ``cause``, the transport's error, has one.
        """
        if self._ending is not None:
            return
        self._ending = describe_end(event, cause)
        self.error = event.error
        log_end(self._log, event, cause, reason, self.log_fields)
        if not self._ready.done():
            self._ready.set_exception(self._lost_error("not_applied"))
            self._ready.exception()  # it is no loss if nobody waits for it
        # A handshake that was refused applied nothing; one that this side refuses may have.
        refused = not self.established and (event.failure is not None or not self._connection.first_flight)
        self._stop("not_applied" if refused else "unknown")
        self._when_writable.clear()
        found_fault = event.error is not None and event.failure is None
        self._close_transport(half=half or found_fault)

    def _close_transport(self, *, half: bool) -> None:
        self._stop_timers()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        # What is small and ready still leaves, and the ERROR that says why; what takes turns is forgotten.
        self._connection.outbox.clear()
        while data := self._connection.data_to_send(WRITE_SIZE):
            self.bytes_sent += len(data)
            transport.write(data)
        self._connection.outbox.settle()
        if half and transport.can_write_eof():
            with suppress(OSError):  # who has gone in this instant is told nothing
                transport.write_eof()
        else:
            transport.close()
        self._linger = self._loop.call_later(LINGER_S, self._leave_behind, transport)

    def _leave_behind(self, transport: asyncio.Transport) -> None:
        """The other side has had its time to close: close without it, unless it is still taking what it is owed."""
        untaken = transport.get_write_buffer_size() + unacknowledged(transport)
        if self._loop.time() < self._patience and self.bytes_sent - untaken < self._owed:
            self._linger = self._loop.call_later(LINGER_S, self._leave_behind, transport)
        else:
            self._linger = None
            transport.abort()

    def _lost(self, error: Exception | None) -> None:
        self._end(Closed(None), "it is gone", error)
        self._stop_timers()
        self._connection.close()
        self.closed = True
        if not self._gone.done():
            self._gone.set_result(None)
        callbacks, self._on_close = self._on_close, []
        for callback in callbacks:
            self._guard(callback)

"""The pumps of a connection: what is read goes to calls and services, what they say is written."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from haptera.connection import Connection
from haptera.connection.config import HELD_MIN
from haptera.connection.events import (
    CallFailed,
    CancelReceived,
    Closed,
    ErrorReceived,
    Established,
    Event,
    GoawayReceived,
    ItemReceived,
    RequestAborted,
    RequestFinished,
    RequestReceived,
    ResponseReceived,
)
from haptera.errors import Outcome
from haptera.peer.calls import Answer
from haptera.peer.dispatcher import Dispatcher
from haptera.peer.event_log import EventLog
from haptera.peer.limits import CALL_TIMEOUT_S, READ_SIZE_MAX, WRITE_TIMEOUT_S
from haptera.peer.peer import Peer
from haptera.peer.service import Service
from haptera.peer.timers import IdleWatch
from haptera.transport import Place, url_of, warn_unclosed


class Owner(Protocol):
    """Who keeps the connections that it accepted, and is told of their beginning and end."""

    @property
    def log(self) -> EventLog:
        """Where the lines about them go."""

    def opened(self, peer: Peer) -> None:
        """The transport is open."""

    def established(self, peer: Peer) -> None:
        """The handshake is done."""

    def lost(self, peer: Peer) -> None:
        """The transport is closed; it may never have been told as open."""


class Exchange(Peer):
    """A peer at work: all of what ``haptera.dial`` and ``haptera.listen`` make."""

    __slots__ = ("_idle_timeout_s", "_idle_watch", "_leaving", "_owner")

    _dispatcher: Dispatcher

    def __init__(
        self,
        connection: Connection,
        services: Sequence[Service],
        loop: asyncio.AbstractEventLoop,
        *,
        owner: Owner | None = None,
        write_timeout_s: float = WRITE_TIMEOUT_S,
        call_timeout_s: float | None = CALL_TIMEOUT_S,
        idle_timeout_s: float | None = None,
        dialled: Place | None = None,
    ) -> None:
        hosted = {service.name: service for service in services}
        super().__init__(connection, hosted, loop, write_timeout_s=write_timeout_s, call_timeout_s=call_timeout_s)
        self.dialled = dialled
        self._owner = owner
        self._dispatcher = Dispatcher(self, connection, hosted, loop)
        self._caller.telemetry = self._dispatcher.telemetry
        self._idle_timeout_s = idle_timeout_s
        self._idle_watch: IdleWatch | None = None
        self._leaving: asyncio.Task[None] | None = None

    def __del__(self) -> None:
        transport: asyncio.Transport | None = getattr(self, "_transport", None)  # none after an error in __init__
        # A server closes what it has accepted.
        if transport is None or transport.is_closing() or self.dialled is None or self.kept:
            return
        if self._ending is None and not self._forked_from:
            warn_unclosed(self, f"haptera.Peer {url_of(self.dialled)}")

    @property
    def _accepted(self) -> bool:
        return self._owner is not None

    @property
    def _log(self) -> EventLog:
        return super()._log if self._owner is None else self._owner.log

    # -- reading ----------------------------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        self.bytes_received += len(data)
        if self._ending is not None:
            return
        self._reading = True
        dispatcher = self._dispatcher
        dispatcher.read_at = now = self._loop.time()
        if dispatcher.stopwatch is not None:
            dispatcher.stopwatch.read()
        try:
            self._take(self._connection.receive_data(data, now))
        finally:
            self._reading = False
        self._flush()
        if self._connection.unfinished:
            self._ticker.watch()
        if self._connection.more or len(data) >= READ_SIZE_MAX:
            self._let_others()

    def _let_others(self) -> None:
        """Read no more of this connection in this turn of the loop: the others have theirs."""
        transport = self._transport
        if self._ending is None and transport is not None and not transport.is_closing():
            transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._connection.more:
            self._receive(b"")
        # One that ends is read to its end, and what comes is thrown away.
        if not self._connection.more and not transport.is_closing():
            transport.resume_reading()

    def _take(self, events: Sequence[Event]) -> None:
        dispatcher = self._dispatcher
        requests = 0
        for event in events:
            # The two usual ones first.
            if isinstance(event, RequestReceived):
                dispatcher.add(event)
                requests += 1
            elif isinstance(event, ResponseReceived):
                self._caller.end(event.stream, Answer(event.payload, None, event.entries))
            else:
                self._take_other(event)
        if requests:
            self.requests_received += requests
        if dispatcher.arrived:
            dispatcher.start()
            dispatcher.watch()
        if self._caller.waits:
            self._caller.begin_waiting()

    def _take_other(self, event: Event) -> None:
        match event:
            case ItemReceived(stream, payload):
                request = self._dispatcher.requests.get(stream)
                if request is not None:
                    request.add_item(payload)
                elif not self._caller.add_item(stream, payload):
                    # Of a call that was given up, just now perhaps: one for a single answer takes no items.
                    self._take_item(stream)
            case ErrorReceived(stream, reason, entries):
                self._caller.end(stream, Answer(b"", reason, entries))
            case CallFailed(stream, reason):
                self._caller.fail(stream, Answer(b"", reason))
            case RequestFinished(stream):
                request = self._dispatcher.requests.get(stream)
                if request is not None:
                    request.finish_items()
            case CancelReceived(stream):
                self._dispatcher.cancel(stream)
            case RequestAborted(stream, reason):
                self._dispatcher.abort(stream, reason)
            case Established():
                self._dispatcher.use(self.capabilities)
                self._caller.use(self.capabilities)
                self._ticker.watch()  # from now on it is for silence, of which less may be allowed than of a handshake
                if self._owner is not None:
                    self._owner.established(self)
                if not self._ready.done():
                    self._ready.set_result(None)
            case GoawayReceived(goaway, answered_below):
                self._caller.last_taken = goaway.last_stream
                self._caller.refuse_waiting()
                if answered_below is not None:
                    self._dispatcher.answers_read(answered_below)
            case Closed():
                self._end(event, "the other side has closed it")
            case _:
                pass

    # -- writing ----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Write what is ready, at most once per turn of the loop, and start what had to wait for room."""
        self._flushing = False
        transport = self._transport
        if transport is None or self._ending is not None:
            return
        connection = self._connection
        self._write(transport)
        if connection.outbox.writable:
            self._wake_senders()
        unsent = transport.get_write_buffer_size()
        waiting = connection.outbox.settle(unsent)
        if unsent or waiting > HELD_MIN:
            self._watch_reader(transport)
        if (self._when_writable or self._dispatcher.arrived) and self.writable:
            callbacks, self._when_writable = self._when_writable, []
            for callback in callbacks:
                self._guard(callback)
            self._dispatcher.resume()
        if self._caller.waits:
            self._caller.begin_waiting()
        if self._draining is not None and not self._caller.waits:
            self._advance_drain()
        if not self._paused and connection.outbox.pending:
            self._schedule_flush()

    def _wake_senders(self) -> None:
        for stream in self._connection.take_writable():
            owner = self._caller.calls.get(stream) or self._dispatcher.requests.get(stream)
            if owner is not None:
                owner.make_room()

    # -- from the beginning to the end ------------------------------------------------------------------------------

    def _open(self, transport: asyncio.Transport) -> None:
        super()._open(transport)
        if self._idle_timeout_s is not None:
            self._idle_watch = IdleWatch(
                self._loop,
                self._connection,
                self._idle_timeout_s,
                waits=lambda: self._caller.waits,
                leave=self._leave,
            )
        if self._owner is not None:
            self._owner.opened(self)

    def _leave(self) -> None:
        self._leaving = self._loop.create_task(self.drain())

    def _stop(self, sent: Outcome) -> None:
        if self._idle_watch is not None:
            self._idle_watch.stop()
        self._caller.close(self._lost_error, sent)
        self._dispatcher.close()

    async def _wait_stopped(self) -> None:
        await self._dispatcher.wait()

    def _lost(self, error: Exception | None) -> None:
        super()._lost(error)
        if self._owner is not None:
            self._owner.lost(self)

"""One connection under asyncio: the pumps between a transport, the state machine, services and calls."""

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Sequence
from typing import Any, Final, Protocol

from haptera.connection import Connection, Role
from haptera.connection.events import (
    CallFailed,
    CancelReceived,
    Closed,
    ErrorReceived,
    Established,
    Event,
    GoawayReceived,
    ItemReceived,
    PackedItem,
    RequestAborted,
    RequestFinished,
    RequestReceived,
    ResponseReceived,
)
from haptera.errors import ConnectionLost, Failure, Outcome, RemoteProtocolError
from haptera.peer.caller import Caller
from haptera.peer.calls import DEFAULT, Answer, Call, CallStream, Default
from haptera.peer.dispatcher import Dispatcher
from haptera.peer.limits import (
    CALL_TIMEOUT_S,
    DRAIN_S,
    LINGER_S,
    TICK_S,
    UNWRITTEN_MAX,
    WRITE_SIZE,
    WRITE_TIMEOUT_S,
    WRITTEN_MIN,
)
from haptera.peer.protocol import Credentials, describe_remote, unix_credentials
from haptera.peer.service import Request, Service
from haptera.peer.sockets import tune

_logger = logging.getLogger("haptera.peer")
_IDLE_LOOKS: Final = 4


class Owner(Protocol):
    """Who keeps the connections that it accepted, and is told of their beginning and end."""

    def opened(self, peer: "Peer") -> None:
        """The transport is open."""

    def established(self, peer: "Peer") -> None:
        """The handshake is done."""

    def lost(self, peer: "Peer") -> None:
        """The transport is closed; it may never have been told as open."""


class Peer:
    """The other side of one connection: calls its services, and serves ours to it.

    ``haptera.dial`` and ``haptera.listen`` make peers. All calls share the connection and run at once; their answers
    come in any order.
    """

    # Servers have thousands of them; a dictionary each would be the largest part.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_call_timeout_s",
        "_caller",
        "_connection",
        "_dispatcher",
        "_draining",
        "_ending",
        "_flushing",
        "_gone",
        "_idle_timeout_s",
        "_idle_timer",
        "_leaving",
        "_loop",
        "_on_close",
        "_owner",
        "_paused",
        "_reading",
        "_ready",
        "_said_goaway",
        "_timer",
        "_transport",
        "_when_writable",
        "_write_timeout_s",
        "_write_timer",
        "attributes",
        "bytes_received",
        "bytes_sent",
        "closed",
        "credentials",
        "remote",
        "services",
    )

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
    ) -> None:
        self.services = {service.name: service for service in services}
        #: State that services keep for this connection.
        self.attributes: dict[str, Any] = {}
        self.remote = ""
        self.credentials: Credentials | None = None
        self.closed = False
        self.bytes_received = 0
        self.bytes_sent = 0
        self._connection = connection
        self._loop = loop
        self._owner = owner
        self._write_timeout_s = write_timeout_s
        self._call_timeout_s = call_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._flushing = False
        self._reading = False
        self._ready: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._ending: ConnectionLost | None = None
        self._draining: asyncio.Future[None] | None = None
        self._said_goaway = False
        self._caller = Caller(connection, loop, self._schedule_flush)
        self._dispatcher = Dispatcher(self, connection, self.services, loop)
        self._caller.telemetry = self._dispatcher.telemetry
        self._when_writable: list[Callable[[], None]] = []
        self._on_close: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Task[None] | None = None

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
    def going_away(self) -> bool:
        """Whether the other side takes no more requests on this connection."""
        return self._connection.going_away

    def log_fields(self, **fields: Any) -> dict[str, Any]:
        """Return what a log line about this connection says, with ``fields`` added."""
        return {"connection": self.session.hex() or None, "remote": self.remote, **fields}

    def __repr__(self) -> str:
        state = "closed" if self.closed else self._connection.state.name.lower()
        return f"<Peer {self.remote or 'not connected'} {state}>"

    # -- calling ----------------------------------------------------------------------------------------------------

    def request(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None,
        request_id: bytes | None = None,
        answered_below: bool = False,
    ) -> Call:
        """Send a request and return the future of its answer.

        An ERROR is an ``Answer`` with a ``failure``, not an exception. The future fails with ``ConnectionLost`` when
        the connection ends first, with ``DeadlineExceeded`` after ``timeout`` seconds. ``request_id`` is a 16-byte
        UUID; ``answered_below`` lets the other side forget the answers that were read. Raises ``LocalProtocolError``
        for what can't be sent at all (or the future fails with it, if that turns out later), ``TypeError`` for a
        payload that is not bytes.
        """
        entries = self._caller.entries(request_id, answered_below)
        call = Call(self._caller, (service, method, entries), payload, self._loop)
        self._send(call, timeout)
        return call

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        items: AsyncIterable[bytes] | None = None,
        timeout: float | Default | None = DEFAULT,
    ) -> bytes:
        """Call a method and return its one answer.

        ``items`` are sent behind the request, for a method that takes many. ``timeout`` is in seconds, 5 unless the
        dialled URL says otherwise, None for no limit; the other side keeps it too. Raises ``ServerError`` (the subclass
        of the answer's code), ``DeadlineExceeded``, ``ConnectionLost``, ``LocalProtocolError`` for what the other side
        would not take, and what ``items`` raises.
        """
        if isinstance(timeout, Default):
            timeout = self._call_timeout_s
        call = Call(self._caller, (service, method, b""), payload, self._loop, streaming=items is not None)
        self._send(call, timeout)
        if items is None:
            return (await call).result()
        sender = self._loop.create_task(self._caller.send_items(call, items))
        try:
            return (await call).result()
        finally:
            sender.cancel()

    def stream(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        items: AsyncIterable[bytes] | None = None,
        timeout: float | None = None,
    ) -> CallStream:
        """Call a method and iterate over the items of its answer. Raises as ``call`` does, while iterating."""
        call = Call(self._caller, (service, method, b""), payload, self._loop, streaming=items is not None)
        self._send(call, timeout)
        sender = None if items is None else self._loop.create_task(self._caller.send_items(call, items))
        return CallStream(self, call, sender)

    def _send(self, call: Call, timeout: float | None) -> None:
        if self._ending is not None:
            call.set_exception(self._lost_error("not_applied"))
        elif self._draining is not None:
            self._caller.refuse(call)
        else:
            self._caller.send(call, timeout)

    # -- serving ----------------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether little enough waits to be written that more answers may be produced."""
        transport = self._transport
        return (
            transport is not None
            and self._connection.outbox.unwritten + transport.get_write_buffer_size() < UNWRITTEN_MAX
        )

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
        if self._ending is not None:
            raise self._lost_error("unknown")

    async def _send_item(self, request: Request, item: bytes) -> None:
        self._check_alive()
        room = not request.cancelled and self._connection.send_item(request.stream, item)
        self._schedule_flush()
        if not room:
            if not request.cancelled:
                await request.wait_room()
                self._check_alive()
            if request.cancelled:
                raise asyncio.CancelledError

    def _take_item(self, stream: int, item: bytes | PackedItem = b"") -> bytes | Failure:
        """Hand an item over: its window opens, and its payload is unpacked, which may fail."""
        connection = self._connection
        payload = connection.take_item(stream, item, now=self._loop.time())
        if isinstance(payload, Failure):
            self._take(connection.take_events())
        if connection.outbox.pending:
            self._schedule_flush()
        if connection.unfinished:
            self._watch_time()
        return payload

    # -- the read pump ----------------------------------------------------------------------------------------------

    def _open(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.remote = describe_remote(transport)
        self.credentials = unix_credentials(transport)
        tune(transport)
        self._watch_time()
        if self._idle_timeout_s is not None:
            self._watch_idle(self._idle_timeout_s, 0, 0)
        if self._owner is not None:
            self._owner.opened(self)

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
            self._watch_time()

    def _take(self, events: Sequence[Event]) -> None:
        dispatcher = self._dispatcher
        for event in events:
            # The two usual ones first.
            if isinstance(event, RequestReceived):
                dispatcher.add(event)
            elif isinstance(event, ResponseReceived):
                self._caller.end(event.stream, Answer(event.payload, None, event.entries))
            else:
                self._take_other(event)
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
                    # A call for one answer, or one that was given up.
                    self._take_item(stream)
            case ErrorReceived(stream, reason, entries):
                self._caller.end(stream, Answer(b"", reason, entries))
            case CallFailed(stream, reason):
                self._caller.end(stream, Answer(b"", reason))
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
                if self._owner is not None:
                    self._owner.established(self)
                if not self._ready.done():
                    self._ready.set_result(None)
            case GoawayReceived(goaway):
                self._caller.last_taken = goaway.last_stream
                self._caller.refuse_waiting()
            case Closed():
                self._end(event)
            case _:
                pass

    # -- the write pump ---------------------------------------------------------------------------------------------

    def _schedule_flush(self) -> None:
        if not self._flushing and not self._reading:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what is ready, at most once per turn of the loop, and start what had to wait for room."""
        self._flushing = False
        transport = self._transport
        if transport is None or self._ending is not None:
            return
        connection = self._connection
        if not self._paused:
            data = connection.data_to_send(WRITE_SIZE)
            if data:
                self.bytes_sent += len(data)
                transport.write(data)
            if connection.outbox.writable:
                self._wake_senders()
        if self._write_timer is None and transport.get_write_buffer_size():
            self._watch_writing(transport)
        if (self._when_writable or self._dispatcher.arrived) and self.writable:
            callbacks, self._when_writable = self._when_writable, []
            for callback in callbacks:
                self._guard(callback)
            self._dispatcher.resume()
        if self._caller.waits:
            self._caller.begin_waiting()
        if self._draining is not None:
            self._advance_drain()
        if not self._paused and connection.outbox.pending:
            self._schedule_flush()

    def _wake_senders(self) -> None:
        for stream in self._connection.take_writable():
            owner = self._caller.calls.get(stream) or self._dispatcher.requests.get(stream)
            if owner is not None:
                owner.make_room()

    def _pause(self) -> None:
        self._paused = True

    def _resume(self) -> None:
        self._paused = False
        self._schedule_flush()

    # -- time -------------------------------------------------------------------------------------------------------

    def _watch_time(self) -> None:
        """Have the clock looked at when the state machine next has something to do."""
        now = self._loop.time()
        due = self._connection.next_tick()
        if due == float("inf"):
            return
        due = max(due, now + TICK_S / 10)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._ending is not None:
            return
        now = self._loop.time()
        if now >= self._connection.next_tick():
            self._take(self._connection.tick(now))
            self._flush()
        if self._ending is None:
            self._watch_time()

    def _watch_writing(self, transport: asyncio.Transport) -> None:
        """End the connection if the other side takes too little of what is written (section 3, "Reading never …")."""
        waiting_from = self.bytes_sent - transport.get_write_buffer_size()
        waiting_until = self.bytes_sent

        def look() -> None:
            self._write_timer = None
            if self._ending is not None:
                return
            waiting = transport.get_write_buffer_size()
            written = self.bytes_sent - waiting
            # What waited at the beginning may have left since, and something else waits now.
            if written < waiting_until and written - waiting_from < WRITTEN_MIN:
                error = RemoteProtocolError(3009, None, {"waiting": waiting + self._connection.outbox.size})
                self._take(self._connection.fail_connection(error))
            elif waiting:
                self._watch_writing(transport)

        self._write_timer = self._loop.call_later(self._write_timeout_s, look)

    def _watch_idle(self, timeout: float, looks: int, opened: int) -> None:
        """End the connection in an orderly way when no stream has been open for so long, looked at in quarters."""

        def look() -> None:
            connection = self._connection
            if connection.open_streams or self._caller.waits or opened != connection.streams_opened:
                self._watch_idle(timeout, 0, connection.streams_opened)
            elif looks + 1 < _IDLE_LOOKS:
                self._watch_idle(timeout, looks + 1, opened)
            else:
                self._leaving = self._loop.create_task(self.drain())

        self._idle_timer = self._loop.call_later(timeout / _IDLE_LOOKS, look)

    # -- the end ----------------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait for the other side's half of the handshake. Raises ``ConnectionLost`` if it refuses or is gone."""
        await asyncio.shield(self._ready)

    async def drain(self, timeout: float = DRAIN_S) -> None:
        """End in an orderly way: take no more requests, answer those under way, wait for calls, then close.

        Calls made from now on end with 1014, outcome ``not_applied``. After ``timeout`` seconds what is left is given
        up.
        """
        deadline = self._loop.time() + timeout
        if self._draining is None:
            self._draining = self._loop.create_future()
        if self._ending is None:
            self._schedule_flush()
            await asyncio.wait((self._draining, self._gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if self._ending is None:
            # Not a plain close: that would be a reset, which destroys answers on their way, if anything is unread.
            self._end(Closed(None), linger_s=max(LINGER_S, deadline - self._loop.time()), half=True)
        await self._wait_gone()

    def _advance_drain(self) -> None:
        # Behind GOAWAY this side may open no more streams: what waits to be sent leaves first.
        if self._caller.waits:
            return
        connection = self._connection
        if not self.established and connection.role is Role.ACCEPTOR:
            # Who dialled may have sent requests behind HELLO, and learns that they can be made elsewhere.
            self._refuse(1014)
            return
        if self.established and not self._said_goaway:
            self._said_goaway = True
            connection.go_away(1014)
        if not connection.open_streams and not connection.outbox.pending:
            assert self._draining is not None
            if not self._draining.done():
                self._draining.set_result(None)

    async def aclose(self) -> None:
        """Close the connection. Calls under way fail with ``ConnectionLost``, handlers are cancelled."""
        self._end(Closed(None))
        await self._wait_gone()

    async def _wait_gone(self) -> None:
        await asyncio.shield(self._gone)
        await self._dispatcher.wait()

    def _refuse(self, code: int) -> None:
        """End a connection whose handshake is not done, and say why: nothing that was sent behind HELLO is applied."""
        if self._ending is None:
            self._connection.fail_connection(RemoteProtocolError(code))
            self._end(Closed(None), half=True)

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
        self, event: Closed, cause: Exception | None = None, *, linger_s: float | None = None, half: bool = False
    ) -> None:
        """The connection is over, for whichever reason: fail what waits, stop what runs, close the transport."""
        if self._ending is not None:
            return
        self._ending = _describe_end(event, cause)
        if event.error is not None:
            self._log_end(event)
        if not self._ready.done():
            self._ready.set_exception(self._lost_error("not_applied"))
            self._ready.exception()  # it is no loss if nobody waits for it
        # A handshake that was refused applied nothing; one that this side refuses may have.
        refused = not self.established and (event.failure is not None or not self._connection.first_flight)
        self._caller.close(self._lost_error, "not_applied" if refused else "unknown")
        self._dispatcher.close()
        self._when_writable.clear()
        found_fault = event.error is not None and event.failure is None
        self._close_transport(linger_s, half=half or found_fault)

    def _log_end(self, event: Closed) -> None:
        # What the peer said is told in its own words: this version may not know the code.
        error = event.failure or event.error
        assert error is not None
        _logger.warning(
            "connection_failed" if event.failure is None else "connection_ended_by_peer",
            extra=self.log_fields(code=error.code, code_name=error.name, reason=error.message),
        )

    def _close_transport(self, linger_s: float | None, *, half: bool) -> None:
        self._stop_timers()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        # What is small and ready still leaves, and the ERROR that says why; what takes turns is forgotten.
        self._connection.outbox.clear()
        while data := self._connection.data_to_send(WRITE_SIZE):
            self.bytes_sent += len(data)
            transport.write(data)
        if half and transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()
        self._timer = self._loop.call_later(LINGER_S if linger_s is None else linger_s, transport.abort)

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._write_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._write_timer = self._idle_timer = None

    def _lost(self, error: Exception | None) -> None:
        self._end(Closed(None), error)
        self._stop_timers()
        self._connection.close()
        self.closed = True
        if not self._gone.done():
            self._gone.set_result(None)
        callbacks, self._on_close = self._on_close, []
        for callback in callbacks:
            self._guard(callback)
        if self._owner is not None:
            self._owner.lost(self)


def _describe_end(event: Closed, cause: Exception | None) -> ConnectionLost:
    said = event.failure
    if said is not None:
        message = f"the other side ended the connection: {said.name} ({said.code}): {said.message}"
    elif event.error is not None:
        message = f"the connection was ended: {event.error}"
    elif cause is not None:
        message = f"the connection was lost: {cause}"
    else:
        message = "the connection is closed"
    ending = ConnectionLost(message, failure=said)
    ending.__cause__ = event.error or cause
    return ending

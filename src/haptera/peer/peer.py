"""The other side of a connection: what it can be asked, and what it asks."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from threading import get_ident
from types import TracebackType
from typing import Any, Final, Protocol, Self

from haptera.connection import Connection
from haptera.connection.events import PackedItem, RequestReceived
from haptera.errors import Failure
from haptera.peer.caller import Caller
from haptera.peer.calls import DEFAULT, Call, CallStream, Default, as_bytes, check_timeout
from haptera.peer.line import Line
from haptera.peer.remote import Credentials, describe_remote, unix_credentials
from haptera.peer.trace import Trace, decode_trace
from haptera.transport import running_loop
from haptera.wire.metadata import Tag

_NUMBERS: Final = frozenset({float, int})
_REQUEST_ID_SIZE: Final = 16
_RESENT: Final = bytes((Tag.RESENT, 0))


class Hosted(Protocol):
    """A service that this side hosts, as far as it is told to the other."""

    def methods(self) -> Sequence[str]:
        """Return the names of its methods."""


class Responder(Protocol):
    """Who owes the answers to a peer's requests: what those, and the handlers at work on them, ask for."""

    @property
    def requests(self) -> Mapping[int, "Request"]:
        """Requests without an answer, by their streams."""

    def respond(self, request: "Request", payload: bytes, entries: bytes) -> None:
        """Answer with success."""

    def fail(self, request: "Request", reason: Failure, entries: bytes = b"") -> None:
        """Answer with an error."""

    def run(self, request: "Request", coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a handler in a task of its own."""

    def enter(self, request: "Request") -> None:
        """A handler takes its first step."""

    def record(self, request: "Request", error: BaseException) -> None:
        """A handler has raised an error."""

    def report(self, request: "Request", error: BaseException) -> None:
        """What a handler has raised is a fault: the log has it, and the caller does not."""

    def end_task(self, request: "Request", task: asyncio.Task[None]) -> None:
        """A handler's task has ended."""

    def is_overdue(self, request: "Request") -> bool:
        """Whether a request's time is over."""


class Peer(Line):
    """The other side of one connection: calls its services, and serves ours to it.

    ``haptera.dial`` and ``haptera.listen`` make peers. All calls share the connection and run at once; their answers
    come in any order. ``async with`` closes it.
    """

    __slots__ = (
        "_call_timeout_s",
        "_caller",
        "_dispatcher",
        "attributes",
        "credentials",
        "requests_received",
        "services",
    )

    #: Whoever extends this sets it.
    _dispatcher: Responder

    def __init__(
        self,
        connection: Connection,
        services: Mapping[str, Hosted],
        loop: asyncio.AbstractEventLoop,
        *,
        write_timeout_s: float,
        call_timeout_s: float | None,
    ) -> None:
        super().__init__(connection, loop, write_timeout_s=write_timeout_s)
        self.services = services
        #: State that services keep for this connection.
        self.attributes: dict[str, Any] = {}
        self.credentials: Credentials | None = None
        #: Requests of the other side that came whole.
        self.requests_received = 0
        self._call_timeout_s = call_timeout_s
        self._caller = Caller(connection, loop, self._schedule_flush, self.probe)

    def _open(self, transport: asyncio.Transport) -> None:
        self.remote = describe_remote(transport)
        self.credentials = unix_credentials(transport)
        super()._open(transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def serving(self) -> int:
        """How many requests of the other side have no answer yet."""
        return len(self._dispatcher.requests)

    def request(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout: float | None,
        request_id: bytes | None = None,
        repeats: bool = False,
        resent: bool = False,
    ) -> Call:
        """Send a request and return the future of its answer.

        An ERROR is an ``Answer`` with a ``failure``, not an exception. The future fails with ``ConnectionLost`` when
        the connection ends first, with ``DeadlineExceeded`` after ``timeout`` seconds.

        ``request_id`` is a 16-byte UUID: the other side remembers the answer, so that the same request under the same
        id is not applied again, and is told by later requests which answers have been read. An answer that is damaged
        counts as read too, unless the caller ``repeats``: then the other side remembers it until ``Call.release``. One
        that may have been sent on another connection before is ``resent``: its answer is forgotten by time alone.

        Raises ``LocalProtocolError`` for what can't be sent at all (or the future fails with it, if that turns out
        later), ``TypeError`` for a payload that is not bytes, either it or ``ValueError`` for a ``timeout`` that is no
        number above 0, ``ValueError`` for a ``request_id`` that is not 16 bytes.
        """
        if request_id is not None and len(request_id) != _REQUEST_ID_SIZE:
            raise ValueError(f"a request id has {_REQUEST_ID_SIZE} bytes, not {len(request_id)}")
        route = service, method, _RESENT if resent else b""
        call = Call(self._caller, route, payload, self._loop, request_id=request_id, repeats=repeats)
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
        would not take and for a method that answers with items (see ``stream``), ``TypeError`` or ``ValueError`` for a
        ``timeout`` that is no number of seconds above 0, and what ``items`` raises.
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
        if running_loop() is not self._loop or self._forked_from:
            raise self._wrong_loop()
        if timeout is not None and not (timeout.__class__ in _NUMBERS and timeout > 0):
            check_timeout(timeout)
        if self._ending is not None:
            call.set_exception(self._lost_error("not_applied"))
        elif self._draining is not None:
            self._caller.refuse(call)
        else:
            self._caller.send(call, timeout)


class Request:
    """A request that the other side sent. Its first answer counts, and every later one is ignored.

    It belongs to the loop of its connection: another thread answers with ``loop.call_soon_threadsafe``, and is refused
    with ``WrongLoop`` otherwise.

    ``payload`` is the argument, any bytes. ``request_id`` is the caller's UUID, if it gave one. ``deadline`` is when
    the caller's time is over, as time of the loop, or None. ``cancelled`` turns true when the caller no longer wants
    the answer, or its time is over; an answer is still owed.

    Calls that a handler makes while its request is not answered, on any peer, have no more time than the request has
    left, and belong to the same trace.
    """

    __slots__ = (
        "_arrived",
        "_entries",
        "_finished",
        "_room",
        "_waiter",
        "abort_reason",
        "begun",
        "cancelled",
        "deadline",
        "method",
        "on_cancel",
        "payload",
        "peer",
        "received",
        "service",
        "span",
        "stream",
        "task",
        "used",
    )

    span: Any  # of the telemetry, if there is one
    # What a stopwatch writes down, if there is one: when the request was read; when its task began, or for how long a
    # service that has none has worked on it.
    received: float
    begun: float | None
    used: float

    def __init__(self, peer: Peer, event: RequestReceived) -> None:
        self.peer = peer
        self.stream = event.stream
        self.service = event.service
        self.method = event.method
        self.payload = event.payload
        self.cancelled = False
        self.deadline: float | None = None
        #: Called once when the caller cancels, its time is over, or the connection ends, before the answer.
        self.on_cancel: Callable[[], None] | None = None
        #: Why the handler is stopped, if not because the caller cancelled: the answer, in place of "cancelled".
        self.abort_reason: Failure | None = None
        self.task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._entries = event.entries
        self._arrived: deque[bytes | PackedItem] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._finished = not event.streaming

    @property
    def request_id(self) -> bytes | None:
        """The caller's UUID of this request, 16 bytes."""
        return self._entries.get(Tag.REQUEST_ID)

    @property
    def answered_below(self) -> int | None:
        """The stream below which the caller has read every answer, if it said so."""
        value = self._entries.get(Tag.ANSWERED_BELOW)
        return None if value is None else int.from_bytes(value, "big")

    @property
    def resent(self) -> bool:
        """Whether the caller may have sent it on another connection before."""
        return Tag.RESENT in self._entries

    @property
    def content_type(self) -> str | None:
        """What the caller says its payload is."""
        value = self._entries.get(Tag.CONTENT_TYPE)
        return None if value is None else value.decode()

    @property
    def trace(self) -> Trace | None:
        """The trace that this request belongs to, if its caller says so (`trace_context`)."""
        return decode_trace(self._entries) if self._entries else None

    @property
    def under_way(self) -> bool:
        """Whether the answer is still owed, and there is a connection to give it on."""
        return self.peer._dispatcher.requests.get(self.stream) is self

    @property
    def items(self) -> AsyncIterator[bytes]:
        """The items that the caller sends behind a streaming request, as they come, for one task to iterate over.

        Raises ``ConnectionLost`` if the connection ends before the last, ``CancelledError`` if the request is
        cancelled.
        """
        return self._iterate()

    def respond(self, payload: bytes = b"", entries: bytes = b"") -> None:
        """Answer with success. ``entries`` are encoded metadata entries; nothing happens if the connection is gone."""
        self.peer._dispatcher.respond(self, payload if type(payload) is bytes else as_bytes(payload), entries)

    def fail(self, reason: Failure, entries: bytes = b"") -> None:
        """Answer with an error; nothing happens if the connection is gone."""
        self.peer._dispatcher.fail(self, reason, entries)

    async def send(self, item: bytes) -> None:
        """Send one item and wait until there is room for the next.

        Raises ``ConnectionLost`` if the connection is gone, ``CancelledError`` if the request was cancelled,
        ``LocalProtocolError`` 3004 if the other side takes no item as large, 3007 while this process has as much in
        memory for its connections as it may; then nothing was sent.
        """
        payload = item if type(item) is bytes else as_bytes(item)
        peer = self.peer
        peer._check_alive()
        room = not self.cancelled and peer._connection.send_item(self.stream, payload)
        peer._schedule_flush()
        if not room:
            await self._wait_room()

    async def room(self) -> None:
        """Wait until an item would leave before long.

        ``send`` has waited for the next one already: this is for who makes a first that is large, or makes items from
        what it need not keep in memory meanwhile. Raises as ``send`` does.
        """
        self.peer._check_alive()
        if self.cancelled or not self.peer._connection.ask_room(self.stream):
            await self._wait_room()

    def try_send(self, item: bytes) -> bool:
        """Send one item if all that was sent before has left; say whether.

        This is for items of which only the newest matters: nothing is kept of one that is not sent, and nothing is sent
        once the request is cancelled or its connection gone. Raises ``LocalProtocolError`` 3004 if the other side takes
        no item as large.
        """
        payload = item if type(item) is bytes else as_bytes(item)
        peer = self.peer
        if get_ident() != peer._thread:
            peer.check_loop()
        sent = not self.cancelled and peer._ending is None and peer._connection.try_item(self.stream, payload)
        if sent:
            peer._schedule_flush()
        return sent

    def add_item(self, payload: bytes | PackedItem) -> None:
        """Take an item that has arrived (the peer calls this)."""
        if self._arrived is None:
            self._arrived = deque()
        self._arrived.append(payload)
        self.wake()

    def finish_items(self) -> None:
        """Take the end of the items (the peer calls this)."""
        self._finished = True
        self.wake()

    def wake(self) -> None:
        """Let whoever waits for items look again (the peer calls this)."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def make_room(self) -> None:
        """Let the handler send more items (the peer calls this)."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _wait_room(self) -> None:
        """Wait until more items may be sent, or the request is cancelled; any number of tasks may."""
        while not self.cancelled:
            room = self._room
            if room is None or room.done():
                room = self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(room)  # one that is cancelled must not wake the others
            self.peer._check_alive()
            # Others that went on in the same turn of the loop may have filled it again.
            if not self.cancelled and self.peer._connection.ask_room(self.stream):
                return
        raise asyncio.CancelledError

    def cancel(self) -> None:
        """Stop the handler: no one waits for the answer (the peer calls this)."""
        self.cancelled = True
        if self.on_cancel is not None:
            callback, self.on_cancel = self.on_cancel, None
            self.peer._guard(callback)
        if self.task is not None:
            self.task.cancel()
        self.wake()
        self.make_room()

    def end_task(self, task: asyncio.Task[None]) -> None:
        """The task of the handler has ended (the peer calls this)."""
        self.peer._dispatcher.end_task(self, task)

    async def _iterate(self) -> AsyncIterator[bytes]:
        while True:
            while self._arrived:
                if get_ident() != self.peer._thread:
                    self.peer.check_loop()
                payload = self.peer._take_item(self.stream, self._arrived.popleft())
                if isinstance(payload, Failure):
                    self._arrived.clear()  # what follows one that is lost is not handed over in its place
                    if self.cancelled:
                        raise asyncio.CancelledError
                    raise payload.exception()
                yield payload
            if self._finished:
                return
            self.peer._check_alive()
            if self.cancelled:
                raise asyncio.CancelledError
            if self._waiter is not None:
                raise RuntimeError("the items of a request can be waited for by one task at a time")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

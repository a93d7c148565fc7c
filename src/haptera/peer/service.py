"""Services: what a peer offers to the other side, and the requests that reach them."""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from haptera.errors import CallError, ConnectionLost, Failure, LocalProtocolError, ServerError, failure
from haptera.peer.calls import as_bytes
from haptera.peer.trace import Trace, decode_trace
from haptera.wire.metadata import Tag

if TYPE_CHECKING:
    from haptera.connection.events import PackedItem, RequestReceived
    from haptera.peer.peer import Peer

_logger = logging.getLogger("haptera.peer")
_METHOD_MARK: Final = "__haptera_method__"
_Function = TypeVar("_Function", bound=Callable[..., Any])


def method(function: _Function) -> _Function:
    """Mark a coroutine function, or an async generator function, of a ``Service`` as a method that peers may call.

    A coroutine function returns the one answer, as bytes; an async generator yields any number of items.
    """
    if not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
        raise TypeError(f"a method is `async def`; {function!r} is not")
    setattr(function, _METHOD_MARK, True)
    return function


class Request:
    """A request that the other side sent. Its first answer counts, and every later one is ignored.

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
        "room",
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

    def __init__(self, peer: "Peer", event: "RequestReceived") -> None:
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
        self.room: asyncio.Future[None] | None = None
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
        ``LocalProtocolError`` 3004 if the other side takes no item as large.
        """
        await self.peer._send_item(self, item if type(item) is bytes else as_bytes(item))

    def add_item(self, payload: "bytes | PackedItem") -> None:
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
        if self.room is not None and not self.room.done():
            self.room.set_result(None)

    async def wait_room(self) -> None:
        """Wait until more items may be sent, or the request is cancelled; any number of tasks may."""
        room = self.room
        if room is None or room.done():
            room = self.room = asyncio.get_running_loop().create_future()
        await asyncio.shield(room)  # one that is cancelled must not wake the others

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


class Service:
    """A named set of methods that the other side may call.

    Subclass it, give it a ``name``, and mark its methods with ``haptera.method``. One instance may serve any number of
    connections at once.
    """

    name: ClassVar[str] = ""
    _methods: ClassVar[dict[str, bool]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._methods = {
            name: inspect.isasyncgenfunction(function)
            for name, function in inspect.getmembers(cls, inspect.isfunction)
            if hasattr(function, _METHOD_MARK)
        }

    def methods(self) -> Sequence[str]:
        """Return the names that ``session.describe`` lists."""
        return sorted(self._methods)

    def handle(self, requests: list[Request]) -> None:
        """Start answering a batch of requests, all of one connection.

        By default each runs its method in a task of its own. A service for which that is too much overrides this, and
        answers by ``Request.respond`` and ``Request.fail``, at once or later.
        """
        for request in requests:
            streams = self._methods.get(request.method)
            if streams is None:
                request.fail(failure(3002, {"service": self.name, "method": request.method}))
                continue
            function = getattr(self, request.method)
            coroutine = _run_stream(request, function) if streams else _run(request, function)
            request.peer._dispatcher.run(request, coroutine)


async def _run(request: Request, function: Callable[[Request], Awaitable[bytes]]) -> None:
    request.peer._dispatcher.enter(request)
    try:
        result = await function(request)
        request.respond(result if type(result) is bytes else _as_answer(request, result))
    except BaseException as error:
        _fail(request, error)


async def _run_stream(request: Request, function: Callable[[Request], AsyncGenerator[bytes, None]]) -> None:
    request.peer._dispatcher.enter(request)
    try:
        async with aclosing(function(request)) as results:
            async for item in results:
                await request.send(item if type(item) is bytes else _as_answer(request, item))
        request.respond()
    except BaseException as error:
        _fail(request, error)


def _as_answer(request: Request, value: object) -> bytes:
    if value is None:
        return b""
    try:
        return as_bytes(value)
    except TypeError:
        name = f"{request.service}.{request.method}"
        raise TypeError(f"{name} answers with {type(value).__name__}, not with bytes") from None


def _fail(request: Request, error: BaseException) -> None:
    """Answer for a handler that raised. What went wrong inside is logged, not told to the caller."""
    request.peer._dispatcher.record(request, error)
    if isinstance(error, asyncio.CancelledError) and _is_stopped(request):
        request.fail(failure(3006, outcome="unknown"))
        if not request.cancelled:
            raise error
    elif isinstance(error, CallError):
        request.fail(Failure(error.code, error.name, error.message, error.outcome, error.details))
    elif isinstance(error, LocalProtocolError) and error.code == 3004:
        request.fail(error.failure("unknown"))
    elif isinstance(error, ConnectionLost) and request.cancelled:
        request.fail(failure(3006, outcome="unknown"))
    elif isinstance(error, ServerError) and error.code == 3005 and request.peer._dispatcher.is_overdue(request):
        # A call that the handler made had no time left: nor has it itself.
        request.fail(failure(3005, outcome="unknown"))
    elif isinstance(error, (Exception, asyncio.CancelledError)):
        fields = request.peer.log_fields(
            stream=request.stream,
            request_id=request.request_id,
            code=3010,
            method=f"{request.service}.{request.method}",
        )
        _logger.error("handler_failed", exc_info=error, extra=fields)
        request.fail(failure(3010))
    else:
        raise error


def _is_stopped(request: Request) -> bool:
    """Whether a handler was cancelled, by its caller or from outside; not something that it waited for."""
    task = request.task
    return request.cancelled or (task is not None and task.cancelling() > 0)

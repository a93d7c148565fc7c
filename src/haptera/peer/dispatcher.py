"""The requests that the other side makes on one connection: from their arrival to their answer."""

import asyncio
import logging
from collections.abc import Container, Coroutine
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from haptera.connection import Connection
from haptera.connection.events import RequestReceived
from haptera.errors import Failure, failure
from haptera.peer.deadlines import Deadlines
from haptera.peer.event_log import EventLog, LimitedLog
from haptera.peer.limits import BATCH_MAX, HANDLERS_END_S
from haptera.peer.peer import Request
from haptera.peer.scope import current, enter
from haptera.peer.service import Service
from haptera.peer.telemetry import find_telemetry
from haptera.peer.times import Stopwatch, clock_of
from haptera.wire.metadata import Tag

if TYPE_CHECKING:
    from haptera.peer.peer import Peer

_logger = logging.getLogger("haptera.peer")
_SESSION: Final = "session"
_TIMEOUT: Final = int(Tag.TIMEOUT_MS)
_ANSWERED_BELOW: Final = int(Tag.ANSWERED_BELOW)
#: Times that travel are whole milliseconds, and a loop's clock may be one behind.
_ROUNDING_S: Final = 0.002


class Dispatcher:
    """Hands requests to their services, in batches, and their answers to the connection."""

    def __init__(
        self,
        peer: "Peer",
        connection: Connection,
        services: dict[str, Service],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._peer = peer
        self._connection = connection
        self._services = services
        #: Requests without an answer, by their streams.
        self.requests: dict[int, Request] = {}
        #: Those of them that were not started yet. What this side accepts as streams and budget bounds them.
        self.arrived: list[Request] = []
        #: Without pipelining one request runs at a time, in stream order (spec/protocol.md, section 4.1).
        self.serial = False
        #: Whether the time that a caller gives is kept.
        self.keeps_deadlines = False
        #: Measures what answers say about how long they took, if they do.
        self.stopwatch: Stopwatch | None = None
        #: Records spans, if the program has them recorded.
        self.telemetry: Final = find_telemetry()
        #: The time of the loop at which the requests that are being added were read.
        self.read_at = 0.0
        self._loop = loop
        self._running = 0  # the stream that runs then
        self._tasks: set[asyncio.Task[None]] = set()
        self._timed: list[Request] = []  # new, and not watched yet
        self._log: EventLog | None = None  # of handlers that fail, once one has
        self._deadlines = Deadlines(loop, self.requests, self._expire)

    def use(self, capabilities: Container[str]) -> None:
        """Take over which capabilities were accepted."""
        self.serial = "pipelining" not in capabilities
        self.keeps_deadlines = "request_deadline" in capabilities
        self.stopwatch = Stopwatch(clock_of(self._loop)) if "server_metrics" in capabilities else None

    def add(self, event: RequestReceived) -> None:
        """Take a request that has arrived; ``start`` starts it."""
        request = Request(self._peer, event)
        self.requests[event.stream] = request
        if _ANSWERED_BELOW in event.entries:
            self.answers_read(int.from_bytes(event.entries[_ANSWERED_BELOW], "big"))
        if self.stopwatch is not None:
            self.stopwatch.add(request)
        if self.telemetry is not None:
            request.span = None
        if self.keeps_deadlines and _TIMEOUT in event.entries:
            begun = self.read_at if event.begun is None else event.begun
            request.deadline = begun + int.from_bytes(event.entries[_TIMEOUT], "big") / 1000
            self._timed.append(request)
        self.arrived.append(request)

    def watch(self) -> None:
        """Watch the deadlines of what was added and is not answered yet: what is answered at once costs nothing."""
        if not self._timed:
            return
        for request in self._timed:
            if request.stream in self.requests:
                assert request.deadline is not None
                self._deadlines.add(request.stream, request.deadline)
        self._timed.clear()

    def resume(self) -> None:
        """There is room for answers again: start what had to wait for that."""
        if self.stopwatch is not None:
            self.stopwatch.read()
        self.start()

    def start(self) -> None:
        """Hand what has arrived to its services, a batch each, while there is room for the answers."""
        while self.arrived and self._peer.writable:
            batch = self._next_serial() if self.serial else self._next_batch()
            if not batch:
                return
            by_service: dict[str, list[Request]] = {}
            for request in batch:
                requests = by_service.get(request.service)
                if requests is None:
                    by_service[request.service] = [request]
                else:
                    requests.append(request)
            for name, requests in by_service.items():
                self._handle(name, requests)
            if self.arrived and not self.serial and self._connection.outbox.pending:
                # What was answered leaves first: the other side works on it while this one works on the rest.
                self._peer._schedule_flush()
                return

    def _next_batch(self) -> list[Request]:
        batch = self.arrived
        self.arrived = batch[BATCH_MAX:]
        del batch[BATCH_MAX:]
        return batch

    def _next_serial(self) -> list[Request]:
        """Return what may start when requests run one at a time; the session service's need not wait for others."""
        arrived = self.arrived
        # An answer of several frames ends its stream when the last has left: a later one must not overtake it.
        if not self._connection.serves(self._running):
            request = arrived.pop(0)
            if request.service != _SESSION:
                self._running = request.stream
            return [request]
        exempt = [request for request in arrived if request.service == _SESSION]
        for request in exempt:
            arrived.remove(request)
        return exempt

    def _handle(self, name: str, requests: list[Request]) -> None:
        service = self._services.get(name)
        if service is None:
            for request in requests:
                request.fail(failure(3001, {"service": name}))
            return
        if current.get() is not None:
            current.set(None)  # this may run in the context of another request's handler
        if self.telemetry is not None:
            for request in requests:
                self.telemetry.begin_request(request)
        if self.stopwatch is not None:
            self.stopwatch.begin_batch()
        try:
            service.handle(requests)
        except Exception as error:
            unanswered = [request for request in requests if request.stream in self.requests and request.task is None]
            self.report((unanswered or requests)[0], error)
            for request in unanswered:
                self.record(request, error)
                request.fail(failure(3010))
        if self.stopwatch is not None:
            owed = self.requests
            self.stopwatch.end_batch(
                [request for request in requests if request.task is None and request.stream in owed]
            )

    def answers_read(self, below: int) -> None:
        """The other side has read the answers to its changes on streams below, whichever service they were for."""
        for service in self._services.values():
            service.answers_read(self._peer, below)

    def enter(self, request: Request) -> None:
        """A handler takes its first step, in a task of its own."""
        enter(request)
        if self.telemetry is not None:
            self.telemetry.enter(request)
        if self.stopwatch is not None:
            self.stopwatch.begin(request)

    def record(self, request: Request, error: BaseException) -> None:
        """A handler has raised an error."""
        if self.telemetry is not None:
            self.telemetry.record(request, error)

    def report(self, request: Request, error: BaseException) -> None:
        """What a handler has raised is a fault: the log has it, and the caller does not."""
        self._write_line("handler_failed", request, error)

    def _write_line(self, event: str, request: Request, error: BaseException) -> None:
        """Write a line about a request. Its caller causes it at will, also on a dialled connection."""
        if self._log is None:
            self._log = self._peer._log if self._peer._accepted else LimitedLog(self._peer.remote)
        self._log.write(
            logging.ERROR,
            event,
            lambda: self._peer.log_fields(
                stream=request.stream,
                request_id=request.request_id,
                code=3010,
                service=request.service,
                method=f"{request.service}.{request.method}",
            ),
            error,
        )

    def is_overdue(self, request: Request) -> bool:
        """Whether a request's time is over, or as good as that."""
        return request.deadline is not None and self._loop.time() >= request.deadline - _ROUNDING_S

    def run(self, request: Request, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a handler in a task of its own."""
        task = asyncio.get_running_loop().create_task(coroutine)
        request.task = task
        self._tasks.add(task)
        task.add_done_callback(request.end_task)

    def end_task(self, request: Request, task: asyncio.Task[None]) -> None:
        """A handler's task has ended: answer for one that did not, cancelled before its first step for instance."""
        self._tasks.discard(task)
        if request.stream not in self.requests:
            return
        if task.cancelled():
            self.fail(request, failure(3006, outcome="unknown"))
        else:
            self.fail(request, failure(3010))

    def respond(self, request: Request, payload: bytes, entries: bytes) -> None:
        """Answer with success; nothing if the request has been answered or its connection is gone."""
        if get_ident() != self._peer._thread:
            self._peer.check_loop()
        if self.requests.pop(request.stream, None) is None:
            return
        if self.stopwatch is not None:
            entries += self.stopwatch.entries(request)
        try:
            self._connection.respond(request.stream, payload, entries)
        except BaseException:
            self.requests[request.stream] = request  # it is still owed an answer
            raise
        if self.telemetry is not None:
            self.telemetry.end_request(request, None)
        self._peer._schedule_flush()

    def fail(self, request: Request, reason: Failure, entries: bytes = b"") -> None:
        """Answer with an error; nothing if the request has been answered or its connection is gone."""
        if get_ident() != self._peer._thread:
            self._peer.check_loop()
        if self.requests.pop(request.stream, None) is None:
            return
        if self.stopwatch is not None:
            entries += self.stopwatch.entries(request)
        stopped = request.abort_reason
        if stopped is not None:
            # A service that says "cancelled" knows better than anyone whether something was done.
            outcome = reason.outcome if reason.code == 3006 else stopped.outcome
            reason = Failure(stopped.code, stopped.name, stopped.message, outcome, stopped.details)
        self._peer._write_before_error(request.stream)
        try:
            self._connection.fail(request.stream, reason, entries)
        except Exception as error:
            # Details of an application's own that cannot be encoded.
            self._write_line("error_not_sent", request, error)
            self._connection.fail(request.stream, failure(3010))
        if self.telemetry is not None:
            self.telemetry.end_request(request, reason)
        self._peer._schedule_flush()

    def cancel(self, stream: int) -> None:
        """The caller no longer wants an answer: tell the handler, or answer what was never started."""
        request = self.requests.get(stream)
        if request is None:
            return
        if self._keeps(request):
            self.fail(request, failure(3006, outcome="not_applied"))
        elif not request.cancelled:
            request.cancel()

    def _expire(self, stream: int) -> None:
        """The caller's time is over: stop the handler. Its slot is free when it has ended, as for a cancelled one.

        A service that takes batches says itself what became of the request: a change that is in the log has a result.
        """
        request = self.requests[stream]
        if self._keeps(request):
            self.fail(request, failure(3005, outcome="not_applied"))
        elif not request.cancelled:
            request.abort_reason = failure(3005, outcome="unknown")
            request.cancel()

    def abort(self, stream: int, reason: Failure) -> None:
        """What the requester sends can't be taken: its handler is stopped, then the reason is the answer."""
        request = self.requests.get(stream)
        if request is None:
            return
        if self._keeps(request):
            nothing_done = Failure(reason.code, reason.name, reason.message, "not_applied", reason.details)
            self.fail(request, nothing_done)
            return
        # Whatever error the handler answers with because it is stopped, this is why. A result that it has stands.
        request.abort_reason = reason
        stoppable = request.cancelled or request.task is not None or request.on_cancel is not None
        if not request.cancelled:
            request.cancel()
        if not stoppable:
            self.fail(request, reason)

    def _keeps(self, request: Request) -> bool:
        """Whether a request was not started; if so, it never will be."""
        if request not in self.arrived:
            return False
        self.arrived.remove(request)
        return True

    def close(self) -> None:
        """Stop all handlers: the connection is over."""
        requests = list(self.requests.values())
        self._deadlines.close()
        if self._log is not None and not self._peer._accepted:
            self._log.settle()
        self.requests.clear()
        self.arrived.clear()
        for request in requests:
            if self.telemetry is not None:
                self.telemetry.end_request(request, failure(3006, outcome="unknown"))
            request.cancel()

    async def wait(self) -> None:
        """Wait until all handlers have ended; not for ever for those that go on though they were cancelled."""
        tasks = self._tasks - {asyncio.current_task()}
        if not tasks:
            return
        _, going_on = await asyncio.wait(tasks, timeout=HANDLERS_END_S)
        if going_on:
            _logger.warning("handlers_go_on", extra=self._peer.log_fields(handlers=len(going_on)))

"""The requests that the other side makes on one connection: from their arrival to their answer."""

from __future__ import annotations

import logging
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Final

from haptera.errors import Code, Failure, failure
from haptera.peer.deadlines import Deadlines
from haptera.peer.event_log import EventLog, RequestLog, guard
from haptera.peer.handler_tasks import Handlers
from haptera.peer.item_queue import Items
from haptera.peer.limits import BATCH_MAX, BATCH_MIN, BATCH_UNANSWERED_MAX
from haptera.peer.loop_fairness import PART_MAX
from haptera.peer.request import Request, by_service
from haptera.peer.request_scope import current
from haptera.peer.serial_order import SerialOrder
from haptera.peer.stopwatch import Stopwatch, clock_of
from haptera.peer.telemetry import find_telemetry
from haptera.wire import Tag

if TYPE_CHECKING:
    from haptera.connection import PackedItem, RequestReceived
    from haptera.peer.gate import Gate
    from haptera.peer.link import Link
    from haptera.peer.peer import Peer
    from haptera.peer.service import Service

_logger = logging.getLogger("haptera.peer")
_TIMEOUT: Final = int(Tag.TIMEOUT_MS)
_ANSWERED_BELOW: Final = int(Tag.ANSWERED_BELOW)
_RESENT: Final = int(Tag.RESENT)


class Dispatcher:
    """Hands requests to their services, in batches, and their answers to the connection.

    Most requests are answered at once by a service that takes batches. So a request has only the fields that
    its handler sees, and tables beside it hold the rarer things: items, tasks, reasons, times, spans.
    """

    #: The peer whose requests they are, as services know it.
    peer: Peer

    def __init__(self, link: Link, services: Mapping[str, Service], shared_log: EventLog | None) -> None:
        self.link = link
        self.services = services
        #: Requests without an answer, by their streams.
        self.requests: dict[int, Request] = {}
        #: Requests of the other side that came whole.
        self.requests_received: int = 0
        #: The items of the requests that have some, in either direction.
        self.items: dict[int, Items] = {}
        #: The requests that were not started yet. The limit on streams and the budget bound them.
        self.arrived: list[Request] = []
        #: The order of the requests without pipelining.
        self.serial: SerialOrder | None = None
        #: Takes, keeps or refuses the requests that arrive before the proof of an identity (section 5.1).
        self.gate: Gate | None = None
        #: Whether the time that a caller gives is kept.
        self.keeps_deadlines: bool = False
        #: Measures the times that answers tell, if they do.
        self.stopwatch: Stopwatch | None = None
        #: Records spans, if the program has them recorded.
        self.telemetry: Final = find_telemetry()
        #: Runs the handlers that have tasks.
        self.handlers: Handlers = Handlers(self)
        self._connection = link.connection
        self._home = link.home
        self._loop = link.loop
        self._batch_max = BATCH_MAX  # of the next batch, by the answers to the one before
        self._reasons: dict[int, Failure] = {}  # why a request is stopped, if not because its caller cancelled
        self._looked_at: dict[int, bytes] | None = None  # the entries of a request, which the next mostly shares
        self._timeout_s: float | None = None  # that they give
        self._timed: list[Request] = []  # with deadlines that are new, and not watched yet
        self._log = RequestLog(link, shared_log)
        self._deadlines = Deadlines(link.loop, self.requests, self._expire)

    def use(self, capabilities: Container[str]) -> None:
        """Take over which capabilities were accepted."""
        self.serial = None if "pipelining" in capabilities else SerialOrder(self._connection.serves)
        self.keeps_deadlines = "request_deadline" in capabilities
        if "server_metrics" in capabilities:
            self.stopwatch = Stopwatch(clock_of(self._loop))

    # -- arrival ----------------------------------------------------------------------------------------------------

    def add(self, events: Sequence[RequestReceived]) -> None:
        """Take requests that have arrived; ``start`` starts them."""
        self.requests_received += len(events)
        received = 0.0
        if self.stopwatch is not None:
            if self.link.on_read is None:
                # From the first request on the clock is read with the bytes: a side that only calls does without.
                self.link.on_read = self.stopwatch.read
                self.stopwatch.read()
            received = self.stopwatch.now
        requests, arrived, first = self.requests, self.arrived, len(self.arrived)
        entries: dict[int, bytes] | None = None
        timeout_s = due = None
        for event in events:
            stream = event.stream
            if event.entries is not entries:  # most requests have those of the one before
                entries = event.entries
                if entries is not self._looked_at:
                    self._looked_at, self._timeout_s = entries, self._look_at(entries)
                timeout_s = self._timeout_s
                due = None if timeout_s is None else self.link.read_at + timeout_s
            deadline = due if event.begun is None or timeout_s is None else event.begun + timeout_s
            requests[stream] = request = Request(
                self,
                stream,
                event.service,
                event.method,
                event.payload,
                entries,
                event.request_id,
                deadline=deadline,
                resent=_RESENT in entries,
                _received=received,
            )
            if event.streaming:
                self.items[stream] = Items()
            arrived.append(request)
        if self.keeps_deadlines:
            self._timed += arrived[first:]

    def _look_at(self, entries: dict[int, bytes]) -> float | None:
        """Act on what a request says beside its argument. Return the seconds that its caller gives it, if any."""
        if _ANSWERED_BELOW in entries:
            self.answers_read(int.from_bytes(entries[_ANSWERED_BELOW], "big"))
        if self.keeps_deadlines and _TIMEOUT in entries:
            return int.from_bytes(entries[_TIMEOUT], "big") / 1000
        return None

    def add_item(self, stream: int, payload: bytes | PackedItem) -> bool:
        """Take an item that has arrived; False if no request is under way on the stream."""
        if stream not in self.requests:
            return False
        self.items[stream].add(payload)
        return True

    def finish_items(self, stream: int) -> None:
        """Take the end of a request's items."""
        items = self.items.get(stream)
        if items is not None:
            items.end()

    def make_room(self, stream: int) -> None:
        """Let a handler send more items."""
        items = self.items.get(stream)
        if items is not None:
            items.open_room()

    def items_of(self, request: Request) -> Items:
        """Return the items of a request, which may be one that has sent none yet."""
        items = self.items.get(request.stream)
        if items is None:
            items = Items()
            if request.cancelled:
                items.give_up()
            if request.stream in self.requests:
                self.items[request.stream] = items
        return items

    def watch(self) -> None:
        """Watch the deadlines of requests that are not answered yet: one that is answered at once costs nothing."""
        if self._timed:
            if self.requests:
                self._deadlines.add_requests(self._timed)
            self._timed.clear()

    def resume(self) -> None:
        """There is room for answers again: start the requests that waited for it."""
        if self.link.waits_turn:
            return
        if self.link.round.has_room:
            self.go_on()
        else:
            self.link.wait_turn()

    def go_on(self) -> None:
        """Start waiting requests, as far as this turn of the loop allows."""
        if self.stopwatch is not None:
            self.stopwatch.read()
        self.start()

    # -- handlers ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Hand requests to their services, a batch each, while there is room for the answers.

        Requests that do not fit into this turn of the loop have a later one.
        """
        link = self.link
        while self.arrived and not link.waits_turn and link.writable:
            batch = self._next() if self.serial is not None or self.gate is not None else self._next_batch()
            if not batch:
                return
            link.round.spend(len(batch))
            for name, requests in by_service(batch):
                self._handle(name, requests)
            answered = self._connection.outbox.pending
            self._batch_max = BATCH_MAX if answered else BATCH_UNANSWERED_MAX
            if self.arrived and self.serial is None:
                if not link.round.has_room:
                    link.wait_turn()
                elif answered:
                    # The answers so far leave first: the other side works on them while this one works on the rest.
                    link.schedule_flush()
                    return

    def _next_batch(self) -> list[Request]:
        batch, size = self.arrived, len(self.arrived)
        if size > BATCH_MIN:
            size = min(self._batch_max, self.link.round.part)
        self.arrived = batch[size:]
        del batch[size:]
        return batch

    def _next(self) -> list[Request]:
        if self.gate is not None:
            self.gate.sort(self.arrived)  # which may open it, and start them
            return []
        return [] if self.serial is None else self.serial.take(self.arrived)

    def _handle(self, name: str, requests: list[Request]) -> None:
        service = self.services.get(name)
        if service is None:
            for request in requests:
                request.fail(failure(Code.UNKNOWN_SERVICE, {"service": name}))
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
            unanswered = self._left(requests)
            self.report((unanswered or requests)[0], error)
            for request in unanswered:
                self.record(request, error)
                request.fail(failure(Code.HANDLER_FAILED))
        if self.stopwatch is not None:
            left = self._left(requests) if self.handlers.tasks else requests
            self.stopwatch.end_batch(left if self.requests else [])

    def _left(self, requests: list[Request]) -> list[Request]:
        """Return the requests that a service has returned without an answer to, and without a task for."""
        unanswered, tasks = self.requests, self.handlers.tasks
        return [each for each in requests if each.stream in unanswered and each.stream not in tasks]

    def answers_read(self, below: int) -> None:
        """The other side has read the answers to its changes on streams below, whichever service they were for."""
        for service in self.services.values():
            service.answers_read(self.peer, below)

    def record(self, request: Request, error: BaseException) -> None:
        """A handler has raised an error."""
        if self.telemetry is not None:
            self.telemetry.record(request, error)

    def report(self, request: Request, error: BaseException) -> None:
        """Log the exception of a handler. It is a fault, and the caller is not told."""
        self._log.write("handler_failed", request, error)

    # -- answers ----------------------------------------------------------------------------------------------------

    def respond(self, request: Request, payload: bytes, entries: bytes = b"") -> None:
        """Answer one request with success, as ``respond_all`` does."""
        self.respond_all(((request, payload, entries),))

    def respond_all(self, answers: Sequence[tuple[Request, bytes, bytes]]) -> None:
        """Answer requests with success, each with its payload and its entries.

        Nothing happens to one that has been answered, or whose connection is gone.
        """
        if get_ident() != self._home.thread:
            self._home.check()
        unanswered, stopwatch, connection = self.requests, self.stopwatch, self._connection
        now = 0.0 if stopwatch is None else stopwatch.reading(len(answers))
        received = used = math.nan
        times = b""
        requests: list[Request] = []
        given: list[tuple[int, bytes, bytes]] = []
        for request, payload, entries in answers:
            stream = request.stream
            if unanswered.pop(stream, None) is None:
                continue
            if stopwatch is not None:
                its_received, its_used = request._received, request._used
                # Most requests came and were worked on with the one before, and so have its times.
                if its_received != received or its_used != used or request._begun is not None:
                    received, used = its_received, its_used
                    times = stopwatch.entries(request, now)
            requests.append(request)
            given.append((stream, payload, entries + times))
        if not given:
            return
        try:
            connection.respond_all(given)
        except BaseException:
            unanswered.update((request.stream, request) for request in requests if connection.owes(request.stream))
            self._settle([request for request in requests if request.stream not in unanswered], None)
            raise
        self._settle(requests, None)

    def fail(self, request: Request, reason: Failure, entries: bytes = b"") -> None:
        """Answer with an error; nothing if the request has been answered or its connection is gone."""
        if get_ident() != self._home.thread:
            self._home.check()
        stream = request.stream
        if self.requests.pop(stream, None) is None:
            return
        if self.stopwatch is not None:
            entries += self.stopwatch.entries(request, self.stopwatch.reading(1))
        stopped = self._reasons.get(stream)
        if stopped is not None:
            # A service that says "cancelled" knows better than anyone whether something was done.
            outcome = reason.outcome if reason.code == Code.CANCELLED else stopped.outcome
            reason = Failure(stopped.code, stopped.name, stopped.message, outcome, stopped.details)
        self.link.write_before_error(stream)
        try:
            self._connection.fail(stream, reason, entries)
        except Exception as error:
            # Details of an application's own that cannot be encoded.
            self._log.write("error_not_sent", request, error)
            self._connection.fail(stream, failure(Code.HANDLER_FAILED))
        self._settle((request,), reason)

    def _settle(self, requests: Iterable[Request], reason: Failure | None) -> None:
        """Requests are answered: forget their places in the tables, and see that the answers leave."""
        if self.items or self._reasons or self.telemetry is not None:
            for request in requests:
                self.items.pop(request.stream, None)
                self._reasons.pop(request.stream, None)
                if self.telemetry is not None:
                    self.telemetry.end_request(request, reason)
        # The last answer that is owed: no other would join it until the end of this turn of the loop.
        if self.requests or self.link.draining:
            self.link.schedule_flush()
        else:
            self.link.send_now()

    # -- requests that are stopped ----------------------------------------------------------------------------------

    def cancel(self, stream: int) -> None:
        """The caller no longer wants an answer: tell the handler, or answer a request that was never started."""
        request = self.requests.get(stream)
        if request is None:
            return
        if self._keeps(request):
            self.fail(request, failure(Code.CANCELLED, outcome="not_applied"))
        elif not request.cancelled:
            self._stop(request)

    def _expire(self, stream: int) -> None:
        """The caller's time is over: stop the handler. Its slot is free when it has ended, as for a cancelled one.

        A service that takes batches answers the request itself: a change that is in the log has a result.
        """
        request = self.requests[stream]
        if self._keeps(request):
            self.fail(request, failure(Code.DEADLINE_EXCEEDED, outcome="not_applied"))
        elif not request.cancelled:
            self._reasons[stream] = failure(Code.DEADLINE_EXCEEDED, outcome="unknown")
            self._stop(request)

    def abort(self, stream: int, reason: Failure) -> None:
        """The requester's items can't be taken: its handler is stopped, then the reason is the answer."""
        request = self.requests.get(stream)
        if request is None:
            return
        if self._keeps(request):
            nothing_done = Failure(reason.code, reason.name, reason.message, "not_applied", reason.details)
            self.fail(request, nothing_done)
            return
        # This reason replaces any error that the handler answers with because it is stopped. A result stands.
        self._reasons[stream] = reason
        stoppable = request.cancelled or stream in self.handlers.tasks or request.on_cancel is not None
        if not request.cancelled:
            self._stop(request)
        if not stoppable:
            self.fail(request, reason)

    def _stop(self, request: Request) -> None:
        """Stop a handler: no one waits for the answer."""
        self._cancel(request)
        items = self.items.get(request.stream)
        if items is not None:
            items.give_up()

    def _cancel(self, request: Request) -> None:
        request.cancelled = True
        if request.on_cancel is not None:
            callback, request.on_cancel = request.on_cancel, None
            guard(callback)
        task = self.handlers.tasks.get(request.stream)
        if task is not None:
            task.cancel()

    def _keeps(self, request: Request) -> bool:
        """Whether a request was not started; if so, it never will be."""
        if request not in self.arrived:
            return False
        self.arrived.remove(request)
        return True

    def close(self) -> None:
        """Stop all handlers: the connection is over."""
        requests, items = list(self.requests.values()), list(self.items.values())
        self._deadlines.close()
        self._log.settle()
        self.requests.clear()
        self.items.clear()
        self._reasons.clear()
        self.arrived.clear()
        for request in requests:
            if self.telemetry is not None:
                self.telemetry.end_request(request, failure(Code.CANCELLED, outcome="unknown"))
            request.cancelled = True
        self._stop_all(requests)
        for each in items:
            each.wake()

    def _stop_all(self, requests: list[Request]) -> None:
        """Stop handlers, some in this turn of the loop: many connections with many requests may end in one."""
        for request in requests[:PART_MAX]:
            self._cancel(request)
        left = requests[PART_MAX:]
        self.link.round.spend(len(requests) - len(left))
        if left:
            self.link.round.add(lambda: self._stop_all(left))

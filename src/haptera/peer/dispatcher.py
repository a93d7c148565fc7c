"""The requests that the other side makes on one connection: from their arrival to their answer."""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from haptera.connection import Connection
from haptera.connection.events import RequestReceived
from haptera.errors import Failure, failure
from haptera.peer.service import Request, Service

if TYPE_CHECKING:
    from haptera.peer.peer import Peer

_logger = logging.getLogger("haptera.peer")
_SESSION: Final = "session"


class Dispatcher:
    """Hands requests to their services, in batches, and their answers to the connection."""

    def __init__(self, peer: "Peer", connection: Connection, services: dict[str, Service]) -> None:
        self._peer = peer
        self._connection = connection
        self._services = services
        #: Requests whose handlers are at work, by their streams.
        self.requests: dict[int, Request] = {}
        #: Requests that are kept until there is room for more answers. The peer's own limits bound them.
        self.arrived: deque[RequestReceived] = deque()
        #: Without pipelining one request runs at a time, in stream order (spec/protocol.md, section 4.1).
        self.serial = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Hand what has arrived to its services, a batch each, while there is room for the answers."""
        arrived = self.arrived
        while arrived and self._peer.writable:
            if self.serial:
                if self.requests and arrived[0].service != _SESSION:
                    return
                batch = [arrived.popleft()]
            else:
                batch = list(arrived)
                arrived.clear()
            by_service: dict[str, list[Request]] = {}
            for event in batch:
                request = Request(self._peer, event)
                self.requests[event.stream] = request
                requests = by_service.get(event.service)
                if requests is None:
                    by_service[event.service] = [request]
                else:
                    requests.append(request)
            for name, requests in by_service.items():
                self._handle(name, requests)

    def _handle(self, name: str, requests: list[Request]) -> None:
        service = self._services.get(name)
        if service is None:
            for request in requests:
                request.fail(failure(3001, {"service": name}))
            return
        try:
            service.handle(requests)
        except Exception as error:
            _logger.error("handler_failed", exc_info=error, extra=self._peer.log_fields(service=name))
            for request in requests:
                if request.stream in self.requests and request.task is None:
                    request.fail(failure(3010))

    def run(self, request: Request, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a handler in a task of its own."""
        task = asyncio.get_running_loop().create_task(coroutine)
        request.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def respond(self, request: Request, payload: bytes, entries: bytes) -> None:
        """Answer with success; nothing if the request has been answered or its connection is gone."""
        if self.requests.pop(request.stream, None) is not None:
            self._connection.respond(request.stream, payload, entries)
            self._peer._schedule_flush()

    def fail(self, request: Request, reason: Failure, entries: bytes) -> None:
        """Answer with an error; nothing if the request has been answered or its connection is gone."""
        if self.requests.pop(request.stream, None) is not None:
            self._connection.fail(request.stream, reason, entries)
            self._peer._schedule_flush()

    def cancel(self, stream: int) -> None:
        """The caller no longer wants an answer: tell the handler, or answer what was never started."""
        request = self.requests.get(stream)
        if request is not None:
            request.cancel()
            return
        for event in self.arrived:
            if event.stream == stream:
                self.arrived.remove(event)
                self._connection.fail(stream, failure(3006, outcome="not_applied"))
                return

    def abort(self, stream: int, reason: Failure) -> None:
        """What the requester sends can't be taken: its handler is stopped, then the reason is the answer."""
        request = self.requests.get(stream)
        if request is None or request.task is None:
            self.requests.pop(stream, None)
            self._connection.fail(stream, reason)
            return
        # The handler's own answer, if it gives one while it ends, stands. The reason is given before the handler can
        # answer for its cancellation.
        request.abort_reason = reason
        request.cancel()

    def close(self) -> None:
        """Stop all handlers: the connection is over."""
        requests = list(self.requests.values())
        self.requests.clear()
        self.arrived.clear()
        for request in requests:
            request.wake()
            request.cancel()

    async def wait(self) -> None:
        """Wait until all handlers have ended."""
        tasks = self._tasks - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks)



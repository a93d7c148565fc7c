"""Handlers that run in tasks of their own, one for each request: how they begin, and how their ends become answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import CallError, Code, ConnectionLost, Failure, LocalProtocolError, ServerError, failure
from haptera.peer.call import as_bytes
from haptera.peer.limits import HANDLERS_END_S
from haptera.peer.request_scope import current

if TYPE_CHECKING:
    from haptera.peer.dispatcher import Dispatcher
    from haptera.peer.request import Request

_logger = logging.getLogger("haptera.peer")
#: An item is larger than the other side takes, or than there is memory for: that is the answer.
_UNSENDABLE: Final = frozenset({Code.MESSAGE_TOO_LARGE, Code.TOO_MANY_REQUESTS})
#: Times that travel are whole milliseconds, and a loop's clock may be one behind.
_ROUNDING_S: Final = 0.002


class Handlers:
    """Runs the handlers of one connection. Its limit on open streams bounds them."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        #: Their tasks by the streams of their requests, until they end.
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self._dispatcher = dispatcher
        self._loop = dispatcher.link.loop
        self._unbegun: dict[int, Request] = {}  # their tasks have not taken a step yet
        self._looking = False  # whether they are about to be looked at

    def run_one(self, request: Request, function: Callable[[Request], Awaitable[bytes]]) -> None:
        """Run a handler that returns the one answer."""
        self._run(request, self._answer(request, function))

    def run_stream(self, request: Request, function: Callable[[Request], AsyncGenerator[bytes, None]]) -> None:
        """Run a handler that yields items."""
        self._run(request, self._send_items(request, function))

    def _run(self, request: Request, handler: Coroutine[Any, Any, None]) -> None:
        stream = request.stream
        self.tasks[stream] = self._loop.create_task(handler)
        self._unbegun[stream] = request
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._look_at_unbegun)

    def _look_at_unbegun(self) -> None:
        """Answer for handlers that will never begin, because their tasks were cancelled before the first step.

        A callback of each task would tell that, too, at the price of a further turn of the loop for each call.
        """
        for request in [each for each in self._unbegun.values() if self.tasks[each.stream].done()]:
            self._leave(request)
        self._looking = bool(self._unbegun)
        if self._looking:
            self._loop.call_soon(self._look_at_unbegun)

    async def _answer(self, request: Request, function: Callable[[Request], Awaitable[bytes]]) -> None:
        try:
            self._enter(request)
            result = await function(request)
            self._dispatcher.respond(request, result if type(result) is bytes else _as_answer(request, result))
        except BaseException as error:
            self._fail(request, error)
        finally:
            self._leave(request)

    async def _send_items(self, request: Request, function: Callable[[Request], AsyncGenerator[bytes, None]]) -> None:
        try:
            self._enter(request)
            async with aclosing(function(request)) as results:
                await request.room()
                async for item in results:
                    await request.send(item if type(item) is bytes else _as_answer(request, item))
            self._dispatcher.respond(request, b"")
        except BaseException as error:
            self._fail(request, error)
        finally:
            self._leave(request)

    def _enter(self, request: Request) -> None:
        """A handler takes its first step."""
        del self._unbegun[request.stream]
        current.set(request if request.deadline is not None or request.trace is not None else None)
        dispatcher = self._dispatcher
        if dispatcher.telemetry is not None:
            dispatcher.telemetry.enter(request)
        if dispatcher.stopwatch is not None:
            dispatcher.stopwatch.begin(request)

    def _leave(self, request: Request) -> None:
        """A handler's task ends: answer for one that has not, cancelled before its first step for instance."""
        task = self.tasks.pop(request.stream)
        self._unbegun.pop(request.stream, None)
        if request.stream in self._dispatcher.requests:
            self._dispatcher.fail(
                request,
                failure(Code.CANCELLED, outcome="unknown") if task.cancelled() else failure(Code.HANDLER_FAILED),
            )

    def _fail(self, request: Request, error: BaseException) -> None:
        """Answer for a handler that raised. Its exception is logged, not told to the caller."""
        dispatcher = self._dispatcher
        dispatcher.record(request, error)
        if isinstance(error, asyncio.CancelledError) and self._is_stopped(request):
            dispatcher.fail(request, failure(Code.CANCELLED, outcome="unknown"))
            if not request.cancelled:
                raise error
        elif isinstance(error, CallError):
            dispatcher.fail(request, Failure(error.code, error.name, error.message, error.outcome, error.details))
        elif isinstance(error, LocalProtocolError) and error.code in _UNSENDABLE:
            dispatcher.fail(request, error.failure("unknown"))
        elif isinstance(error, ConnectionLost) and request.cancelled:
            dispatcher.fail(request, failure(Code.CANCELLED, outcome="unknown"))
        elif isinstance(error, ServerError) and error.code == Code.DEADLINE_EXCEEDED and self._is_overdue(request):
            # A call that the handler made had no time left: nor has it itself.
            dispatcher.fail(request, failure(Code.DEADLINE_EXCEEDED, outcome="unknown"))
        elif isinstance(error, (Exception, asyncio.CancelledError)):
            dispatcher.report(request, error)
            dispatcher.fail(request, failure(Code.HANDLER_FAILED))
        else:
            raise error

    def _is_stopped(self, request: Request) -> bool:
        """Whether a handler was cancelled, by its caller or from outside; not something that it waited for."""
        return request.cancelled or self.tasks[request.stream].cancelling() > 0

    def _is_overdue(self, request: Request) -> bool:
        """Whether a request's time is over, or as good as that."""
        return request.deadline is not None and self._loop.time() >= request.deadline - _ROUNDING_S

    async def wait(self) -> None:
        """Wait until all handlers have ended; handlers that go on though they were cancelled are left behind."""
        tasks = {*self.tasks.values()} - {asyncio.current_task()}
        if not tasks:
            return
        _, going_on = await asyncio.wait(tasks, timeout=HANDLERS_END_S)
        if going_on:
            _logger.warning("handlers_go_on", extra=self._dispatcher.link.log_fields(handlers=len(going_on)))


def _as_answer(request: Request, value: object) -> bytes:
    if value is None:
        return b""
    try:
        return as_bytes(value)
    except TypeError:
        name = f"{request.service}.{request.method}"
        raise TypeError(f"{name} answers with {type(value).__name__}, not with bytes") from None

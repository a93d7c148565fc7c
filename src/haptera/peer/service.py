"""Services: what a side offers to the other, and how their methods are run."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from haptera.errors import CallError, ConnectionLost, Failure, LocalProtocolError, ServerError, failure
from haptera.peer.calls import as_bytes
from haptera.peer.request import Request

if TYPE_CHECKING:
    from haptera.peer.dispatcher import Dispatcher
    from haptera.peer.peer import Peer

#: An item is larger than the other side takes, or than there is memory for: that is the answer.
_UNSENDABLE: Final = frozenset({3004, 3007})
_METHOD_MARK: Final = "__haptera_method__"

#: The bytes of an answer or an item.
Payload = bytes | bytearray | memoryview
_Handler = TypeVar(
    "_Handler", bound=Callable[[Any, Request], Coroutine[Any, Any, Payload | None] | AsyncIterator[Payload]]
)


def method(function: _Handler) -> _Handler:
    """Mark a function of a ``Service`` as a method that peers may call.

    Args:
        function: Takes a ``Request``. A coroutine function returns the one answer, as bytes (None: no bytes); an async
            generator function yields any number of items.

    Returns:
        The same function.

    Raises:
        TypeError: The function is not ``async def``.
    """
    if not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
        raise TypeError(f"a method is `async def`; {function!r} is not")
    setattr(function, _METHOD_MARK, True)
    return function


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
            responder = request._responder
            function = getattr(self, request.method)
            run = _run_stream if streams else _run
            responder.run(request, run(responder, request, function))

    def answers_read(self, peer: "Peer", below: int) -> None:
        """Take what a caller says, with a request or when it goes away: which answers it has read.

        They are those to requests with a ``request_id`` on the streams under ``below``. Nothing by default; a service
        that remembers such answers may forget them.
        """


async def _run(responder: "Dispatcher", request: Request, function: Callable[[Request], Awaitable[bytes]]) -> None:
    try:
        responder.enter(request)
        result = await function(request)
        responder.respond(request, result if type(result) is bytes else _as_answer(request, result))
    except BaseException as error:
        _fail(responder, request, error)
    finally:
        responder.leave(request)


async def _run_stream(
    responder: "Dispatcher", request: Request, function: Callable[[Request], AsyncGenerator[bytes, None]]
) -> None:
    try:
        responder.enter(request)
        async with aclosing(function(request)) as results:
            await request.room()
            async for item in results:
                await request.send(item if type(item) is bytes else _as_answer(request, item))
        responder.respond(request, b"")
    except BaseException as error:
        _fail(responder, request, error)
    finally:
        responder.leave(request)


def _as_answer(request: Request, value: object) -> bytes:
    if value is None:
        return b""
    try:
        return as_bytes(value)
    except TypeError:
        name = f"{request.service}.{request.method}"
        raise TypeError(f"{name} answers with {type(value).__name__}, not with bytes") from None


def _fail(responder: "Dispatcher", request: Request, error: BaseException) -> None:
    """Answer for a handler that raised. What went wrong inside is logged, not told to the caller."""
    responder.record(request, error)
    if isinstance(error, asyncio.CancelledError) and responder.is_stopped(request):
        request.fail(failure(3006, outcome="unknown"))
        if not request.cancelled:
            raise error
    elif isinstance(error, CallError):
        request.fail(Failure(error.code, error.name, error.message, error.outcome, error.details))
    elif isinstance(error, LocalProtocolError) and error.code in _UNSENDABLE:
        request.fail(error.failure("unknown"))
    elif isinstance(error, ConnectionLost) and request.cancelled:
        request.fail(failure(3006, outcome="unknown"))
    elif isinstance(error, ServerError) and error.code == 3005 and responder.is_overdue(request):
        # A call that the handler made had no time left: nor has it itself.
        request.fail(failure(3005, outcome="unknown"))
    elif isinstance(error, (Exception, asyncio.CancelledError)):
        responder.report(request, error)
        request.fail(failure(3010))
    else:
        raise error

"""Services, which a side offers to the other, and how their methods are run."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from haptera.errors import Code, failure
from haptera.peer.request import Request

if TYPE_CHECKING:
    from haptera.peer.peer import Peer

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

        Args:
            requests: The requests.
        """
        for request in requests:
            streams = self._methods.get(request.method)
            if streams is None:
                request.fail(failure(Code.UNKNOWN_METHOD, {"service": self.name, "method": request.method}))
                continue
            handlers = request._responder.handlers
            run = handlers.run_stream if streams else handlers.run_one
            run(request, getattr(self, request.method))

    def answers_read(self, peer: Peer, below: int) -> None:
        """Take a caller's word, given with a request or when it goes away, on which answers it has read.

        Nothing by default; a service that remembers answers may forget them.

        Args:
            peer: The caller.
            below: The answers belong to requests with a ``request_id`` on the streams under this number.
        """

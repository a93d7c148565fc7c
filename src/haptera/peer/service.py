"""Services, which a side offers to the other, and how their methods are run."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from haptera.errors import Code, Failure, failure
from haptera.peer.request import Request
from haptera.peer.typed_methods import TypedMethod

if TYPE_CHECKING:
    from haptera.peer.peer import Peer
    from haptera.value_codecs import CodecName

_METHOD_MARK: Final = "__haptera_method__"
_TYPED_MARK: Final = "__haptera_typed_method__"

#: The bytes of an answer or an item.
Payload = bytes | bytearray | memoryview
_Handler = TypeVar(
    "_Handler", bound=Callable[[Any, Request], Coroutine[Any, Any, Payload | None] | AsyncIterator[Payload]]
)
_TypedHandler = TypeVar(
    "_TypedHandler",
    bound=Callable[[Any, Request], Coroutine[Any, Any, Any] | AsyncIterator[Any]]
    | Callable[[Any, Request, Any], Coroutine[Any, Any, Any] | AsyncIterator[Any]],
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


def typed_method(function: _TypedHandler) -> _TypedHandler:
    """Mark a function of a ``Service`` with a codec as a method that takes and gives values of the program's types.

    The annotations of the function name the types: Structs of msgspec, dataclasses, models of pydantic, or types made
    of the plain ones. A caller whose argument does not fit gets ``InvalidArgument`` (3003), and the function is not
    called. An answer that does not fit is a failure of the handler.

        >>> from haptera import typed
        >>> class Sums(haptera.Service, codec="json"):
        ...     name = "sums"
        ...
        ...     @typed.method
        ...     async def total(self, request: haptera.Request, numbers: list[int]) -> int:
        ...         return sum(numbers)
        >>> server = await haptera.listen("haptera://127.0.0.1:0", services=[Sums()])
        >>> peer = await haptera.dial(server.url)
        >>> await peer.call("sums", "total", [1, 2, 3], codec="json", returning=int)
        6
        >>> await peer.call("sums", "total", b"{}")
        Traceback (most recent call last):
        haptera.errors.InvalidArgument: INVALID_ARGUMENT (3003): the argument is not valid {reason: ...}
        >>> await peer.aclose()
        >>> await server.aclose()

    Args:
        function: Takes a ``Request``, and an argument if the method has one. A coroutine function returns the one
            answer, an async generator function yields items.

    Returns:
        The same function.

    Raises:
        TypeError: The function is not ``async def``.
    """
    marked: Any = function
    setattr(method(marked), _TYPED_MARK, True)
    return function


class Service:
    """A named set of methods that the other side may call.

    Subclass it, give it a ``name``, and mark its methods with ``haptera.method``. One instance may serve any number of
    connections at once. ``class Printer(haptera.Service, codec="json")`` may have methods that take and give values of
    the program's types, marked with ``haptera.typed.method``.

        >>> class Thermostat(haptera.Service):
        ...     name = "thermostat"
        ...
        ...     @haptera.method
        ...     async def read(self, request):
        ...         return b"21.5 in " + request.payload
        >>> Thermostat()
        <haptera Service thermostat: read>
    """

    name: ClassVar[str] = ""
    _methods: ClassVar[dict[str, bool]] = {}
    _codec: ClassVar[CodecName | None] = None
    _typed: ClassVar[dict[str, TypedMethod]] = {}

    def __init_subclass__(cls, *, codec: CodecName | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._codec = codec or cls._codec
        functions = {
            name: function
            for name, function in inspect.getmembers(cls, inspect.isfunction)
            if hasattr(function, _METHOD_MARK)
        }
        cls._methods = {name: inspect.isasyncgenfunction(function) for name, function in functions.items()}
        typed = {name: function for name, function in functions.items() if hasattr(function, _TYPED_MARK)}
        if cls._codec is None:
            if typed:
                raise TypeError(f"{cls.__name__} has typed methods: give it a codec, as in (Service, codec='json')")
            return
        cls._typed = {name: TypedMethod(function, cls._codec) for name, function in typed.items()}

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
            function = getattr(self, request.method)
            typed = self._typed.get(request.method)
            if typed is not None:
                function = typed.bound(request, function)
                if isinstance(function, Failure):
                    request.fail(function)
                    continue
            run(request, function)

    def __repr__(self) -> str:
        return f"<haptera Service {self.name}: {', '.join(self.methods())}>"

    def answers_read(self, peer: Peer, below: int) -> None:
        """Take a caller's word, given with a request or when it goes away, on which answers it has read.

        Nothing by default; a service that remembers answers may forget them.

        Args:
            peer: The caller.
            below: The answers belong to requests with a ``request_id`` on the streams under this number.
        """

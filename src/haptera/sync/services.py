"""Services whose methods are plain functions: each request is handled in a thread."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from haptera import peer
from haptera.errors import ConfigurationError
from haptera.sync.messaging import Peer, Request

if TYPE_CHECKING:
    from haptera.value_codecs import CodecName

T = TypeVar("T")

_METHOD_MARK: Final = "__haptera_sync_method__"
_TYPED_MARK: Final = "__haptera_sync_typed_method__"
_END: Final = object()

#: The bytes of an answer or an item.
Payload = bytes | bytearray | memoryview
_Handler = TypeVar("_Handler", bound=Callable[[Any, Request], Payload | Iterator[Payload] | None])
_TypedHandler = TypeVar("_TypedHandler", bound=Callable[[Any, Request], Any] | Callable[[Any, Request, Any], Any])

#: Requests that are handled at once, each in a thread: as many again wait in the queue of the threads as the peers may
#: have under way. A handler mostly waits, so there are more of them than cores.
HANDLER_THREADS: Final = 32

_logger = logging.getLogger(__name__)


def method(function: _Handler) -> _Handler:
    """Mark a function of a ``Service`` as a method that peers may call.

    Args:
        function: Takes a ``Request``. A function returns the one answer, as bytes (None: no bytes); a generator
            function yields any number of items.

    Returns:
        The same function.

    Raises:
        TypeError: The function is ``async def``.
    """
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"a method of haptera.sync is a plain function; {function!r} is `async def`, for haptera.method"
        )
    setattr(function, _METHOD_MARK, True)
    return function


def typed_method(function: _TypedHandler) -> _TypedHandler:
    """Mark a function of a ``Service`` with a codec as a method that takes and gives values of the program's types.

    The annotations of the function name the types: Structs of msgspec, dataclasses, models of pydantic, or types made
    of the plain ones. A caller whose argument does not fit gets ``InvalidArgument`` (3003), and the function is not
    called. An answer that does not fit is a failure of the handler.

    Args:
        function: Takes a ``Request``, and an argument if the method has one. A function returns the one answer, a
            generator function yields items.

    Returns:
        The same function.

    Raises:
        TypeError: The function is ``async def``.
    """
    marked: Any = function
    setattr(method(marked), _TYPED_MARK, True)
    return function


class Service:
    """A named set of methods that the other side may call.

    Subclass it, give it a ``name``, and mark its methods with ``haptera.sync.method``. One instance may serve any
    number of connections at once; its methods run in several threads at a time. ``class
    Printer(haptera.sync.Service, codec="json")`` may have methods that take and give values of the program's types,
    marked with ``haptera.sync.typed_method``.
    """

    name: ClassVar[str] = ""
    _codec: ClassVar[CodecName | None] = None
    _typed: ClassVar[dict[str, peer.TypedMethod]] = {}

    def __init_subclass__(cls, *, codec: CodecName | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._codec = codec or cls._codec
        functions = inspect.getmembers(cls, inspect.isfunction)
        typed = {name: function for name, function in functions if hasattr(function, _TYPED_MARK)}
        if cls._codec is not None:
            cls._typed = {name: peer.TypedMethod(function, cls._codec) for name, function in typed.items()}
        elif typed:
            raise TypeError(f"{cls.__name__} has typed methods: give it a codec, as in (Service, codec='json')")

    def methods(self) -> Sequence[str]:
        """Return the names that ``session.describe`` lists."""
        functions = inspect.getmembers(type(self), inspect.isfunction)
        return sorted(name for name, function in functions if hasattr(function, _METHOD_MARK))


class HandlerThreads:
    """The threads in which the handlers of one listener, or of one dialled peer, run. They end when it is dropped.

    A thread cannot be cancelled. So a request that is keeps its place among those under way until its handler has
    ended: a flood of requests that are cancelled at once occupies no more threads than there are.
    """

    def __init__(self, services: Sequence[Service], count: int) -> None:
        if isinstance(services, Service) or not isinstance(services, Iterable):
            raise ConfigurationError(f"services is a list of services, not {services!r}")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigurationError(f"handler_threads is a number from 1 on, not {count!r}")
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="haptera-handler")
        #: The services as the loop hosts them.
        self.services: list[peer.Service] = [self._hosted(service) for service in services]

    def met(self, on_peer: Callable[[Peer], object]) -> Callable[[peer.Peer], None]:
        """Return a function that has a thread call ``on_peer`` with the facade of a new peer."""

        def meet(found: peer.Peer) -> None:
            with suppress(RuntimeError):  # the threads have ended
                self._threads.submit(_logged, on_peer, Peer(found, self))

        return meet

    def end(self) -> None:
        """Handle nothing more. A handler that runs goes on to its end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _hosted(self, service: Service) -> peer.Service:
        if not isinstance(service, Service):
            raise ConfigurationError(
                f"services has {service!r}, which is no instance of a haptera.sync.Service; haptera.listen and"
                " haptera.dial host those with coroutines"
            )
        members: dict[str, Any] = {"name": service.name}
        for name in service.methods():
            function = getattr(service, name)
            streams = inspect.isgeneratorfunction(function)
            members[name] = peer.method(self._many(function) if streams else self._one(function))
        members["_typed"] = service._typed
        made = type(type(service).__name__, (peer.Service,), members)()
        assert isinstance(made, peer.Service)
        return made

    def _one(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def handle(_: object, request: peer.Request, *arguments: object) -> Any:
            return await self._in_thread(lambda: function(Request(request, self), *arguments))

        return handle

    def _many(self, function: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
        async def handle(_: object, request: peer.Request, *arguments: object) -> AsyncIterator[Any]:
            items = await self._in_thread(lambda: iter(function(Request(request, self), *arguments)))
            try:
                while (item := await self._in_thread(lambda: next(items, _END))) is not _END:
                    yield item
            finally:
                close = getattr(items, "close", None)
                if close is not None:
                    await self._in_thread(close)

        return handle

    async def _in_thread(self, function: Callable[[], T]) -> T:
        """Run a function in a thread, within the request that is handled now. It is waited for to its end."""
        context = contextvars.copy_context()
        work = self._threads.submit(context.run, _contained, function)
        running = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # A function that has not begun never does. The future of one that has is not cancelled: it would be done.
            if not work.cancel():
                await asyncio.wait([running])
                running.exception()  # the request is over, and takes no answer
            raise


def _contained(function: Callable[[], T]) -> T:
    """Call a function. An exception that would end the loop, or that no future takes, becomes one of its handler."""
    try:
        return function()
    except (StopIteration, SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"the handler has raised {type(error).__name__}") from error


def _logged(on_peer: Callable[[Peer], object], found: Peer) -> None:
    try:
        on_peer(found)
    except Exception:
        _logger.exception("on_peer_failed")

"""The base of the generated classes: an object of the asynchronous library, used from threads."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar

from haptera.sync.loop_thread import LoopThread, shared
from haptera.sync.open_objects import OpenObject

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client import Database
    from haptera.peer import LastingPeer, Peer, Server  # noqa: F401 - named as texts, in the bases of classes

Inner = TypeVar("Inner")
T = TypeVar("T")

_NAMES: Final = re.compile(r"<haptera\.(recipes\.)?(?=[A-Z])")


class Revisions:
    """The revision of a store in the last answer to each thread."""

    __slots__ = ("_inner", "_last")

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self._last = threading.local()

    @property
    def own(self) -> int:
        """That of this thread; for one that has made no call, that of the last answer at all."""
        last: int = getattr(self._last, "revision", 0)
        return last or self._inner.revision

    def note(self, revision: int) -> None:
        """Keep it for this thread."""
        self._last.revision = revision

    def now(self) -> int:
        """The revision of the last answer at all (on the loop)."""
        return self._inner.revision


class Facade(Generic[Inner]):
    """Has ``_inner``, the asynchronous object, and calls it on the loop.

    ``_owner`` is the object that has made this one, which lives as long. Two facades of one object are equal.
    """

    __slots__ = ("__weakref__", "_inner", "_owner", "_revisions", "_thread")

    def __init__(self, inner: Inner, owner: object = None, thread: LoopThread = shared) -> None:
        self._inner = inner
        self._owner = owner
        self._thread = thread
        self._revisions: Revisions | None = owner._revisions if isinstance(owner, Facade) else None

    def _run(self, begin: Callable[[], Awaitable[T]], undo: Callable[[T], Awaitable[object]] | None = None) -> T:
        """The result of the coroutine that ``begin`` gives."""
        return self._thread.run(begin, undo=undo, notes=self._revisions)

    def _on_loop(self, function: Callable[[], T]) -> T:
        """The result of a function that has to run on the loop."""
        return self._thread.call(function)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._inner is self._inner

    def __hash__(self) -> int:
        return hash((type(self), id(self._inner)))

    def __repr__(self) -> str:
        shown = _shown(self._inner)
        return f"<haptera.sync.{type(self).__name__}>" if " object at " in shown else shown


class Store(Facade["Database"]):
    """The base of the database: its facades know the revision of each thread, and it is named when it is left open."""

    __slots__ = ("_open",)

    def __init__(self, inner: Database, owner: object = None, thread: LoopThread = shared) -> None:
        super().__init__(inner, owner, thread)
        self._revisions = Revisions(inner)
        self._open = thread.open.add(
            OpenObject(
                lambda: _shown(inner).strip("<>"),
                lambda: inner.connected_once and not inner.closed,
                inner.aclose,
                forkable=True,
            )
        )

    def __del__(self) -> None:
        opened: OpenObject | None = getattr(self, "_open", None)  # none after an error in __init__
        if opened is not None and not opened.over:
            _drop(opened)


class Handling(Protocol):
    """The threads of the handlers of a peer or a server, which end with it."""

    def end(self) -> None:
        """End them."""

    def met(self, on_peer: Callable[[Any], object]) -> Callable[[Peer], None]:
        """Return a function that has one of the threads call ``on_peer`` with the facade of a peer."""


class Opened(Facade[Inner]):
    """The base of peers and servers. ``handlers`` are there for one that the program has opened, and has to close."""

    __slots__ = ("_handlers", "_open")

    def __init__(
        self, inner: Inner, owner: object = None, thread: LoopThread = shared, *, handlers: Handling | None = None
    ) -> None:
        super().__init__(inner, owner, thread)
        self._handlers = handlers
        self._open: OpenObject | None = None
        if handlers is not None:
            self._open = thread.open.add(self._opened())

    def _opened(self) -> OpenObject:
        raise NotImplementedError

    def _ending(self) -> None:
        """The program closes it."""
        if self._open is not None:
            self._open.closed = True

    def _over(self) -> None:
        """It is closed."""
        if self._handlers is not None:
            self._handlers.end()

    def __del__(self) -> None:
        opened: OpenObject | None = getattr(self, "_open", None)  # none after an error in __init__
        if opened is not None and not opened.over:
            _drop(opened)


class Connected(Opened["Peer"]):
    """The base of a peer. A peer that was accepted is closed by its server."""

    __slots__ = ()

    def _opened(self) -> OpenObject:
        inner = self._inner
        name = f"haptera.sync.Peer {inner.remote}"
        return OpenObject(lambda: name, lambda: not inner.closed, inner.aclose)


class Lasting(Opened["LastingPeer"]):
    """The base of a peer that comes back."""

    __slots__ = ()

    def _opened(self) -> OpenObject:
        inner = self._inner
        return OpenObject(lambda: _shown(inner).strip("<>"), lambda: not inner.closed, inner.aclose)

    def _have_told(self, callback: Callable[[Any], object]) -> None:
        """Have a function called with each connection, in a thread of the handlers, where it may make calls."""
        assert self._handlers is not None
        told = self._handlers.met(callback)
        self._on_loop(lambda: self._inner.on_connect(told))


class Listening(Opened["Server"]):
    """The base of a server."""

    __slots__ = ()

    def _opened(self) -> OpenObject:
        name = f"haptera.sync.Server {self._inner.url}"
        return OpenObject(lambda: name, lambda: True, self._inner.aclose)


class Items(Facade[AsyncIterator[T]], Iterator[T]):
    """An iterator over the parts of an answer. ``with`` ends it at a known place, and so does `close`."""

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return self._run(lambda: _next(self._inner))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the iteration, at the other side too. Harmless after the end."""
        close = getattr(self._inner, "aclose", None)
        if close is not None:
            self._run(close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class End(Facade[Awaitable[T]]):
    """The end of something that is held, such as a lease."""

    __slots__ = ()

    def wait(self, timeout: float | None = None) -> T:
        """Wait for it.

        Args:
            timeout: Seconds to wait at most; None for no limit.

        Returns:
            The error that says why it was lost, or None where it was given up.

        Raises:
            TimeoutError: It has not come in that time.
        """
        return self._run(lambda: _await_within(self._inner, timeout))

    def __repr__(self) -> str:
        return "<haptera.sync.End>"


class Arriving(Facade[Inner], Iterator[T]):
    """The base of iterators whose items arrive many together: a thread waits once for all of them."""

    __slots__ = ("_arrived",)

    def __init__(self, inner: Inner, owner: object = None, thread: LoopThread = shared) -> None:
        super().__init__(inner, owner, thread)
        self._arrived: deque[T] = deque()  # of one answer

    def __next__(self) -> T:
        while True:
            with suppress(IndexError):
                return self._arrived.popleft()
            self._arrived.extend(self._arrive())

    def _arrive(self) -> list[T]:
        """Wait for the next items. Raises ``StopIteration`` at the end."""
        raise NotImplementedError

    def _taken(self) -> list[T]:
        """The items that have arrived, which are not given once more."""
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._arrived.popleft())
        return taken


async def nothing() -> None:
    """Undo nothing: there was no result."""


def _drop(opened: OpenObject) -> None:
    """Nothing refers to an object any more: warn if it is open, and close it."""
    if opened.unclosed:
        opened.closed = True
        shared.post(opened.close())
        opened.warn()


def _shown(inner: object) -> str:
    return _NAMES.sub("<haptera.sync.", repr(inner), count=1)


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


async def _await_within(awaitable: Awaitable[T], timeout: float | None) -> T:
    async with asyncio.timeout(timeout):
        return await awaitable

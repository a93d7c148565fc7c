"""A watch: the changes of some keys, as an asynchronous iterator."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Self

from haptera.client.calls.entry import entry_of
from haptera.client.watches.event import Event, kind_of
from haptera.errors import ConnectionLost, HapteraError, WrongLoop

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client.watches.watched import Happened, WatchPosition


class Watch:
    """The changes of some keys, each once and in the order of their revisions (spec/protocol.md, section 7).

    ``async for event in db.watch(...)``. It begins with the first event that is waited for, or, as
    ``async with db.watch(...) as events``, before the block. It goes on over lost connections from where it was, until
    it is closed: a loop that is left early ends it as soon as the object is dropped, `aclose` at a known place
    and from another task. A wait that is cancelled, by a timeout for instance, ends the stream at the server, and the
    next wait goes on from there. An error that ends it is raised by each later wait too: it never looks as if there
    were no more changes.
    """

    __slots__ = ("_begin", "_closed", "_error", "_events", "_items", "_left", "_position", "_waiting")

    def __init__(self, begin: Callable[[], AsyncGenerator[list[Happened], None]], position: WatchPosition) -> None:
        self._begin = begin
        self._position = position
        self._items: AsyncGenerator[list[Happened], None] | None = None
        self._events: deque[Event] = deque()  # of one ITEM
        self._error: HapteraError | None = None
        self._closed = False
        self._waiting: asyncio.Task[object] | None = None
        self._left: asyncio.Future[None] | None = None  # done when the task that waits has left, for those that close

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            await self._next_item()
        return self._events.popleft()

    async def next_events(self, *, timeout: float | None = None) -> list[Event]:
        """Wait for the next events that arrive together. There may be none: the node has said how far it is.

        Args:
            timeout: Seconds to wait at most; None for no limit.

        Returns:
            The events.

        Raises:
            TimeoutError: None have arrived in that time. The next wait goes on from there.
        """
        if not self._events and timeout is None:
            await self._next_item()
        elif not self._events:
            async with asyncio.timeout(timeout):
                await self._next_item()
        events = list(self._events)
        self._events.clear()
        return events

    def __repr__(self) -> str:
        state = (
            "closed" if self._closed else f"at revision {self.revision}" if self.revision is not None else "not begun"
        )
        return f"<haptera.Watch {state}>"

    @property
    def revision(self) -> int | None:
        """The newest revision of which every change has arrived; None before the watch has begun. Progress marks raise
        it although nothing has changed.
        """
        return self._position.seen

    @property
    def server_id(self) -> bytes | None:
        """The server whose revisions they are, by its id of 16 bytes; None before the watch has begun.

        The same revision of another server is another change.
        """
        return self._position.server_id

    @property
    def ready(self) -> bool:
        """Whether the next event has arrived."""
        return bool(self._events)

    async def aclose(self) -> None:
        """End the watch, at the server too. A loop over it in another task ends without an error."""
        self._events.clear()
        self._closed = True
        if self._waiting is not None:
            if self._left is None:
                self._left = asyncio.get_running_loop().create_future()
                self._waiting.cancel()
            await asyncio.shield(self._left)
        elif self._items is not None:
            await self._items.aclose()

    async def __aenter__(self) -> Self:
        try:
            while not self._position.begun:
                await self._next_item()
        except StopAsyncIteration:
            pass  # it was closed meanwhile, and a loop over it ends at once
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _next_item(self) -> None:
        was_synced = self._position.synced
        self._events.extend(map(_event_of, await self._next_events()))
        if self._position.synced and not was_synced:
            assert self._position.seen is not None
            self._events.append(Event("synced", "", None, self._position.seen))

    async def _next_events(self) -> list[Happened]:
        """The events of the next ITEM."""
        if self._error is not None:
            raise self._error
        if self._closed:
            raise StopAsyncIteration
        if self._items is None:
            if not self._position.resumable:
                raise ConnectionLost("the watch was left among the present entries", outcome="not_applied")
            self._items = self._begin()
        return await self._wait(self._items)

    async def _wait(self, items: AsyncGenerator[list[Happened], None]) -> list[Happened]:
        """Wait for the next ITEM, until another task closes the watch. That cancels this one as a timeout would."""
        if self._waiting is not None:
            raise RuntimeError("another task waits for the next events of this watch")
        task = self._waiting = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            return await anext(items)
        except (asyncio.CancelledError, WrongLoop) as error:
            self._items = None
            if self._left is not None and task.uncancel() <= before and isinstance(error, asyncio.CancelledError):
                raise StopAsyncIteration from None
            raise
        except HapteraError as error:
            self._error = error
            raise
        finally:
            self._waiting = None
            if self._left is not None:
                self._left.set_result(None)


def _event_of(event: Happened) -> Event:
    previous, expires = event.previous, event.expires_at_ms
    before, omitted = None, False
    if previous is not None:
        omitted = previous.value is None
        before = entry_of(event.key, previous.value or b"", previous.version, previous.expires_at_ms)
    expires_at = None if expires is None else expires / 1000
    return Event(
        kind_of(event.kind), event.key, event.value, event.version, before, expires_at, previous_omitted=omitted
    )

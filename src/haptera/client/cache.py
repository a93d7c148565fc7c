"""A local copy of the keys with a prefix, kept by a watch: reads are look-ups in a dict of this process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TYPE_CHECKING, Final, Self

from haptera.client.backoff import Backoff
from haptera.client.entry import Entry
from haptera.client.event import Event
from haptera.errors import ConnectionLost, HapteraError, RemoteProtocolError, RevisionCompacted

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client.watch import Watch

#: Seconds between two signs of the node that nothing has changed.
PROGRESS_INTERVAL_S: Final = 1.0

_logger = logging.getLogger(__name__)

Callback = Callable[[Event], None]


class Cache:
    """The entries of a prefix as they were a moment ago. Made by `Database.cached`, for ``async with``.

    ``get(key)``, ``key in cache``, ``len(cache)`` and iterating over the keys never wait. The copy is whole: it is the
    store of some revision, and later revisions follow in their order. A connection that is lost is made again; where
    the node does not have the changes since then, the entries are read anew, and what differs is told as changes.
    """

    def __init__(self, begin: Callable[[], Watch], max_staleness: float | None) -> None:
        self._begin = begin
        self._max_staleness = max_staleness
        self._entries: dict[str, Entry] = {}
        self._watch: Watch | None = None
        self._callbacks: list[Callback] = []
        self._readers: list[_Reader] = []
        self._synced: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._fresh = 0.0  # monotonic
        self._error: BaseException | None = None

    def get(self, key: str) -> Entry | None:
        """Look a key up.

        Args:
            key: Its name.

        Returns:
            The entry, or None if there is none.

        Raises:
            ConnectionLost: The copy is older than ``max_staleness`` seconds.
        """
        if self._max_staleness is not None and time.monotonic() - self._fresh > self._max_staleness:
            raise ConnectionLost("the local copy is older than it may be", outcome="not_applied") from self._error
        return self._entries.get(key)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    @property
    def fresh_at(self) -> float:
        """Unix time in seconds at which the node last said something: each change that it had told by then is here. It
        says so at least once a second while it can be reached.
        """
        return time.time() - (time.monotonic() - self._fresh)

    @property
    def revision(self) -> int | None:
        """The newest revision of which every change is here."""
        return None if self._watch is None else self._watch.revision

    def on_change(self, callback: Callback) -> None:
        """Have ``callback`` called with each change, after the copy has it.

        Args:
            callback: It is called on the loop, and must not wait. An error that it raises is logged.
        """
        self._callbacks.append(callback)

    async def changes(self) -> AsyncGenerator[Event, None]:
        """Iterate over the changes from now on. A reader that is slow is told the last change of each key alone.

        Returns:
            An asynchronous iterator of events.
        """
        reader = _Reader()
        self._readers.append(reader)
        try:
            while True:
                yield await reader.next(self)
        finally:
            self._readers.remove(reader)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._synced = loop.create_future()
        self._task = loop.create_task(self._keep())
        try:
            await self._synced
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._end(None)

    async def _keep(self) -> None:
        """Keep the copy, over any number of watches."""
        backoff, attempt = Backoff(), 0
        while True:
            try:
                await self._follow()
            except (ConnectionLost, RemoteProtocolError, RevisionCompacted) as error:
                if self._synced is not None and not self._synced.done() and not isinstance(error, RevisionCompacted):
                    self._end(error)
                    return
                self._error = error
            except HapteraError as error:
                self._end(error)
                return
            attempt += 1
            await backoff.wait(attempt)

    async def _follow(self) -> None:
        """Read the entries, and follow their changes until the watch ends."""
        self._watch = None
        found: dict[str, Entry] = {}
        async with self._begin() as events:
            synced = False
            while True:
                for event in await events.next_events():
                    if event.kind == "synced":
                        self._watch, synced = events, True
                        self._take_over(found)
                    elif not synced:
                        found[event.key] = _entry(event)
                    else:
                        self._apply(event)
                if synced:
                    self._fresh, self._error = time.monotonic(), None

    def _take_over(self, found: dict[str, Entry]) -> None:
        """The entries were read, at first or anew: tell what differs from the copy of before."""
        before, self._entries = self._entries, found
        self._fresh = time.monotonic()
        if self._synced is not None and not self._synced.done():
            self._synced.set_result(None)
            return
        for key, entry in before.items():
            if key not in found:
                self._tell(Event("delete", key, None, entry.version, entry))
        for key, entry in found.items():
            old = before.get(key)
            if old is None or old.version != entry.version:
                self._tell(Event("put", key, entry.value, entry.version, old, entry.expires_at))

    def _apply(self, event: Event) -> None:
        if event.kind == "put":
            self._entries[event.key] = _entry(event)
        else:
            self._entries.pop(event.key, None)
        self._tell(event)

    def _tell(self, event: Event) -> None:
        for callback in self._callbacks:
            try:
                callback(event)
            except Exception:
                _logger.exception("cache_callback_failed", extra={"key": event.key})
        for reader in self._readers:
            reader.add(event)

    def _end(self, error: BaseException | None) -> None:
        """Stop for good; ``error`` is why, unless the cache was closed."""
        self._error = error
        for reader in self._readers:
            reader.wake()
        if self._synced is not None and not self._synced.done():
            if error is None:
                self._synced.cancel()
            else:
                self._synced.set_exception(error)

    @property
    def ended(self) -> bool:
        """Whether the copy is not kept any more."""
        return self._task is None or self._task.done()

    @property
    def error(self) -> BaseException | None:
        """Why the copy is not kept at this moment: the loss of the connection, or a refusal that has ended it."""
        return self._error


class _Reader:
    """One iteration over changes; it keeps the last change of each key that it was not told yet."""

    def __init__(self) -> None:
        self._waiting: dict[str, Event] = {}  # bounded by the keys of the copy
        self._arrival: asyncio.Future[None] | None = None

    def add(self, event: Event) -> None:
        self._waiting.pop(event.key, None)
        self._waiting[event.key] = event
        self.wake()

    def wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def next(self, cache: Cache) -> Event:
        while not self._waiting:
            if cache.ended:
                raise cache.error or ConnectionLost("the local copy is closed", outcome="not_applied")
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        return self._waiting.pop(next(iter(self._waiting)))


def _entry(event: Event) -> Entry:
    return Entry(event.key, event.value or b"", event.version, event.expires_at)

"""A local copy of the keys with a prefix, kept by a watch: reads are look-ups in a dict of this process."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Self

from haptera import forks
from haptera.boot_clock import boot_time_ns
from haptera.client.calls.entry import Entry
from haptera.client.trouble import ends_watch_alone
from haptera.client.watches.copy_changes import CopyChanges
from haptera.client.watches.event import Event
from haptera.client.watches.freshness import Freshness
from haptera.errors import ConnectionLost, HapteraError, RevisionCompacted, WrongLoop
from haptera.peer import Pauses

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client.watches.freshness import Ask
    from haptera.client.watches.watch import Watch

#: Seconds after which the node says how far it is where the prefix has no change.
PROGRESS_INTERVAL_S: Final = 1.0

#: The smallest bound of a copy's age, in seconds. While others change other keys, two signs of the node may be two
#: intervals apart, and the question before the first of them half a second old.
STALENESS_MIN_S: Final = 3.0

_logger = logging.getLogger(__name__)

Callback = Callable[[Event], None]


class _OfParent(dict[str, Entry]):
    """The entries of a copy in a forked child, where nothing keeps it: each look at them is refused."""

    def __init__(self, owner: int) -> None:
        super().__init__()
        self._owner = owner

    def get(self, *_: object) -> Any:
        raise self.refusal()

    def __contains__(self, _: object) -> bool:
        raise self.refusal()

    def __iter__(self) -> Iterator[str]:
        raise self.refusal()

    def refusal(self) -> WrongLoop:
        return WrongLoop(
            f"this copy belongs to process {self._owner}, and this is process {os.getpid()}, forked from it:"
            " open one of its own"
        )


class _Forked:
    """Has a copy refuse each look in a forked child."""

    def __init__(self, cache: weakref.ref[Cache]) -> None:
        self._cache = cache

    def disown(self, owner: int) -> None:
        """Make it so (``haptera.forks`` calls this)."""
        cache = self._cache()
        if cache is not None:
            cache._entries = refusing = _OfParent(owner)
            cache._ended, cache._error = True, refusing.refusal()


class Cache:
    """The entries of a prefix as they were a moment ago. Made by `Database.cached`, for ``async with``.

    ``get(key)``, ``key in cache``, ``len(cache)`` and iterating over the keys never wait. The copy is whole: it is the
    store of some revision, and later revisions follow in their order. A connection that is lost is made again; where
    the node does not have the changes since then, or another server answers, the entries are read again, and what
    differs is told as changes.
    """

    def __init__(
        self, begin: Callable[[], Watch], ask: Ask, closed: Callable[[], bool], max_staleness: float | None
    ) -> None:
        self._begin = begin
        self._ask = ask
        self._closed = closed
        self._staleness_max_ns = None if max_staleness is None else max_staleness * 1e9
        self._entries: dict[str, Entry] = {}
        self._revision: int | None = None
        self._freshness = Freshness()
        self._callbacks: list[Callback] = []
        self._changes = CopyChanges()
        self._entered: asyncio.Future[BaseException | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._whole = False  # whether it has ever been
        self._ended = False
        self._error: BaseException | None = None
        self._forked: _Forked | None = None

    def get(self, key: str) -> Entry | None:
        """Look a key up.

        Args:
            key: Its name.

        Returns:
            The entry, or None if there is none.

        Raises:
            ConnectionLost: The copy is older than ``max_staleness`` seconds.
            WrongLoop: This process was forked from the one that keeps the copy.
        """
        if self._staleness_max_ns is not None and boot_time_ns() - self._freshness.fresh_ns > self._staleness_max_ns:
            raise ConnectionLost("the local copy is older than it may be", outcome="not_applied") from self._error
        return self._entries.get(key)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        if isinstance(self._entries, _OfParent):
            raise self._entries.refusal()
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __repr__(self) -> str:
        state = "ended" if self.ended else f"at revision {self._revision}"
        return f"<haptera.Cache {len(self._entries)} keys, {state}>"

    @property
    def fresh_at(self) -> float:
        """Unix time in seconds of the latest moment of which it is known that each change from before it is here. A
        copy that was never whole has had none, and this is 0.
        """
        return max(time.time() - self._freshness.age_s, 0.0)

    @property
    def revision(self) -> int | None:
        """The newest revision of which every change is here; None while the entries are read again."""
        return self._revision

    def on_change(self, callback: Callback) -> None:
        """Have ``callback`` called with each change, after the copy has it.

        Args:
            callback: It is called on the loop, and must not wait. An error that it raises is logged.
        """
        self._callbacks.append(callback)

    def changes(self) -> AsyncGenerator[Event, None]:
        """Iterate over the changes from this call on.

        A reader that is slow is told the last change of each key alone, and nothing of a key that has come and gone.

        Returns:
            An asynchronous iterator of events. It ends with ``ConnectionLost`` when the copy is closed, or with the
            refusal that has ended it.
        """
        return self._changes.read()

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise ValueError("a copy is entered once")
        loop = asyncio.get_running_loop()
        self._entered = loop.create_future()
        self._task = loop.create_task(self._run())
        self._forked = _Forked(weakref.ref(self))
        forks.watch(self._forked)
        try:
            error = await self._entered
            if error is not None:
                raise error
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        self._end(None)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        """Keep the copy and ask for its age, until it is closed or the copy cannot be kept any more."""
        try:
            async with asyncio.TaskGroup() as tasks:
                asking = tasks.create_task(self._freshness.keep_asking(self._ask))
                self._end(await self._keep())
                asking.cancel()
        except ExceptionGroup as defects:
            _logger.exception("cache_failed")
            self._end(defects.exceptions[0])
        finally:
            self._end(None)  # cancelled by someone else

    async def _keep(self) -> BaseException:
        """Keep the copy, over any number of watches. Return the refusal that ends it."""
        pauses = Pauses()
        while True:
            try:
                await self._follow()
            except HapteraError as error:
                if not self._goes_on(error):
                    return error
                self._error = error
            if self._revision is not None:
                pauses.begin_anew()
            await pauses.wait()

    def _goes_on(self, error: HapteraError) -> bool:
        """Whether another watch may do better. A copy that was not entered yet says what is wrong, and goes on alone
        where the store is another one or far ahead.
        """
        if self._closed():
            return False
        entered = self._entered is not None and self._entered.done()
        return ends_watch_alone(error) if entered else isinstance(error, RevisionCompacted)

    async def _follow(self) -> None:
        """Read the entries, and follow their changes until the watch ends."""
        self._revision = None
        found: dict[str, Entry] = {}
        begun_ns = boot_time_ns()
        async with self._begin() as events:
            synced = False
            while True:
                for event in await events.next_events():
                    if event.kind == "synced":
                        synced = True
                        self._freshness.read_anew(begun_ns, events.server_id, event.version)
                        self._take_over(found)
                    elif not synced:
                        found[event.key] = _entry(event)
                    else:
                        self._apply(event)
                if synced:
                    self._reached(events.revision)

    def _reached(self, revision: int | None) -> None:
        """All changes up to a revision are here."""
        assert revision is not None  # the watch has begun
        self._revision, self._error = revision, None
        self._freshness.reached(revision)
        young = self._staleness_max_ns is None or boot_time_ns() - self._freshness.fresh_ns <= self._staleness_max_ns
        if young and self._entered is not None and not self._entered.done():
            self._entered.set_result(None)

    def _take_over(self, found: dict[str, Entry]) -> None:
        """The entries were read, at first or again: tell what differs from the copy of before."""
        before, self._entries = self._entries, found
        if not self._whole:
            self._whole = True
            return
        for key, entry in before.items():
            if key not in found:
                self._tell(Event("delete", key, None, entry.version, entry), entry)
        for key, entry in found.items():
            old = before.get(key)
            if old != entry:  # another store may have another value of the same version
                self._tell(Event("put", key, entry.value, entry.version, old, entry.expires_at), old)

    def _apply(self, event: Event) -> None:
        before = self._entries.get(event.key)
        if event.kind == "put":
            self._entries[event.key] = _entry(event)
        else:
            self._entries.pop(event.key, None)
        self._tell(event, before)

    def _tell(self, event: Event, before: Entry | None) -> None:
        for callback in self._callbacks:
            try:
                callback(event)
            except Exception:
                _logger.exception("cache_callback_failed", extra={"key": event.key})
        self._changes.tell(event, was_there=before is not None)

    def _end(self, error: BaseException | None) -> None:
        """Stop for good; ``error`` is why, unless the cache was closed."""
        if self._ended:
            return
        self._ended, self._error = True, error
        self._changes.end(error)
        if self._entered is not None and not self._entered.done():
            if error is None:
                self._entered.cancel()
            else:
                self._entered.set_result(error)

    @property
    def ended(self) -> bool:
        """Whether the copy is not kept any more."""
        return self._ended or self._task is None

    @property
    def error(self) -> BaseException | None:
        """Why the copy is not kept at this moment: the loss of the connection, or a refusal that has ended it."""
        return self._error


def _entry(event: Event) -> Entry:
    return Entry(event.key, event.value or b"", event.version, event.expires_at)

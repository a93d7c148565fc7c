"""The changes of a copy, for readers that iterate over them at their own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING
from weakref import WeakSet

from haptera.errors import ConnectionLost

if TYPE_CHECKING:
    from haptera.client.watches.event import Event


class CopyChanges:
    """Tells the changes of a copy to its readers, until it ends."""

    __slots__ = ("_ended", "_error", "_readers")

    def __init__(self) -> None:
        self._readers: WeakSet[_Reader] = WeakSet()  # one that is dropped, read or not, is none any more
        self._ended = False
        self._error: BaseException | None = None

    def read(self) -> AsyncGenerator[Event, None]:
        """The changes from now on."""
        reader = _Reader()
        if self._ended:
            reader.end(self._error)
        else:
            self._readers.add(reader)
        return reader.events()

    def tell(self, event: Event, *, was_there: bool) -> None:
        """Tell of a change; ``was_there`` says whether the key had an entry before."""
        for reader in self._readers:
            reader.add(event, was_there=was_there)

    def end(self, error: BaseException | None) -> None:
        """There are no more changes; ``error`` is why, unless the copy was closed."""
        self._ended, self._error = True, error
        for reader in self._readers:
            reader.end(error)


class _Reader:
    """One iteration. It keeps the last change of each key that it was not told yet, and forgets a key that has come and
    gone meanwhile: so it keeps no more keys than those that it was told of, and those that are there now.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Event, bool]] = {}  # and whether the key was there before all of its changes
        self._arrival: asyncio.Future[None] | None = None
        self._end: BaseException | None = None

    def add(self, event: Event, *, was_there: bool) -> None:
        earlier = self._waiting.pop(event.key, None)
        if earlier is not None:
            was_there = earlier[1]
        if was_there or event.kind == "put":
            self._waiting[event.key] = event, was_there
            self._wake()

    def end(self, error: BaseException | None) -> None:
        self._end = error or ConnectionLost("the local copy is closed", outcome="not_applied")
        self._wake()

    async def events(self) -> AsyncGenerator[Event, None]:
        while True:
            while not self._waiting:
                if self._end is not None:
                    raise self._end
                self._arrival = asyncio.get_running_loop().create_future()
                await self._arrival
            event, _ = self._waiting.pop(next(iter(self._waiting)))
            yield event

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

"""The way of a watch's ITEMs to its reader: a request of a connection, or a queue in this process."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.errors import Failure

#: Bytes that wait for a reader in this process: as many as an ITEM may have.
QUEUE_SIZE_MAX: Final = 256 * 1024


class Feed(Protocol):
    """Takes the ITEMs of one watch. A `haptera.peer.Request` is one."""

    def try_send(self, item: bytes) -> bool:
        """Send one ITEM if all before it have left; whether it was sent."""

    @staticmethod
    def try_send_all(feeds: Sequence[Any], item: bytes) -> list[int]:
        """Send one ITEM to feeds of one reader, as ``try_send`` does to one; the places of those it was not sent to."""

    async def send(self, item: bytes) -> None:
        """Send one ITEM, and wait until there is room for the next."""

    async def room(self) -> None:
        """Wait until an ITEM would leave before long."""

    async def left(self) -> None:
        """Wait until all ITEMs have left, and another would before long."""

    def fail(self, reason: Failure) -> None:
        """End the watch."""


class LocalFeed:
    """A feed that is read in this process, by one task."""

    def __init__(self) -> None:
        self._items: deque[bytes] = deque()
        self._size = 0
        self._failure: Failure | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._taken: asyncio.Future[None] | None = None

    def try_send(self, item: bytes) -> bool:
        """Queue an ITEM if there is room."""
        if self._size >= QUEUE_SIZE_MAX:
            return False
        self._items.append(item)
        self._size += len(item)
        _wake(self._arrival)
        return True

    @staticmethod
    def try_send_all(feeds: Sequence[LocalFeed], item: bytes) -> list[int]:
        """Queue an ITEM in each feed that has room."""
        return [place for place, feed in enumerate(feeds) if not feed.try_send(item)]

    async def send(self, item: bytes) -> None:
        """Queue an ITEM when there is room."""
        while not self.try_send(item):
            await self.room()

    async def room(self) -> None:
        """Wait until there is room in the queue."""
        while self._size >= QUEUE_SIZE_MAX:
            self._taken = asyncio.get_running_loop().create_future()
            await self._taken

    async def left(self) -> None:
        """Wait until there is room: the reader takes all that is queued when it is its turn."""
        await self.room()

    def fail(self, reason: Failure) -> None:
        """End the watch, behind the ITEMs that are queued."""
        if self._failure is None:
            self._failure = reason
            _wake(self._arrival)

    async def next(self) -> bytes:
        """The next ITEM. Raises the error that the watch ended with."""
        while not self._items:
            if self._failure is not None:
                raise self._failure.exception()
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        item = self._items.popleft()
        self._size -= len(item)
        _wake(self._taken)
        return item


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)

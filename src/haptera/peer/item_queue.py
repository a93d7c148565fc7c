"""The items of one stream: items that wait for their reader, and producers that wait for room."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haptera.connection import PackedItem


class Items:
    """The items that go both ways on one stream.

    Waiting is left to futures. A stream that is given up cancels them, so that asyncio delivers the ``CancelledError``
    to the task that waits, and to each one that waits later.
    """

    __slots__ = ("_arrival", "_given_up", "_senders", "arrived", "ended", "sends")

    def __init__(self, *, sends: bool = False) -> None:
        #: Whether the stream's request announces items.
        self.sends: bool = sends
        #: Items that their reader has not taken yet. The stream's window bounds them.
        self.arrived: deque[bytes | PackedItem] = deque()
        #: Whether the last item has arrived.
        self.ended: bool = False
        self._given_up = False
        self._arrival: asyncio.Future[None] | None = None  # of the one task that reads
        self._senders: list[asyncio.Future[None]] = []  # of the tasks that send, one each

    def add(self, item: bytes | PackedItem) -> None:
        """Take an item that has arrived."""
        self.arrived.append(item)
        self.wake_reader()

    def end(self) -> None:
        """Take the end of the items."""
        self.ended = True
        self.wake_reader()

    def wake_reader(self) -> None:
        """Let the task that reads look again."""
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def open_room(self) -> None:
        """Let the tasks that send go on."""
        if self._senders:
            senders, self._senders = self._senders, []
            for future in senders:
                if not future.done():
                    future.set_result(None)

    def wake(self) -> None:
        """Let all tasks that wait look again."""
        self.wake_reader()
        self.open_room()

    def give_up(self) -> None:
        """Cancel every wait, now and later."""
        self._given_up = True
        if self._arrival is not None:
            self._arrival.cancel()
        for future in self._senders:
            future.cancel()

    async def wait_arrival(self) -> None:
        """Wait until there is more to read, or the stream has changed otherwise. One task at a time may."""
        if self._arrival is not None:
            raise RuntimeError("the items of a request can be waited for by one task at a time")
        future = self._arrival = self._future()
        try:
            await future
        finally:
            self._arrival = None

    async def wait_room(self) -> None:
        """Wait until more items may be sent, or the stream has changed otherwise. Any number of tasks may."""
        future = self._future()  # of its own: the end of one task must not wake the others
        self._senders.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future in self._senders:
                self._senders.remove(future)
            raise

    def _future(self) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._given_up:
            future.cancel()
        return future

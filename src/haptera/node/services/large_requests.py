"""Requests that are too large to be answered in a batch: one of a connection at a time, each in slices.

A large argument is decoded, digested and checked in the node's turns (`haptera.node.slice_queue`), because the largest
takes 0.2 s in all. A connection has one at a time in work, because a decoded argument is several times as large as its
payload, which is all that the limits of a connection count.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from haptera.state import SLICE_WORK_MAX, values_size

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from haptera.node.slice_queue import Turns
    from haptera.peer import Peer, Request
    from haptera.state import Permits, Steps

T = TypeVar("T")

#: Bytes of an argument above which its request leaves the batch and is answered in turns, because a batch of sixteen
#: runs in one turn of the loop: this many take a tenth of a millisecond each.
LARGE_SIZE = 16 * 1024

#: As LARGE_SIZE, of an argument that is a list of keys or items: up to a thousand of them in this many bytes.
LARGE_LIST_SIZE = 2048

#: Bytes of a list that is never too much: some ten keys. Of longer ones no more are answered in one turn of the loop
#: than `Turns.admits`, because each of a thousand connections may send sixteen of them at once.
SMALL_LIST_SIZE = 128

#: Units of work of comparing the keys of a request with the patterns of its user, above which that is done in turns: a
#: tenth of a millisecond.
_LOOKS_WORK_MAX = SLICE_WORK_MAX // 10

#: Bytes of values for one unit of work: they are copied, checked and perhaps signed.
_VALUE_BYTES_PER_UNIT = 256

#: The name, among a connection's attributes, of its large requests.
_LARGE = "haptera.kv.large"


def is_large_list(size: int, bytes_per_unit: int, turns: Turns) -> bool:
    """Whether a request with many keys, items or operations leaves the batch for the turns, by its argument's bytes."""
    if size <= SMALL_LIST_SIZE:
        return False
    return size > LARGE_LIST_SIZE or not turns.admits(size // bytes_per_unit)


def is_burden(size: int, permits: Permits, turns: Turns) -> bool:
    """Whether the look at the keys of a request leaves the batch for the turns, by the bytes of its argument."""
    units = permits.work(size)
    return units > _LOOKS_WORK_MAX or not turns.admits(units)


def units_of_values(result: tuple[Any, ...]) -> int:
    """Units of work of the large values in a result: they are copied into the answer."""
    first = result[0]
    if type(first) is bytes:
        size = len(first)
    elif type(first) is list:
        size = sum(len(entry[0]) for entry in first if entry is not None)
    else:
        size = values_size(result)
    return size // _VALUE_BYTES_PER_UNIT if size > LARGE_SIZE else 0


class LargeRequests:
    """The large requests of one connection that were not begun. Its limit on open streams bounds them."""

    __slots__ = ("_requests", "_work", "running")

    def __init__(self, work: Callable[[Request], Coroutine[None, None, None]]) -> None:
        self._requests: deque[Request] = deque()
        self._work = work
        self.running: bool = False

    @classmethod
    def of(cls, peer: Peer, work: Callable[[Request], Coroutine[None, None, None]]) -> LargeRequests:
        """The large requests of this connection; ``work`` answers one of them."""
        found: LargeRequests | None = peer.attributes.get(_LARGE)
        if found is None:
            found = peer.attributes[_LARGE] = cls(work)
        return found

    def add(self, request: Request) -> None:
        """Take one that has arrived; `run` answers it."""
        self._requests.append(request)

    async def run(self) -> None:
        """Answer all that are there and that come meanwhile. One task at a time: it says so in ``running``."""
        self.running = True
        try:
            while self._requests:
                await self._work(self._requests.popleft())
        finally:
            self.running = False


def while_wanted(request: Request, steps: Steps[T]) -> Steps[T | None]:
    """Do the work, and return None as soon as the request is cancelled."""
    while not request.cancelled:
        try:
            units = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        yield units
    steps.close()
    return None


async def writable(request: Request) -> None:
    """Return when an answer could leave before long, or is not wanted any more."""
    peer = request.peer
    while not peer.writable and not request.cancelled:
        room = asyncio.get_running_loop().create_future()

        def wake(room: asyncio.Future[None] = room) -> None:
            if not room.done():
                room.set_result(None)

        request.on_cancel = wake  # called at the end of the connection too
        peer.when_writable(wake)
        await room
    request.on_cancel = None

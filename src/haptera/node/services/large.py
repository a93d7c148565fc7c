"""Requests of a connection whose argument is large: one at a time, each in slices.

A large argument is decoded, digested and checked in the node's turns (`haptera.node.turns`), because the largest takes
0.2 s in all. A connection has one at a time in work, because a decoded argument is several times as large as its
payload, which is all that the limits of a connection count.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from haptera.peer import Peer, Request
    from haptera.state.steps import Steps

T = TypeVar("T")

_LARGE = "haptera.kv.large"
"""The name, among a connection's attributes, of its large requests."""


class LargeRequests:
    """The large requests of one connection that were not begun. Its limit on open streams bounds them."""

    __slots__ = ("_requests", "_work", "running")

    def __init__(self, work: Callable[[Request], Coroutine[None, None, None]]) -> None:
        self._requests: deque[Request] = deque()
        self._work = work
        self.running = False

    @classmethod
    def of(cls, peer: Peer, work: Callable[[Request], Coroutine[None, None, None]]) -> LargeRequests:
        """Those of this connection; ``work`` answers one of them."""
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

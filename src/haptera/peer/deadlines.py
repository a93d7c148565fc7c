"""Deadlines of many calls at the price of few timers."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_Item = TypeVar("_Item", bound="asyncio.Future[Any]")


class Deadlines(Generic[_Item]):
    """Tells when futures have not been done in time.

    Calls mostly share a few different timeouts, so the deadlines of each timeout come in order: one queue a timeout,
    one timer for the head of each. Adding costs one append; what is done is dropped as the heads pass, so a queue
    never holds much more than what is under way.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[_Item], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._queues: dict[float, deque[tuple[float, _Item]]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def add(self, item: _Item, timeout: float) -> None:
        """Watch ``item``: ``expire(item)`` is called if it is not done after ``timeout`` seconds."""
        queue = self._queues.get(timeout)
        due = self._loop.time() + timeout
        if queue is None:
            queue = self._queues[timeout] = deque()
            self._timers[timeout] = self._loop.call_at(due, self._pass, timeout)
        else:
            while queue and queue[0][1].done():
                queue.popleft()
        queue.append((due, item))

    def close(self) -> None:
        """Watch nothing any longer."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._queues.clear()

    def _pass(self, timeout: float) -> None:
        queue = self._queues[timeout]
        now = self._loop.time()
        while queue:
            due, item = queue[0]
            if item.done():
                queue.popleft()
            elif due <= now:
                queue.popleft()
                self._expire(item)
            else:
                self._timers[timeout] = self._loop.call_at(due, self._pass, timeout)
                return
        del self._queues[timeout], self._timers[timeout]

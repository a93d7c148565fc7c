"""Deadlines of many calls at the price of one timer."""

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, Final, Generic, TypeVar

_Item = TypeVar("_Item", bound="asyncio.Future[Any]")

#: What is done is swept out when so many are kept, and then when they are twice what was left: a call under way for
#: long keeps no more than that alive behind it, and a sweep costs each deadline a constant.
_SWEEP_MIN: Final = 1024
_NEVER: Final = float("inf")


class Deadlines(Generic[_Item]):
    """Tells when futures have not been done in time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[_Item], None]) -> None:
        self._loop = loop
        self._expire = expire
        # The number keeps equal times apart: futures have no order. Most calls share one timeout, so most pushes are
        # in order already and cost a single comparison.
        self._heap: list[tuple[float, int, _Item]] = []
        self._number = 0
        self._sweep_at = _SWEEP_MIN
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = _NEVER

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, item: _Item, timeout: float) -> None:
        """Watch ``item``: ``expire(item)`` is called if it is not done after ``timeout`` seconds."""
        due = self._loop.time() + timeout
        if not due < _NEVER:
            return
        if len(self._heap) >= self._sweep_at:
            self._sweep()
        self._number += 1
        heappush(self._heap, (due, self._number, item))
        if due < self._timer_due:
            self._arm(due)

    def close(self) -> None:
        """Watch nothing any longer."""
        self._heap.clear()
        self._timer_due = _NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        self._heap[:] = [entry for entry in self._heap if not entry[2].done()]
        heapify(self._heap)
        self._sweep_at = max(_SWEEP_MIN, 2 * len(self._heap))

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_at(due, self._pass)

    def _pass(self) -> None:
        self._timer = None
        self._timer_due = _NEVER
        heap = self._heap
        now = self._loop.time()
        while heap:
            due, _, item = heap[0]
            if not item.done():
                if due > now:
                    if due < self._timer_due:
                        self._arm(due)
                    return
                heappop(heap)
                self._expire(item)
            else:
                heappop(heap)

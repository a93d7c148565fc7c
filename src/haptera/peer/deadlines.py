"""Deadlines of many streams at the price of one timer."""

import asyncio
from collections.abc import Callable, Container
from heapq import heapify, heappop, heappush
from typing import Final

#: What is over is swept out when so many are kept, and then when they are twice what was left: one that lasts long
#: keeps no more than that behind it, and a sweep costs each deadline a constant.
_SWEEP_MIN: Final = 1024
_NEVER: Final = float("inf")


class Deadlines:
    """Tells when what is ``under_way`` has not ended in time.

    It keeps numbers and not what they stand for: a deadline that is far away holds no payload in memory.
    """

    __slots__ = ("_expire", "_heap", "_loop", "_sweep_at", "_timer", "_timer_due", "_under_way")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, under_way: Container[int], expire: Callable[[int], None]
    ) -> None:
        self._loop = loop
        self._under_way = under_way
        self._expire = expire
        # Most calls share one timeout, so most pushes are in order already and cost a single comparison.
        self._heap: list[tuple[float, int]] = []
        self._sweep_at = _SWEEP_MIN
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = _NEVER

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, number: int, due: float) -> None:
        """Watch ``number``: ``expire(number)`` is called if it is still under way at ``due`` (time of the loop)."""
        if not due < _NEVER:
            return
        if len(self._heap) >= self._sweep_at:
            self._sweep()
        heappush(self._heap, (due, number))
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
        under_way = self._under_way
        self._heap[:] = [entry for entry in self._heap if entry[1] in under_way]
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
            due, number = heap[0]
            if number not in self._under_way:
                heappop(heap)
            elif due > now:
                if due < self._timer_due:
                    self._arm(due)
                return
            else:
                heappop(heap)
                self._expire(number)

"""Deadlines of many streams at the price of one timer."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

    from haptera.peer.request import Request

#: How many are kept as they came before they are put in order. Most are over by then, and cost no more than this list.
_ADDED_MAX: Final = 512
#: Ended ones are swept out when so many deadlines are kept, and then when their number has doubled: a long one
#: keeps no more than that behind it, and a sweep costs each deadline a constant.
_SWEEP_MIN: Final = 512
_NEVER: Final = float("inf")


class Deadlines:
    """Tells when calls or requests that are ``under_way`` have not ended in time.

    It keeps numbers and no objects, so that a deadline that is far away holds no payload in memory.
    """

    __slots__ = ("_added", "_expire", "_heap", "_loop", "_sweep_at", "_timer", "_timer_due", "_under_way")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, under_way: Container[int], expire: Callable[[int], None]
    ) -> None:
        self._loop = loop
        self._under_way = under_way
        self._expire = expire
        self._added: list[tuple[float, int]] = []  # as they came
        self._heap: list[tuple[float, int]] = []
        self._sweep_at = _SWEEP_MIN
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = _NEVER

    def __len__(self) -> int:
        return len(self._added) + len(self._heap)

    def add(self, number: int, due: float) -> None:
        """Watch ``number``, which is under way: ``expire(number)`` is called if it still is at ``due`` (time of the
        loop).
        """
        if not due < _NEVER:
            return
        added = self._added
        added.append((due, number))
        if due < self._timer_due:
            self._arm(due)
        if len(added) >= _ADDED_MAX:
            self._arrange()

    def add_requests(self, requests: Sequence[Request]) -> None:
        """Watch the streams of the requests that are under way and have a deadline, as ``add`` does one."""
        under_way = self._under_way
        deadlines = [
            (each.deadline, each.stream) for each in requests if each.stream in under_way and each.deadline is not None
        ]
        if deadlines:
            self._added += deadlines
            due = min(deadlines)[0]
            if due < self._timer_due:
                self._arm(due)
            if len(self._added) >= _ADDED_MAX:
                self._arrange()

    def close(self) -> None:
        """Watch nothing any longer."""
        self._added.clear()
        self._heap.clear()
        self._timer_due = _NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arrange(self) -> None:
        """Put the new ones in order. Most have ended since."""
        under_way = self._under_way
        heap = self._heap
        added = [entry for entry in self._added if entry[1] in under_way]
        self._added.clear()
        if len(heap) + len(added) >= self._sweep_at:
            heap[:] = [entry for entry in heap if entry[1] in under_way]
            heap += added
            heapify(heap)
            self._sweep_at = max(_SWEEP_MIN, 2 * len(heap))
        else:
            for entry in added:
                heappush(heap, entry)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_at(due, self._pass)

    def _pass(self) -> None:
        self._timer = None
        self._timer_due = _NEVER
        self._arrange()
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

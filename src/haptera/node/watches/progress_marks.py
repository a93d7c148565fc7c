"""The progress marks of watches: one timer for each interval, while there are watches with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from haptera.node.watches.follower import Follower


class ProgressMarks:
    """The watches that want marks. ``wake`` is called when some are `due`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        self._loop = loop
        self._wake = wake
        self._watches: dict[int, dict[Follower, None]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._due: dict[Follower, None] = {}

    def add(self, watch: Follower, interval_ms: int) -> None:
        """Have a watch sent a mark after each interval in which it was sent no event."""
        watches = self._watches.get(interval_ms)
        if watches is None:
            watches = self._watches[interval_ms] = {}
            self._schedule(interval_ms)
        watches[watch] = None

    def remove(self, watch: Follower, interval_ms: int) -> None:
        """A watch that was added has ended."""
        watches = self._watches[interval_ms]
        del watches[watch]
        self._due.pop(watch, None)
        if not watches:
            del self._watches[interval_ms]
            self._timers.pop(interval_ms).cancel()

    def due(self) -> list[Follower]:
        """Take the watches whose marks are due."""
        due, self._due = self._due, {}
        return list(due)

    def stop(self) -> None:
        """End the timers."""
        for timer in self._timers.values():
            timer.cancel()

    def _schedule(self, interval_ms: int) -> None:
        self._timers[interval_ms] = self._loop.call_later(interval_ms / 1000, self._tick, interval_ms)

    def _tick(self, interval_ms: int) -> None:
        self._schedule(interval_ms)
        for watch in self._watches[interval_ms]:
            if not watch.spoken:
                self._due[watch] = None
            watch.spoken = False
        if self._due:
            self._wake()

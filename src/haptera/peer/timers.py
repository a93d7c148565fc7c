"""The clocks of one connection: its state machine's, that of what is written, and that of having nothing to do."""

import asyncio
from collections.abc import Callable
from typing import Final

from haptera.connection import Connection
from haptera.peer.limits import TICK_S, WRITTEN_MIN

_NEVER: Final = float("inf")
_IDLE_LOOKS: Final = 4


class Ticker:
    """Calls ``tick`` when a state machine next has something to do."""

    __slots__ = ("_connection", "_loop", "_tick", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection, tick: Callable[[], None]) -> None:
        self._loop = loop
        self._connection = connection
        self._tick = tick
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look when that is now, and set the timer if it is earlier than it was."""
        now = self._loop.time()
        due = self._connection.next_tick()
        if due == _NEVER:
            return
        due = max(due, now + TICK_S / 10)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._pass)

    def _pass(self) -> None:
        self._timer = None
        self._tick()

    def stop(self) -> None:
        """Watch nothing any longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class WriteWatch:
    """A look, some time from now, at whether the other side takes what is written (spec/protocol.md, section 3)."""

    __slots__ = ("_from", "_timer", "_until")

    def __init__(self, timer: asyncio.TimerHandle, sent: int, waiting: int) -> None:
        """``timer`` is that of the look; of ``sent`` bytes ``waiting`` have not left yet."""
        self._timer = timer
        self._from = sent - waiting
        self._until = sent

    def is_slow(self, written: int) -> bool:
        """Whether too little has left when ``written`` bytes have.

        What waited at the beginning may have left since, and something else wait now: that is not slow.
        """
        return written < self._until and written - self._from < WRITTEN_MIN

    def stop(self) -> None:
        """Do not look."""
        self._timer.cancel()


class IdleWatch:
    """Calls ``leave`` once no stream has been open for ``timeout_s`` seconds, looked at in quarters.

    ``waits`` tells whether a stream is about to be opened.
    """

    __slots__ = ("_connection", "_interval", "_leave", "_looks", "_loop", "_opened", "_timer", "_waits")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: Connection,
        timeout_s: float,
        *,
        waits: Callable[[], bool],
        leave: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._interval = timeout_s / _IDLE_LOOKS
        self._waits = waits
        self._leave = leave
        self._looks = 0
        self._opened = 0
        self._timer = loop.call_later(self._interval, self._look)

    def _look(self) -> None:
        opened = self._connection.streams_opened
        if self._connection.open_streams or self._waits() or opened != self._opened:
            self._looks = 0
            self._opened = opened
        else:
            self._looks += 1
        if self._looks < _IDLE_LOOKS:
            self._timer = self._loop.call_later(self._interval, self._look)
        else:
            self._leave()

    def stop(self) -> None:
        """Watch no longer."""
        self._timer.cancel()

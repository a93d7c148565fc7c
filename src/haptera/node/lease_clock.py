"""The clock of the leases, which does not count the time in which the node stood still.

A node that was stopped for a minute has the renewals of that minute still unread in its sockets. So this clock is read
in *ticks*, and one tick advances it by no more than `TICK_MAX_MS`, however much time has passed since the one before.
Between two ticks it goes on with the monotonic clock, up to the same bound. It never runs faster than that clock: a
lease that lives by it has its whole time at least.

Pure: the monotonic clock is passed in, in nanoseconds.
"""

from __future__ import annotations

from typing import Final

#: Milliseconds between two ticks. A lease ends up to two ticks after its time; the shortest lasts four.
TICK_MS: Final = 250
#: The most that a tick advances the clock. A node under load is late by some ten milliseconds.
TICK_MAX_MS: Final = 2 * TICK_MS

_NS_PER_MS: Final = 1_000_000


class LeaseClock:
    """Milliseconds since the node began to count them."""

    __slots__ = ("_paused", "_ticked_ns", "ticked_ms")

    def __init__(self, monotonic_ns: int) -> None:
        #: Its time at the last tick.
        self.ticked_ms: int = 0
        self._ticked_ns = monotonic_ns
        self._paused = False

    def now_ms(self, monotonic_ns: int) -> int:
        """Return the time now. It is rounded up, so that a time that is counted from it is not too short."""
        return self.ticked_ms + min(TICK_MAX_MS, -(-self._passed_ns(monotonic_ns) // _NS_PER_MS))

    def tick(self, monotonic_ns: int) -> bool:
        """Advance the clock; whether leases may be ended by it now.

        They may not in the tick behind a pause, because the renewals that came in the pause may not be read yet. A node
        whose every tick is late ends them all the same.
        """
        passed_ms = self._passed_ns(monotonic_ns) // _NS_PER_MS
        late, was_late = passed_ms > TICK_MAX_MS, self._paused
        self.ticked_ms += min(TICK_MAX_MS, passed_ms)
        # At the bound the rest of a millisecond is dropped, because a reading of before the tick has not counted it.
        at_bound = passed_ms >= TICK_MAX_MS
        self._ticked_ns = monotonic_ns if at_bound else self._ticked_ns + passed_ms * _NS_PER_MS
        self._paused = late and not was_late
        return not self._paused

    def resume(self, monotonic_ns: int) -> None:
        """Go on after a time in which there was no lease, and no tick."""
        self._ticked_ns = monotonic_ns
        self._paused = False

    def _passed_ns(self, monotonic_ns: int) -> int:
        return max(0, monotonic_ns - self._ticked_ns)

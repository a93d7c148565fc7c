"""Entry time: the clock that stamps the entries of the log, and the only one that the state machine sees.

Expiry stands on it, and so it must not trust the wall clock, which an administrator, a time server or a resumed machine
may set to anything. It runs with the monotonic clock and is drawn towards the wall clock, at most SLEW faster or
slower. So between any two entries it measures the time that has passed to within a tenth, it never stands still and
never goes back. A node that starts goes on from the later of its last entry and the wall clock: the log's times never
go back, and the time that the node was down counts.

Pure: both clocks are passed in.
"""

from __future__ import annotations

from typing import Final

#: Entry time runs at most one part in this many faster or slower than the monotonic clock. No sensible lease feels a
#: tenth, and it makes up the hour of a wrong time zone in ten hours. A hundredth would take four days, in which the
#: offset may meet the next one.
SLEW: Final = 10

#: The offset from the wall clock that an operator should hear of. A time server keeps a clock within milliseconds;
#: ten seconds take more than a minute to be made up.
OFFSET_LARGE_MS: Final = 10_000

_NS_PER_MS: Final = 1_000_000


class EntryClock:
    """The entry time of one node. ``last_ms`` is the time of the last entry in its log, 0 without one."""

    __slots__ = ("_monotonic_ns", "_time_ns", "_told_ms", "offset_ms")

    def __init__(self, last_ms: int, wall_ms: int, monotonic_ns: int) -> None:
        time_ms = max(last_ms, wall_ms)
        #: Entry time less the wall clock's, at the last reading.
        self.offset_ms: int = time_ms - wall_ms
        self._time_ns = time_ms * _NS_PER_MS
        self._monotonic_ns = monotonic_ns
        self._told_ms = 0

    def read(self, wall_ms: int, monotonic_ns: int) -> int:
        """Return the time for an entry of this moment, in Unix milliseconds."""
        passed = max(0, monotonic_ns - self._monotonic_ns)
        behind = wall_ms * _NS_PER_MS - (self._time_ns + passed)
        most = passed // SLEW
        self._time_ns += passed + max(-most, min(most, behind))
        self._monotonic_ns = monotonic_ns  # which may be less, in a process that was moved to another machine
        time_ms = self._time_ns // _NS_PER_MS
        self.offset_ms = time_ms - wall_ms
        return time_ms

    @property
    def made_up_in_s(self) -> int:
        """The seconds until entry time and the wall clock agree, if neither is set meanwhile."""
        return abs(self.offset_ms) * SLEW // 1000

    def news(self) -> bool | None:
        """Return whether the offset is large, if that is news: True again whenever it has doubled, else None."""
        size = abs(self.offset_ms)
        if size < OFFSET_LARGE_MS and not self._told_ms:
            return None
        if size >= max(OFFSET_LARGE_MS, 2 * self._told_ms):
            self._told_ms = size
            return True
        if self._told_ms and size < OFFSET_LARGE_MS // 2:
            self._told_ms = 0
            return False
        return None

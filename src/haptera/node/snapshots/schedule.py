"""When a snapshot is due: by the bytes of the log, by time, and not too soon after one that failed. Pure."""

from __future__ import annotations

from typing import Final

#: The longest time without a snapshot while anything changes. A start replays a day's log at most, and a store that
#: hardly changes does not fill its history with snapshots of the same keys.
INTERVAL_MAX_S: Final = 86_400.0

#: Snapshots within the time that history is kept, at least. History is cut at a snapshot, so it is at most a seventh
#: longer than asked for.
WITHIN_RETENTION: Final = 7

#: Snapshots within the bytes that are kept, at least. The newest one and the log behind it always stay, so the log
#: between two must be a small part of the bound.
WITHIN_BYTES: Final = 4

#: Seconds until a failed snapshot is tried again: the first time, and at most.
RETRY_MIN_S: Final = 5.0
RETRY_MAX_S: Final = 600.0


class Schedule:
    """Decides whether a snapshot is due.

    ``snapshot_after`` and ``retain_bytes`` are in bytes, ``retain_for`` in seconds. ``now`` is seconds of a clock that
    is never set, here and in each method.
    """

    def __init__(self, *, snapshot_after: int, retain_bytes: int, retain_for: float, now: float) -> None:
        self.after_bytes: int = min(snapshot_after, retain_bytes // WITHIN_BYTES)
        self.interval_s: float = min(INTERVAL_MAX_S, retain_for / WITHIN_RETENTION)
        self._last = now
        self._failures = 0
        self._not_before = now

    def due(self, now: float, log_bytes: int, changed: bool) -> bool:
        """Whether a snapshot is to be made now.

        ``log_bytes`` is the log behind the newest snapshot, ``changed`` whether that log has an entry.
        """
        if not changed or now < self._not_before:
            return False
        # Added up as in `next_look`: else a rounding may give a moment that is neither due nor still to come.
        return log_bytes >= self.after_bytes or now >= self._last + self.interval_s

    def next_look(self, now: float, log_bytes: int) -> float:
        """Seconds until time alone may make a snapshot due, with ``log_bytes`` behind the newest one."""
        at = self._last + self.interval_s
        if log_bytes >= self.after_bytes:
            at = now
        return max(at - now, self._not_before - now, 0.0)

    def made(self, now: float) -> None:
        """Note that a snapshot was made."""
        self._last = self._not_before = now
        self._failures = 0

    def failed(self, now: float) -> float:
        """Note that a snapshot could not be made. Gives the seconds until the next attempt."""
        wait = min(RETRY_MIN_S * float(1 << self._failures), RETRY_MAX_S)
        self._failures = min(self._failures + 1, 16)
        self._not_before = now + wait
        return wait

"""Whether one of some missing keys has come into being since, also where it is gone again.

A missing key has no version, so one that came and went looks as it did. The event history tells the two apart, for as
long as it reaches back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.state import limits
from haptera.state.event_history import PUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from haptera.state.event_history import EventHistory


class Appearances:
    """A reader of the events of some keys, each behind the revision at which it was ``missing``.

    Only the writing of an entry counts. The end of a key whose time was over counts for nothing, because a reader found
    it missing before.
    """

    __slots__ = ("_events", "_found", "_missing", "_place")

    def __init__(self, events: EventHistory, missing: Mapping[str, int]) -> None:
        oldest = min(missing.values())
        self._events = events
        self._missing = missing
        self._found = oldest < events.compacted
        self._place = events.place_of(oldest + 1)

    def advance(self) -> bool | None:
        """Read on: whether a key has come, or may have come because its events are not kept any more; None where more
        is to be read first. One call is one slice of work.
        """
        events, missing = self._events, self._missing
        left = limits.SLICE_WORK_MAX // 4
        while not self._found and self._place < events.end:
            if self._place < events.first:
                self._found = True
            elif left <= 0:
                return None
            else:
                read = events.read(self._place, left)
                left -= len(read)
                self._place += len(read)
                self._found = any(
                    event[2] in missing and event[1] == PUT and event[0] > missing[event[2]] for event in read
                )
        return self._found

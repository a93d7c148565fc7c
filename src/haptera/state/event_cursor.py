"""A reader's place in the event history, which it reads on from: the events of a clear come one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.state.event_history import CLEARED, DELETE

if TYPE_CHECKING:
    from haptera.state.event_history import Event, EventHistory


class EventCursor:
    """A place before an event, or within a clear. It may be overtaken by the end of the events that are kept."""

    __slots__ = ("_events", "after", "place")

    def __init__(self, events: EventHistory, place: int, after: str = "") -> None:
        self._events = events
        self.place: int = place
        #: The last key of the clear at this place that was given; empty before the first.
        self.after: str = after

    def copy(self) -> EventCursor:
        """Another cursor at this place."""
        return EventCursor(self._events, self.place, self.after)

    @property
    def lost(self) -> bool:
        """Whether events at this place are not kept any more."""
        return self.place < self._events.first

    def read(self, until: int, limit: int) -> list[Event]:
        """The next events before the place ``until``, at most ``limit`` of them.

        There may be none although the cursor is not there yet. It must not be lost.
        """
        found = self._events.read(self.place, min(limit, until - self.place))
        if found and found[0][1] == CLEARED:
            return self._part_of_clear(found[0], limit)
        for position, event in enumerate(found):
            if event[1] == CLEARED:
                found = found[:position]
                break
        self.place += len(found)
        return found

    def revision_ahead(self, until: int) -> int:
        """The revision of the next event before the place ``until``; 0 where there is none."""
        return self._events.read(self.place, 1)[0][0] if self.place < until and not self.lost else 0

    def _part_of_clear(self, event: Event, limit: int) -> list[Event]:
        revision, _, _, _, store, time_ms, user = event
        keys = store.keys(self.after, limit)
        if len(keys) < limit:
            self.place += 1
            self.after = ""
        else:
            self.after = keys[-1]
        entry_of = store.entries.get
        entries = ((key, entry_of(key)) for key in keys)
        return [
            (revision, DELETE, key, None, entry, time_ms, user) for key, entry in entries if entry is not None
        ]  # a deleted key that a reader still sees has none

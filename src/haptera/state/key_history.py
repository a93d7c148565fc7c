"""The versions of one key that the event history still has, a page at a time, in slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haptera.errors import Code, Failure, failure
from haptera.state import limits
from haptera.state.event_cursor import EventCursor
from haptera.state.event_history import PRESENT

if TYPE_CHECKING:
    from haptera.state.event_history import Event
    from haptera.state.kv import Kv
    from haptera.state.operations import OpenHistory
    from haptera.state.results import StoredEntry
    from haptera.state.sliced_work import Steps

#: version, kind, value or None, expires_at_ms or None, time_ms or None, user or None
PastRow = tuple[int, int, "bytes | None", "int | None", "int | None", "str | None"]


def history_steps(kv: Kv, op: OpenHistory) -> Steps[tuple[tuple[Any, ...], int] | Failure]:
    """The result array of a history, and the store's revision.

    The array is the rows, whether there are more, and the oldest revision whose changes are kept. 4009 where the events
    that were looked at are not kept any more.

    Each change of the key is a row, oldest first. An entry that was written before the oldest change that is kept is
    the first, of the kind `PRESENT`, without time and user.
    """
    while kv.changing:
        yield 0
    events, now, revision = kv.events, kv.entries.get(op.key), kv.revision
    until, oldest = events.end, kv.oldest
    page = _Page(op, oldest)
    cursor = EventCursor(events, events.place_of(max(page.after + 1, oldest)))
    while cursor.place < until and not page.full:
        if cursor.lost:
            details = {"revision": page.after + 1, "oldest": kv.oldest, "newest": kv.revision}
            return failure(Code.REVISION_COMPACTED, details)
        found = cursor.read(until, limits.SLICE_WORK_MAX // 4)
        for event in found:
            if event[2] == op.key:
                page.add(event)
        yield len(found) + len(page.rows)
    if not page.changed:
        page.add_older(now)
    return (page.rows, page.full, oldest), revision


class _Page:
    """Some rows; ``full`` once another one has no room."""

    def __init__(self, op: OpenHistory, oldest: int) -> None:
        self.after = op.after or 0
        self.rows: list[PastRow] = []
        self.full = False
        #: Whether the key has a change that is kept.
        self.changed = False
        self._oldest = oldest
        self._limit = limits.HISTORY_ROWS_MAX if op.limit is None else min(op.limit, limits.HISTORY_ROWS_MAX)
        self._room = limits.HISTORY_SIZE_MAX

    def add(self, event: Event) -> None:
        """Add a change of the key, and before the first the entry that it replaced, if that is older than all."""
        revision, kind, _, entry, previous, time_ms, user = event
        if not self.changed:
            self.changed = True
            self.add_older(previous)
        value, expires_at_ms = (None, None) if entry is None else (entry[0], entry[2])
        self._add((revision, kind, value, expires_at_ms, time_ms, user))

    def add_older(self, entry: StoredEntry | None) -> None:
        """Add an entry that was written before the oldest change that is kept."""
        if entry is not None and self.after < entry[1] < self._oldest:
            self._add((entry[1], PRESENT, entry[0], entry[2], None, None))

    def _add(self, row: PastRow) -> None:
        size = len(row[2] or b"") + limits.HISTORY_ROW_OVERHEAD
        if self.full or len(self.rows) >= self._limit or (size > self._room and self.rows):
            self.full = True
            return
        self._room -= size
        self.rows.append(row)

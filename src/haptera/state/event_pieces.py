"""The section ``events`` of a snapshot: the newest events of the store, so that watches go on after a restart.

Its first piece is the *head*, with the number of the rows in the others::

    events    head   [compacted, events]
              rows   [[revision, time_ms, user, kind, key, entry, previous], …]         oldest first

All events of the revisions above ``compacted`` are there. The entry of after is nil if there is none, true if it is
the one that the section ``kv`` has, and else [value, expires_at_ms]; its version is the revision. The entry of before
is nil if there was none, its version if an earlier event of the section wrote it, and else [value, version,
expires_at_ms]. So a value stands in a snapshot once, and a loaded state shares it as the first one did.

A snapshot without the section, as older software wrote it, is one without events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from haptera.key_rules import EXPIRY_MAX_MS, VALUE_SIZE_MAX, is_key
from haptera.state import limits
from haptera.state.event_cursor import EventCursor
from haptera.state.event_history import CLEARED, EXPIRE, PUT, Event
from haptera.state.msgpack_arrays import array_header
from haptera.state.piece_decoding import PIECE_SIZE, PieceDecoder, require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.state.kv import Kv
    from haptera.state.results import StoredEntry

SECTION: Final = "events"

_encoder: Final = msgspec.msgpack.Encoder()


class _Head(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    compacted: int
    events: int


class _Written(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """An entry of after that the store does not have any more."""

    value: bytes
    expires_at_ms: int | None


class _Row(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    revision: int
    time_ms: int
    user: str
    kind: int
    key: str
    entry: _Written | bool | None
    previous: tuple[bytes, int, int | None] | int | None


_head: Final = PieceDecoder(SECTION, _Head)
_rows: Final = PieceDecoder(SECTION, list[_Row])


def event_pieces(kv: Kv) -> Iterator[bytes]:
    """Give the newest events, as many as a snapshot has, in pieces."""
    place, compacted, count = _tail(kv)
    yield _encoder.encode((compacted, count))
    rows: list[bytes] = []
    size = 0
    for event in expanded(kv, place):
        row = _encoder.encode(_row(kv, event, compacted))
        rows.append(row)
        size += len(row)
        if size >= PIECE_SIZE:
            yield array_header(len(rows)) + b"".join(rows)
            rows, size = [], 0
    if rows:
        yield array_header(len(rows)) + b"".join(rows)


def expanded(kv: Kv, place: int) -> Iterator[Event]:
    """The events from a place on, with an event for each key of a clear."""
    cursor, end = EventCursor(kv.events, place), kv.events.end
    while cursor.place < end:
        yield from cursor.read(end, limits.SLICE_WORK_MAX)


def _tail(kv: Kv) -> tuple[int, int, int]:
    """The place from which on a snapshot has the events, the newest revision that it leaves out, and their number."""
    events, count, size, found = kv.events, 0, 0, []
    compacted = events.compacted
    for place, (revision, kind, _, _, previous, _, _) in events.newest_first():
        if revision <= compacted:
            break
        more = len(previous.entries) if kind == CLEARED else 1
        size += previous.size if kind == CLEARED else 0 if previous is None else len(previous[0])
        if count + more > limits.SNAPSHOT_EVENTS_MAX or size > limits.SNAPSHOT_EVENTS_SIZE_MAX:
            compacted = revision
            break
        count += more
        found.append((place, revision, more))
    while found and found[-1][1] <= compacted:
        count -= found.pop()[2]
    return (found[-1][0] if found else events.end), compacted, count


def _row(kv: Kv, event: Event, compacted: int) -> tuple[object, ...]:
    revision, kind, key, entry, previous, time_ms, user = event
    after: object = None
    if entry is not None:
        after = True if kv.entries.get(key) is entry else (entry[0], entry[2])
    before = previous[1] if previous is not None and previous[1] > compacted else previous
    return revision, time_ms, user, kind, key, after, before


class EventsLoader:
    """Fills the event history with its section, behind that of the keys."""

    def __init__(self, kv: Kv, time_ms: int) -> None:
        self._kv = kv
        self._time_ms = time_ms
        self._events: list[Event] = []
        self._written: dict[str, StoredEntry] = {}  # the last entry that an event wrote, by key
        self._compacted: int | None = None
        self._expected = 0

    def head(self, piece: bytes) -> None:
        """Take the first piece."""
        head = _head.decode(piece)
        require(0 <= head.compacted <= self._kv.revision, "no store has events behind this revision")
        require(head.events <= limits.SNAPSHOT_EVENTS_MAX, "there are too many events")
        self._compacted, self._expected = head.compacted, head.events

    def rows(self, piece: bytes) -> None:
        """Take some events."""
        assert self._compacted is not None
        for row in _rows.decode(piece):
            last = self._events[-1][0] if self._events else self._compacted + 1
            require(last <= row.revision <= self._kv.revision, "the events are not in their order")
            require(0 <= row.time_ms <= self._time_ms and PUT <= row.kind <= EXPIRE, "an event is of no kind or time")
            require(is_key(row.key), "a text is no key")
            entry, previous = self._entry(row), self._previous(row, self._compacted)
            require((entry is not None) == (row.kind == PUT), "an event of another kind has such entries")
            require(row.kind == PUT or previous is not None, "a key that was not there was deleted")
            if entry is not None:
                self._written[row.key] = entry
            self._events.append((row.revision, row.kind, row.key, entry, previous, row.time_ms, row.user))

    def finish(self) -> None:
        """Hand the events over."""
        if self._compacted is None:  # older software made the snapshot
            self._compacted = self._kv.revision
        require(len(self._events) == self._expected, f"there are {len(self._events)} events, not {self._expected}")
        self._kv.events.restore(self._events, self._compacted)

    def _entry(self, row: _Row) -> StoredEntry | None:
        if row.entry is None:
            return None
        if isinstance(row.entry, bool):
            entry = self._kv.entries.get(row.key)
            require(row.entry and entry is not None and entry[1] == row.revision, "the store has no such entry")
            return entry
        _check_entry(row.entry.value, row.entry.expires_at_ms)
        return (row.entry.value, row.revision, row.entry.expires_at_ms)

    def _previous(self, row: _Row, compacted: int) -> StoredEntry | None:
        if isinstance(row.previous, int):
            entry = self._written.get(row.key)
            require(entry is not None and entry[1] == row.previous, "no event wrote the entry of before")
            return entry
        if row.previous is not None:
            value, version, expires_at_ms = row.previous
            require(0 < version <= compacted, "no entry of before has this version")
            _check_entry(value, expires_at_ms)
        return row.previous


def _check_entry(value: bytes, expires_at_ms: int | None) -> None:
    require(len(value) <= VALUE_SIZE_MAX, "a value is too large")
    require(expires_at_ms is None or 0 < expires_at_ms <= EXPIRY_MAX_MS, "no key expires at this time")

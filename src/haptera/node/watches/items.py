"""The ITEMs of a watch: some events in the order of their revisions, and the revision that they reach.

An ITEM is ``[revision, [[kind, key, value, version, previous, expires_at_ms], …], more]`` (spec/protocol.md 7). The
value of before is left out of an event where both values are larger together than the largest value is: so each reader
that takes the largest value takes each event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.key_rules import VALUE_SIZE_MAX
from haptera.state import PRESENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.state import Event, Row

#: Bytes of one ITEM, unless one event is larger: a default window, so that an ITEM never waits for more than one grant
#: of credit.
ITEM_SIZE_MAX: Final = 256 * 1024
#: Bytes of an event in MessagePack beside its key and values, at most.
_EVENT_OVERHEAD: Final = 40
#: Bytes that a character of a key may take.
_CHARACTER_SIZE_MAX: Final = 4

_encode: Final = msgspec.msgpack.Encoder().encode


def pack(events: Sequence[Event], start: int, ahead: int, with_previous: bool) -> tuple[bytes, int, int]:
    """One ITEM with the events from the position ``start`` on, as many as it has room for; there is one at least.

    ``ahead`` is the revision of the event that stands behind the last of them in the history. Returns the ITEM, the
    position of the next event, and the revision that goes on in the next ITEM, or 0.
    """
    rows: list[tuple[Any, ...]] = []
    size, end = 0, start
    for end in range(start, len(events)):
        revision, kind, key, entry, previous, _, _ = events[end]
        if not with_previous:
            previous = None
        value_size = 0 if entry is None else len(entry[0])
        if previous is not None and value_size + len(previous[0]) > VALUE_SIZE_MAX:
            previous = (None, *previous[1:])
        size += _EVENT_OVERHEAD + (len(key) if key.isascii() else len(key) * _CHARACTER_SIZE_MAX)
        size += value_size + (0 if previous is None else len(previous[0] or b""))
        if size > ITEM_SIZE_MAX and rows:
            break
        if entry is None:
            rows.append((kind, key, None, revision, previous, None))
        else:
            rows.append((kind, key, entry[0], revision, previous, entry[2]))
    else:
        end += 1
    last = events[end - 1][0]
    more = last == (events[end][0] if end < len(events) else ahead)
    return _encode((last, rows, more)), end, last if more else 0


def mark(revision: int) -> bytes:
    """The ITEM that says: all up to and including this revision was sent."""
    return _encode((revision, (), False))


def present(revision: int, rows: Sequence[Row]) -> bytes:
    """An ITEM with entries of one revision, behind which more of them or the mark follows."""
    return _encode(
        (revision, [(PRESENT, key, value, version, None, expires) for key, value, version, expires in rows], True)
    )

"""The ITEMs that were packed last, for all watches of a group that are behind at the same place.

Many watches fall behind together, because a connection carries hundreds of them or the node itself is late. Each then
needs the ITEM that the others need: it is packed once. The places of all come together at the end of each block of the
history, where every ITEM ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from haptera.node.watches.items import ITEM_SIZE_MAX

if TYPE_CHECKING:
    from haptera.node.watches.groups import Group
    from haptera.state import EventCursor

#: Bytes of the ITEMs that are kept: so many as the watches of a few groups need that are behind by thousands of events.
SHARED_SIZE_MAX: Final = 8 * 1024 * 1024
#: Bytes of an ITEM beside its own: its place and the fields about it.
_OVERHEAD: Final = 512


class SharedItem(NamedTuple):
    """An ITEM of a group, packed from a place on. ``first`` is the revision of the first event there. The next ITEM
    begins at ``cursor``, behind ``skip`` events of the group, and ``full`` says whether there was one already. ``open``
    is the revision that goes on in it, or 0.
    """

    item: bytes
    first: int
    cursor: EventCursor
    skip: int
    open: int
    full: bool


class SharedItems:
    """The ITEMs that are kept, by their groups and places; the ones that were packed first go first."""

    def __init__(self) -> None:
        self._items: dict[tuple[Group, int, str, int], SharedItem] = {}
        #: Bytes that they take.
        self.size: int = 0

    def find(self, group: Group, cursor: EventCursor, skip: int, after: int, until: int) -> SharedItem | None:
        """The ITEM for a watch of the group that has everything up to the revision ``after``, and goes on at the cursor
        behind ``skip`` of its events; None if it is to be packed.

        An ITEM from a time when there were far fewer events is not for a watch that can have them in one.
        """
        shared = self._items.get((group, cursor.place, cursor.after, skip))
        if shared is None or after >= shared.first:
            return None
        if shared.full or 2 * (shared.cursor.place - cursor.place) >= until - cursor.place:
            return shared
        return None

    def keep(self, group: Group, cursor: EventCursor, skip: int, shared: SharedItem) -> None:
        """Keep an ITEM that was packed for a watch from which no event was held back, if others may need it."""
        if group.size < 2 or len(shared.item) > ITEM_SIZE_MAX:
            return
        place = (group, cursor.place, cursor.after, skip)
        self._drop(place)
        self._items[place] = shared
        self.size += _OVERHEAD + len(shared.item)
        while self.size > SHARED_SIZE_MAX:
            self._drop(next(iter(self._items)))

    def clear(self) -> None:
        """Keep none: no watch is behind."""
        self._items.clear()
        self.size = 0

    def _drop(self, place: tuple[Group, int, str, int]) -> None:
        shared = self._items.pop(place, None)
        if shared is not None:
            self.size -= _OVERHEAD + len(shared.item)

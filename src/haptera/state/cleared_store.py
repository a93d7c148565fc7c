"""The whole store as a clear of everything left it: table, index and times, kept for readers and for the event of the
clear, and freed in slices.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from haptera.state.index import KeyIndex
from haptera.state.key_ranges import KeyRange

if TYPE_CHECKING:
    from haptera.state.expiry import ExpiryIndex
    from haptera.state.results import StoredEntry
    from haptera.state.table import Table


class ClearedStore:
    """The whole store before a clear at the revision ``replaced_at``; it takes ``size`` bytes of memory.

    It is ``held`` for readers, and ``retained`` for the event of the clear (`haptera.state.event_history`). When
    neither needs it any more it is freed.
    """

    __slots__ = ("entries", "expiry", "held", "index", "replaced_at", "retained", "size")

    def __init__(
        self,
        entries: Table[StoredEntry],
        index: KeyIndex | None,
        expiry: ExpiryIndex,
        replaced_at: int,
        size: int,
    ) -> None:
        self.entries: Table[StoredEntry] = entries
        self.index = index
        self.expiry: ExpiryIndex = expiry
        self.replaced_at: int = replaced_at
        self.size: int = size
        self.held: bool = False
        self.retained: bool = False

    def keys(self, after: str, limit: int) -> list[str]:
        """At most ``limit`` keys of the index behind a key, in their order, with ghosts among them."""
        return list(islice(self.built_index().iterate(KeyRange(after, True)), limit))

    def built_index(self) -> KeyIndex:
        """The index, made now if it never was."""
        if self.index is None:
            self.index = KeyIndex(self.entries)
        return self.index

    def free(self, limit: int) -> int:
        """Free at most ``limit`` entries or keys; how many there were."""
        count = self.entries.free(limit) or self.expiry.free(limit)
        return count if count or self.index is None else self.index.free(limit)

"""The event history: the last changes of the store, in their order, for those who follow it or ask about its past.

Each change of a key is one *event*, appended where the change is made (`Entries._put`, `Entries._remove`), so none can
be forgotten. An event names the entry of after and the one of before; both are the store's own objects and no copies.
The older entries that an open scan needs are another thing: `haptera.state.held_entries` keeps those, for as long as
their readers are there.

The history is bounded (`EventBounds`). Beyond the bound the oldest events go, except for those of the newest revision.
The events that are left may differ from node to node, because they follow from the bound and from the snapshot that a
node began with; so the history is no part of the digest.

A clear of everything is one event, `CLEARED`, which keeps the store of before, index and all. A reader expands it.

Events have *places*: consecutive numbers from the start of the process, which stay the same while older events go.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from haptera.state import limits
from haptera.state.invariants import require

if TYPE_CHECKING:
    from haptera.state.cleared_store import ClearedStore
    from haptera.state.results import StoredEntry

#: The kinds of events on the wire (spec/protocol.md 7): an entry that was there before, in the answer to a watch alone;
#: an entry was written; a key was deleted; a key's time was over.
PRESENT: Final = 0
PUT: Final = 1
DELETE: Final = 2
EXPIRE: Final = 3
#: A clear of everything. Its key is empty, and its entry of before is the `ClearedStore`.
CLEARED: Final = 4

#: A change: revision, kind, key, the entry of after, the entry of before, the entry time in Unix milliseconds, and the
#: user. A tuple of atoms and such tuples, so that the garbage collector soon stops following it.
Event = tuple[int, int, str, "StoredEntry | None", Any, int, str]

#: Bytes of an event beside its key and the value of before: its tuple, the objects of the key, the version and the
#: entry of before, and its place in a block.
EVENT_OVERHEAD: Final = 320
#: Events of a block, and their bytes: so few that a block is freed in a tenth of a millisecond.
BLOCK_EVENTS: Final = 512
BLOCK_SIZE: Final = 256 * 1024
#: Blocks that one change may free: more than it can fill, so that the history comes back into its bound after a large
#: change, and no step takes long.
_BLOCKS_FREED_MAX: Final = 4

_revision: Final = itemgetter(0)
_time_ms: Final = itemgetter(5)


class EventBounds(NamedTuple):
    """How many events are kept, and how many bytes of memory they may take."""

    events: int = limits.EVENTS_MAX
    size: int = limits.EVENTS_SIZE_MAX


#: The bounds of a process that replays for a snapshot, which takes no more than these.
SNAPSHOT_BOUNDS: Final = EventBounds(limits.SNAPSHOT_EVENTS_MAX, limits.SNAPSHOT_EVENTS_SIZE_MAX)


class EventHistory:
    """The last events of a store.

    ``compacted`` is the newest revision of which an event may be missing: all events of each later one are here. The
    events have the places from ``first`` to before ``end``. ``time_ms`` and ``user`` are those of the command that is
    applied. ``released`` is called with each cleared store that no event needs any more.
    """

    __slots__ = (
        "_blocks",
        "_cleared",
        "_released",
        "_room",
        "_sizes",
        "_starts",
        "_tail",
        "_tail_size",
        "bounds",
        "compacted",
        "first",
        "size",
        "time_ms",
        "user",
    )

    def __init__(self, released: Callable[[ClearedStore], None], bounds: EventBounds) -> None:
        self.bounds: EventBounds = bounds
        self.compacted: int = 0
        self.first: int = 0
        #: Bytes of memory that the events take.
        self.size: int = 0
        self.time_ms: int = 0
        self.user: str = ""
        self._released = released
        # Blocks that are full are tuples, because the garbage collector stops following those too.
        self._blocks: list[tuple[Event, ...]] = []
        self._starts: list[int] = []  # the place of the first event of each block, and of the tail
        self._sizes: list[int] = []
        self._cleared: deque[tuple[int, ClearedStore]] = deque()  # with their places; each has a size in the bound
        self._starts.append(0)
        self._tail: list[Event] = []
        self._tail_size = 0
        self._room = BLOCK_EVENTS  # events of the tail after which `_settle` has something to do

    @property
    def end(self) -> int:
        """The place that the next event will have."""
        return self._starts[-1] + len(self._tail)

    def __len__(self) -> int:
        return self.end - self.first

    def append(
        self, revision: int, kind: int, key: str, entry: StoredEntry | None, previous: StoredEntry | None
    ) -> None:
        """Add the change of one key, whose revision is not below the last one's."""
        tail = self._tail
        tail.append((revision, kind, key, entry, previous, self.time_ms, self.user))
        self._tail_size += EVENT_OVERHEAD + len(key) + (0 if previous is None else len(previous[0]))
        if len(tail) >= self._room or self._tail_size >= BLOCK_SIZE:
            self._settle()

    def append_clear(self, revision: int, store: ClearedStore) -> None:
        """Add the clear of everything, which replaced ``store``."""
        store.retained = True
        self._cleared.append((self.end, store))
        self._tail.append((revision, CLEARED, "", None, store, self.time_ms, self.user))
        self._tail_size += EVENT_OVERHEAD + store.size
        self._settle()

    def place_of(self, revision: int) -> int:
        """The place of the first event that is not below ``revision``; the end, if there is none."""
        blocks = self._blocks
        position = bisect_left(blocks, revision, key=lambda block: block[-1][0])
        block = blocks[position] if position < len(blocks) else self._tail
        return self._starts[position] + bisect_left(block, revision, key=_revision)

    def place_after(self, time_ms: int) -> int:
        """The place of the first event that is later than a time; the end, if there is none."""
        blocks = self._blocks
        position = bisect_right(blocks, time_ms, key=lambda block: block[-1][5])
        block = blocks[position] if position < len(blocks) else self._tail
        return self._starts[position] + bisect_right(block, time_ms, key=_time_ms)

    def cleared_after(self, revision: int) -> tuple[int, ClearedStore] | None:
        """The first clear of everything above a revision, its place and the store that it has left; or None."""
        position = bisect_right(self._cleared, revision, key=lambda cleared: cleared[1].replaced_at)
        return self._cleared[position] if position < len(self._cleared) else None

    def read(self, place: int, limit: int) -> list[Event]:
        """At most ``limit`` events from a place that is still there on; none at the end. They may be fewer than there
        are.
        """
        assert self.first <= place
        starts = self._starts
        position = bisect_right(starts, place) - 1
        start = place - starts[position]
        block = self._blocks[position] if position < len(self._blocks) else self._tail
        return list(block[start : start + limit])

    def newest_first(self) -> Iterator[tuple[int, Event]]:
        """All events with their places, from the last one back. The history must not change meanwhile."""
        for start, block in zip(reversed(self._starts), (self._tail, *reversed(self._blocks)), strict=True):
            for offset in range(len(block) - 1, -1, -1):
                yield start + offset, block[offset]

    def forget_until(self, revision: int) -> None:
        """Count the changes up to a revision as not kept. The events themselves go with their blocks."""
        self.compacted = max(self.compacted, revision)

    def cleared_stores(self) -> list[ClearedStore]:
        """The stores that clears of everything have left."""
        return [store for _, store in self._cleared]

    def restore(self, events: list[Event], compacted: int) -> None:
        """Take over the events of a snapshot, behind the revision ``compacted``. There are none yet."""
        self.compacted = compacted
        for revision, kind, key, entry, previous, time_ms, user in events:
            self.time_ms, self.user = time_ms, user
            self.append(revision, kind, key, entry, previous)

    def _settle(self) -> None:
        """End the block that is full, and free the oldest blocks, a few at a time, where the bounds are passed."""
        newest = self._tail[-1][0]
        if len(self._tail) >= BLOCK_EVENTS or self._tail_size >= BLOCK_SIZE:
            self._starts.append(self.end)
            self._blocks.append(tuple(self._tail))
            self._sizes.append(self._tail_size)
            self.size += self._tail_size
            self._tail = []
            self._tail_size = 0
        for _ in range(_BLOCKS_FREED_MAX):
            if not self._over or self._blocks[0][-1][0] >= newest:
                break
            self._drop_oldest()
        self._room = 1 if self._over else BLOCK_EVENTS

    @property
    def _over(self) -> bool:
        return bool(self._blocks) and (self.size > self.bounds.size or len(self) > self.bounds.events)

    def _drop_oldest(self) -> None:
        self.forget_until(self._blocks[0][-1][0])
        self.size -= self._sizes[0]
        del self._blocks[0], self._sizes[0], self._starts[0]
        self.first = self._starts[0]
        while self._cleared and self._cleared[0][0] < self.first:
            store = self._cleared.popleft()[1]
            store.retained = False
            self._released(store)

    def check(self) -> None:
        """Raise ``AssertionError`` unless the events are in order, counted, and inside the bounds."""
        blocks = [*self._blocks, tuple(self._tail)]
        events = [event for block in blocks for event in block]
        revisions = [event[0] for event in events]
        require(revisions == sorted(revisions), "events are in the order of their revisions")
        keys = [event[:1] + event[2:3] for event in events]
        require(len(set(keys)) == len(keys), "a key has one event in a revision")
        require(len(events) == len(self), "each event has its place")
        require(all(self._blocks), "no block is empty")
        starts = [self.first]
        for block in self._blocks:
            starts.append(starts[-1] + len(block))
        require(starts == self._starts, "each block knows the place of its first event")
        require(self.size == sum(self._sizes), "the size of the events is counted")
        require(list(map(_size_of, self._blocks)) == self._sizes, "the size of each block is counted")
        require(_size_of(tuple(self._tail)) == self._tail_size, "the size of the newest events is counted")
        stores = [event[4] for event in events if event[1] == CLEARED]
        require(stores == self.cleared_stores(), "each clear has its store")
        require(all(store.retained for store in stores), "the store of a clear is retained")


def _size_of(block: tuple[Event, ...]) -> int:
    return sum(
        EVENT_OVERHEAD + len(key) + (previous.size if kind == CLEARED else 0 if previous is None else len(previous[0]))
        for _, kind, key, _, previous, _, _ in block
    )

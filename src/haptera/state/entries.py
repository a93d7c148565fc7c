"""The entries of the ``kv`` part, and all that follows them: the index of their keys, their times, and the past that
readers need.

`Entries._put` and `Entries._remove` make each change of a key, whichever command it belongs to.

A key whose time has come is *dead*. It stays until a command removes it: one that puts another entry in its place, or
the one that the node logs for that (`operations.ExpireDue`).
"""

from __future__ import annotations

import hashlib
from heapq import merge
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.key_rules import EXPIRY_MAX_MS, KEY_SIZE_MAX, VERSION_MAX
from haptera.state import limits
from haptera.state.entry_sizes import entry_size, size_added
from haptera.state.event_history import EXPIRE, PUT, EventBounds, EventHistory
from haptera.state.expiry import ExpiryIndex
from haptera.state.gaps import Gaps
from haptera.state.held_entries import HeldEntries
from haptera.state.index import KeyIndex
from haptera.state.invariants import require
from haptera.state.key_ranges import EVERYTHING, KeyRange
from haptera.state.leases import Leases
from haptera.state.quotas import Quotas
from haptera.state.table import SPLIT_AT, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from haptera.errors import Failure
    from haptera.state.results import StoredEntry
    from haptera.state.sliced_work import Steps

#: Units of work of a key that is added to the index or taken out of it, and of an entry that is freed.
KEY_WORK: Final = 16
FREE_WORK: Final = 4
#: Of a key that is sorted.
_SORT_WORK: Final = 2
#: Dead keys that are found without a stop: a quarter of a millisecond.
_PIECE: Final = 1024


class Entries:
    """The entries by key. The attributes belong to this package."""

    __slots__ = (
        "_current",
        "_index",
        "_spare",
        "buried",
        "cleared_at",
        "clock",
        "cursors",
        "earlier_ms",
        "entries",
        "events",
        "expiry",
        "gaps",
        "held",
        "leases",
        "now_ms",
        "quotas",
        "revision",
        "size",
    )

    def __init__(self, bounds: EventBounds | None = None) -> None:
        self.revision: int = 0
        #: Bytes of memory that the entries take (`haptera.state.entry_sizes`).
        self.size: int = 0
        self.entries: Table[StoredEntry] = Table()
        self.expiry: ExpiryIndex = ExpiryIndex()
        self.leases: Leases = Leases()
        self.quotas: Quotas = Quotas()
        self.gaps: Gaps = Gaps()
        #: The time by which commands judge: that of the entry which is applied.
        self.now_ms: int = 0
        #: The time of the entry before that one.
        self.earlier_ms: int = 0
        #: The time by which reads judge, in Unix milliseconds. A node gives a clock that goes on between the entries.
        self.clock: Callable[[], int] = lambda: self.now_ms
        #: Told that a command has removed dead keys, at the present revision, before its own change: a replay may end
        #: there.
        self.buried: Callable[[], object] = _nothing
        self.held: HeldEntries = HeldEntries(self._lay, self._freed)
        #: The changes of keys, of which there is one for each key and revision.
        self.events: EventHistory = EventHistory(self.held.release_store, bounds or EventBounds())
        #: Scans open now.
        self.cursors: int = 0
        #: The revision of the last clear of everything; 0 before the first.
        self.cleared_at: int = 0
        #: How a key is read while a large change is applied in part; None at any other time.
        self._current: Callable[[str], StoredEntry | None] | None = None
        self._spare: Table[StoredEntry] | None = None
        self._index: KeyIndex | None = None

    # Keys that expire

    def _seen(self, key: str) -> StoredEntry | None:
        """The entry of a key as reads see it now."""
        entry = (self._current or self.entries.get)(key)
        return None if entry is None or (entry[2] is not None and entry[2] <= self.clock()) else entry

    def living(self, key: str, now_ms: int) -> StoredEntry | None:
        """The present entry of a key, unless it is dead at that time."""
        entry = self.entries.get(key)
        return None if entry is None or (entry[2] is not None and entry[2] <= now_ms) else entry

    def has_dead(self, keys: Iterable[str]) -> bool:
        """Whether one of some keys is dead at the time of the commands, and still there."""
        entries, now_ms = self.entries, self.now_ms
        return self.expiry.count > 0 and any(key in entries and self.living(key, now_ms) is None for key in keys)

    def _ending(self, ttl_ms: int) -> int:
        """The time at which a key ends that has so long to live."""
        return min(self.now_ms + ttl_ms, EXPIRY_MAX_MS)

    def _bury(self, key: str) -> None:
        """Remove a dead entry, at a revision of its own, so that another one may take its place."""
        entry = self.entries.get(key)
        if entry is not None:
            self.revision += 1
            self._remove(key, self.revision, entry, EXPIRE)
            self.buried()

    def _bury_all(self, keys: Iterable[str]) -> Steps[None]:
        """Remove those of the keys that are dead, at one revision."""
        revision, work, found = self.revision + 1, 0, False
        for key in keys:
            entry = self.entries.get(key)
            work += 1
            if entry is not None and entry[2] is not None and entry[2] <= self.now_ms:
                self._remove(key, revision, entry, EXPIRE)
                found = True
                work += KEY_WORK
            if work >= limits.SLICE_WORK_MAX:
                yield work
                work = 0
        if found:
            self.revision = revision
            self.buried()

    def _dead(self, span: KeyRange, now_ms: int) -> Steps[list[str]]:
        """The keys of a range that are dead at a time and still there."""
        if not self.expiry.count:
            return []
        expiry = self.expiry
        found: list[str] = []
        yield from expiry.advance_steps(now_ms)
        for piece in expiry.due_pieces(now_ms):
            found += piece if span == EVERYTHING else filter(span.holds, piece)
            if len(piece) > _PIECE:
                yield len(piece)
        return found

    # Keys that belong to leases

    def lease_of(self, key: str) -> int | None:
        """The id of the lease that a key belongs to, if it belongs to one."""
        return self.leases.of_key.get(key) if self.leases.attached else None

    def _unattachable(self, key: str, lease_id: int) -> Failure | None:
        """Why a key cannot come to a lease, or None."""
        return self.leases.refusal(lease_id, self.lease_of(key) != lease_id)

    # The past

    @property
    def oldest(self) -> int:
        """The oldest revision that can be read: the changes before it are not kept."""
        return self.gaps.oldest_behind(self.events.compacted)

    # A large change, which is one step for every reader

    def remove_keys(self, keys: Iterable[str], count: int, kind: int) -> Steps[int]:
        """Remove those of so many keys that are there, at one revision; how many there were."""
        revision, removed, work = self.revision + 1, 0, 0
        before = self._begin(count)
        for key in keys:
            previous = self.living(key, self.now_ms)
            work += 1
            if previous is not None:
                if before is not None:
                    before.put(key, previous)
                self._remove(key, revision, previous, kind)
                removed += 1
                work += KEY_WORK
            if work >= limits.SLICE_WORK_MAX and before is not None:
                yield work
                work = 0
        if removed:
            self.revision = revision
        yield from self._end(before)
        return removed

    def _begin(self, keys: int) -> Table[StoredEntry | None] | None:
        """Begin a change of so many keys. Until `_end`, no reader sees a large one: of each key that was changed,
        reads see the entry in the table that this returns. None for a change of one slice.
        """
        if keys * KEY_WORK <= limits.SLICE_WORK_MAX:
            return None
        before: Table[StoredEntry | None] = Table(large=keys >= SPLIT_AT)
        self._current = _as_before(before, self.entries)
        return before

    def _end(self, before: Table[StoredEntry | None] | None) -> Steps[None]:
        """Show the change, whole, and free the entries that it has replaced."""
        if before is None:
            return
        self.settle()
        while freed := before.free(limits.SWEEP_MAX):
            yield freed * FREE_WORK

    @property
    def changing(self) -> bool:
        """Whether a large change is applied in part. Then the keys can be read one by one, but neither counted nor
        scanned again: the index is that of a state which no reader may see.
        """
        return self._current is not None

    def settle(self) -> None:
        """Have readers see the present entries: a large change is whole, or is given up with the state."""
        self._current = None

    # The index and the past

    @property
    def index(self) -> KeyIndex:
        """The sorted index, made when it is first needed: a store that is only replayed, or read by key, has none."""
        if self._index is None:
            self._index = KeyIndex(self.entries)
        return self._index

    def build_index(self) -> None:
        """Make the index now, and that of each store that a clear has left."""
        _ = self.index
        for store in self.events.cleared_stores():
            store.built_index()

    def present(self, span: KeyRange) -> Iterator[tuple[str, StoredEntry]]:
        """The keys of a range with their present entries, dead ones too. They must not change meanwhile."""
        for key in self.index.iterate(span):
            entry = self.entries.get(key)
            if entry is not None:  # else a reader of the past still sees the key
                yield key, entry

    def adopt_order(self, keys: list[str]) -> None:
        """Take ``keys``, all that there are in their order, as the index."""
        self._index = KeyIndex(keys)

    def keep_tracked(self) -> None:
        """Have the garbage collector follow the tables of entries, so that ``gc.freeze`` takes them from its sight."""
        if self._spare is None:
            self._spare = Table()
        for entries in (self.entries, self._spare):
            entries.track((b"", self.revision, None))  # a new tuple is followed

    def _put(
        self,
        key: str,
        value: bytes,
        revision: int,
        previous: StoredEntry | None,
        expires_at_ms: int | None = None,
        lease_id: int | None = None,
    ) -> None:
        if previous is None:
            if self._index is not None:
                self._index.add(key)
        elif previous[1] <= self.held.newest:
            self.held.keep(key, previous, revision)
        if expires_at_ms is not None or (previous is not None and previous[2] is not None):
            self._move_expiry(key, None if previous is None else previous[2], expires_at_ms)
            self.size += size_added(key, value, expires_at_ms, previous)
        else:
            self.size += entry_size(key, value, None) if previous is None else len(value) - len(previous[0])
        if lease_id is not None or self.leases.attached:
            self.leases.moved(key, previous, revision, lease_id)
        if self.quotas.accounts:
            self.quotas.written(key, value, previous)
        entry = (value, revision, expires_at_ms)
        whole = self.entries.whole
        if previous is None or whole is None:
            self.entries.put(key, entry)
        else:
            whole[key] = entry  # a dict does not grow by a key that is in it
        self.events.append(revision, PUT, key, entry, previous)

    def _move_expiry(self, key: str, old_ms: int | None, new_ms: int | None) -> None:
        if old_ms is None:
            assert new_ms is not None
            self.expiry.add(key, new_ms, self.now_ms)
        elif new_ms is None:
            self.expiry.remove(key, old_ms)
        elif new_ms != old_ms:
            self.expiry.move(key, old_ms, new_ms)

    def _remove(self, key: str, revision: int, previous: StoredEntry, kind: int) -> None:
        """Take out a key. ``kind`` says why (`haptera.state.event_history`)."""
        held = self.held
        if previous[1] <= held.newest:
            held.keep(key, previous, revision)
        self.entries.remove(key)
        if previous[2] is not None:
            self.expiry.remove(key, previous[2])
        elif self.leases.attached:
            self.leases.removed(key, previous)
        if self.quotas.accounts:
            self.quotas.removed(key, previous)
        self.size -= entry_size(key, previous[0], previous[2])
        if self._index is not None:
            self._index.remove(key, ghost=key in held.records)
        self.events.append(revision, kind, key, None, previous)

    def _lay(self, key: str) -> None:
        if self._index is not None and key not in self.entries and key in self._index.ghosts:
            self._index.lay(key)

    def _freed(self, entries: Table[StoredEntry]) -> None:
        """Keep an emptied table for the next clear: it is one that the garbage collector does not look at."""
        self._spare = entries

    # For tests and tools

    def digest(self) -> bytes:
        """32 bytes that are equal for equal stores: of the revision and of the keys with their entries."""
        encode = msgspec.msgpack.Encoder().encode
        digest = hashlib.sha256(encode(self.revision))
        for entry in sorted(self.entries.items()):
            digest.update(encode(entry))
        return digest.digest()

    def check(self) -> None:
        """Raise ``AssertionError`` with the invariant that does not hold; takes time and memory for every key."""
        require(0 <= self.revision <= VERSION_MAX, "the revision is a version")
        self.entries.check()
        entries = list(self.entries.items())
        require(
            self.size == sum(entry_size(key, entry[0], entry[2]) for key, entry in entries),
            "the size of the entries is counted",
        )
        self.expiry.check()
        expiring = {key: entry[2] for key, entry in entries if entry[2] is not None}
        require(dict(self.expiry.items()) == expiring, "the keys that expire are known, with their times")
        for key, entry in entries:
            require(0 < len(key) <= KEY_SIZE_MAX, "keys have their size")
            require(_is_entry(entry) and 0 < entry[1] <= self.revision, "no version is above the revision")
        self.leases.check(self.entries.get, self.revision)
        self.quotas.check(self.entries.get, self.leases)
        self.gaps.check(self.revision)
        self.held.check()
        self.events.check()
        if self._index is None:
            require(not self.held.records, "readers have an index")
            return
        keys, ghosts = list(self._index.keys), list(self._index.ghosts)
        require(keys == sorted({*self.entries, *ghosts}), "the index has the keys and the ghosts, in order, once")
        for key, records in self.held.records.items():
            recent = key not in self.entries and records[-1][0] > self.cleared_at
            require(not recent or key in self._index.ghosts, "a deleted key that has older entries is a ghost")
        for key in ghosts:
            require(key not in self.entries, "a ghost is a deleted key")
            require(key in self.held.records, "a ghost has older entries")


def _nothing() -> None:
    """Be told, and do nothing."""


def in_order(keys: list[str]) -> Steps[Iterator[str]]:
    """Sort keys, in slices. Their events then have one order, in each process that applies the command."""
    piece = max(1, limits.SLICE_WORK_MAX // _SORT_WORK)
    sorted_: list[list[str]] = []
    for start in range(0, len(keys), piece):
        sorted_.append(sorted(keys[start : start + piece]))
        yield limits.SLICE_WORK_MAX
    return merge(*sorted_)


def without_dead(entries: list[StoredEntry | None], now_ms: int) -> list[StoredEntry | None]:
    """Return the entries with None in the place of those that are dead at a time."""
    return [None if entry is None or (entry[2] is not None and entry[2] <= now_ms) else entry for entry in entries]


def _as_before(before: Table[StoredEntry | None], entries: Table[StoredEntry]) -> Callable[[str], StoredEntry | None]:
    def current(key: str) -> StoredEntry | None:
        return before.get(key) if key in before else entries.get(key)

    return current


def outside(span: KeyRange, entries: Table[StoredEntry]) -> Callable[[str], StoredEntry | None]:
    low, high = span.low, span.high

    def current(key: str) -> StoredEntry | None:
        return None if key >= low and (high is None or key < high) else entries.get(key)

    return current


def _is_entry(entry: Any) -> bool:
    return [type(field) for field in entry[:2]] == [bytes, int] and (entry[2] is None or type(entry[2]) is int)

"""Older entries, kept exactly as long as a reader needs them.

A reader *holds* a revision. An entry of version v that was replaced (or deleted) at revision n is needed by the readers
of the revisions v to n - 1. It is filed under the newest of them; when that one ends, it moves to the next older one
that needs it, and when there is none it is freed. So memory follows the readers that are there, and a short scan next
to a long one leaves nothing behind.

The clear of everything replaces every entry at once. Its readers keep the whole table, with its index: a
`ClearedStore` is needed, filed and handed on as a record is.

A reader may come later than the revision that it reads. Then the events say which entries it needs
(`haptera.state.views`), and they are kept for it as if it had been there (`HeldEntries.recall`).

The entries that a finished reader leaves are freed a little at a time (`HeldEntries.sweep`), never all at once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from operator import itemgetter
from typing import Final

from haptera.state import limits
from haptera.state.cleared_store import ClearedStore
from haptera.state.invariants import require
from haptera.state.results import StoredEntry
from haptera.state.table import Table

#: An older entry: the revision that replaced it, its key, and itself.
Record = tuple[int, str, StoredEntry]

#: Bytes that a record takes beside its key and value: tuples, list, place in the dict.
_RECORD_OVERHEAD: Final = 320

_replaced_at: Final = itemgetter(0)


class Hold:
    """One revision that readers hold. ``lost`` once the store had to give it up before they were done."""

    __slots__ = ("lost", "readers", "records", "revision", "stores")

    def __init__(self, revision: int) -> None:
        self.revision: int = revision
        self.readers: int = 0
        self.records: list[Record] = []
        self.stores: list[ClearedStore] = []
        self.lost: bool = False


def _revision(hold: Hold) -> int:
    return hold.revision


class HeldEntries:
    """The older entries of the kv part that its present readers need.

    ``laid`` is called with each key whose last older entry was freed, ``freed`` with the emptied entries of each
    cleared store.
    """

    __slots__ = ("_freed", "_garbage", "_holds", "_laid", "newest", "records", "size")

    def __init__(self, laid: Callable[[str], None], freed: Callable[[Table[StoredEntry]], None]) -> None:
        #: The newest revision that is held; -1 while none is. An entry no older than it must be kept when replaced.
        self.newest: int = -1
        #: By key, in the order of their replacement.
        self.records: Table[list[Record]] = Table()
        self.size: int = 0
        self._holds: list[Hold] = []
        self._garbage: list[list[Record] | ClearedStore] = []
        self._laid = laid
        self._freed = freed

    @property
    def idle(self) -> bool:
        """Whether nothing is held and nothing waits to be freed."""
        return self.newest < 0 and not self.records and not self._garbage

    @property
    def burdened(self) -> bool:
        """Whether something waits to be freed."""
        return bool(self._garbage)

    def hold(self, revision: int) -> Hold:
        """One more reader of ``revision``. From now on the entries that it needs are kept when they are replaced; the
        ones that were replaced before are for `recall`, if ``revision`` is not the store's present one.
        """
        place = bisect_left(self._holds, revision, key=_revision)
        if place == len(self._holds) or self._holds[place].revision != revision:
            self._holds.insert(place, Hold(revision))
            self.newest = max(self.newest, revision)
        hold = self._holds[place]
        hold.readers += 1
        return hold

    def release(self, hold: Hold) -> None:
        """One reader less."""
        hold.readers -= 1
        if hold.readers == 0 and not hold.lost:
            self._drop(hold)

    def keep(self, key: str, entry: StoredEntry, replaced_at: int) -> None:
        """Keep ``entry``, whose version is not above `newest`, while it is replaced or deleted at ``replaced_at``."""
        record = (replaced_at, key, entry)
        records = self.records.get(key)
        if records is None:
            self.records.put(key, [record])
        else:
            records.append(record)
        self._holds[-1].records.append(record)
        self.size += _size(record)
        if self._garbage:
            self.sweep(2)  # so that the entries to be freed get fewer, however fast entries are replaced
        elif self.size > limits.HELD_SIZE_MAX:
            self._give_up(self._holds[0])

    def recall(self, hold: Hold, key: str, entry: StoredEntry, replaced_at: int) -> bool:
        """Keep an entry for a reader that has come after it was replaced. False if the reader needs too much memory: it
        has lost its own revision then, and no other's.
        """
        record = (replaced_at, key, entry)
        records = self.records.get(key)
        if records is None:
            self.records.put(key, [record])
        else:
            place = bisect_left(records, replaced_at, key=_replaced_at)
            if place < len(records) and records[place][0] == replaced_at:
                return True  # another reader needs it too
            records.insert(place, record)
        hold.records.append(record)
        self.size += _size(record)
        if self.size <= limits.HELD_SIZE_MAX:
            return True
        self._give_up(hold)
        return False

    def recall_store(self, hold: Hold, store: ClearedStore) -> None:
        """Keep the store as it was before a clear, for a reader that has come after it. As `recall` otherwise."""
        if store.held:
            return
        store.held = True
        self.size += store.size
        self._file_store(store)
        if self.size > limits.HELD_SIZE_MAX:
            self._give_up(hold)

    def retire(self, store: ClearedStore) -> None:
        """Keep the store as it was before a clear, for its readers; without a reader it is freed in `sweep`, once its
        event is not retained.

        Readers of one that would take too much memory lose their revision, all of them: each needs all of it.
        """
        if self.size + store.size > limits.HELD_SIZE_MAX:
            while self._holds:
                self._give_up(self._holds[0])
        self.size += store.size
        store.held = True
        self._file_store(store)

    def release_store(self, store: ClearedStore) -> None:
        """Free a store whose event is not retained any more, once no reader needs it."""
        if not store.held:
            self.size += store.size
            self._garbage.append(store)

    def entry_at(self, key: str, revision: int) -> StoredEntry | None:
        """The entry of ``key`` at the held ``revision``, if it was replaced since; None if it was absent."""
        records = self.records.get(key)
        if records is None:
            return None
        # The first that was replaced later. Many readers make many records of one key, so they are not looked through.
        place = bisect_right(records, revision, key=_replaced_at)
        if place == len(records):
            return None
        entry = records[place][2]
        return entry if entry[1] <= revision else None

    def sweep(self, limit: int = limits.SWEEP_MAX) -> None:
        """Free, or hand to an older reader, at most ``limit`` of the records whose readers have ended."""
        while self._garbage and limit > 0:
            garbage = self._garbage[-1]
            if isinstance(garbage, ClearedStore):
                freed = garbage.free(limit)
                limit -= freed
                if not freed:
                    self._garbage.pop()
                    self.size -= garbage.size
                    self._freed(garbage.entries)
                continue
            while garbage and limit > 0:
                limit -= 1
                self._file(garbage.pop())
            if not garbage:
                self._garbage.pop()

    def _file(self, record: Record) -> None:
        """File a record under the newest reader that needs it, or free it."""
        replaced_at, key, entry = record
        place = bisect_left(self._holds, replaced_at, key=_revision)
        if place > 0 and self._holds[place - 1].revision >= entry[1]:
            self._holds[place - 1].records.append(record)
            return
        self.size -= _size(record)
        records = self.records.get(key)
        assert records is not None
        del records[bisect_left(records, replaced_at, key=_replaced_at)]
        if not records:
            self.records.remove(key)
            self._laid(key)

    def _file_store(self, store: ClearedStore) -> None:
        """File a cleared store under the newest reader that needs it, or have it freed."""
        place = bisect_left(self._holds, store.replaced_at, key=_revision)
        if place > 0:
            self._holds[place - 1].stores.append(store)
            return
        store.held = False
        if store.retained:
            self.size -= store.size  # it counts among the events
        else:
            self._garbage.append(store)

    def _drop(self, hold: Hold) -> None:
        del self._holds[bisect_left(self._holds, hold.revision, key=_revision)]
        self.newest = self._holds[-1].revision if self._holds else -1
        if hold.records:
            self._garbage.append(hold.records)
            hold.records = []
        stores, hold.stores = hold.stores, []
        for store in stores:
            self._file_store(store)

    def _give_up(self, hold: Hold) -> None:
        hold.lost = True
        self._drop(hold)

    def check(self) -> None:
        """Raise ``AssertionError`` unless every record is filed once, counted, and needed or about to be freed."""
        filed = [record for hold in self._holds for record in hold.records]
        waiting = [record for records in self._garbage if isinstance(records, list) for record in records]
        stores = [store for store in self._garbage if isinstance(store, ClearedStore)]
        stores += [store for hold in self._holds for store in hold.stores]
        self.records.check()
        kept = [record for records in self.records.values() for record in records]
        require(sorted(map(id, filed + waiting)) == sorted(map(id, kept)), "each older entry is filed once")
        require(
            self.size == sum(map(_size, kept)) + sum(store.size for store in stores),
            "the size of the older entries is counted",
        )
        require(all(self.records.values()), "no key has an empty list of older entries")
        revisions = [hold.revision for hold in self._holds]
        require(revisions == sorted(set(revisions)), "held revisions are in order")
        require(self.newest == (revisions[-1] if revisions else -1), "the newest held revision is known")
        for hold in self._holds:
            require(hold.readers > 0 and not hold.lost, "a held revision has readers")
            for replaced_at, _, entry in hold.records:
                needed = entry[1] <= hold.revision < replaced_at
                require(needed, "an older entry is filed under a reader that needs it")
            needed = all(store.replaced_at > hold.revision and store.held for store in hold.stores)
            require(needed, "a cleared store is filed under a reader that needs it")


def _size(record: Record) -> int:
    return _RECORD_OVERHEAD + len(record[1]) + len(record[2][0])

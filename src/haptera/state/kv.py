"""The ``kv`` part: the keys and values of the store (spec/protocol.md, section 7).

One counter, the *revision*, counts the changes of the whole store. Each command that changes something takes the next
revision, once however many keys it changes, and that is the *version* of the entries it wrote; so a version only
grows, and a key that is deleted and written again never shows an old one. A command that changes nothing takes no
revision: a delete of a missing key, a clear of an empty range. Writing the value that a key already has, or adding 0,
is a write.
"""

from __future__ import annotations

import hashlib
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Code, Failure, failure
from haptera.key_rules import KEY_SIZE_MAX, VERSION_MAX
from haptera.state import limits, operations
from haptera.state.conditions import nothing_to_delete, sum_of, unmet
from haptera.state.entry_sizes import entry_size
from haptera.state.event_history import DELETE, PUT, EventBounds, EventHistory
from haptera.state.glob import compile_glob
from haptera.state.held_entries import ClearedStore, HeldEntries
from haptera.state.index import KeyIndex
from haptera.state.invariants import require
from haptera.state.key_ranges import EVERYTHING, KeyRange, key_range
from haptera.state.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from haptera.state.results import Result, StoredEntry
    from haptera.state.sliced_work import Steps

_KEY_NOT_FOUND: Final = int(Code.KEY_NOT_FOUND)
_KEY_EXISTS: Final = int(Code.KEY_EXISTS)

#: Units of work of a key that is added to the index or taken out of it, of one that is overwritten, and of one
#: whose later value counts, and of an entry that is freed.
KEY_WORK: Final = 16
_OVERWRITE_WORK: Final = 6
_DOUBLED_WORK: Final = 1
_FREE_WORK: Final = 4


class Kv:
    """The keys and values, their index, and the part of the past that open readers need.

    There is a method for each command, named as in its tag. It applies the command, judged against the present state,
    and gives its result array; a `Failure` means that nothing changed. A change of one key that is only ``rehearsed``
    changes nothing: it gives the result of a command that has nothing to change, and None for any other. The commands
    of any number of keys are `Steps`. The attributes belong to this package.
    """

    __slots__ = (
        "_current",
        "_index",
        "_spare",
        "cleared_at",
        "cursors",
        "entries",
        "events",
        "held",
        "revision",
        "size",
    )

    def __init__(self, bounds: EventBounds | None = None) -> None:
        self.revision = 0
        #: Bytes of memory that the entries take (`haptera.state.entry_sizes`).
        self.size = 0
        self.entries: Table[StoredEntry] = Table()
        self.held = HeldEntries(self._lay, self._freed)
        #: The changes of keys, of which there is one for each key and revision.
        self.events = EventHistory(self.held.release_store, bounds or EventBounds())
        #: Scans open now.
        self.cursors = 0
        #: The revision of the last clear of everything; 0 before the first.
        self.cleared_at = 0
        #: How a key is read while a large change is applied in part; None at any other time.
        self._current: Callable[[str], StoredEntry | None] | None = None
        self._spare: Table[StoredEntry] | None = None
        self._index: KeyIndex | None = None

    # Reads

    def get(self, op: operations.Get) -> Result:
        """[value, version, expires_at_ms]; a missing key is 4001."""
        key = op.key
        entry = (self._current or self.entries.get)(key)
        return entry if entry is not None else failure(_KEY_NOT_FOUND, {"key": key})

    def exists(self, op: operations.Exists) -> Result:
        """[bool]"""
        return ((self._current or self.entries.get)(op.key) is not None,)

    def get_many(self, op: operations.GetMany) -> Result:
        """[[entry or nil, …]], in the order of the keys."""
        return (list(map(self._current or self.entries.get, op.keys)),)

    def count(self, op: operations.Count) -> Result:
        """[count]: O(log n) for any range, O(keys in the range) for a glob with more than a prefix. Not while
        ``changing``.
        """
        assert not self.changing
        glob = compile_glob(op.glob) if op.glob is not None else None
        span = key_range((op.prefix, glob.prefix if glob else None), op.start, op.end)
        if glob is None or glob.cost == 0:
            return (len(self.entries) if span == EVERYTHING else self.index.count(span),)
        entries, matches = self.entries, glob.matches
        return (sum(1 for key in self.index.iterate(span) if key in entries and matches(key)),)

    # Changes

    def set(self, op: operations.Set, *, rehearsed: bool = False) -> Result | None:
        """[version, previous or nil]"""
        key = op.key
        previous = self.entries.get(key)
        if (op.if_version is not None or op.condition is not None) and (refused := unmet(op, previous)) is not None:
            return refused
        if rehearsed:
            return None
        self.revision = revision = self.revision + 1
        self._put(key, op.value, revision, previous)
        return (revision, previous if op.return_previous else None)

    def delete(self, op: operations.Delete, *, rehearsed: bool = False) -> Result | None:
        """[deleted, version or nil, previous or nil]"""
        key = op.key
        previous = self.entries.get(key)
        if previous is None or op.if_version is not None:
            unchanged = nothing_to_delete(op, previous)
            if unchanged is not None:
                return unchanged
        if rehearsed:
            return None
        assert previous is not None
        self.revision = revision = self.revision + 1
        self._remove(key, revision, previous, DELETE)
        return (True, revision, previous if op.return_previous else None)

    def set_many(self, op: operations.SetMany) -> Steps[Result]:
        """[version]: one for all; of a doubled key the last value counts. No items: the present revision."""
        if not op.items:
            return (self.revision,)
        revision, work = self.revision + 1, 0
        entries, before = self.entries, self._begin(len(op.items))
        # From the end, so that each key is changed once: by the last of its values.
        for key, value in reversed(op.items):
            previous = entries.get(key)
            work += _DOUBLED_WORK
            if previous is not None and previous[1] == revision:
                continue
            if before is not None:
                before.put(key, previous)
            self._put(key, value, revision, previous)
            work += KEY_WORK if previous is None else _OVERWRITE_WORK
            if work >= limits.SLICE_WORK_MAX and before is not None:
                yield work
                work = 0
        self.revision = revision
        yield from self._end(before)
        return (revision,)

    def delete_many(self, op: operations.DeleteMany) -> Steps[Result]:
        """[count, version or nil]: how many keys were there; a doubled one counts once."""
        revision, count, work = self.revision + 1, 0, 0
        entries, before = self.entries, self._begin(len(op.keys))
        for key in op.keys:
            previous = entries.get(key)
            work += 1
            if previous is not None:
                if before is not None:
                    before.put(key, previous)
                self._remove(key, revision, previous, DELETE)
                count += 1
                work += KEY_WORK
            if work >= limits.SLICE_WORK_MAX and before is not None:
                yield work
                work = 0
        if count:
            self.revision = revision
        yield from self._end(before)
        return (count, revision) if count else (0, None)

    def increment(self, op: operations.Increment, *, rehearsed: bool = False) -> Result | None:
        """[value, version]: the new value as a number; it is stored as decimal text."""
        key = op.key
        previous = self.entries.get(key)
        number = sum_of(op, previous)
        if isinstance(number, Failure):
            return number
        if rehearsed:
            return None
        self.revision = revision = self.revision + 1
        self._put(key, b"%d" % number, revision, previous, None if previous is None else previous[2])
        return (number, revision)

    def rename(self, op: operations.Rename, *, rehearsed: bool = False) -> Result | None:
        """[version]: of the new key; the old one is gone at the same revision.

        A missing source is 4001, for any target; with ``if_absent`` a target that exists is 4003. A key renamed to
        itself keeps its value and gets a new version; with ``if_absent`` it stands in its own way.
        """
        key, new_key = op.key, op.new_key
        entry = self.entries.get(key)
        target = self.entries.get(new_key)
        if entry is None:
            return failure(_KEY_NOT_FOUND, {"key": key})
        if op.if_absent and target is not None:
            return failure(_KEY_EXISTS, {"key": new_key})
        if rehearsed:
            return None
        self.revision = revision = self.revision + 1
        if key != new_key:
            self._remove(key, revision, entry, DELETE)
        self._put(new_key, entry[0], revision, target, entry[2])
        return (revision,)

    def clear(self, op: operations.Clear) -> Steps[Result]:
        """[count, version or nil]"""
        span = key_range((op.prefix,))
        if span == EVERYTHING:
            return (yield from self._clear_all())
        count = self.index.count(span)
        if count == 0:
            return (0, None)
        self.revision = revision = self.revision + 1
        large = self.index.width(span) * KEY_WORK > limits.SLICE_WORK_MAX
        if large:  # all of them are gone for every reader now, and one after the other from memory
            self._current = _outside(span, self.entries)
        piece = max(1, limits.SLICE_WORK_MAX // KEY_WORK)
        while keys := list(islice(self.index.iterate(span), piece)):
            for key in keys:
                entry = self.entries.get(key)
                if entry is not None:
                    self._remove(key, revision, entry, DELETE)
            span = KeyRange(keys[-1], True, span.high)
            if large:
                yield len(keys) * KEY_WORK
        self.settle()
        return (count, revision)

    def _clear_all(self) -> Steps[Result]:
        """Begin with an empty table and leave the old one to its readers; entries that none needs are freed in
        slices.
        """
        count = len(self.entries)
        if count == 0:
            return (0, None)
        while self.held.burdened:  # so that a log of many clears, replayed, holds no more than one store beside its own
            self.held.sweep()
            yield limits.SWEEP_MAX * _FREE_WORK
        self.revision = self.cleared_at = self.revision + 1
        store = ClearedStore(self.entries, self._index, self.revision, self.size)
        self.events.append_clear(self.revision, store)
        self.held.retire(store)
        self.size = 0
        self.entries = self._spare if self._spare is not None else Table()
        self._spare = None
        if self._index is not None:
            self._index = KeyIndex(())
        self.settle()
        return (count, self.revision)

    def unchanged(self, op: operations.Write) -> Result | None:
        """Return the result of a change of any number of keys that has nothing to change; None for any other.

        Of a delete_many with many keys it is not known: looking at each takes as long as applying it.
        """
        entries = self.entries
        match op:
            case operations.SetMany():
                return None if op.items else (self.revision,)
            case operations.DeleteMany():
                few = len(op.keys) <= limits.KEYS_LOOKED_AT_MAX
                return (0, None) if few and not any(key in entries for key in op.keys) else None
            case operations.Clear():
                return (0, None) if self.count(operations.Count(op.prefix)) == (0,) else None
            case _:
                return None

    def adopt(self, revision: int, changes: Mapping[str, StoredEntry | None]) -> None:
        """Make the changes of a transaction, whose ``revision`` is the next one: to each key its entry, or None."""
        self.revision = revision
        for key, entry in changes.items():
            previous = self.entries.get(key)
            if entry is not None:
                self._put(key, entry[0], revision, previous, entry[2])
            elif previous is not None:
                self._remove(key, revision, previous, DELETE)

    # A large change, which is one step for every reader

    def _begin(self, keys: int) -> Table[StoredEntry | None] | None:
        """Begin a change of so many keys. Until `_end`, no reader sees a large one: of each key that was changed,
        reads see the entry in the table that this returns. None for a change of one slice.
        """
        if keys * KEY_WORK <= limits.SLICE_WORK_MAX:
            return None
        before: Table[StoredEntry | None] = Table()
        self._current = _as_before(before, self.entries)
        return before

    def _end(self, before: Table[StoredEntry | None] | None) -> Steps[None]:
        """Show the change, whole, and free the entries that it has replaced."""
        if before is None:
            return
        self.settle()
        while freed := before.free(limits.SWEEP_MAX):
            yield freed * _FREE_WORK

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
            store.build_index()

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
    ) -> None:
        if previous is None:
            if self._index is not None:
                self._index.add(key)
            self.size += entry_size(key, value)
        else:
            if previous[1] <= self.held.newest:
                self.held.keep(key, previous, revision)
            self.size += len(value) - len(previous[0])
        entry = (value, revision, expires_at_ms)
        self.entries.put(key, entry)
        self.events.append(revision, PUT, key, entry, previous)

    def _remove(self, key: str, revision: int, previous: StoredEntry, kind: int) -> None:
        """Take out a key. ``kind`` says why (`haptera.state.event_history`)."""
        held = self.held
        if previous[1] <= held.newest:
            held.keep(key, previous, revision)
        self.entries.remove(key)
        self.size -= entry_size(key, previous[0])
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
        entries = self.entries.items()
        require(
            self.size == sum(entry_size(key, entry[0]) for key, entry in entries), "the size of the entries is counted"
        )
        for key, entry in self.entries.items():
            require(0 < len(key) <= KEY_SIZE_MAX, "keys have their size")
            require(_is_entry(entry) and 0 < entry[1] <= self.revision, "no version is above the revision")
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


def _as_before(before: Table[StoredEntry | None], entries: Table[StoredEntry]) -> Callable[[str], StoredEntry | None]:
    def current(key: str) -> StoredEntry | None:
        return before.get(key) if key in before else entries.get(key)

    return current


def _outside(span: KeyRange, entries: Table[StoredEntry]) -> Callable[[str], StoredEntry | None]:
    low, high = span.low, span.high

    def current(key: str) -> StoredEntry | None:
        return None if key >= low and (high is None or key < high) else entries.get(key)

    return current


def _is_entry(entry: Any) -> bool:
    return [type(field) for field in entry[:2]] == [bytes, int] and (entry[2] is None or type(entry[2]) is int)

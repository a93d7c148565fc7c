"""The ``kv`` part: the keys and values of the store (spec/protocol.md, section 7).

One counter, the *revision*, numbers the changes of the whole store. Each command that changes something takes the next
revision, once however many keys it changes, and that is the *version* of the entries it wrote; so a version only
grows, and a key that is deleted and written again never shows an old one. A command that changes nothing takes no
revision: a delete of a missing key, a clear of an empty range. Writing the value that a key already has, or adding 0,
is a write.

A key whose time has come is *dead*: for every command and every read it is absent, and it is removed later
(`operations.ExpireDue`). A command that puts another entry in the place of a dead one removes that first, at a revision
of its own, so that each end of a key is a change. By which time a key is judged: a command by the time of its entry, a
read by the clock of the node (`Kv.clock`).
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from haptera.errors import Code, Failure, failure
from haptera.state import limits, operations
from haptera.state.cleared_store import ClearedStore
from haptera.state.conditions import nothing_to_delete, sum_of, unmet
from haptera.state.entries import FREE_WORK, KEY_WORK, Entries, in_order, outside, without_dead
from haptera.state.event_history import DELETE
from haptera.state.expiry import ExpiryIndex
from haptera.state.gaps import revision_behind
from haptera.state.glob import compile_glob
from haptera.state.index import KeyIndex
from haptera.state.key_ranges import EVERYTHING, KeyRange, key_range
from haptera.state.sliced_work import finish
from haptera.state.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from haptera.state.results import Result, StoredEntry
    from haptera.state.sliced_work import Steps

_KEY_NOT_FOUND: Final = int(Code.KEY_NOT_FOUND)
_KEY_EXISTS: Final = int(Code.KEY_EXISTS)

#: Units of work of a key that is overwritten, and of one whose later value counts.
_OVERWRITE_WORK: Final = 6
_DOUBLED_WORK: Final = 1
#: Keys that are looked up in one slice.
_PIECE: Final = 512


class Kv(Entries):
    """The keys and values, their index, and the part of the past that open readers need.

    There is a method for each command, named as in its tag. It applies the command, judged against the present state,
    and gives its result array; a `Failure` means that nothing changed. A change of one key that is only ``rehearsed``
    changes nothing: it gives the result of a command that has nothing to change, and None for any other. The commands
    of any number of keys are `Steps`. The attributes belong to this package.
    """

    __slots__ = ()

    # Reads

    def get(self, op: operations.Get) -> Result:
        """[value, version, expires_at_ms]; a missing key is 4001."""
        key = op.key
        entry = (self._current or self.entries.get)(key)
        if entry is None or (entry[2] is not None and entry[2] <= self.clock()):
            return failure(_KEY_NOT_FOUND, {"key": key})
        return entry

    def exists(self, op: operations.Exists) -> Result:
        """[bool]"""
        return (self._seen(op.key) is not None,)

    def ttl(self, op: operations.TimeToLive) -> Result:
        """[ttl_ms or nil]; a missing key is 4001."""
        entry = (self._current or self.entries.get)(op.key)
        if entry is not None and entry[2] is None:
            return (None,)
        left = 0 if entry is None or entry[2] is None else entry[2] - self.clock()
        return (left,) if left > 0 else failure(_KEY_NOT_FOUND, {"key": op.key})

    def get_many(self, op: operations.GetMany) -> Result:
        """[[entry or nil, …]], in the order of the keys."""
        return (self.entries_of(op.keys),)

    def entries_of(self, keys: Iterable[str]) -> list[StoredEntry | None]:
        """The present entries of some keys, in their order; None for each that is missing."""
        found = list(map(self._current or self.entries.get, keys))
        if self.expiry.count or self._current is not None:
            return without_dead(found, self.clock())
        return found

    def count(self, op: operations.Count) -> Result:
        """[count]: O(log n) for any range, beside the dead keys that are still there; O(keys in the range) for a glob
        with more than a prefix. Not while ``changing``.
        """
        assert not self.changing
        glob = compile_glob(op.glob) if op.glob is not None else None
        span = key_range((op.prefix, glob.prefix if glob else None), op.start, op.end)
        now_ms = self.clock()
        if glob is None or glob.cost == 0:
            count = len(self.entries) if span == EVERYTHING else self.index.count(span)
            return (count - len(finish(self._dead(span, now_ms))) if self.expiry.count else count,)
        matches = glob.matches
        return (sum(1 for key in self.index.iterate(span) if self.living(key, now_ms) is not None and matches(key)),)

    def counts_fast(self) -> bool:
        """Whether few dead keys have to be left out of a count."""
        expiry, limit = self.expiry, limits.DEAD_LOOKED_AT_MAX
        return not expiry.count or (expiry.advance(self.clock(), limit) and len(expiry.due) <= limit)

    # Changes

    def set(self, op: operations.Set, *, rehearsed: bool = False) -> Result | None:
        """[version, previous or nil]"""
        key = op.key
        previous = self.entries.get(key)
        if previous is not None and previous[2] is not None and previous[2] <= self.now_ms:
            previous = None
        if op.lease is not None and (refused := self._unattachable(key, op.lease)) is not None:
            return refused
        if (op.if_version is not None or op.condition is not None) and (refused := unmet(op, previous)) is not None:
            return refused
        if rehearsed:
            return None
        if previous is None and self.expiry.count:
            self._bury(key)
        expires_at_ms = None
        if op.ttl_ms is not None:
            expires_at_ms = self._ending(op.ttl_ms)
        elif op.keep_ttl and previous is not None:
            expires_at_ms = previous[2]
        self.revision = revision = self.revision + 1
        self._put(key, op.value, revision, previous, expires_at_ms, op.lease)
        return (revision, previous if op.return_previous else None)

    def delete(self, op: operations.Delete, *, rehearsed: bool = False) -> Result | None:
        """[deleted, version or nil, previous or nil]"""
        key = op.key
        previous = self.living(key, self.now_ms)
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
        if op.lease is not None:
            refused = yield from self._all_unattachable(op.items, op.lease)
            if refused is not None:
                return refused
        if self.expiry.count:
            yield from self._bury_all(key for key, _ in op.items)
        expires_at_ms = None if op.ttl_ms is None else self._ending(op.ttl_ms)
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
            self._put(key, value, revision, previous, expires_at_ms, op.lease)
            work += KEY_WORK if previous is None else _OVERWRITE_WORK
            if work >= limits.SLICE_WORK_MAX and before is not None:
                yield work
                work = 0
        self.revision: int = revision
        yield from self._end(before)
        return (revision,)

    def delete_many(self, op: operations.DeleteMany) -> Steps[Result]:
        """[count, version or nil]: how many keys were there; a doubled one counts once."""
        count = yield from self.remove_keys(op.keys, len(op.keys), DELETE)
        return (count, self.revision if count else None)

    def increment(self, op: operations.Increment, *, rehearsed: bool = False) -> Result | None:
        """[value, version]: the new value as a number; it is stored as decimal text."""
        key = op.key
        previous = self.living(key, self.now_ms)
        number = sum_of(op, previous)
        if isinstance(number, Failure):
            return number
        if rehearsed:
            return None
        if previous is None:
            self._bury(key)
        self.revision = revision = self.revision + 1
        expires_at_ms = None if previous is None else previous[2]
        self._put(key, b"%d" % number, revision, previous, expires_at_ms, self.lease_of(key))
        return (number, revision)

    def rename(self, op: operations.Rename, *, rehearsed: bool = False) -> Result | None:
        """[version]: of the new key; the old one is gone at the same revision.

        A missing source is 4001, for any target; with ``if_absent`` a target that exists is 4003. A key renamed to
        itself keeps its value and gets a new version; with ``if_absent`` it stands in its own way.
        """
        key, new_key = op.key, op.new_key
        entry = self.living(key, self.now_ms)
        target = self.living(new_key, self.now_ms)
        if entry is None:
            return failure(_KEY_NOT_FOUND, {"key": key})
        if op.if_absent and target is not None:
            return failure(_KEY_EXISTS, {"key": new_key})
        if rehearsed:
            return None
        if target is None:
            self._bury(new_key)
        lease_id = self.lease_of(key)
        self.revision = revision = self.revision + 1
        if key != new_key:
            self._remove(key, revision, entry, DELETE)
        self._put(new_key, entry[0], revision, target, entry[2], lease_id)
        return (revision,)

    def get_and_delete(self, op: operations.GetAndDelete, *, rehearsed: bool = False) -> Result | None:
        """[value, version, expires_at_ms, version of the change]: the entry of before; a missing key is 4001."""
        previous = self.living(op.key, self.now_ms)
        if previous is None:
            return failure(_KEY_NOT_FOUND, {"key": op.key})
        if rehearsed:
            return None
        self.revision = revision = self.revision + 1
        self._remove(op.key, revision, previous, DELETE)
        return (*previous, revision)

    def get_and_expire(self, op: operations.GetAndExpire, *, rehearsed: bool = False) -> Result | None:
        """[value, version, expires_at_ms]: the entry as it is now; a missing key is 4001."""
        return self._expire(op.key, op.ttl_ms, rehearsed)

    def expire(self, op: operations.Expire, *, rehearsed: bool = False) -> Result | None:
        """[version]; a missing key is 4001."""
        result = self._expire(op.key, op.ttl_ms, rehearsed)
        return (result[1],) if isinstance(result, tuple) else result

    def _expire(self, key: str, ttl_ms: int | None, rehearsed: bool) -> StoredEntry | Failure | None:
        """Give a key another time to live, or None; its entry of after."""
        previous = self.living(key, self.now_ms)
        if previous is None:
            return failure(_KEY_NOT_FOUND, {"key": key})
        if rehearsed:
            return None
        self.revision = revision = self.revision + 1
        self._put(key, previous[0], revision, previous, None if ttl_ms is None else self._ending(ttl_ms))
        return self.entries.get(key)

    def expire_due(self, op: operations.ExpireDue) -> Steps[Result]:
        """[count, version or nil]: how many of the keys were dead, and are removed."""
        count, revision = len(self.entries), self.revision
        yield from self._bury_all(op.keys)
        return (count - len(self.entries), self.revision if self.revision > revision else None)

    def leave_gap(self, op: operations.LeaveGap, *, rehearsed: bool = False) -> Result | None:
        """[revision]: the new one of the store, whose keys stay as they are."""
        if rehearsed:
            return None
        before = self.revision
        self.revision = revision_behind(before, self.earlier_ms, self.now_ms, op.server_id)
        self.events.forget_until(self.gaps.leave(before, self.revision, op.server_id))
        return (self.revision,)

    def clear(self, op: operations.Clear) -> Steps[Result]:
        """[count, version or nil]"""
        span = key_range((op.prefix,))
        dead = yield from self._dead(span, self.now_ms)
        if span == EVERYTHING:
            return (yield from self._clear_all(dead))
        count = self.index.count(span) - len(dead)
        if count == 0:
            return (0, None)
        self.revision = revision = self.revision + 1
        large = self.index.width(span) * KEY_WORK > limits.SLICE_WORK_MAX
        if large:  # all of them are gone for every reader now, and one after the other from memory
            self._current = outside(span, self.entries)
        piece = max(1, limits.SLICE_WORK_MAX // KEY_WORK)
        while keys := list(islice(self.index.iterate(span), piece)):
            for key in keys:
                entry = self.living(key, self.now_ms)
                if entry is not None:
                    self._remove(key, revision, entry, DELETE)
            span = KeyRange(keys[-1], True, span.high)
            if large:
                yield len(keys) * KEY_WORK
        self.settle()
        return (count, revision)

    def _clear_all(self, dead: list[str]) -> Steps[Result]:
        """Begin with an empty table and leave the old one to its readers; entries that none needs are freed in
        slices. The ``dead`` keys are removed before.
        """
        count = len(self.entries) - len(dead)
        if count == 0:
            return (0, None)
        yield from self._bury_all((yield from in_order(dead)))
        while self.held.burdened:  # so that a log of many clears, replayed, holds no more than one store beside its own
            self.held.sweep()
            yield limits.SWEEP_MAX * FREE_WORK
        self.revision += 1
        self.cleared_at: int = self.revision
        store = ClearedStore(self.entries, self._index, self.expiry, self.revision, self.size)
        self.events.append_clear(self.revision, store)
        self.held.retire(store)
        self.size = 0
        self.expiry: ExpiryIndex = ExpiryIndex(self.expiry.reached)
        self.entries: Table[StoredEntry] = self._spare if self._spare is not None else Table()
        self._spare = None
        if self._index is not None:
            self._index = KeyIndex(())
        self.settle()
        yield from self.leases.clear_keys()
        yield from self.quotas.clear_keys()
        return (count, self.revision)

    def _all_unattachable(self, items: list[tuple[str, bytes]], lease_id: int) -> Steps[Failure | None]:
        """Why some keys cannot all come to a lease, or None."""
        refused = self.leases.refusal(lease_id, len(items))
        if refused is None or refused.code == Code.LEASE_NOT_FOUND:
            return refused
        more: Table[None] = Table()  # it may be full of these very keys
        for number, (key, _) in enumerate(items):
            if self.lease_of(key) != lease_id:
                more.put(key, None)
            if number % _PIECE == 0:
                yield _PIECE * _OVERWRITE_WORK
        count = len(more)
        while freed := more.free(limits.SWEEP_MAX):
            yield freed
        return self.leases.refusal(lease_id, count)

    def unchanged(self, op: operations.Write) -> Result | None:
        """Return the result of a change of any number of keys that has nothing to change; None for any other.

        Of a delete_many with many keys it is not known: looking at each takes as long as applying it.
        """
        match op:
            case operations.SetMany():
                if not op.items:
                    return (self.revision,)
                return None if op.lease is None else self.leases.refusal(op.lease, 0)
            case operations.DeleteMany():
                few = len(op.keys) <= limits.KEYS_LOOKED_AT_MAX
                return (0, None) if few and not any(self.living(key, self.now_ms) for key in op.keys) else None
            case operations.Clear():
                return (0, None) if self.counts_fast() and self.count(operations.Count(op.prefix)) == (0,) else None
            case _:
                return None

    def adopt(self, revision: int, changes: Mapping[str, StoredEntry | None], leases: Mapping[str, int | None]) -> None:
        """Make the changes of a transaction, at its ``revision``: to each key its entry and its lease, or None. Dead
        keys among them are removed at the revision before.
        """
        if self.expiry.count:
            finish(self._bury_all(changes))
        assert revision == self.revision + 1
        self.revision = revision
        for key, entry in changes.items():
            previous = self.entries.get(key)
            if entry is not None:
                self._put(key, entry[0], revision, previous, entry[2], leases.get(key))
            elif previous is not None:
                self._remove(key, revision, previous, DELETE)

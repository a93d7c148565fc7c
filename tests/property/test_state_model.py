"""The state machine against a plain dict, with scans held open across writes, and replays of its log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from haptera.errors import Failure
from haptera.state import (
    EventBounds,
    Logged,
    Operation,
    Replayed,
    Result,
    Row,
    ScanCursor,
    StateMachine,
    Write,
    decode_commands,
    encode_commands,
    event_history,
    table,
    validate,
)
from haptera.state.operation_sets import FENCED
from haptera.state.operations import (
    AsOf,
    Clear,
    Count,
    Delete,
    DeleteMany,
    EndLeases,
    Exists,
    Expire,
    ExpireDue,
    Forget,
    Get,
    GetAndDelete,
    GetAndExpire,
    GetMany,
    GrantLease,
    Increment,
    LeaveGap,
    ListLeases,
    OpenScan,
    Rename,
    RenewLease,
    RevokeLease,
    Set,
    SetMany,
    Transact,
)
from haptera.state.sliced_work import finish
from tests.support.transacts import transact, transacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

replace = msgspec.structs.replace


@pytest.fixture(autouse=True, scope="module")
def _tables_that_are_split_early() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "SPLIT_AT", 3)
        patch.setattr(event_history, "BLOCK_EVENTS", 2)
        yield


#: The revision rises by this in a gap that is left by this id; the times of these runs raise it by less.
SERVER_ID = b"the id of a node"
GAP = 2**32 + int.from_bytes(SERVER_ID[:4], "big")

keys = st.sampled_from(["a", "a/1", "a/2", "ab", "b", "b/1", "c", "é", "\U0001f600"])
values = st.sampled_from([b"", b"x", b"0", b"41", b"-7", b"9223372036854775807", b"01"])
bounds = st.none() | keys | st.sampled_from(["", "a/", "zz", "a\0"])
globs = st.none() | st.sampled_from(["*", "a*", "*1", "a/?", "[ab]*", "[!a]*", "a"])
versions = st.none() | st.integers(0, 12)
ttls = st.sampled_from([1, 2, 3, 70, 5000])
moments = st.builds(AsOf, st.just(Get("a")), st.integers(0, 30) | st.integers(GAP, GAP + 30)) | st.builds(
    AsOf, st.just(Get("a")), at_time_ms=st.integers(0, 20)
)
leases = st.sampled_from([1, 1, 2, 3, 5, 8])
tokens = st.none() | st.integers(1, 12)

without_fence: st.SearchStrategy[Write] = st.one_of(
    st.builds(Set, keys, values, versions, st.sampled_from([None, None, "absent", "present"]), st.booleans()),
    st.builds(Set, keys, values),
    st.builds(Delete, keys, versions, st.booleans()),
    st.builds(Delete, keys),
    st.builds(SetMany, st.lists(st.tuples(keys, values), max_size=4)),
    st.builds(DeleteMany, st.lists(keys, max_size=4)),
    st.builds(Increment, keys, st.sampled_from([0, 1, -3, 2**63 - 1]), st.sampled_from([0, 10])),
    st.builds(Rename, keys, keys, st.booleans()),
    keys.map(lambda key: Rename(key, key)),
    st.builds(Clear, st.sampled_from([None, "", "a", "a/", "é", "zz", "b", "b/1"])),
    transacts(keys, values, leases=st.just(0) | leases),
    st.builds(Set, keys, values, ttl_ms=ttls),
    st.builds(Set, keys, values, versions, keep_ttl=st.just(True)),
    st.builds(SetMany, st.lists(st.tuples(keys, values), max_size=4), ttls),
    st.builds(Expire, keys, st.none() | ttls),
    st.builds(GetAndExpire, keys, ttls) | st.builds(GetAndExpire, keys, persist=st.just(True)),
    st.builds(GetAndDelete, keys),
    st.builds(ExpireDue, st.lists(keys, max_size=4)),
    st.builds(GrantLease, st.sampled_from([1000, 2000])),
    st.builds(Set, keys, values, versions, lease=leases),
    st.builds(SetMany, st.lists(st.tuples(keys, values), max_size=4), lease=leases),
    st.builds(RevokeLease, leases),
    st.builds(EndLeases, st.lists(leases, max_size=3)),
)
writes: st.SearchStrategy[Write] = without_fence | st.builds(
    replace, without_fence.filter(lambda op: type(op) in FENCED), fence=tokens
)

Entry = tuple[bytes, int, int | None]


class Model:
    """The kv part said again, as plainly as possible: what it holds, and the answer or the error code.

    ``entries`` has the dead keys that were not removed yet, too; `alive` are the others.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.now_ms = 0
        self.entries: dict[str, Entry] = {}
        self.leases: dict[int, int] = {}
        self.attached: dict[str, int] = {}
        #: Of each revision the time of its last change of a key, and the entries, dead ones too.
        self.past: dict[int, tuple[int, dict[str, Entry]]] = {0: (0, {})}

    def note(self) -> None:
        """Keep the present revision. A revision that changes no key has the time of the one before."""
        before = (
            self.past[max(revision for revision in self.past if revision < self.revision)] if self.revision else None
        )
        if before is not None:
            time_ms = before[0] if before[1] == self.entries else self.now_ms
            self.past.setdefault(self.revision, (time_ms, dict(self.entries)))

    @property
    def alive(self) -> dict[str, Entry]:
        return {key: entry for key, entry in self.entries.items() if entry[2] is None or entry[2] > self.now_ms}

    def do(self, op: Operation) -> tuple[object, ...] | int:
        fence = getattr(op, "fence", None)
        if fence is not None and fence not in {self.entries[key][1] for key in self.attached}:
            return 4011
        return self.leased(op) if isinstance(op, (GrantLease, RevokeLease, EndLeases)) else self.judged(op)

    def leased(self, op: GrantLease | RevokeLease | EndLeases) -> tuple[object, ...] | int:
        match op:
            case GrantLease(ttl_ms):
                self.revision += 1
                self.leases[self.revision] = ttl_ms
                return (self.revision, ttl_ms)
            case RevokeLease(lease):
                return self.end([lease]) if lease in self.leases else 4010
            case EndLeases(many):
                found = set(many) & self.leases.keys()
                return (len(found), *self.end(found))

    def end(self, leases: Iterable[int]) -> tuple[int, int | None]:
        for lease in leases:
            del self.leases[lease]
        gone = {key for key, lease in self.attached.items() if lease in set(leases)}
        return len(gone), self.remove(gone)

    def judged(self, op: Operation) -> tuple[object, ...] | int:
        match op:
            case Transact():
                return self.transact(op)
            case Set(_, _, _, _, _, _, _, lease) | SetMany(_, _, lease) if lease is not None and self.lacks(op, lease):
                return 4010
            case Set(key, value, if_version, condition, return_previous, ttl_ms, keep_ttl, lease):
                refused = self.refused(key, if_version, condition)
                before = self.entry(key)
                expires = before[2] if keep_ttl and before else self.ending(ttl_ms)
                return refused or (self.write({key: value}, expires, lease), before if return_previous else None)
            case Delete(key, if_version, return_previous):
                refused = self.refused(key, if_version, None)
                before = self.entry(key) if return_previous else None
                return refused or (key in self.alive, self.remove([key]), before)
            case SetMany(items, ttl_ms, lease):
                return (self.write(dict(items), self.ending(ttl_ms), lease) if items else self.revision,)
            case DeleteMany(many):
                found = {key for key in many if key in self.alive}
                return (len(found), self.remove(found))
            case Increment(key, delta, initial):
                return self.increment(key, delta, initial)
            case Rename(key, new_key, if_absent):
                if key not in self.alive:
                    return 4001
                if if_absent and new_key in self.alive:
                    return 4003
                self.bury([new_key])
                value, _, expires = self.entries.pop(key)
                return (self.write({new_key: value}, expires, self.attached.pop(key, None)),)
            case Expire(key, ttl_ms) | GetAndExpire(key, ttl_ms, _):
                if key not in self.alive:
                    return 4001
                version = self.write({key: self.entries[key][0]}, self.ending(ttl_ms))
                return (version,) if isinstance(op, Expire) else self.entries[key]
            case GetAndDelete(key):
                before = self.entry(key)
                return (*before, self.remove([key])) if before else 4001
            case LeaveGap():
                self.revision += GAP
                return (self.revision,)
            case ExpireDue(many):
                found = self.bury(many)
                return (len(found), self.revision if found else None)
            case Clear(prefix):
                found = {key for key in self.alive if key.startswith(prefix or "")}
                if found and not prefix:
                    self.bury(list(self.entries))
                return (len(found), self.remove(found))
            case _:
                raise AssertionError(op)

    def transact(self, op: Transact) -> tuple[object, ...] | int:
        """The dead keys that it changes end first."""
        trial = Model()
        trial.revision, trial.now_ms, trial.entries = self.revision, self.now_ms, dict(self.entries)
        trial.leases, trial.attached = self.leases, dict(self.attached)
        if not isinstance(transact(trial, op), int):
            self.bury([key for key, entry in self.entries.items() if trial.entries.get(key) is not entry])
        return transact(self, op)

    def lacks(self, op: Set | SetMany, lease: int) -> bool:
        """Whether the lease of a write is missing; one that writes nothing asks for none."""
        return lease not in self.leases and (isinstance(op, Set) or bool(op.items))

    def entry(self, key: str) -> Entry | None:
        return self.alive.get(key)

    def ending(self, ttl_ms: int | None) -> int | None:
        return None if ttl_ms is None else self.now_ms + ttl_ms

    def bury(self, many: list[str]) -> set[str]:
        """Remove the dead of some keys, at one revision."""
        dead = set(many) & (self.entries.keys() - self.alive.keys())
        for key in dead:
            del self.entries[key]
        self.revision += bool(dead)
        self.note()
        return dead

    def refused(self, key: str, if_version: int | None, condition: str | None) -> int:
        actual = self.alive[key][1] if key in self.alive else 0
        if if_version not in {None, actual}:
            return 4002
        if condition == "absent" and actual:
            return 4003
        return 4001 if condition == "present" and not actual else 0

    def increment(self, key: str, delta: int, initial: int) -> tuple[object, ...] | int:
        before = self.entry(key)
        text = before[0] if before else str(initial).encode()
        try:
            number = int(text)
        except ValueError:
            return 4004
        if str(number).encode() != text:
            return 4004
        if not -(2**63) <= number + delta < 2**63:
            return 4005
        expires = before[2] if before else None
        return (number + delta, self.write({key: str(number + delta).encode()}, expires, self.attached.get(key)))

    def write(self, items: dict[str, bytes], expires: int | None, lease: int | None = None) -> int:
        self.bury(list(items))
        self.revision += 1
        self.entries.update({key: (value, self.revision, expires) for key, value in items.items()})
        for key in items:
            self.attached.pop(key, None)
            if lease is not None:
                self.attached[key] = lease
        return self.revision

    def remove(self, found: set[str] | list[str]) -> int | None:
        gone = self.alive.keys() & set(found)
        for key in gone:
            del self.entries[key]
            self.attached.pop(key, None)
        if not gone:
            return None
        self.revision += 1
        return self.revision


def rows_of(entries: dict[str, Entry], op: OpenScan) -> list[Row]:
    """What a scan of a store that holds ``entries`` gives."""
    found = sorted((key for key in entries if in_range(key, op)), key=lambda key: key.encode(), reverse=op.reverse)
    if op.after is not None:
        after = op.after
        found = [key for key in found if (key < after if op.reverse else key > after)]
    rows: list[Row] = [(key, None if op.keys_only else entries[key][0], *entries[key][1:]) for key in found]
    return rows if op.limit is None else rows[: op.limit]


def in_range(key: str, op: OpenScan | Count) -> bool:
    return (
        key.startswith(op.prefix or "")
        and (op.start is None or key >= op.start)
        and (op.end is None or key < op.end)
        and matches(key, op.glob)
    )


def matches(key: str, glob: str | None) -> bool:
    match glob:
        case None | "*":
            return True
        case "a*":
            return key.startswith("a")
        case "*1":
            return key.endswith("1")
        case "a/?":
            return key.startswith("a/") and len(key) == 3
        case "[ab]*":
            return key[0] in "ab"
        case "[!a]*":
            return key[0] != "a"
        case _:
            return key == glob


@dataclass
class FollowedScan:
    """A cursor, what it must give, and what it gave."""

    cursor: ScanCursor
    expected: list[Row]
    #: Whether the events that lead back to its revision may go before it has looked at them.
    may_be_lost: bool = False
    rows: list[Row] = field(default_factory=list)

    def page(self, max_bytes: int, max_rows: int) -> bool:
        page = self.cursor.page(max_bytes, max_rows)
        if isinstance(page, Failure):
            assert self.may_be_lost
            assert (page.code, self.rows) == (4009, [])
            return True
        self.rows += page.rows
        assert self.rows == self.expected[: len(self.rows)]
        assert not page.done or self.rows == self.expected
        assert self.cursor.count == len(self.rows)
        assert self.cursor.last_key == (self.rows[-1][0] if self.rows else None)
        return page.done


class StoreAgainstDict(RuleBasedStateMachine):
    """Any commands in any entries, any reads, any scans open at once."""

    scans = Bundle("scans")
    BOUNDS = EventBounds()

    def __init__(self) -> None:
        super().__init__()
        self.store = StateMachine(self.BOUNDS)
        self.model = Model()
        self.store.kv.clock = lambda: self.model.now_ms
        self.payloads: list[tuple[bytes, int]] = []
        self.cursors: list[ScanCursor] = []

    @initialize(target=scans, items=st.lists(st.tuples(keys, values), max_size=12), readers=st.integers(0, 3))
    def fill(self, items: list[tuple[str, bytes]], readers: int) -> MultipleResults[FollowedScan]:
        """Most runs begin with a lease, with something to scan, and with readers of different revisions that see it."""
        self.write([GrantLease(1000)])
        self.write([SetMany(items)])
        scans = []
        for number in range(readers):
            scans.append(self.opened(OpenScan()))
            self.write([Set("between", b"%d" % number)])
        return multiple(*scans)

    @rule(ops=st.lists(writes, min_size=1, max_size=4), passed=st.sampled_from([0, 0, 0, 1, 2, 100]))
    def write(self, ops: list[Write], passed: int = 0) -> None:
        assert all(validate(op) is None for op in ops)
        commands = [Logged(op) for op in ops]
        self.model.now_ms += passed
        self.payloads.append((encode_commands(commands), self.model.now_ms))
        known, revision = [self.store.known(command) for command in commands], self.store.revision
        leases_before = set(self.store.leases.by_id)
        results = self.store.apply(len(self.payloads), self.model.now_ms, commands)
        if known and known[0] is not None:
            assert known[0] == results[0]
        if len(ops) == 1 and not ops[0].of_node:
            changed = self.store.revision > revision or set(self.store.leases.by_id) != leases_before
            assert (known == [None]) is changed
        for result, op in zip(results, ops, strict=True):
            assert (result.code if isinstance(result, Failure) else result) == self.model.do(op)
            self.model.note()

    @precondition(lambda self: 8 < self.model.revision < GAP)
    @rule()
    def leave_gap(self) -> None:
        self.write([LeaveGap(SERVER_ID)])

    @rule(key=keys, many=st.lists(keys, max_size=4))
    def read(self, key: str, many: list[str]) -> None:
        entry = self.model.entry(key)
        answer = self.store.read(Get(key))
        assert (None if isinstance(answer, Failure) else answer) == entry
        assert self.store.read(Exists(key)) == (entry is not None,)
        assert self.store.read(GetMany(many)) == ([self.model.entry(key) for key in many],)

    @rule(many=st.lists(leases, max_size=4), after=st.integers(0, 8), limit=st.none() | st.integers(0, 3))
    def read_leases(self, many: list[int], after: int, limit: int | None) -> None:
        ttls = self.model.leases
        assert self.store.read(RenewLease(many)) == (tuple(map(ttls.get, many)),)
        counts = Counter(self.model.attached.values())
        rows = tuple((lease, ttl_ms, ttl_ms, counts[lease]) for lease, ttl_ms in ttls.items() if lease > after)
        shown = rows if limit is None else rows[:limit]
        assert self.store.read(ListLeases(after, limit)) == (shown, len(shown) < len(rows))

    @rule(op=st.builds(Count, bounds, bounds, bounds, globs))
    def count(self, op: Count) -> None:
        assert self.store.read(op) == (sum(in_range(key, op) for key in self.model.alive),)

    @rule(
        target=scans,
        op=st.builds(
            OpenScan, bounds, bounds, bounds, globs, st.none() | st.integers(0, 4), st.booleans(), st.booleans(), bounds
        )
        | st.builds(OpenScan, reverse=st.booleans()),
    )
    def open_scan(self, op: OpenScan) -> FollowedScan:
        return self.opened(op)

    def opened(self, op: OpenScan) -> FollowedScan:
        cursor = self.store.open_scan(op)
        assert isinstance(cursor, ScanCursor)
        assert cursor.revision == self.model.revision
        self.cursors.append(cursor)
        return FollowedScan(cursor, rows_of(self.model.alive, op))

    @rule(scan=scans, ops=st.lists(writes, max_size=3), max_bytes=st.integers(1, 200), max_rows=st.integers(1, 3))
    def write_and_page(self, scan: FollowedScan, ops: list[Write], max_bytes: int, max_rows: int) -> None:
        self.write(ops)
        scan.page(max_bytes, max_rows)

    @rule(scan=consumes(scans))
    def finish(self, scan: FollowedScan) -> None:
        while not scan.page(1000, 100):
            pass

    @rule(scan=consumes(scans), again=st.booleans())
    def close(self, scan: FollowedScan, again: bool) -> None:
        scan.cursor.close()
        if again:
            scan.cursor.close()

    def as_of(self, at: AsOf) -> tuple[int, dict[str, Entry]] | None:
        """The revision and the living entries that a read of the past is of; None for a moment that is not kept."""
        compacted = self.store.kv.events.compacted
        changed = {0: 0} if not compacted else {}  # of each revision that changed a key the time
        for (_, (_, before)), (revision, (time_ms, after)) in pairwise(sorted(self.model.past.items())):
            if before != after and revision > compacted:
                changed[revision] = time_ms
        if at.at_revision is None:
            now_ms = at.at_time_ms or 0
            known = [revision for revision, time_ms in changed.items() if time_ms <= now_ms <= self.model.now_ms]
            revision = max(known, default=-1)
        else:
            revision = at.at_revision
            known = [other for other in changed if other <= revision] if revision in self.model.past else []
            now_ms = self.model.past[revision][0] if known else 0
        if not known:
            return None
        _, entries = self.model.past[revision]
        return revision, {key: entry for key, entry in entries.items() if entry[2] is None or entry[2] > now_ms}

    @rule(at=moments, key=keys, many=st.lists(keys, max_size=4), op=st.builds(Count, bounds, bounds, bounds, globs))
    def read_the_past(self, at: AsOf, key: str, many: list[str], op: Count) -> None:
        expected = self.as_of(at)
        one = finish(self.store.read_steps(replace(at, read=Get(key)), 10_000))
        several = finish(self.store.read_steps(replace(at, read=GetMany(many)), 10_000))
        if expected is None:
            assert isinstance(one, Failure)
            assert isinstance(several, Failure)
            assert (one.code, several.code) == (4009, 4009)
            return
        revision, entries = expected
        if key in entries:
            assert one == (entries[key], revision)
        else:
            assert isinstance(one, Failure)
            assert (one.code, one.details) == (4001, {"key": key})
        assert several == (([entries.get(key) for key in many],), revision)

    @rule(target=scans, at=moments, op=st.builds(OpenScan, bounds, bounds, bounds, globs, reverse=st.booleans()))
    def open_scan_of_the_past(self, at: AsOf, op: OpenScan) -> FollowedScan | MultipleResults[FollowedScan]:
        expected, cursor = self.as_of(at), self.store.open_scan(op, None, at)
        if expected is None:
            assert isinstance(cursor, Failure)
            assert cursor.code == 4009
            return multiple()
        assert isinstance(cursor, ScanCursor)
        assert cursor.revision == expected[0]
        self.cursors.append(cursor)
        return FollowedScan(cursor, rows_of(expected[1], op), EventBounds() != self.BOUNDS)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        self.store.check()
        assert self.store.revision == self.model.revision
        assert dict(self.store.kv.entries.items()) == self.model.entries
        assert {lease: found.ttl_ms for lease, found in self.store.leases.by_id.items()} == self.model.leases
        assert dict(self.store.leases.of_key.items()) == self.model.attached

    def teardown(self) -> None:
        """When the last reader has ended, nothing of the past is left; and the log makes the same state again."""
        for cursor in self.cursors:
            cursor.close()
        for _ in self.store.sweep_steps():
            pass
        self.store.check()
        assert self.store.kv.held.idle
        assert self.store.kv.held.size == self.store.kv.cursors == 0
        other = StateMachine()
        for index, (payload, time_ms) in enumerate(self.payloads, 1):
            other.apply(index, time_ms, decode_commands(payload))
        other.check()
        assert other.digest() == self.store.digest()


class StoreThatForgets(StoreAgainstDict):
    """The same with few events, so that the past goes, also under a reader that has begun."""

    BOUNDS = EventBounds(events=6)


TestStoreAgainstDict = StoreAgainstDict.TestCase
TestStoreAgainstDict.settings = settings(stateful_step_count=40)
TestStoreThatForgets = StoreThatForgets.TestCase
TestStoreThatForgets.settings = settings(stateful_step_count=40)


ids = st.integers(0, 3).map(lambda number: bytes([number]) * 16)
digests = st.integers(0, 1).map(lambda number: bytes([number]) * 32)
users = st.sampled_from(["", "app"])
commands = st.lists(
    st.builds(Logged, writes)
    | st.builds(Logged, writes, users, ids, digests)
    | st.builds(Logged, st.builds(Forget, users, st.lists(ids, max_size=2))),
    max_size=30,
)


def entries_of(all_commands: list[Logged], cuts: list[int]) -> list[list[Logged]]:
    places = sorted({0, len(all_commands), *(cut % (len(all_commands) + 1) for cut in cuts)})
    return [all_commands[low:high] for low, high in pairwise(places)]


def applied(entries: list[list[Logged]], times: list[int]) -> tuple[StateMachine, list[Result]]:
    machine = StateMachine()
    results: list[Result] = []
    for index, entry in enumerate(entries, 1):
        results += machine.apply(index, times[index - 1], decode_commands(encode_commands(entry)))
        machine.check()
    return machine, results


@given(commands, st.lists(st.integers(0, 30), max_size=6), st.lists(st.integers(0, 30), max_size=6))
def test_other_entry_boundaries_give_the_same_results_and_the_same_state(
    all_commands: list[Logged], cuts: list[int], other_cuts: list[int]
) -> None:
    entries, others = entries_of(all_commands, cuts), entries_of(all_commands, other_cuts)
    one, results = applied(entries, [7] * len(entries))
    two, other_results = applied(others, [7] * len(others))
    assert results == other_results
    assert one.kv.digest() == two.kv.digest()
    assert one.leases.digest() == two.leases.digest()
    assert one.requests.digest() == two.requests.digest()


@given(
    commands, st.lists(st.integers(0, 30), max_size=6), st.lists(st.integers(0, 2_000_000), min_size=31, max_size=31)
)
def test_the_same_entries_give_the_same_state_whatever_their_times(
    all_commands: list[Logged], cuts: list[int], times: list[int]
) -> None:
    entries = entries_of(all_commands, cuts)
    one, results = applied(entries, times)
    two, other_results = applied(entries, times)
    assert results == other_results
    assert one.digest() == two.digest()
    assert one.time_ms == max([0, *times[: len(entries)]])


@given(st.lists(st.tuples(writes, ids), max_size=20))
def test_a_request_id_is_applied_at_most_once(requests: list[tuple[Write, bytes]]) -> None:
    machine, model = StateMachine(), Model()
    answers: dict[bytes, object] = {}
    for index, (op, request_id) in enumerate(requests, 1):
        [result] = machine.apply(index, 0, [Logged(op, "app", request_id, bytes(32))])
        if request_id in answers:
            assert result == Replayed(answers[request_id])  # type: ignore[arg-type]
            continue
        expected = model.do(op)
        if isinstance(result, Failure):
            assert result.code == expected
        else:
            assert result == expected
            answers[request_id] = result
    assert machine.revision == model.revision

"""The event history: each change once, in order, inside its bounds, and the same after a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.state import EventBounds, Logged, MalformedPieces, UnknownPart, dump_pieces, limits, load_pieces
from haptera.state import event_history as module
from haptera.state.event_history import DELETE, PUT
from haptera.state.event_pieces import expanded
from haptera.state.operations import (
    Clear,
    Delete,
    DeleteMany,
    Get,
    Increment,
    OpenScan,
    Rename,
    Set,
    SetMany,
    Transact,
)
from tests.unit.state.store import Store, drain

if TYPE_CHECKING:
    from haptera.state import StateMachine, StoredEntry, Write
    from haptera.state.event_history import Event


def events_of(machine: StateMachine) -> list[Event]:
    """All events, those of a clear one by one."""
    return list(expanded(machine.kv, machine.kv.events.first))


def told(machine: StateMachine) -> list[tuple[int, int, str, bytes | None, bytes | None]]:
    """Revision, kind, key, the value of after and the value of before, of each event."""
    return [
        (revision, kind, key, None if entry is None else entry[0], None if previous is None else previous[0])
        for revision, kind, key, entry, previous, _, _ in events_of(machine)
    ]


def loaded(machine: StateMachine) -> StateMachine:
    again = load_pieces(dump_pieces(machine), index=machine.index, time_ms=machine.time_ms)
    again.check()
    return again


def test_a_transact_is_one_event_for_each_key_that_it_changes() -> None:
    store = Store()
    store.do(Set("a", b"1"))
    store.do(Set("b", b"1"))
    passing = [Set("c", b"1"), Delete("c")]
    store.do(Transact([], [Set("a", b"2"), *passing, Delete("b"), Increment("a"), Set("b", b"3"), Rename("a", "d")]))
    store.do(Transact([], [Set("b", b"4"), Rename("missing", "b")]))
    store.do(Transact([], [Get("b")]))
    assert told(store)[2:] == [
        (3, DELETE, "a", None, b"1"),
        (3, PUT, "b", b"3", b"1"),
        (3, PUT, "d", b"3", None),
    ]


def test_each_change_of_a_key_is_an_event() -> None:
    store = Store()
    store.do(Set("a", b"1"))
    store.do(Set("a", b"2"))
    store.do(Increment("n", 5))
    store.do(Rename("a", "b"))
    store.do(Delete("b"))
    store.do(SetMany([("c", b"c"), ("d", b"d")]))
    store.do(DeleteMany(["c", "missing", "c"]))
    store.do(Clear("d"))
    assert told(store) == [
        (1, PUT, "a", b"1", None),
        (2, PUT, "a", b"2", b"1"),
        (3, PUT, "n", b"5", None),
        (4, DELETE, "a", None, b"2"),
        (4, PUT, "b", b"2", None),
        (5, DELETE, "b", None, b"2"),
        (6, PUT, "d", b"d", None),
        (6, PUT, "c", b"c", None),
        (7, DELETE, "c", None, b"c"),
        (8, DELETE, "d", None, b"d"),
    ]


def test_a_change_that_changes_nothing_is_none() -> None:
    store = Store()
    store.do(Set("a", b"", if_version=7))
    store.do(Delete("a"))
    store.do(Clear())
    store.do(SetMany([]))
    assert told(store) == []


def test_an_event_tells_the_time_and_the_user() -> None:
    store = Store()
    store.apply(1, 500, [Logged(Set("a", b""), "ann"), Logged(Set("b", b""), "bob")])
    store.apply(2, 400, [Logged(Set("c", b""), "ann")])
    assert [event[5:] for event in events_of(store)] == [(500, "ann"), (500, "bob"), (500, "ann")]


@pytest.mark.parametrize("size", [3, 1000])
def test_a_doubled_key_in_a_set_many_is_one_event(size: int) -> None:
    store = Store()
    store.do(Set("key/0", b"before"))
    items = [(f"key/{number % size}", b"%d" % number) for number in range(2 * size)]
    store.do(SetMany(items))
    found = {key: (entry, previous) for _, _, key, entry, previous in told(store)[1:]}
    assert len(events_of(store)) == 1 + size
    assert found["key/0"] == (b"%d" % size, b"before")
    assert {key: entry for key, (entry, _) in found.items()} == dict(items)


def test_a_clear_of_everything_is_a_delete_of_each_key_in_order() -> None:
    store = Store()
    store.do(SetMany([("b", b"2"), ("a", b"1"), ("c", b"3")]))
    cursor = store.cursor(OpenScan())
    store.do(Delete("c"))
    store.do(Clear())
    cursor.close()
    assert told(store)[4:] == [(3, DELETE, "a", None, b"1"), (3, DELETE, "b", None, b"2")]
    store.do(Set("a", b"new"))
    assert told(store)[-1] == (4, PUT, "a", b"new", None)


def test_the_store_of_a_clear_is_freed_once_when_neither_a_reader_nor_its_event_needs_it() -> None:
    for scan_first in (True, False):
        store = Store(EventBounds(events=0, size=0))
        store.do(SetMany([(f"{number:04}", bytes(100)) for number in range(1000)]))
        cursor = store.cursor(OpenScan())
        store.do(Clear())
        assert store.kv.held.size > 100_000
        if scan_first:
            cursor.close()
            assert store.kv.held.size == 0, "it counts among the events alone"
            store.do(Set("a", b""))
            assert store.kv.held.burdened, "it is freed in slices"
        else:
            store.do(Set("a", b""))
            store.do(Set("a", b""))
            assert not store.kv.events.cleared_stores()
            assert len(drain(cursor)) == 1000
            cursor.close()
        store.do(Set("a", b""))
        for _ in range(20):
            store.kv.held.sweep()
            store.check()
        assert store.kv.held.idle
        assert store.kv.held.size == 0
        assert not store.kv.events.cleared_stores()


@pytest.mark.parametrize("bounds", [EventBounds(events=1200, size=1 << 40), EventBounds(events=1 << 40, size=400_000)])
def test_the_oldest_events_go_by_whole_blocks(bounds: EventBounds) -> None:
    store = Store(bounds)
    events = store.kv.events
    for number in range(4000):
        store.apply(store.index + 1, 0, [Logged(Set(f"key/{number}", b""))])
        assert len(events) <= bounds.events + module.BLOCK_EVENTS
        assert events.size <= bounds.size + module.BLOCK_SIZE
        assert events.compacted == events.first
    store.check()
    assert len(events) > 1000
    assert [event[0] for event in events_of(store)] == list(range(events.compacted + 1, 4001))


def test_the_events_of_the_newest_revision_stay_beyond_the_bounds() -> None:
    store = Store(EventBounds(events=10, size=10))
    store.do(SetMany([(f"key/{number}", b"") for number in range(3000)]))
    assert len(events_of(store)) == 3000
    assert store.kv.events.compacted == 0
    for _ in range(10):
        store.do(Set("a", b""))
    assert len(store.kv.events) <= 10 + module.BLOCK_EVENTS
    assert store.kv.events.compacted == 1


def test_a_change_frees_a_bounded_number_of_blocks() -> None:
    store = Store(EventBounds(events=1 << 40, size=0))
    items = [(f"key/{number}", bytes(module.BLOCK_SIZE // 4)) for number in range(200)]
    store.do(SetMany(items))
    store.do(DeleteMany([key for key, _ in items]))
    before = len(store.kv.events._blocks)
    store.do(Set("a", b""))
    assert 0 < before - len(store.kv.events._blocks) <= 4
    for _ in range(20):
        store.do(Set("a", b""))
    assert not store.kv.events._blocks


def test_a_place_is_found_by_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_EVENTS", 4)
    store = Store()
    for number in range(10):
        store.do(SetMany([(f"{number}/{each}", b"") for each in range(number % 3 + 1)]))
    events = store.kv.events
    revisions = [event[0] for event in events_of(store)]
    for revision in range(1, 12):
        expected = revisions.index(revision) if revision in revisions else len(revisions)
        assert events.place_of(revision) == expected
    for place in range(len(revisions)):
        assert events.read(place, 3)[0][0] == revisions[place]
    assert events.read(events.end, 3) == []


# -- snapshots


def some_changes(store: Store) -> None:
    store.do(SetMany([("a", b"1"), ("b", b"2")]))
    store.do(Set("a", b"3"), "ann")
    store.do(Set("a", b"4"))
    store.do(Clear())
    store.do(Set("b", b"5"))
    store.do(Rename("b", "c"))
    store.do(Delete("c"))
    store.do(Set("d", b"6"))


def test_a_snapshot_has_the_events() -> None:
    store = Store()
    some_changes(store)
    again = loaded(store)
    assert events_of(again) == events_of(store)
    assert again.kv.events.compacted == 0
    assert loaded(again).kv.events.compacted == 0
    assert again.digest() == store.digest()


def test_loaded_events_share_their_entries() -> None:
    store = Store()
    store.do(Set("a", b"first"))
    store.do(Set("a", b"second"))
    again = loaded(store)
    first, second = events_of(again)
    assert first[3] is second[4]
    assert second[3] is again.kv.entries.get("a")


def test_a_snapshot_has_the_newest_events_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SNAPSHOT_EVENTS_MAX", 6)
    store = Store()
    some_changes(store)
    for size in range(14):
        monkeypatch.setattr(limits, "SNAPSHOT_EVENTS_MAX", size)
        again = loaded(store)
        compacted = again.kv.events.compacted
        assert len(events_of(again)) <= size
        assert events_of(again) == [event for event in events_of(store) if event[0] > compacted]
        events_behind = [event for event in events_of(store) if event[0] >= compacted]
        assert compacted == 0 or len(events_behind) > size, "one more revision would not fit"
    monkeypatch.setattr(limits, "SNAPSHOT_EVENTS_SIZE_MAX", 0)
    assert told(loaded(store)) == [(8, PUT, "d", b"6", None)]


def test_a_snapshot_without_events_is_one_of_older_software() -> None:
    store = Store()
    some_changes(store)
    pieces = [piece for piece in dump_pieces(store) if piece[0] != "events"]
    again = load_pieces(pieces, index=store.index, time_ms=store.time_ms)
    assert again.digest() == store.digest()
    assert again.kv.events.compacted == store.revision
    assert events_of(again) == []


def test_events_that_no_store_has_are_refused() -> None:
    encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
    store = Store()
    store.do(Set("a", b"1"))
    store.do(Set("a", b"2"))
    store.do(Delete("a"))
    store.do(Set("b", b"3"))
    pieces = list(dump_pieces(store))
    rows = decode(pieces[-1][1])

    def refused(head: Any, changed: list[Any], error: type[Exception] = MalformedPieces) -> None:
        tampered = [*pieces[:-2], ("events", encode(head)), ("events", encode(changed))]
        with pytest.raises(error):
            load_pieces(tampered, index=store.index, time_ms=store.time_ms)

    assert decode(pieces[-2][1]) == [0, 4]
    refused([0, 3], rows)
    refused([9, 4], rows)
    refused([1, 4], rows)
    refused([0, 4], [rows[1], rows[0], *rows[2:]])
    refused([0, 4, 1], rows, UnknownPart)
    refused([0, 4], [[*rows[0], 1], *rows[1:]], UnknownPart)
    row = rows[3]
    for place, wrong in [(0, 9), (1, -1), (1, 1 << 60), (3, 0), (3, 4), (3, DELETE), (4, ""), (4, "x"), (5, False)]:
        refused([0, 4], [*rows[:3], [*row[:place], wrong, *row[place + 1 :]]])
    refused([0, 4], [*rows[:2], [*rows[2][:6], 1], row])
    refused([0, 4], [*rows[:2], [*rows[2][:6], None], row])
    refused([0, 4], [*rows[:2], [*rows[2][:6], [b"", 2, None]], row])


keys = st.sampled_from(["a", "a/1", "a/2", "b", "c"])
commands = st.one_of(
    st.builds(Set, keys, st.binary(max_size=2)),
    st.builds(Delete, keys),
    st.builds(Rename, keys, keys),
    st.builds(SetMany, st.lists(st.tuples(keys, st.binary(max_size=2)), max_size=6)),
    st.builds(DeleteMany, st.lists(keys, max_size=6)),
    st.builds(Clear, st.sampled_from([None, "a/", ""])),
)


@given(st.lists(commands, max_size=30), st.integers(0, 12))
def test_the_events_rebuild_the_store(ops: list[Write], most: int) -> None:
    """Those of a snapshot do so from the store at the revision that they begin behind."""
    store = Store()
    past: dict[int, dict[str, StoredEntry]] = {0: {}}
    for op in ops:
        store.do(op)
        past[store.revision] = dict(store.kv.entries.items())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "SNAPSHOT_EVENTS_MAX", most)
        again = loaded(store)
    for machine in (store, again):
        found = past[machine.kv.events.compacted].copy()
        for revision, kind, key, entry, previous, _, _ in events_of(machine):
            assert found.pop(key, None) == previous
            if kind == PUT:
                assert entry is not None
                assert entry[1] == revision
                found[key] = entry
        assert found == past[store.revision]

"""Keys that were missing: whether they have come since, read from the events a slice at a time."""

from __future__ import annotations

import pytest

from haptera.state import Appearances, EventBounds, limits
from haptera.state.event_history import BLOCK_EVENTS
from haptera.state.operations import Clear, Delete, GetAndDelete, Increment, Rename, Set, SetMany, Write
from tests.unit.state.store import Store


def appeared(store: Store, **missing: int) -> bool | None:
    return Appearances(store.kv.events, missing).advance()


@pytest.mark.parametrize(
    "changes",
    [
        [Set("a", b"")],
        [Set("a", b""), Delete("a")],
        [Increment("a"), GetAndDelete("a")],
        [Rename("z", "a"), Rename("a", "y")],
        [SetMany([("a", b""), ("b", b"")]), Clear()],
    ],
)
def test_a_key_that_comes_is_found_also_where_it_is_gone_again(changes: list[Write]) -> None:
    store = Store()
    store.do(Set("z", b""))
    at = store.revision
    assert appeared(store, a=at) is False
    for change in changes:
        store.do(change)
    assert appeared(store, a=at) is True
    assert appeared(store, a=at, never=at) is True
    assert appeared(store, never=at) is False
    assert appeared(store, a=store.revision) is False
    assert appeared(store, a=store.revision, never=at) is False, "each key counts from its own revision"


def test_the_removal_of_a_key_is_no_appearance() -> None:
    store = Store()
    store.do(Set("a", b""))
    at = store.revision
    store.do(Delete("a"))
    assert appeared(store, a=at) is False


def test_a_reader_goes_on_where_it_was_and_reads_a_slice_at_a_time() -> None:
    store = Store()
    reader = Appearances(store.kv.events, {"a": 0})
    store.do(SetMany([(f"k{number}", b"") for number in range(limits.SLICE_WORK_MAX)]))
    slices = 1
    while (answer := reader.advance()) is None:
        slices += 1
    assert answer is False
    assert slices >= 4
    store.do(Set("a", b""))
    store.do(Delete("a"))
    assert reader.advance() is True
    assert reader.advance() is True


def test_a_key_may_have_come_where_its_events_are_not_kept() -> None:
    store = Store(EventBounds(events=1, size=1))
    readers = [Appearances(store.kv.events, {"a": 0})]
    for number in range(3 * BLOCK_EVENTS):
        store.do(Set(f"k{number}", b""))
    readers.append(Appearances(store.kv.events, {"a": 0}))
    assert store.kv.events.compacted > 0
    assert [reader.advance() for reader in readers] == [True, True]
    assert appeared(store, a=store.kv.events.compacted) is False
    assert appeared(store, a=store.kv.events.compacted - 1) is True

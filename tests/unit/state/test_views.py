"""Views of the past: which revision they are of, by which time, and what is kept for them."""

from __future__ import annotations

import pytest

from haptera.errors import Failure
from haptera.state import EventBounds, ScanCursor, event_history, views
from haptera.state.operations import AsOf, Clear, Delete, Get, OpenScan, Set, SetMany
from haptera.state.sliced_work import finish
from tests.unit.state.store import Store, drain, page_of, refused


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_history, "BLOCK_EVENTS", 2)


def get(store: Store, key: str, revision: int | None = None, time_ms: int | None = None) -> object:
    found = finish(store.read_steps(AsOf(Get(key), revision, time_ms), 1 << 24))
    return found if isinstance(found, Failure) else found[0]


def past_scan(store: Store, revision: int) -> ScanCursor:
    cursor = store.open_scan(OpenScan(), None, AsOf(OpenScan(), revision))
    assert isinstance(cursor, ScanCursor)
    return cursor


def test_a_revision_is_judged_by_the_time_of_its_change_and_a_time_by_itself() -> None:
    store = Store()
    store.do(Set("a", b"1", ttl_ms=5))
    begun = store.now_ms
    store.now_ms += 100
    store.do(Set("b", b"2"))
    entry = (b"1", 1, begun + 5)
    assert get(store, "a", 1) == get(store, "a", time_ms=begun + 4) == entry
    assert refused(get(store, "a", 2), 4001, key="a")
    assert refused(get(store, "a", time_ms=begun + 5), 4001, key="a")


def test_a_revision_of_which_changes_are_forgotten_is_not_read() -> None:
    store = Store(EventBounds(events=4))
    store.do(Set("a", b"1"))
    store.do(SetMany([("a", b"2"), ("b", b"2"), ("c", b"2")]))
    store.do(Set("d", b"3"))
    store.do(Set("d", b"4"))
    assert (store.kv.events.compacted, store.kv.events.first) == (2, 2), "two changes of revision 2 are kept"
    for revision in (0, 1, 2):
        assert refused(get(store, "a", revision), 4009, revision=revision, oldest=3, newest=4)
    assert get(store, "d", 3) == (b"3", 3, None)


def test_a_view_whose_events_go_before_it_has_seen_them_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_PIECE", 1)
    store = Store(EventBounds(events=6))
    for number in range(6):
        store.do(Set("a", b"%d" % number))
        store.do(Set(f"other/{number}", b""))
    oldest = store.kv.events.compacted + 1
    steps = store.read_steps(AsOf(Get("other/5"), oldest), 1 << 24)
    next(steps)
    next(steps)
    for number in range(20):
        store.do(Set("a", b"%d" % number))
    failed = finish(steps)
    assert isinstance(failed, Failure)
    assert failed.code == 4009
    store.free()
    assert store.kv.held.idle


def test_the_store_before_a_clear_stays_while_a_view_of_it_is_read() -> None:
    store = Store(EventBounds(events=6))
    store.do(SetMany([("a", b"1"), ("b", b"2"), ("c", b"3")]))
    store.do(Delete("b"))
    store.do(Clear())
    store.do(Set("b", b"new"))
    scan = past_scan(store, 1)
    rows = page_of(scan, max_rows=1).rows
    while not rows:
        rows = page_of(scan, max_rows=1).rows
    for number in range(20):
        store.do(Set("other", b"%d" % number))
    assert store.kv.events.cleared_stores() == []
    store.free()
    assert rows + drain(scan) == [("a", b"1", 1, None), ("b", b"2", 1, None), ("c", b"3", 1, None)]
    store.free()
    assert store.kv.held.idle


def test_a_key_that_was_deleted_since_is_seen_and_leaves_nothing_behind() -> None:
    store = Store()
    store.do(SetMany([("a", b"1"), ("b", b"2")]))
    store.do(Delete("a"))
    assert drain(past_scan(store, 1)) == [("a", b"1", 1, None), ("b", b"2", 1, None)]
    store.free()
    assert store.kv.held.idle
    assert list(store.kv.index.keys) == ["b"]

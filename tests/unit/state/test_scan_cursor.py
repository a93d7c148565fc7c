"""Scans: order, ranges, pages, and one revision however much is written meanwhile."""

from __future__ import annotations

import sys

import msgspec
import pytest

from haptera.state import EventBounds, Logged, ScanCursor, limits
from haptera.state.operations import Clear, Delete, DeleteMany, OpenScan, Rename, Set, SetMany
from tests.unit.state.store import Store, drain, page_of, refused

KEYS = ["a", "a/1", "a/2", "b", "b/1", "é", "日本", "\U0001f600"]


@pytest.fixture
def store() -> Store:
    store = Store()
    store.do(SetMany([(key, key.encode()) for key in reversed(KEYS)]))
    return store


def keys(store: Store, op: OpenScan) -> list[str]:
    return [row[0] for row in store.scan(op)]


def test_rows_are_key_value_version_expiry_in_the_order_of_the_utf8_bytes(store: Store) -> None:
    assert store.scan() == [(key, key.encode(), 1, None) for key in sorted(KEYS, key=str.encode)]


def test_a_reverse_scan_is_the_same_backwards(store: Store) -> None:
    assert store.scan(OpenScan(reverse=True)) == store.scan()[::-1]


def test_keys_only_leaves_the_values_out(store: Store) -> None:
    assert store.scan(OpenScan(keys_only=True, limit=1)) == [("a", None, 1, None)]


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (OpenScan(prefix="a/"), ["a/1", "a/2"]),
        (OpenScan(prefix="a/", reverse=True), ["a/2", "a/1"]),
        (OpenScan(start="a/2", end="b/1"), ["a/2", "b"]),
        (OpenScan(start="a/2", end="b/1", reverse=True), ["b", "a/2"]),
        (OpenScan(start="b/1", end="a"), []),
        (OpenScan(start="a", end="a"), []),
        (OpenScan(prefix="x"), []),
        (OpenScan(glob="*/?"), ["a/1", "a/2", "b/1"]),
        (OpenScan(glob="a*"), ["a", "a/1", "a/2"]),
        (OpenScan(glob="[ab]/1", reverse=True), ["b/1", "a/1"]),
        (OpenScan(limit=2), ["a", "a/1"]),
        (OpenScan(limit=0), []),
        (OpenScan(limit=2, reverse=True), ["\U0001f600", "日本"]),
        (OpenScan(after="a/1", limit=2), ["a/2", "b"]),
        (OpenScan(after="a/1x", limit=1), ["a/2"]),
        (OpenScan(after="a/1", reverse=True), ["a"]),
        (OpenScan(after="b", start="a/1", end="b"), []),
        (OpenScan(after="b", start="b", limit=1), ["b/1"]),
        (OpenScan(after="a", start="b"), ["b", "b/1", "é", "日本", "\U0001f600"]),
        (OpenScan(after="zzz", end="b", reverse=True), ["a/2", "a/1", "a"]),
        (OpenScan(start="a\0", end="a/1\0"), ["a/1"]),
    ],
)
def test_ranges(store: Store, op: OpenScan, expected: list[str]) -> None:
    assert keys(store, op) == expected


def test_a_cursor_counts_its_rows_and_knows_its_last_key_and_revision(store: Store) -> None:
    cursor = store.cursor(OpenScan(limit=3))
    assert (cursor.count, cursor.last_key, cursor.revision) == (0, None, 1)
    store.do(Set("x", b""))
    drain(cursor, max_rows=2)
    assert (cursor.count, cursor.last_key, cursor.revision) == (3, "a/2", 1)


def test_a_scan_sees_its_own_revision_only(store: Store) -> None:
    before = store.scan()
    forward, backward = store.cursor(OpenScan()), store.cursor(OpenScan(reverse=True))
    rows = page_of(forward, max_rows=2).rows + page_of(backward, max_rows=2).rows[::-1]
    store.do(Set("a/2", b"new"))
    store.do(Delete("b"))
    store.do(Rename("b/1", "a/15"))
    store.do(Set("b", b"again"))
    store.do(SetMany([("0", b""), ("z", b"")]))
    later = store.cursor(OpenScan())
    store.do(Clear())
    store.do(Set("a", b"last"))
    assert rows[:2] + drain(forward) == before
    assert drain(backward)[::-1] + rows[2:] == before
    assert [(row[0], row[2]) for row in drain(later)] == [
        ("0", 6),
        ("a", 1),
        ("a/1", 1),
        ("a/15", 4),
        ("a/2", 2),
        ("b", 5),
        ("z", 6),
        ("é", 1),
        ("日本", 1),
        ("\U0001f600", 1),
    ]
    assert store.scan() == [("a", b"last", 8, None)]
    store.check()


def test_what_the_last_reader_needed_is_freed_with_it(store: Store) -> None:
    first = store.cursor()
    store.do(SetMany([(key, b"2") for key in KEYS]))
    second = store.cursor()
    store.do(SetMany([(key, b"3") for key in KEYS]))
    store.do(DeleteMany(KEYS))
    assert sum(map(len, store.kv.held.records.values())) == 2 * len(KEYS)
    second.close()
    store.free()
    assert {record[2][1] for records in store.kv.held.records.values() for record in records} == {1}
    first.close()
    store.free()
    assert not store.kv.held.records
    assert store.kv.held.size == 0
    assert len(store.kv.index.keys) == 0


def test_what_no_reader_can_see_is_not_kept(store: Store) -> None:
    cursor = store.cursor()
    for value in (b"2", b"3", b"4"):
        store.do(Set("a", value))
    assert [record[2] for record in store.kv.held.records.get("a") or []] == [(b"a", 1, None)]
    store.do(Set("new", b""))
    store.do(Delete("new"))
    assert "new" not in store.kv.held.records
    cursor.close()


def test_an_older_reader_keeps_what_a_newer_one_needed_too(store: Store) -> None:
    before = store.scan()
    old = store.cursor()
    store.do(Set("x", b""))
    young = store.cursor()
    store.do(DeleteMany(KEYS))
    young.close()
    store.free()
    assert drain(old) == before
    store.free()
    assert store.kv.held.idle


def test_a_long_reader_does_not_keep_what_short_ones_needed(store: Store) -> None:
    long = store.cursor()
    for number in range(50):
        store.do(Set("a", b"%d" % number))
        store.cursor().close()
    store.free()
    assert len(store.kv.held.records.get("a") or []) == 1
    long.close()


def test_a_key_deleted_and_written_again_during_a_scan(store: Store) -> None:
    old = store.cursor(OpenScan(prefix="b"))
    store.do(Delete("b"))
    between = store.cursor(OpenScan(prefix="b"))
    store.do(Set("b", b"new"))
    assert drain(old) == [("b", b"b", 1, None), ("b/1", b"b/1", 1, None)]
    assert drain(between) == [("b/1", b"b/1", 1, None)]
    assert store.scan(OpenScan(prefix="b")) == [("b", b"new", 3, None), ("b/1", b"b/1", 1, None)]
    store.check()


def test_a_deleted_key_stays_a_ghost_until_the_reader_ends(store: Store) -> None:
    cursor = store.cursor()
    store.do(Delete("b"))
    assert list(store.kv.index.ghosts) == ["b"]
    cursor.close()
    store.free()
    assert list(store.kv.index.ghosts) == []
    assert "b" not in store.kv.index.keys


def test_the_end_lets_go_of_the_revision_by_itself(store: Store) -> None:
    drain(store.cursor())
    assert store.kv.cursors == 0
    store.free()
    assert store.kv.held.idle


def test_closing_twice_and_paging_after_the_end_do_no_harm(store: Store) -> None:
    cursor, other = store.cursor(), store.cursor()
    cursor.close()
    cursor.close()
    assert page_of(cursor).rows == []
    assert page_of(cursor).done
    assert len(drain(other)) == len(KEYS)
    assert page_of(other).done


def test_a_page_keeps_to_its_rows_and_its_encoded_bytes(store: Store) -> None:
    store.do(Clear())
    store.do(SetMany([(f"é{n:03d}", bytes(n)) for n in range(200)]))
    cursor, rows = store.cursor(), 0
    done = False
    while not done:
        page = page_of(cursor, max_bytes=1000, max_rows=7)
        assert len(page.rows) <= 7
        assert len(msgspec.msgpack.encode(page.rows)) <= 1000
        rows += len(page.rows)
        done = page.done
    assert rows == 200


def test_a_row_larger_than_the_page_stands_alone(store: Store) -> None:
    store.do(Set("a/1", bytes(5000)))
    cursor = store.cursor()
    sizes = [len(page_of(cursor, max_bytes=100, max_rows=100).rows) for _ in range(3)]
    assert sizes[1] == 1
    assert [row[0] for row in drain(cursor)] == KEYS[KEYS.index("b") + (sizes[2] - 1) :]


def test_a_page_looks_at_a_bounded_number_of_keys_and_may_be_empty_before_the_end() -> None:
    store = Store()
    count = 2 * limits.SLICE_WORK_MAX
    store.do(SetMany([(f"key-{n:06d}", b"") for n in range(count)]))
    store.do(Set("last", b""))
    cursor = store.cursor(OpenScan(glob="?a*"))
    first = page_of(cursor)
    assert first.rows == []
    assert not first.done
    assert [row[0] for row in drain(cursor)] == ["last"]


def test_a_costly_glob_looks_at_fewer_keys_a_page() -> None:
    store = Store()
    store.do(SetMany([(f"{n:03d}" + "a" * 4000, b"") for n in range(100)]))
    cursor = store.cursor(OpenScan(glob="*" + "a" * 2000 + "b*"))
    pages = 1
    while not page_of(cursor).done:
        pages += 1
    assert pages >= 100


def test_open_scans_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CURSORS_MAX", 2)
    first = store.cursor()
    store.cursor()
    assert refused(store.open_scan(OpenScan()), 3007, open_scans_max=2)
    first.close()
    assert isinstance(store.open_scan(OpenScan()), ScanCursor)


def test_a_reader_that_holds_too_much_loses_its_revision_and_the_others_do_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HELD_SIZE_MAX", 10_000)
    store.do(Set("a", bytes(6000)))
    old = store.cursor()
    page_of(old, max_rows=1)
    store.do(Set("a", bytes(6001)))
    young = store.cursor()
    expected = store.scan()
    store.do(Set("a", b"small"))
    for _ in range(2):
        assert refused(old.page(1000, 10), 4009, revision=2)
    store.check()
    assert drain(young) == expected
    assert store.kv.cursors == 0
    store.free()
    assert store.kv.held.idle


def test_a_store_that_is_rewritten_under_a_reader_keeps_a_bounded_amount(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HELD_SIZE_MAX", 1000)
    cursor = store.cursor()
    for key in KEYS:
        store.do(Set(key, bytes(500)))
        assert store.kv.held.size <= 2000
    cursor.close()
    store.do(Set("x", b""))
    assert store.kv.held.idle


def test_trap_a_turn_for_everyone_where_many_readers_hold_one_key() -> None:
    """Many scans end at once, each with older entries of the same few keys: none looks through those of the others."""
    compared = 0

    class Revision(int):
        def __lt__(self, other: int) -> bool:
            nonlocal compared
            compared += 1
            return int(self) < other

        def __gt__(self, other: int) -> bool:
            nonlocal compared
            compared += 1
            return int(self) > other

        def __le__(self, other: int) -> bool:
            nonlocal compared
            compared += 1
            return int(self) <= other

    store, count = Store(), 500
    store.do(Set("a", b""))
    cursors = []
    for _ in range(count):
        cursors.append(store.cursor())
        store.apply(store.index + 1, store.now_ms, [Logged(Set("a", b""))])
    records = store.kv.held.records.get("a")
    assert records is not None
    records[:] = [(Revision(replaced_at), key, entry) for replaced_at, key, entry in records]
    assert page_of(cursors[-1]).rows == [("a", b"", count, None)]
    assert 0 < compared < 20, "found, and not looked for"
    for cursor in cursors:
        cursor.close()
    assert len(records) == count, "freed later, in turns"


def test_many_older_entries_are_freed_a_little_at_a_time() -> None:
    store = Store()
    count = 3 * limits.SWEEP_MAX
    items = [(f"{n:06d}", b"") for n in range(count)]
    store.do(SetMany(items))
    cursor = store.cursor()
    store.do(Clear("0"))
    assert len(store.kv.index.ghosts) == count
    cursor.close()
    store.do(Delete("missing"))
    assert 0 < len(store.kv.index.ghosts) < count
    assert store.scan() == []
    for _ in range(count // limits.SWEEP_MAX):
        store.do(Delete("missing"))
    assert store.kv.held.idle, "every write frees some, whatever it is"
    assert len(store.kv.index.keys) == 0


def test_what_waits_to_be_freed_shrinks_however_fast_entries_are_replaced() -> None:
    store = Store()
    keys = [f"{n:06d}" for n in range(8 * limits.SWEEP_MAX)]
    store.do(SetMany([(key, b"1") for key in keys]))
    first = store.cursor()
    store.do(SetMany([(key, b"2") for key in keys]))
    second = store.cursor()
    first.close()
    waiting = store.kv.held.burdened
    assert waiting
    store.do(SetMany([(key, b"3") for key in keys[: len(keys) // 2]]))
    assert not store.kv.held.burdened, "each entry that is kept frees two"
    assert len(drain(second)) == len(keys)


@pytest.mark.parametrize("prefix", [None, "0"])
def test_writes_during_a_sweep_find_consistent_keys(prefix: str | None) -> None:
    store = Store()
    items = [(f"{n:06d}", b"") for n in range(2 * limits.SWEEP_MAX)]
    store.do(SetMany(items))
    first = store.cursor()
    store.do(Clear(prefix))
    first.close()
    second = store.cursor()
    assert store.do(SetMany(items)) == (3,)
    assert store.do(DeleteMany([key for key, _ in items[::2]])) == (len(items) // 2, 4)
    assert drain(second) == []
    assert [row[0] for row in store.scan()] == [key for key, _ in items[1::2]]


def test_trap_a_slow_reader_fills_the_memory_by_clears(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear leaves the whole table to its readers, unless that would take more than they may hold."""
    store = Store()
    monkeypatch.setattr(limits, "HELD_SIZE_MAX", 10_000)
    items = [(f"{n:03}", bytes(100)) for n in range(20)]
    store.do(SetMany(items))
    kept = store.cursor()
    store.do(Clear())
    assert 20 * 100 < store.kv.held.size < limits.HELD_SIZE_MAX
    store.do(SetMany(items * 5))
    later = store.cursor()
    assert [row[0] for row in drain(kept)] == [key for key, _ in items]
    monkeypatch.setattr(limits, "HELD_SIZE_MAX", 2000)
    store.do(Clear())
    assert refused(later.page(1000, 10), 4009, revision=3)
    store.do(Clear("x"))
    assert store.kv.held.idle
    assert store.kv.held.size == 0


def test_trap_a_clear_begins_while_older_entries_wait_to_be_freed() -> None:
    """A log of many clears, replayed, would otherwise hold all of their stores in memory."""
    store = Store(EventBounds(events=0, size=0))
    keys = [f"{n:05}" for n in range(20 * limits.SWEEP_MAX)]
    value = bytes(100)
    unused = sys.getrefcount(value)
    store.do(SetMany([(key, value) for key in keys]))
    store.do(Clear())
    assert sys.getrefcount(value) > unused + len(keys) // 2, "most of the first store waits to be freed"
    store.do(SetMany([(key, b"") for key in keys]))
    store.do(Clear())
    assert sys.getrefcount(value) == unused


def test_trap_delete_many_of_only_the_first_keys() -> None:
    store = Store()
    keys = [f"{n:05}" for n in range(10_000)]
    store.do(SetMany([(key, b"") for key in keys]))
    assert store.do(DeleteMany([*keys[:-1], *keys[:100]])) == (9_999, 2)
    assert [row[0] for row in store.scan()] == keys[-1:]

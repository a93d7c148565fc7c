"""What broke other stores, and must not break this one: the data model's traps, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from haptera.state.operations import Clear, Delete, DeleteMany, Get, GetMany, Increment, OpenScan, Rename, Set, SetMany
from tests.unit.state.store import Store, page_of, refused

if TYPE_CHECKING:
    from haptera.state import Write


@pytest.mark.parametrize(
    ("op", "place"),
    [
        (Set("a", b"2"), 0),
        (Delete("a"), 1),
        (SetMany([("a", b"2")]), 0),
        (DeleteMany(["a"]), 1),
        (Increment("a"), 1),
        (Rename("a", "b"), 0),
        (Clear(), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_trap_no_version_in_answers_so_that_compare_and_set_is_guesswork(op: Write, place: int) -> None:
    store = Store()
    store.do(Set("a", b"1"))
    answer = store.do(op)
    assert isinstance(answer, tuple)
    assert answer[place] == store.revision == 2


def test_trap_no_version_in_reads_so_that_compare_and_set_is_guesswork() -> None:
    store = Store()
    store.do(Set("a", b"1"))
    answer = store.ask(Get("a"))
    assert isinstance(answer, tuple)
    assert store.ask(GetMany(["a"])) == ([answer],)
    assert store.scan() == [("a", *answer)]
    assert store.do(Set("a", b"2", if_version=answer[1])) == (2, None)
    assert refused(store.do(Set("a", b"3", if_version=answer[1])), 4002, key="a", expected=1, actual=2)


def test_trap_a_version_that_starts_again_when_a_key_is_recreated_aba() -> None:
    store = Store()
    recreate: list[tuple[Write, Write]] = [
        (Delete("a"), Set("a", b"1")),
        (DeleteMany(["a"]), SetMany([("a", b"1")])),
        (Clear(), Set("a", b"1")),
        (Rename("a", "b"), Rename("b", "a")),
    ]
    store.do(Set("a", b"1"))
    seen = [1]
    for gone, back in recreate:
        store.do(gone)
        store.do(back)
        assert refused(
            store.do(Set("a", b"x", if_version=seen[0])), 4002, key="a", expected=1, actual=store.revision
        ), "the key looks the same as it did, and is not"
        seen.append(store.revision)
    assert seen == sorted(set(seen))


def test_trap_duplicate_keys_in_one_set_many() -> None:
    store = Store()
    cursor = store.cursor()
    assert store.do(SetMany([("a", b"1"), ("b", b"2"), ("a", b"3"), ("a", b"4")])) == (1,)
    assert store.scan() == [("a", b"4", 1, None), ("b", b"2", 1, None)]
    assert store.do(SetMany([("a", b"5"), ("a", b"4")])) == (2,)
    assert store.scan() == [("a", b"4", 2, None), ("b", b"2", 1, None)]
    assert page_of(cursor).rows == []
    store.check()


@pytest.mark.parametrize("reverse", [False, True])
def test_trap_a_cursor_that_is_an_offset_into_a_re_sorted_list(reverse: bool) -> None:
    """Keys that come and go between pages neither hide a row nor show one twice."""
    keys = [f"k{n:02d}" for n in range(20)]
    store = Store()
    store.do(SetMany([(key, b"") for key in keys]))
    cursor = store.cursor(OpenScan(reverse=reverse))
    in_pages: list[str] = []
    by_after: list[str] = []
    after: str | None = None
    for step in range(10):
        in_pages += [row[0] for row in page_of(cursor, max_rows=2).rows]
        rows = store.scan(OpenScan(prefix="k", limit=2, reverse=reverse, after=after))
        by_after += [row[0] for row in rows]
        after = by_after[-1]
        store.do(SetMany([(f"{first}{step}", b"") for first in "aby"]))  # before and behind: an offset would slip
        store.do(Delete(after))
    expected = keys[::-1] if reverse else keys
    assert in_pages == expected
    assert by_after == expected

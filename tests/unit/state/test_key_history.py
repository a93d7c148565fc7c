"""The versions of a key that are kept: each once, oldest first, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.errors import Failure
from haptera.state import EventBounds, Logged, dump_pieces, limits, load_pieces
from haptera.state.event_history import DELETE, PRESENT, PUT
from haptera.state.operations import Clear, Delete, OpenHistory, Set, SetMany
from haptera.state.sliced_work import finish
from tests.unit.state.store import Store

if TYPE_CHECKING:
    from haptera.state import StateMachine


def page(machine: StateMachine, key: str, **options: int) -> tuple[Any, ...]:
    found = finish(machine.read_steps(OpenHistory(key, **options), 1 << 24))
    assert not isinstance(found, Failure)
    answer, revision = found
    assert revision == machine.revision
    return answer


def versions(machine: StateMachine, key: str, **options: int) -> list[tuple[int, int, bytes | None]]:
    return [row[:3] for row in page(machine, key, **options)[0]]


def test_each_change_of_the_key_is_a_version() -> None:
    store = Store()
    store.apply(1, 500, [Logged(Set("a", b"1"), "ann"), Logged(Set("b", b""), "ann"), Logged(Delete("a"), "bob")])
    store.apply(2, 700, [Logged(SetMany([("a", b"2"), ("b", b"")])), Logged(Clear()), Logged(Set("a", b"3"))])
    assert page(store, "a") == (
        [
            (1, PUT, b"1", None, 500, "ann"),
            (3, DELETE, None, None, 500, "bob"),
            (4, PUT, b"2", None, 700, ""),
            (5, DELETE, None, None, 700, ""),
            (6, PUT, b"3", None, 700, ""),
        ],
        False,
        1,
    )
    assert page(store, "missing") == ([], False, 1)


def test_pages_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    for number in range(10):
        store.do(Set("a", b"%d" % number))
        store.do(Set("b", b""))
    whole = versions(store, "a")
    assert len(whole) == 10
    assert versions(store, "a", limit=3) == whole[:3]
    assert page(store, "a", limit=3)[1] is True
    assert page(store, "a", limit=10)[1] is False
    assert versions(store, "a", after=whole[4][0]) == whole[5:]
    monkeypatch.setattr(limits, "HISTORY_ROWS_MAX", 4)
    assert versions(store, "a", limit=7) == whole[:4]
    monkeypatch.setattr(limits, "HISTORY_SIZE_MAX", 1)
    assert versions(store, "a") == whole[:1], "one row is given however large it is"


def kept_from(store: Store, events: int) -> StateMachine:
    """The store with its newest events alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "SNAPSHOT_EVENTS_MAX", events)
        return load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)


def test_an_entry_that_is_older_than_all_changes_is_the_first_version() -> None:
    store = Store()
    store.do(Set("old", b"old"))
    store.do(Set("a", b"1"))
    store.do(Set("a", b"2"))
    store.do(Set("a", b"3"))
    again = kept_from(store, 1)
    assert page(again, "a") == (
        [(3, PRESENT, b"2", None, None, None), (4, PUT, b"3", None, store.now_ms, "")],
        False,
        4,
    )
    assert page(again, "old") == ([(1, PRESENT, b"old", None, None, None)], False, 4)
    assert versions(again, "a", after=3) == [(4, PUT, b"3")]
    assert versions(again, "a", limit=1) == [(3, PRESENT, b"2")]
    assert versions(again, "old", after=1) == []


def test_a_history_that_is_overtaken_by_the_end_of_the_events_is_4009() -> None:
    store = Store(EventBounds(events=0, size=1 << 40))
    for _ in range(20):
        store.do(SetMany([(f"{number}", b"") for number in range(600)]))
    steps = store.read_steps(OpenHistory("5", after=store.kv.events.compacted), 1 << 24)
    next(steps)
    for _ in range(20):
        store.do(SetMany([(f"{number}", b"") for number in range(600)]))
    found = finish(steps)
    assert isinstance(found, Failure)
    assert found.code == 4009


keys = st.sampled_from(["a", "b"])
commands = st.one_of(
    st.builds(Set, keys, st.binary(max_size=1)), st.builds(Delete, keys), st.builds(Clear, st.sampled_from([None, "a"]))
)


@given(st.lists(commands, max_size=20), st.integers(0, 8), st.integers(1, 4))
def test_the_pages_are_the_versions_that_there_were(ops: list[Any], events: int, size: int) -> None:
    store = Store()
    told: list[tuple[int, bytes | None]] = []
    for op in ops:
        before = store.kv.entries.get("a")
        store.do(op)
        entry = store.kv.entries.get("a")
        if entry is not before:
            told.append((store.revision, None if entry is None else entry[0]))
    again = kept_from(store, events)
    found: list[tuple[int, bytes | None]] = []
    more, after, oldest = True, 0, 0
    while more:
        rows, more, oldest = page(again, "a", limit=size, after=after)
        found += [(row[0], row[2]) for row in rows]
        after = rows[-1][0] if rows else 0
    kept = [each for each in told if each[0] >= oldest]
    older = [each for each in told if each[0] < oldest]
    if older and older[-1][1] is not None:
        kept.insert(0, older[-1])
    assert found == kept

"""A change applied in slices against the same change applied at once, with readers between any two slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from haptera.errors import Failure
from haptera.state import Logged, Page, Result, ScanCursor, StateMachine, Write, get_many, limits, table
from haptera.state.operations import (
    Clear,
    Delete,
    DeleteMany,
    Exists,
    Expire,
    ExpireDue,
    Get,
    GetAndDelete,
    GetMany,
    OpenScan,
    Rename,
    Set,
    SetMany,
)
from haptera.state.sliced_work import finish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.state.sliced_work import Steps

KEYS = ["a", "a/1", "a/2", "a/3", "b", "b/1", "b/2", "c"]
keys = st.sampled_from(KEYS)
values = st.binary(max_size=2)
large: st.SearchStrategy[Write] = st.one_of(
    st.builds(SetMany, st.lists(st.tuples(keys, values), min_size=1, max_size=12)),
    st.builds(DeleteMany, st.lists(keys, max_size=12)),
    st.builds(Clear, st.sampled_from([None, "", "a", "a/", "b", "z"])),
)
small: st.SearchStrategy[Write] = st.one_of(
    st.builds(Set, keys, values),
    st.builds(Delete, keys),
    st.builds(Rename, keys, keys, st.booleans()),
)
entries = st.lists(st.lists(large | small, min_size=1, max_size=3), min_size=1, max_size=4)
#: Entries are a millisecond apart, so that keys die between them.
ttls = st.integers(1, 3)
mortal: st.SearchStrategy[Write] = st.one_of(
    st.builds(SetMany, st.lists(st.tuples(keys, values), min_size=1, max_size=12), ttls),
    st.builds(Set, keys, values, ttl_ms=ttls),
    st.builds(Expire, keys, st.none() | ttls),
    st.builds(GetAndDelete, keys),
    st.builds(ExpireDue, st.lists(keys, max_size=12)),
)
mortal_entries = st.lists(st.lists(large | small | mortal, min_size=1, max_size=3), min_size=1, max_size=4)
#: Before each entry scans are opened, and between two slices one of those that are open gives a page or is closed.
scans = st.lists(st.lists(st.booleans(), max_size=2), min_size=4, max_size=4)
uses = st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["page", "page", "close"])), max_size=40)

Seen = dict[str, object]


@pytest.fixture(autouse=True, scope="module")
def _slices_of_one_key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "SPLIT_AT", 3)
        patch.setattr(limits, "SLICE_WORK_MAX", 1)
        patch.setattr(get_many, "_PIECE", 1)
        yield


def seen(machine: StateMachine) -> Seen:
    """The store as reads by key show it, which all must agree."""
    found: Seen = {}
    (many,) = machine.read(GetMany(KEYS))  # type: ignore[misc]
    for key, entry in zip(KEYS, many, strict=True):
        answer = machine.read(Get(key))
        assert (None if isinstance(answer, Failure) else answer) == entry
        assert machine.read(Exists(key)) == (entry is not None,)
        found[key] = entry
    return found


class Reader:
    """An open scan, what it must give, and what it gave."""

    def __init__(self, machine: StateMachine, *, reverse: bool) -> None:
        opened = machine.open_scan(OpenScan(reverse=reverse))
        assert isinstance(opened, ScanCursor)
        self.cursor = opened
        rows = [(key, *entry) for key, entry in sorted(seen(machine).items()) if entry is not None]  # type: ignore[misc]
        self.expected = rows[::-1] if reverse else rows
        self.rows: list[object] = []

    def page(self) -> bool:
        page = self.cursor.page(1000, 1)
        assert isinstance(page, Page)
        self.rows += page.rows
        assert self.rows == self.expected[: len(self.rows)]
        assert not page.done or self.rows == self.expected
        return page.done


def states_of(ops: list[Write], machine: StateMachine, index: int) -> tuple[list[Seen], list[Result]]:
    """The store before the entry and after each of its commands, each applied at once."""
    states, results = [seen(machine)], []
    for op in ops:
        machine.index = index - 1
        results += machine.apply(index, index, [Logged(op)])
        states.append(seen(machine))
    return states, results


@given(mortal_entries, scans, uses)
def test_every_reader_sees_a_change_whole_or_not_at_all(
    all_ops: list[list[Write]], opened: list[list[bool]], used: list[tuple[int, str]]
) -> None:
    """Trap: half of a change is seen by a reader that has its turn while the change is applied."""
    machine, straight = StateMachine(), StateMachine()
    machine.build_index()
    readers: list[Reader] = []
    script = iter(used)
    for index, ops in enumerate(all_ops, 1):
        machine.read_by(lambda now=index: now)  # type: ignore[misc]
        straight.read_by(lambda now=index: now)  # type: ignore[misc]
        readers += [Reader(machine, reverse=reverse) for reverse in opened[index - 1]]
        states, expected = states_of(ops, straight, index)
        at, results = 0, list[Result]()
        steps = machine.steps(index, index, [Logged(op) for op in ops])
        while True:
            try:
                next(steps)
            except StopIteration as end:
                results = end.value
                break
            found = seen(machine)
            assert found in states[at:], "neither before nor after a command of the entry, or back again"
            at = states.index(found, at)
            revisions = [entry[1] for entry in found.values() if entry is not None]  # type: ignore[index]
            assert machine.revision >= max(revisions, default=0)
            number, use = next(script, (0, "none"))
            if readers and use == "page":
                readers[number % len(readers)].page()
            elif readers and use == "close":
                readers.pop(number % len(readers)).cursor.close()
        assert results == expected
        assert seen(machine) == states[-1]
        machine.check()
        assert machine.digest() == straight.digest()
    for reader in readers:
        while not reader.page():
            pass
    finish(machine.sweep_steps())
    machine.check()
    assert machine.kv.held.idle
    assert machine.kv.held.size == machine.kv.cursors == 0


@given(entries, st.lists(st.booleans(), max_size=40))
def test_a_large_get_many_is_of_one_revision(all_ops: list[list[Write]], together: list[bool]) -> None:
    """Trap: half of a change is seen by a reader in slices, whatever is applied between two of them."""
    machine = StateMachine()
    machine.build_index()
    states = {0: seen(machine)}
    chosen = iter(together)
    readers: list[Steps[tuple[tuple[Any, ...], int] | Failure]] = []
    for index, ops in enumerate(all_ops, 1):
        readers.append(machine.read_steps(GetMany(KEYS), 10_000))
        for _ in machine.steps(index, 0, [Logged(op) for op in ops]):
            together_now = next(chosen, False)
            if readers and together_now:
                reader = readers.pop(0)
                if isinstance(next(reader, "ended"), int):
                    readers.append(reader)
            if not machine.changing:
                states[machine.revision] = seen(machine)
        states[machine.revision] = seen(machine)
    for reader in readers:
        found = finish(reader)
        assert not isinstance(found, Failure)
        (many,), revision = found
        assert dict(zip(KEYS, many, strict=True)) == states[revision]

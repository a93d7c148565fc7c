"""The bytes of memory that entries take: what a store counts, and what a change is judged to add."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from hypothesis import given

from haptera.errors import Failure
from haptera.state import Logged, StateMachine, dump_pieces, limits, load_pieces
from haptera.state.entry_sizes import ENTRY_OVERHEAD, EXPIRY_SIZE, entries_size, entry_size
from haptera.state.operations import Clear, Delete, DeleteMany, Forget, Increment, Rename, Set, SetMany
from haptera.state.sliced_work import finish
from tests.support.transacts import transacts

if TYPE_CHECKING:
    from haptera.state import Write

keys = st.sampled_from(["a", "a/1", "ab", "a longer key", "é", "鍵", "\U0001f600"])
values = st.sampled_from([b"", b"0", b"41", b"9223372036854775807", bytes(100)])
one_key: st.SearchStrategy[Write] = st.one_of(
    st.builds(Set, keys, values),
    st.builds(Increment, keys, st.sampled_from([1, -42, 10**6]), st.sampled_from([0, 10])),
    st.builds(Rename, keys, keys, st.booleans()),
    st.builds(SetMany, st.lists(st.tuples(keys, values), max_size=4)),
)
freeing: st.SearchStrategy[Write] = st.one_of(
    st.builds(Delete, keys),
    st.builds(DeleteMany, st.lists(keys, max_size=4)),
    st.builds(Clear, st.sampled_from([None, "a", "é"])),
    transacts(keys, values),
    st.builds(Forget, st.just(""), st.just([bytes(16)])),
)


def applied(machine: StateMachine, op: Write) -> int:
    """The bytes by which the change makes the store larger."""
    before = machine.kv.size
    machine.apply(machine.index + 1, 1, [Logged(op)])
    machine.check()
    return machine.kv.size - before


@given(st.lists(one_key | freeing, max_size=12))
def test_what_a_change_adds_is_known_before_it_is_applied(changes: list[Write]) -> None:
    machine = StateMachine()
    for op in changes:
        judged = machine.growth(op)
        added = applied(machine, op)
        assert judged == added or added < judged == 0


@given(st.lists(one_key, max_size=6), st.lists(st.tuples(keys, values), max_size=6))
def test_a_set_many_is_judged_in_slices_as_at_once(changes: list[Write], items: list[tuple[str, bytes]]) -> None:
    machine = StateMachine()
    for op in changes:
        applied(machine, op)
    judged = finish(machine.growth_steps(SetMany(items)))
    assert judged == machine.growth(SetMany(items))
    assert applied(machine, SetMany(items)) == judged


def test_the_slices_of_a_judgement_are_short() -> None:
    items = [(f"key/{number}", b"") for number in range(10_000)]
    work = list(StateMachine().growth_steps(SetMany(items)))
    assert len(work) > 5
    assert max(work) <= limits.SLICE_WORK_MAX


def test_sizes_of_entries_are_those_of_their_key_and_value() -> None:
    assert entry_size("key", b"value", None) == ENTRY_OVERHEAD + 3 + 5
    assert entry_size("鍵", b"", None) == ENTRY_OVERHEAD + 4
    assert entry_size("key", b"value", 1) == ENTRY_OVERHEAD + 3 + 5 + EXPIRY_SIZE
    assert entries_size(["key", "b"], [b"value", b""], 0) == 2 * ENTRY_OVERHEAD + 3 + 5 + 1
    assert entries_size(["key", "鍵"], [b"value", b""], 2) == 2 * ENTRY_OVERHEAD + 3 + 5 + 4 + 2 * EXPIRY_SIZE
    assert entries_size([], [], 0) == 0


def test_an_overwrite_adds_the_difference_of_the_values() -> None:
    machine = StateMachine()
    applied(machine, Set("a", bytes(100)))
    assert machine.growth(Set("a", bytes(30))) == -70
    assert applied(machine, Set("a", bytes(30))) == -70


def test_older_entries_that_a_scan_sees_are_counted_by_the_history_alone() -> None:
    machine = StateMachine()
    applied(machine, Set("a", bytes(1000)))
    machine.build_index()
    held = machine.kv.held.hold(machine.revision)
    assert applied(machine, Set("a", b"")) == -1000
    assert machine.kv.held.size > 1000
    size = machine.kv.size
    assert applied(machine, Clear()) == -size
    assert machine.kv.held.size > 1000 + size
    machine.kv.held.release(held)
    finish(machine.sweep_steps())
    assert (machine.kv.size, machine.kv.held.size) == (0, 0)


def test_a_loaded_store_has_the_size_that_was_counted_on_the_way() -> None:
    machine = StateMachine()
    for number, key in enumerate(["a", "鍵", "é/2", "b" * 100]):
        applied(machine, Set(key, bytes(number)))
    applied(machine, Delete("a"))
    loaded = load_pieces(dump_pieces(machine), index=machine.index, time_ms=machine.time_ms)
    assert loaded.kv.size == machine.kv.size > 0
    loaded.check()


def test_the_checker_finds_a_size_that_is_wrong() -> None:
    machine = StateMachine()
    applied(machine, Set("a", b"1"))
    machine.kv.size += 1
    with pytest.raises(AssertionError, match="the size of the entries"):
        machine.check()


def test_an_increment_that_fails_adds_nothing() -> None:
    machine = StateMachine()
    applied(machine, Set("a", b"text"))
    result = machine.apply(machine.index + 1, 1, [Logged(Increment("a", 1, 0))])
    assert isinstance(result[0], Failure)
    assert machine.growth(Increment("a", 1, 0)) == 0

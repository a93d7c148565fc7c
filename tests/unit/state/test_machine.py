"""Entries, their order and their time."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from haptera.state import Logged, StateMachine, encode_commands, size_bound
from haptera.state.operations import Count, Get, Increment, OpenScan, Set, SetMany
from tests.unit.state.store import Store, refused


def test_an_entry_gives_a_result_for_each_command_in_order() -> None:
    machine = StateMachine()
    commands = [Logged(Set("a", b"x")), Logged(Increment("a")), Logged(Increment("n")), Logged(Set("a", b"y"))]
    first, second, third, fourth = machine.apply(1, 7, commands)
    assert (first, third, fourth) == ((1, None), (1, 2), (3, None))
    assert refused(second, 4004, key="a")
    assert (machine.index, machine.time_ms, machine.revision) == (1, 7, 3)


def test_an_entry_without_commands_moves_the_index_alone() -> None:
    machine = StateMachine()
    assert machine.apply(1, 5, []) == []
    assert (machine.index, machine.time_ms, machine.revision) == (1, 5, 0)


@pytest.mark.parametrize("index", [0, 1, 3, -1])
def test_an_entry_that_does_not_follow_is_refused_and_changes_nothing(index: int) -> None:
    machine = StateMachine()
    machine.apply(1, 0, [])
    before = machine.digest()
    with pytest.raises(ValueError, match="does not follow"):
        machine.apply(index, 9, [Logged(Set("a", b""))])
    assert machine.digest() == before


def test_digests_tell_states_apart() -> None:
    digests = set()
    for key, value, time_ms, user in (("a", b"", 0, ""), ("b", b"", 0, ""), ("a", b"x", 0, ""), ("a", b"", 1, "")):
        machine = StateMachine()
        machine.apply(1, time_ms, [Logged(Set(key, value), user)])
        digests.add(machine.digest())
    machine = StateMachine()
    machine.apply(1, 0, [Logged(Set("a", b""), "u", bytes(16), bytes(32))])
    assert len(digests | {machine.digest()}) == 5


def test_replay_and_reads_by_key_need_no_index() -> None:
    machine = StateMachine()
    machine.apply(1, 0, [Logged(SetMany([("a", b""), ("b", b"")]))])
    machine.read(Get("a"))
    machine.read(Count())
    assert machine.kv._index is None
    assert machine.read(Count(prefix="a")) == (1,)
    assert machine.kv._index is not None


def test_entries_are_no_work_for_the_garbage_collector() -> None:
    store = Store()
    store.do(SetMany([(f"key-{n}", b"value") for n in range(100)]))
    gc.collect()
    assert not any(map(gc.is_tracked, store.kv.entries.values()))


def test_the_checker_finds_what_is_broken() -> None:
    def broken(damage: Any) -> None:
        store = Store()
        store.do(SetMany([("a", b""), ("b", b"")]))
        store.do(Increment("n"), "app", bytes(16), bytes(32))
        cursor = store.open_scan(OpenScan())
        store.do(Set("a", b"x"))
        damage(store)
        with pytest.raises(AssertionError, match="broken invariant"):
            store.check()
        del cursor

    broken(lambda store: store.kv.entries.remove("b"))
    broken(lambda store: store.kv.entries.put("b", (b"", 99, None)))
    broken(lambda store: store.kv.index.keys.remove("b"))
    broken(lambda store: store.kv.index.ghosts.add("b"))
    broken(lambda store: store.kv.held.records.remove("a"))
    broken(lambda store: store.requests._users.clear())
    broken(lambda store: store.requests._users["app"].answers.update({b"x" * 16: (0, None, (1,), None)}))
    broken(lambda store: store.requests._order.add(("app", bytes(16), 0)))
    broken(lambda store: store.requests._order.remove(0))


@pytest.mark.parametrize(
    "op", [Set("é" * 100, bytes(70_000), 2**53 - 1, "present", True), SetMany([("é" * 9, bytes(n)) for n in range(99)])]
)
def test_size_bound_is_above_the_encoded_size(op: Set | SetMany) -> None:
    logged = Logged(op, "user", bytes(16), bytes(32))
    assert len(encode_commands([logged])) <= size_bound(op) + len("user") + 64

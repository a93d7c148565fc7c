"""Keys that expire (spec/protocol.md, section 7): which commands set, keep and clear a time, and that a dead key is
absent before it is removed.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from haptera.errors import Failure
from haptera.key_rules import EXPIRY_MAX_MS, TTL_MAX_MS
from haptera.state import Logged, dump_pieces, limits, load_pieces, validate
from haptera.state.event_history import EXPIRE
from haptera.state.operations import (
    Clear,
    Compare,
    Count,
    Delete,
    DeleteMany,
    Exists,
    Expire,
    ExpireDue,
    Get,
    GetAndDelete,
    GetAndExpire,
    GetMany,
    Increment,
    OpenScan,
    Rename,
    Set,
    SetMany,
    TimeToLive,
    Transact,
)
from haptera.state.sliced_work import finish
from tests.unit.state.store import Store, drain, refused

if TYPE_CHECKING:
    from haptera.state import Read, Write

NOW = Store.now_ms


def store_with(*keys: str, ttl_ms: int = 100) -> Store:
    store = Store()
    for key in keys:
        store.do(Set(key, b"1", ttl_ms=ttl_ms))
    return store


def expires(store: Store, key: str) -> int | None:
    entry = store.kv.entries.get(key)
    assert entry is not None
    return entry[2]


def test_a_key_expires_so_long_after_the_time_of_its_entry() -> None:
    store = store_with("a")
    assert store.ask(Get("a")) == (b"1", 1, NOW + 100)
    assert store.ask(TimeToLive("a")) == (100,)
    store.now_ms += 40
    store.do(Set("b", b"2"))
    assert store.ask(TimeToLive("a")) == (60,)
    assert store.ask(TimeToLive("b")) == (None,)
    assert refused(store.ask(TimeToLive("c")), 4001, key="c")


def test_a_time_to_live_beyond_all_times_ends_with_them() -> None:
    store = Store()
    store.now_ms = EXPIRY_MAX_MS - 5
    store.do(Set("a", b"1", ttl_ms=TTL_MAX_MS))
    assert expires(store, "a") == EXPIRY_MAX_MS
    again = load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)
    assert again.digest() == store.digest()


def test_a_set_clears_a_time_unless_it_is_given_or_kept() -> None:
    """As Redis does."""
    store = store_with("a")
    store.do(Set("a", b"2", keep_ttl=True))
    assert expires(store, "a") == NOW + 100
    store.now_ms += 10
    store.do(Set("a", b"3", ttl_ms=500))
    assert expires(store, "a") == NOW + 510
    store.do(Set("a", b"4"))
    assert expires(store, "a") is None
    store.do(Set("none", b"", keep_ttl=True))
    assert expires(store, "none") is None


def test_set_many_gives_all_of_its_keys_one_time_or_none() -> None:
    store = store_with("a")
    store.do(SetMany([("a", b"2"), ("b", b"2")], 50))
    assert (expires(store, "a"), expires(store, "b")) == (NOW + 50, NOW + 50)
    store.do(SetMany([("a", b"3")]))
    assert (expires(store, "a"), expires(store, "b")) == (None, NOW + 50)


def test_trap_an_increment_that_loses_the_ttl() -> None:
    store = store_with("a")
    assert store.do(Increment("a", 4)) == (5, 2)
    assert store.ask(Get("a")) == (b"5", 2, NOW + 100)


def test_a_rename_takes_the_time_along_and_the_targets_goes() -> None:
    store = store_with("a")
    store.do(Set("b", b"", ttl_ms=7))
    store.do(Rename("a", "b"))
    assert expires(store, "b") == NOW + 100
    store.do(Set("c", b""))
    store.do(Rename("c", "b"))
    assert expires(store, "b") is None
    store.do(Expire("b", 9))
    store.do(Rename("b", "b"))
    assert expires(store, "b") == NOW + 9


def test_expire_and_persist_are_changes_and_keep_the_value() -> None:
    store = store_with("a")
    assert store.do(Expire("a", 30)) == (2,)
    assert store.ask(Get("a")) == (b"1", 2, NOW + 30)
    assert store.do(Expire("a", None)) == (3,)
    assert store.ask(Get("a")) == (b"1", 3, None)
    assert store.do(Expire("a", None)) == (4,)
    assert refused(store.do(Expire("b", 30)), 4001, key="b")
    assert store.revision == 4


def test_get_and_expire_answers_the_entry_of_after_and_get_and_delete_that_of_before() -> None:
    store = store_with("a")
    assert store.do(GetAndExpire("a", 30)) == (b"1", 2, NOW + 30)
    assert store.do(GetAndExpire("a", persist=True)) == (b"1", 3, None)
    assert store.do(GetAndDelete("a")) == (b"1", 3, None, 4)
    for op in (GetAndExpire("a", 30), GetAndDelete("a")):
        assert refused(store.do(op), 4001, key="a")
    assert store.revision == 4


@pytest.mark.parametrize(
    ("op", "field"),
    [
        (Set("a", b"", ttl_ms=0), "ttl_ms"),
        (Set("a", b"", ttl_ms=-1), "ttl_ms"),
        (Set("a", b"", ttl_ms=TTL_MAX_MS + 1), "ttl_ms"),
        (Set("a", b"", ttl_ms=1, keep_ttl=True), "keep_ttl"),
        (SetMany([("a", b"")], 0), "ttl_ms"),
        (SetMany([("a", b"")], TTL_MAX_MS + 1), "ttl_ms"),
        (Expire("a", 0), "ttl_ms"),
        (GetAndExpire("a"), "persist"),
        (GetAndExpire("a", 1, persist=True), "persist"),
        (GetAndExpire("a", 0), "ttl_ms"),
    ],
)
def test_a_time_outside_its_range_and_two_wishes_together_are_refused(op: Write, field: str) -> None:
    found = validate(op)
    assert found is not None
    assert (found.code, found.outcome, found.details["field"]) == (3003, "not_applied", field)


@pytest.mark.parametrize("op", [Set("a", b"", ttl_ms=TTL_MAX_MS), SetMany([("a", b"")], 1), GetAndExpire("a", 1)])
def test_the_ends_of_the_range_are_in_it(op: Write) -> None:
    assert validate(op) is None


def dead_store(*keys: str) -> Store:
    """A store whose keys are dead and not removed yet, and that has the key `alive` beside them."""
    store = store_with(*keys, ttl_ms=10)
    store.do(Set("alive", b"1"))
    store.now_ms += 10
    store.do(Set("alive", b"1"))
    return store


def test_a_dead_key_is_absent_for_every_read() -> None:
    store = dead_store("a", "a/1")
    assert "a" in store.kv.entries
    assert refused(store.ask(Get("a")), 4001, key="a")
    assert refused(store.ask(TimeToLive("a")), 4001, key="a")
    assert store.ask(Exists("a")) == (False,)
    assert store.ask(GetMany(["a", "alive", "a/1"])) == ([None, (b"1", 4, None), None],)
    assert store.ask(Count()) == store.ask(Count(prefix="al")) == store.ask(Count(glob="*")) == (1,)
    assert store.ask(Count(prefix="a/")) == store.ask(Count(glob="*1")) == (0,)
    assert [row[0] for row in store.scan()] == ["alive"]
    assert finish(store.read_steps(GetMany(["a", "alive"]), 10_000)) == (([None, (b"1", 4, None)],), 4)


def test_a_key_is_alive_until_its_last_millisecond() -> None:
    store = store_with("a", ttl_ms=10)
    store.now_ms += 9
    store.apply(store.index + 1, store.now_ms, [])
    assert store.ask(TimeToLive("a")) == (1,)
    assert store.ask(Count()) == (1,)
    store.apply(store.index + 1, store.now_ms + 1, [])
    assert store.ask(Exists("a")) == (False,)
    assert store.ask(Count()) == (0,)


@pytest.mark.parametrize(
    "op",
    [
        Set("a", b"2"),
        Set("a", b"2", if_version=0),
        Set("a", b"2", condition="absent"),
        SetMany([("a", b"2"), ("b", b"2")]),
        Increment("a", 2),
        Rename("alive", "a"),
        Rename("alive", "a", if_absent=True),
    ],
)
def test_a_change_in_the_place_of_a_dead_key_has_the_end_of_that_before_it(op: Write) -> None:
    """So no watcher misses an expiry: each end of a key is a change of its own."""
    store = dead_store("a")
    revision = store.revision
    result = store.do(op)
    assert isinstance(result, tuple)
    assert store.revision == revision + 2
    entry = store.kv.entries.get("a")
    assert entry is not None
    assert entry[1:] == (revision + 2, None)
    if isinstance(op, Increment):
        assert result == (2, revision + 2)


def test_several_dead_keys_end_at_one_revision() -> None:
    store = dead_store("a", "b", "c")
    assert store.do(SetMany([("a", b""), ("b", b""), ("d", b"")])) == (store.revision,)
    assert store.revision == 5 + 2
    assert "c" in store.kv.entries


@pytest.mark.parametrize(
    "op",
    [
        Set("a", b"2", if_version=1),
        Set("a", b"2", condition="present"),
        Delete("a"),
        DeleteMany(["a", "x"]),
        Rename("a", "b"),
        GetAndDelete("a"),
        GetAndExpire("a", 5),
        Expire("a", 5),
        Expire("a", None),
        Clear("a/"),
        ExpireDue(["alive", "x"]),
    ],
)
def test_a_command_that_fails_or_changes_nothing_expires_nothing(op: Write) -> None:
    store = dead_store("a", "a/1")
    revision = store.revision
    result = store.do(op)
    assert isinstance(result, Failure) or result in {(False, None, None), (0, None)}
    assert store.revision == revision
    assert {"a", "a/1", "alive"} == set(store.kv.entries)


def test_a_conditional_write_sees_the_previous_entry_of_a_dead_key_as_absent() -> None:
    store = dead_store("a")
    assert refused(store.do(Set("a", b"2", if_version=1)), 4002, key="a", expected=1, actual=0)
    assert store.do(Set("a", b"2", return_previous=True)) == (5, None)


def test_the_node_removes_dead_keys_by_a_command_that_touches_no_other() -> None:
    store = dead_store("a", "b")
    store.do(Set("c", b"", ttl_ms=1000))
    assert store.do(ExpireDue(["b", "a", "c", "alive", "none", "a"])) == (2, 6)
    assert {"alive", "c"} == set(store.kv.entries)
    assert store.do(ExpireDue(["a"])) == (0, None)


def test_whether_a_key_is_dead_is_judged_in_log_order() -> None:
    """A key that was made to live longer by an entry before is not removed by the command that meant the dead one."""
    store = store_with("a", ttl_ms=10)
    store.do(Expire("a", 1000))
    store.now_ms += 10
    assert store.do(ExpireDue(["a"])) == (0, None)
    assert store.ask(Exists("a")) == (True,)


def test_a_clear_counts_the_living_and_ends_the_dead_before() -> None:
    store = dead_store("a", "b")
    assert store.do(Clear()) == (1, 6)
    assert (store.revision, store.kv.cleared_at) == (6, 6)
    assert store.kv.expiry.count == 0
    assert store.do(Clear()) == (0, None)


def test_the_events_of_dead_keys_that_a_clear_ends_have_the_order_of_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a replay gives them in the same order, and a watch goes on in the midst of them."""
    monkeypatch.setattr(limits, "SLICE_WORK_MAX", 64)
    keys = [f"{number:03}" for number in range(100)]
    store = store_with(*random.sample(keys, len(keys)))
    store.do(Set("alive", b""))
    store.now_ms += 200
    assert store.do(Clear()) == (1, 103)
    events = store.kv.events.read(store.kv.events.first, 1000)
    assert [event[2] for event in events if event[1] == EXPIRE] == keys


def test_dead_keys_that_another_command_came_across_are_still_to_be_removed() -> None:
    store = dead_store("a", "b")
    store.do(Set("z", b"1"))
    assert store.do(Clear("z")) == (1, 6)
    assert store.expires_next_ms <= store.now_ms


def test_a_clear_of_dead_keys_alone_changes_nothing() -> None:
    store = dead_store("a", "b")
    store.do(Delete("alive"))
    revision = store.revision
    for op in (Clear(), Clear("a"), Clear("z")):
        assert store.do(op) == (0, None)
    assert store.revision == revision
    assert store.do(ExpireDue(["a", "b"])) == (2, revision + 1)


def test_a_clear_of_a_prefix_leaves_the_dead_to_the_node() -> None:
    store = dead_store("a", "b")
    assert store.do(Clear("a")) == (1, 5)
    assert {"a", "b"} == set(store.kv.entries)


def test_a_scan_that_is_open_sees_the_keys_that_were_alive_when_it_began() -> None:
    store = store_with("a", "b", ttl_ms=10)
    cursor = store.cursor(OpenScan())
    store.now_ms += 10
    store.do(Set("a", b"2"))
    store.do(ExpireDue(["b"]))
    assert [row[0] for row in drain(cursor)] == ["a", "b"]
    assert [row[0] for row in store.scan()] == ["a"]
    store.free()


def test_the_time_for_reads_is_the_clock_of_the_node() -> None:
    store = store_with("a", ttl_ms=10)
    now = store.now_ms
    store.kv.clock = lambda: now
    assert store.ask(TimeToLive("a")) == (10,)
    now += 10
    assert refused(store.ask(Get("a")), 4001, key="a")
    assert store.ask(Count()) == (0,)
    assert store.scan() == []


def test_what_takes_no_entry_is_judged_by_the_clock_of_the_node() -> None:
    store = store_with("a", ttl_ms=10)
    now = store.now_ms
    store.kv.clock = lambda: now
    assert store.known(Logged(Delete("a"))) is None
    now += 10
    assert store.known(Logged(Delete("a"))) == store.known(Logged(Delete("b"))) == (False, None, None)
    assert store.known(Logged(Clear())) == (0, None)
    assert store.known(Logged(Set("a", b""))) is None


def test_many_dead_keys_are_no_matter_for_a_count_at_once() -> None:
    store = Store()
    store.do(SetMany([(f"{number}", b"") for number in range(limits.DEAD_LOOKED_AT_MAX + 1)], 10))
    store.do(Set("x", b"", ttl_ms=10))
    assert store.kv.counts_fast()
    store.now_ms += 10
    store.apply(store.index + 1, store.now_ms, [])
    assert not store.kv.counts_fast()
    assert store.known(Logged(Clear())) is None
    assert store.ask(Count()) == (0,)


def test_dead_keys_come_back_from_a_snapshot_as_they_are() -> None:
    store = dead_store("a", "b")
    again = load_pieces(dump_pieces(store), index=store.index, time_ms=store.time_ms)
    again.check()
    assert again.digest() == store.digest()
    assert again.read(Exists("a")) == (False,)
    assert again.known(Logged(Delete("a"))) == (False, None, None)
    for machine in (store, again):
        machine.apply(machine.index + 1, machine.time_ms, [Logged(ExpireDue(["a", "b"]))])
    assert again.digest() == store.digest()
    assert again.kv.expiry.count == 0


def test_each_end_of_a_key_is_an_event_of_its_own_kind() -> None:
    """Trap: expiry events missing from watches."""
    store = dead_store("a", "b", "c")
    first = store.kv.events.end
    store.do(Set("a", b"2"))
    store.do(ExpireDue(["b"]))
    store.do(Clear())
    events = store.kv.events.read(first, 100)
    assert [(event[0], event[1], event[2]) for event in events][:4] == [
        (6, 3, "a"),
        (7, 1, "a"),
        (8, 3, "b"),
        (9, 3, "c"),
    ]


def test_a_transact_over_a_dead_key_has_the_end_of_that_before_it() -> None:
    store = dead_store("a")
    compare = [Compare("a", "exists", "=", False), Compare("a", "version", "=", 0)]
    ops: list[Read | Write] = [
        Get("a"),
        Set("a", b"2", condition="absent", ttl_ms=50),
        GetAndExpire("a", 70),
        TimeToLive("a"),
        Exists("a"),
    ]
    revision = store.revision
    expires = store.now_ms + 70
    result = store.do(Transact(compare, ops))
    version = revision + 2
    assert result == (
        True,
        version,
        (None, (version, None), (b"2", version, expires), (70,), (True,)),
    )
    assert (store.revision, store.kv.entries.get("a")) == (version, (b"2", version, expires))


def test_a_transact_that_fails_expires_nothing() -> None:
    store = dead_store("a")
    revision = store.revision
    assert isinstance(store.do(Transact([], [Set("a", b"2"), Expire("none", 5)])), Failure)
    assert store.do(Transact([], [Delete("a"), Get("a")])) == (True, None, ((False, None, None), None))
    assert (store.revision, "a" in store.kv.entries) == (revision, True)

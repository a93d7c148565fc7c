"""Each method of the kv part, as section 7 of the protocol says it."""

from __future__ import annotations

import msgspec
import pytest

from haptera.state.operations import (
    Clear,
    Count,
    Delete,
    DeleteMany,
    Exists,
    Get,
    GetMany,
    Increment,
    OpenScan,
    Rename,
    Set,
    SetMany,
)
from haptera.state.results import ANSWER_OVERHEAD, ENTRY_OVERHEAD
from haptera.state.sliced_work import finish
from tests.unit.state.store import Store, refused

INT64_MAX = 2**63 - 1


@pytest.fixture
def store() -> Store:
    return Store()


def test_get_answers_value_version_and_no_expiry(store: Store) -> None:
    store.do(Set("a", b"1"))
    assert store.ask(Get("a")) == (b"1", 1, None)


def test_get_of_a_missing_key_is_a_failure_as_a_value(store: Store) -> None:
    assert refused(store.ask(Get("a")), 4001, key="a")


def test_results_encode_as_the_arrays_of_the_protocol(store: Store) -> None:
    store.do(Set("a", b"1"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(store.ask(Get("a")))) == [b"1", 1, None]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(store.do(Set("a", b"2", return_previous=True)))) == [
        2,
        [b"1", 1, None],
    ]


def test_exists(store: Store) -> None:
    store.do(Set("a", b""))
    assert store.ask(Exists("a")) == (True,)
    assert store.ask(Exists("b")) == (False,)


def test_get_many_answers_in_the_order_of_the_keys_and_nil_for_missing_ones(store: Store) -> None:
    store.do(SetMany([("a", b"1"), ("b", b"2")]))
    assert store.ask(GetMany(["b", "x", "a", "b"])) == ([(b"2", 1, None), None, (b"1", 1, None), (b"2", 1, None)],)
    assert store.ask(GetMany([])) == ([],)


def test_a_large_get_many_fits_its_bound_or_is_refused_and_lets_go_of_its_revision(store: Store) -> None:
    store.do(Set("large", bytes(1000)))
    size = 1000 + ENTRY_OVERHEAD + 1 + ANSWER_OVERHEAD  # a missing key is one byte
    found = finish(store.read_steps(GetMany(["large", "missing"]), size))
    assert found == (([(bytes(1000), store.revision, None), None],), store.revision)
    assert refused(finish(store.read_steps(GetMany(["large", "missing"]), size - 1)), 3004, limit=size - 1)
    assert store.kv.held.idle


def test_set_answers_the_new_version_and_the_previous_entry_when_asked(store: Store) -> None:
    assert store.do(Set("a", b"1")) == (1, None)
    assert store.do(Set("b", b"1", return_previous=True)) == (2, None)
    assert store.do(Set("a", b"2")) == (3, None)
    assert store.do(Set("a", b"3", return_previous=True)) == (4, (b"2", 3, None))


def test_setting_the_same_value_again_is_a_write(store: Store) -> None:
    store.do(Set("a", b"1"))
    assert store.do(Set("a", b"1")) == (2, None)


def test_set_if_version(store: Store) -> None:
    store.do(Set("a", b"1"))
    assert store.do(Set("a", b"2", if_version=1)) == (2, None)
    assert refused(store.do(Set("a", b"3", if_version=1)), 4002, key="a", expected=1, actual=2)
    assert refused(store.do(Set("x", b"3", if_version=1)), 4002, key="x", expected=1, actual=0)
    assert store.value("a") == b"2"
    assert store.revision == 2


def test_if_version_0_means_absent(store: Store) -> None:
    assert store.do(Set("a", b"1", if_version=0)) == (1, None)
    assert refused(store.do(Set("a", b"2", if_version=0)), 4002, key="a", expected=0, actual=1)


def test_set_if_absent_and_if_present(store: Store) -> None:
    assert refused(store.do(Set("a", b"1", condition="present")), 4001, key="a")
    assert store.do(Set("a", b"1", condition="absent")) == (1, None)
    assert refused(store.do(Set("a", b"2", condition="absent")), 4003, key="a")
    assert store.do(Set("a", b"2", condition="present", return_previous=True)) == (2, (b"1", 1, None))


def test_if_version_is_judged_before_the_condition_and_both_must_hold(store: Store) -> None:
    store.do(Set("a", b"1"))
    assert refused(store.do(Set("a", b"2", if_version=9, condition="absent")), 4002, key="a", expected=9, actual=1)
    assert refused(store.do(Set("a", b"2", if_version=1, condition="absent")), 4003, key="a")
    assert store.do(Set("a", b"2", if_version=1, condition="present")) == (2, None)


def test_delete(store: Store) -> None:
    store.do(Set("a", b"1"))
    assert store.do(Delete("a")) == (True, 2, None)
    assert refused(store.ask(Get("a")), 4001, key="a")
    store.do(Set("a", b"2"))
    assert store.do(Delete("a", return_previous=True)) == (True, 4, (b"2", 3, None))


def test_delete_of_a_missing_key_takes_no_revision(store: Store) -> None:
    assert store.do(Delete("a", return_previous=True)) == (False, None, None)
    assert store.do(Delete("a", if_version=0)) == (False, None, None)
    assert store.revision == 0


def test_delete_if_version(store: Store) -> None:
    store.do(Set("a", b"1"))
    assert refused(store.do(Delete("a", if_version=2)), 4002, key="a", expected=2, actual=1)
    assert refused(store.do(Delete("x", if_version=2)), 4002, key="x", expected=2, actual=0)
    assert refused(store.do(Delete("a", if_version=0)), 4002, key="a", expected=0, actual=1)
    assert store.do(Delete("a", if_version=1)) == (True, 2, None)


def test_set_many_writes_all_with_one_version(store: Store) -> None:
    store.do(Set("a", b"0"))
    assert store.do(SetMany([("a", b"1"), ("b", b"2")])) == (2,)
    assert store.ask(GetMany(["a", "b"])) == ([(b"1", 2, None), (b"2", 2, None)],)


def test_set_many_of_nothing_answers_the_present_revision_and_takes_none(store: Store) -> None:
    store.do(Set("a", b"0"))
    assert store.do(SetMany([])) == (1,)
    assert store.revision == 1


def test_delete_many_counts_what_was_there_once(store: Store) -> None:
    store.do(SetMany([("a", b"1"), ("b", b"2"), ("c", b"3")]))
    assert store.do(DeleteMany(["a", "x", "b", "a"])) == (2, 2)
    assert store.scan() == [("c", b"3", 1, None)]


def test_delete_many_of_nothing_takes_no_revision(store: Store) -> None:
    assert store.do(DeleteMany(["a"])) == (0, None)
    assert store.do(DeleteMany([])) == (0, None)
    assert store.revision == 0


def test_increment_starts_from_initial_and_stores_decimal_text(store: Store) -> None:
    assert store.do(Increment("a")) == (1, 1)
    assert store.do(Increment("a", -3)) == (-2, 2)
    assert store.value("a") == b"-2"
    assert store.do(Increment("b", 5, 100)) == (105, 3)
    assert store.do(Increment("a", 1, 100)) == (-1, 4)


def test_increment_by_0_is_a_write(store: Store) -> None:
    assert store.do(Increment("a", 0)) == (0, 1)
    assert store.do(Increment("a", 0)) == (0, 2)
    assert store.value("a") == b"0"


@pytest.mark.parametrize("text", [b"0", b"7", b"-7", b"10", str(INT64_MAX).encode(), str(-INT64_MAX - 1).encode()])
def test_increment_reads_canonical_decimal_text(store: Store, text: bytes) -> None:
    store.do(Set("a", text))
    assert store.do(Increment("a", 0)) == (int(text), 2)
    assert store.value("a") == text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" 1",
        b"1 ",
        b"1\n",
        b"+1",
        b"-",
        b"-0",
        b"01",
        b"-01",
        b"1_000",
        b"1.0",
        b"0x1",
        b"1e3",
        b"\xd9\xa1",
        b"one",
        b"9223372036854775808",
        b"-9223372036854775809",
        b"9" * 5000,
    ],
)
def test_increment_refuses_every_other_text(store: Store, text: bytes) -> None:
    store.do(Set("a", text))
    assert refused(store.do(Increment("a")), 4004, key="a")
    assert store.value("a") == text
    assert store.revision == 1


def test_increment_refuses_to_leave_the_signed_64_bits(store: Store) -> None:
    store.do(Set("a", str(INT64_MAX).encode()))
    assert refused(store.do(Increment("a", 1)), 4005, key="a")
    assert store.do(Increment("a", -INT64_MAX)) == (0, 2)
    assert store.do(Increment("a", -INT64_MAX - 1)) == (-INT64_MAX - 1, 3)
    assert refused(store.do(Increment("a", -1)), 4005, key="a")
    assert refused(store.do(Increment("b", 1, INT64_MAX)), 4005, key="b")
    assert store.ask(Exists("b")) == (False,)


def test_rename_moves_the_value_and_gives_a_new_version(store: Store) -> None:
    store.do(Set("a", b"1"))
    assert store.do(Rename("a", "b")) == (2,)
    assert store.ask(Get("b")) == (b"1", 2, None)
    assert store.ask(Exists("a")) == (False,)


def test_rename_replaces_the_target_unless_it_must_be_absent(store: Store) -> None:
    store.do(SetMany([("a", b"1"), ("b", b"2")]))
    assert refused(store.do(Rename("a", "b", if_absent=True)), 4003, key="b")
    assert store.value("a") == b"1"
    assert store.do(Rename("a", "b")) == (2,)
    assert store.scan() == [("b", b"1", 2, None)]


def test_rename_of_a_missing_key_is_4001_whatever_the_target(store: Store) -> None:
    store.do(Set("b", b"2"))
    assert refused(store.do(Rename("a", "b", if_absent=True)), 4001, key="a")
    assert refused(store.do(Rename("a", "c")), 4001, key="a")


@pytest.mark.parametrize("indexed", [True, False])
def test_rename_to_itself_is_a_write_and_with_if_absent_is_refused(store: Store, indexed: bool) -> None:
    store.do(Set("a", b"1"))
    if indexed:
        store.build_index()
    assert store.do(Rename("a", "a")) == (2,)
    assert store.ask(Get("a")) == (b"1", 2, None)
    assert refused(store.do(Rename("a", "a", if_absent=True)), 4003, key="a")


@pytest.mark.parametrize("indexed", [True, False])
def test_clear(store: Store, indexed: bool) -> None:
    store.do(SetMany([("a/1", b""), ("a/2", b""), ("b/1", b""), ("c", b"")]))
    if indexed:
        store.build_index()
    assert store.do(Clear("a/")) == (2, 2)
    assert [row[0] for row in store.scan()] == ["b/1", "c"]
    assert store.do(Clear()) == (2, 3)
    assert store.scan() == []
    assert store.ask(Count()) == (0,)


def test_clear_of_nothing_takes_no_revision(store: Store) -> None:
    assert store.do(Clear()) == (0, None)
    store.do(Set("a", b""))
    assert store.do(Clear("b")) == (0, None)
    assert store.revision == 1


def test_clear_takes_an_empty_prefix_for_none(store: Store) -> None:
    store.do(Set("a", b""))
    assert store.do(Clear("")) == (1, 2)


@pytest.mark.parametrize(
    ("op", "count"),
    [
        (Count(), 6),
        (Count(prefix=""), 6),
        (Count(prefix="a"), 3),
        (Count(prefix="a/"), 2),
        (Count(start="a/2"), 4),
        (Count(end="a/2"), 2),
        (Count(start="a/1", end="b"), 2),
        (Count(start="b", end="a"), 0),
        (Count(end=""), 0),
        (Count(prefix="a/", start="a/2"), 1),
        (Count(prefix="a/", end="a/2"), 1),
        (Count(glob="a/*"), 2),
        (Count(glob="*/1"), 2),
        (Count(glob="*"), 6),
        (Count(glob="a"), 1),
        (Count(prefix="a", glob="b*"), 0),
        (Count(prefix="a/", glob="a*2"), 1),
    ],
)
def test_count(store: Store, op: Count, count: int) -> None:
    store.do(SetMany([(key, b"") for key in ("a", "a/1", "a/2", "b/1", "c", "\U0010ffff")]))
    assert store.ask(op) == (count,)


def test_count_leaves_out_deleted_keys_that_a_reader_still_sees(store: Store) -> None:
    store.do(SetMany([("a", b""), ("b", b""), ("c", b"")]))
    cursor = store.cursor(OpenScan())
    store.do(Delete("b"))
    assert store.ask(Count(start="a")) == (2,)
    assert store.ask(Count(start="b", end="c")) == (0,)
    assert store.ask(Count(glob="?*")) == (2,)
    cursor.close()
    store.check()


def test_versions_of_different_keys_come_from_one_counter(store: Store) -> None:
    versions = [store.do(Set(key, b""))[0] for key in ("a", "b", "a")]  # type: ignore[index]
    assert versions == [1, 2, 3]

# Generated from tests/unit/client/calls/test_transactions.py by
# tools/generate_sync_tests.py (make generate). Do not edit.
"""Transactions of the client, on a served and on an embedded store: typed results, conflicts, repetition, isolation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import haptera
import haptera.sync
from haptera import Entry, TransactionConflict, TransactResult
from haptera.client.calls.key_calls import KvMethods
from haptera.errors import TransactionTooLarge, UnknownMethod
from haptera.sync import Database, Transaction
from haptera.testing import node_in_thread
from tests.support.stores import opened_in_thread


@pytest.fixture(params=["served", "embedded"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened_in_thread(request.param, tmp_path) as database:
        yield database


def test_the_results_of_a_transact_are_those_of_the_calls(db: Database) -> None:
    db.set_many({"a": "1", "b": "x"})
    result = db.transact(
        compare=[
            ("a", "version", "=", 1),
            ("a", "value", "=", "1"),
            ("b", "exists", "=", True),
            ("b", "value", ">", b"a"),
        ],
        then=[
            ("get", ["a"]),
            ("get", ["no"]),
            ("exists", ["b"]),
            ("set", ["c", "2"]),
            ("set", ["a", bytearray(b"5"), {"return_previous": True}]),
            ("set", ["new", memoryview(b"6"), {"return_previous": True, "if": "absent"}]),
            ("increment", ["a", 2]),
            ("increment", ["n", 1, {"initial": 10}]),
            ("rename", ["a", "d"]),
            ("delete", ["b", {"return_previous": True}]),
            ("delete", ["b"]),
            ("delete", ["c"]),
            ("get", ["d"]),
        ],
    )
    before = [Entry("a", b"1", 1), None, True, 2, Entry("a", b"1", 1), None, 7, 11, 2]
    assert result == TransactResult(True, 2, [*before, Entry("b", b"x", 1), False, True, Entry("d", b"7", 2)])
    assert db.revision == 2
    assert [entry.key for entry in db.scan()] == ["d", "n", "new"]


def test_the_other_operations_are_made_where_a_compare_does_not_hold(db: Database) -> None:
    result = db.transact(compare=[("a", "exists", "=", True)], then=[("set", ["a", b""])], otherwise=[("get", ["a"])])
    assert result == TransactResult(False, None, [None])
    assert db.transact() == TransactResult(True, None, [])


def test_a_failure_inside_says_where_and_changes_nothing(db: Database) -> None:
    db.set("a", b"1")
    with pytest.raises(haptera.VersionMismatch) as caught:
        db.transact(then=[("set", ["b", b"1"]), ("set", ["a", b"2", {"if_version": 7}])])
    place = {"branch": "then", "operation": 1}
    assert caught.value.details == {"key": "a", "expected": 7, "actual": 1, **place}
    assert caught.value.outcome == "not_applied"
    assert not db.exists("b")
    with pytest.raises(TransactionTooLarge):
        db.transact(then=[("get", ["a"])] * 129)


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ValueError, {"compare": [("a", "age", "=", 1)]}),
        (ValueError, {"compare": [("a", "version", "==", 1)]}),
        (ValueError, {"compare": [("a", "version", "=", -1)]}),
        (TypeError, {"compare": [("a", "version", "=", "1")]}),
        (TypeError, {"compare": [("a", "value", "=", 1)]}),
        (TypeError, {"compare": [(b"a", "exists", "=", True)]}),
        (TypeError, {"compare": [("a", "exists", "=")]}),
        (ValueError, {"then": [("clear", [])]}),
        (TypeError, {"then": [("get", "a")]}),
        (TypeError, {"then": [("get", [b"a"])]}),
        (haptera.errors.InvalidKey, {"then": [("get", [])]}),
        (haptera.errors.InvalidArgument, {"then": [("get", ["a", "b"])]}),
        (haptera.errors.InvalidArgument, {"then": [("set", ["a"])]}),
        (haptera.errors.InvalidArgument, {"otherwise": [("rename", ["a", 1])]}),
        (TypeError, {"otherwise": [("set", ["a", 1])]}),
        (ValueError, {"then": [("increment", ["a", 1 << 63])]}),
        (ValueError, {"then": [("set", ["a", "", {"if_version": 1 << 70}])]}),
        (ValueError, {"then": [(["get"], ["a"])]}),
        (ValueError, {"compare": [("a", "version", {}, 1)]}),
    ],
    ids=str,
)
def test_a_mistake_in_a_transact_is_told_and_changes_nothing(
    db: Database, error: type[Exception], arguments: dict[str, Any]
) -> None:
    with pytest.raises(error):
        db.transact(**arguments)
    assert db.revision == 0


def test_a_transaction_sees_its_own_writes_and_makes_them_at_its_end(db: Database) -> None:
    db.set_many({"a": b"1", "b": b"2"})
    with db.transaction() as tx:
        assert tx.get("a") == Entry("a", b"1", 1)
        tx.set("a", "one")
        tx.set("c", bytearray(b"3"))
        tx.delete("b")
        assert tx.get("a") == Entry("a", b"one", 0)
        assert tx.get_many(["b", "c", "a", "no"]) == [None, Entry("c", b"3", 0), Entry("a", b"one", 0), None]
        assert (tx.exists("b"), tx.exists("c")) == (False, True)
        assert (db.get("a"), tx.version) == (Entry("a", b"1", 1), None)
    assert tx.version == db.revision == 2
    assert db.get_many(["a", "b", "c"]) == [Entry("a", b"one", 2), None, Entry("c", b"3", 2)]


def test_the_results_of_operations_on_the_time_to_live_are_those_of_the_calls(db: Database) -> None:
    db.set_many({"a": b"1", "b": b"2"})
    result = db.transact(
        then=[
            ("set", ["a", b"2", {"ttl_ms": 5000000}]),
            ("ttl", ["a"]),
            ("set", ["a", b"3", {"keep_ttl": True}]),
            ("get_and_expire", ["a", {"persist": True}]),
            ("ttl", ["a"]),
            ("expire", ["b", 7000000]),
            ("expire", ["a", None]),
            ("get_and_delete", ["a"]),
            ("ttl", ["a"]),
        ]
    )
    gone = Entry("a", b"3", 2)
    assert result == TransactResult(True, 2, [2, 5000.0, 2, gone, None, 2, 2, gone, None])
    assert 6990 < cast("float", db.ttl("b")) <= 7000


def test_a_transaction_sets_the_time_to_live_with_its_commit(db: Database) -> None:
    db.set("kept", b"1", ttl=5000)
    db.set("ended", b"1", ttl=5000)
    with db.transaction() as tx:
        tx.set("new", b"1", ttl=7000)
        tx.set("kept", b"2", keep_ttl=True)
        tx.set("ended", b"2")
        with pytest.raises(ValueError, match="exclude"):
            tx.set("new", b"", ttl=1, keep_ttl=True)
    times = [db.ttl(key) for key in ("new", "kept", "ended")]
    assert [None if each is None else round(each, -1) for each in times] == [7000, 5000, None]


def test_a_key_is_read_once(db: Database) -> None:
    db.set("a", b"1")
    tx = db.transaction()
    first = tx.get("a")
    db.set("a", b"2")
    assert tx.get("a") == first
    tx.set("b", b"")
    with pytest.raises(TransactionConflict):
        tx.commit()


@pytest.mark.parametrize("change", ["set", "delete", "recreate", "create"])
def test_a_change_of_what_was_read_is_a_conflict(db: Database, change: str) -> None:
    db.set("a", b"1")

    def conflicts() -> None:
        with db.transaction() as tx:
            tx.get_many(["a", "no"])
            tx.set("b", b"")
            if change in {"delete", "recreate"}:
                db.delete("a")
            if change in {"set", "recreate"}:
                db.set("a", b"1")
            if change == "create":
                db.set("no", b"")

    with pytest.raises(TransactionConflict) as caught:
        conflicts()
    assert (caught.value.outcome, caught.value.name) == ("not_applied", "TRANSACTION_CONFLICT")
    assert not db.exists("b")


def test_a_change_of_another_key_is_no_conflict(db: Database) -> None:
    with db.transaction() as tx:
        tx.get("a")
        tx.set("b", b"")
        db.set("b", b"other")
    assert db.get("b") == Entry("b", b"", 2)


def test_reads_of_several_keys_at_different_times_are_of_one_moment_or_conflict(db: Database) -> None:
    first = db.transaction()
    first.get("a")
    db.set_many({"a": b"1", "b": b"1"})
    first.get("b")
    with pytest.raises(TransactionConflict):
        first.commit()
    with db.transaction() as tx:
        assert [tx.get("a"), tx.get("b")] == [Entry("a", b"1", 1), Entry("b", b"1", 1)]
    assert tx.version is None


def test_an_exception_drops_the_writes(db: Database) -> None:

    def fails() -> None:
        with db.transaction() as tx:
            tx.set("a", b"1")
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert not db.exists("a")


def test_more_keys_than_a_transact_compares_are_too_many(db: Database) -> None:
    tx = db.transaction()
    tx.get_many([f"k{number}" for number in range(129)])
    with pytest.raises(TransactionTooLarge):
        tx.commit()


def test_run_calls_the_function_again_after_a_conflict(db: Database) -> None:
    attempts: list[int] = []

    def add(tx: Transaction) -> str:
        entry = tx.get("n")
        attempts.append(0 if entry is None else int(entry.value))
        if len(attempts) < 3:
            db.increment("n")
        tx.set("n", str(attempts[-1] + 10))
        return "done"

    assert db.run(add) == "done"
    assert attempts == [0, 1, 2]
    assert db.get("n") == Entry("n", b"12", 3)


def test_run_gives_up_after_its_attempts(db: Database) -> None:
    attempts = 0

    def always_late(tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        tx.get("n")
        tx.set("m", b"")
        db.increment("n")

    with pytest.raises(TransactionConflict):
        db.run(always_late, attempts=4)
    assert attempts == 4
    with pytest.raises(ValueError, match="attempts"):
        db.run(always_late, attempts=0)


def test_a_conflict_within_a_function_is_the_functions_own(db: Database) -> None:
    calls = 0

    def raises(tx: Transaction) -> None:
        nonlocal calls
        calls += 1
        raise TransactionConflict

    with pytest.raises(TransactionConflict):
        db.run(raises)
    assert calls == 1


def test_a_node_without_transactions_says_so() -> None:
    with node_in_thread(storage="memory") as url, haptera.sync.dial(url) as peer:
        with pytest.raises(UnknownMethod) as caught:
            peer.call("kv", KvMethods.transact.name, b"\x92\x90\x90")
        assert caught.value.details["capability"] == "kv_transact"

"""Transacts: compares, all or nothing, one version, and what a transact refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from haptera.errors import Failure
from haptera.key_rules import VALUE_SIZE_MAX, VERSION_MAX
from haptera.state import Replayed, limits, validate
from haptera.state.operation_sets import frees
from haptera.state.operations import Compare, Delete, Exists, Get, Increment, Rename, Set, Transact
from tests.unit.state.store import Store, refused

if TYPE_CHECKING:
    from haptera.state.operations import OfOneKey

ID, DIGEST = bytes(16), bytes(32)
MIB = 1024 * 1024


def filled() -> Store:
    """A store with `a` = 1 of version 1 and `b` = x of version 2."""
    store = Store()
    store.do(Set("a", b"1"))
    store.do(Set("b", b"x"))
    return store


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        (Compare("b", "version", "=", 2), True),
        (Compare("b", "version", "=", 1), False),
        (Compare("b", "version", "!=", 1), True),
        (Compare("b", "version", "<", 3), True),
        (Compare("b", "version", "<", 2), False),
        (Compare("b", "version", ">", 1), True),
        (Compare("b", "version", ">", 2), False),
        (Compare("b", "value", "=", b"x"), True),
        (Compare("b", "value", "!=", b"x"), False),
        (Compare("b", "value", "<", b"xa"), True),
        (Compare("b", "value", ">", b"a"), True),
        (Compare("b", "exists", "=", True), True),
        (Compare("b", "exists", "=", False), False),
        (Compare("b", "exists", "!=", False), True),
        (Compare("no", "version", "=", 0), True),
        (Compare("no", "version", "<", 1), True),
        (Compare("no", "exists", "=", False), True),
        (Compare("no", "exists", "!=", False), False),
        (Compare("no", "value", "=", b""), False),
        (Compare("no", "value", "!=", b""), False),
        (Compare("no", "value", "<", b"x"), False),
        (Compare("no", "value", ">", b""), False),
    ],
)
def test_a_compare(compare: Compare, holds: bool) -> None:
    assert filled().do(Transact([compare], [])) == (holds, None, ())


def test_all_compares_must_hold() -> None:
    store, true, false = filled(), Compare("a", "version", "=", 1), Compare("a", "version", "=", 2)
    then: list[OfOneKey] = [Get("a")]
    otherwise: list[OfOneKey] = [Get("b")]
    assert store.do(Transact([true, true], then, otherwise)) == (True, None, ((b"1", 1, None),))
    assert store.do(Transact([true, false], then, otherwise)) == (False, None, ((b"x", 2, None),))
    assert store.do(Transact([false, true], then, otherwise)) == (False, None, ((b"x", 2, None),))
    assert store.do(Transact([], then, otherwise)) == (True, None, ((b"1", 1, None),))


def test_all_operations_make_one_version_and_have_the_results_of_their_methods() -> None:
    store = filled()
    then: list[OfOneKey] = [
        Set("c", b"2"),
        Get("c"),
        Set("a", b"5", return_previous=True),
        Increment("a", 2),
        Rename("a", "d"),
        Exists("a"),
        Get("a"),
        Delete("b", return_previous=True),
        Delete("b"),
        Get("d"),
    ]
    assert store.do(Transact([Compare("a", "value", "=", b"1")], then)) == (
        True,
        3,
        (
            (3, None),
            (b"2", 3, None),
            (3, (b"1", 1, None)),
            (7, 3),
            (3,),
            (False,),
            None,
            (True, 3, (b"x", 2, None)),
            (False, None, None),
            (b"7", 3, None),
        ),
    )
    assert store.revision == 3
    assert store.scan() == [("c", b"2", 3, None), ("d", b"7", 3, None)]


def test_a_key_that_comes_and_goes_in_a_transact_is_not_there() -> None:
    store = filled()
    held = store.cursor()
    assert store.do(Transact([], [Set("c", b"1"), Delete("c"), Delete("a"), Set("a", b"3")])) == (
        True,
        3,
        ((3, None), (True, 3, None), (True, 3, None), (3, None)),
    )
    assert store.scan() == [("a", b"3", 3, None), ("b", b"x", 2, None)]
    held.close()


def test_a_scan_that_is_open_sees_nothing_of_a_transact() -> None:
    store = filled()
    cursor = store.cursor()
    store.do(Transact([], [Set("a", b"9"), Delete("b"), Set("c", b"9")]))
    page = cursor.page(1000, 10)
    assert not isinstance(page, Failure)
    assert page.rows == [("a", b"1", 1, None), ("b", b"x", 2, None)]
    cursor.close()


@pytest.mark.parametrize(
    ("failing", "code", "details"),
    [
        (Set("b", b"", if_version=7), 4002, {"key": "b", "expected": 7, "actual": 2}),
        (Set("b", b"", condition="absent"), 4003, {"key": "b"}),
        (Set("c", b"", condition="present"), 4001, {"key": "c"}),
        (Delete("b", if_version=1), 4002, {"key": "b", "expected": 1, "actual": 2}),
        (Increment("b"), 4004, {"key": "b"}),
        (Increment("a", 2**63 - 1), 4005, {"key": "a"}),
        (Rename("c", "d"), 4001, {"key": "c"}),
        (Rename("a", "b", if_absent=True), 4003, {"key": "b"}),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("branch", ["then", "otherwise"])
def test_trap_a_failed_condition_inside_a_transaction_while_the_rest_commits(
    failing: Any, code: int, details: dict[str, Any], branch: str
) -> None:
    store = filled()
    before = store.kv.digest()
    operations: list[OfOneKey] = [Set("new", b"1"), Delete("zz"), failing, Set("new", b"2")]
    holds = Compare("a", "exists", "=", branch == "then")
    op = Transact([holds], operations, []) if branch == "then" else Transact([holds], [], operations)
    assert refused(store.do(op), code, **details, branch=branch, operation=2)
    assert (store.kv.digest(), store.revision) == (before, 2)


def test_a_condition_inside_is_judged_by_what_the_operations_before_it_have_done() -> None:
    store = filled()
    assert store.do(Transact([], [Set("c", b"1"), Set("c", b"2", condition="present"), Set("c", b"3", 3)])) == (
        True,
        3,
        ((3, None), (3, None), (3, None)),
    )
    assert refused(
        store.do(Transact([], [Delete("c"), Set("c", b"4", 3)])),
        4002,
        key="c",
        expected=3,
        actual=0,
        branch="then",
        operation=1,
    )
    assert store.value("c") == b"3"


@pytest.mark.parametrize(
    "op",
    [
        Transact([], []),
        Transact([], [Get("a"), Get("no"), Exists("b"), Delete("no")]),
        Transact([Compare("no", "exists", "=", True)], [Set("a", b"2")], []),
    ],
)
def test_a_transact_that_changes_nothing_takes_no_version(op: Transact) -> None:
    store = filled()
    result = store.do(op)
    assert isinstance(result, tuple)
    assert (result[1], store.revision) == (None, 2)


def test_a_rehearsal_changes_nothing_and_says_what_is_known() -> None:
    store = filled()
    digest = store.digest()
    transact = store._transacts.transact
    assert transact(Transact([], [Set("a", b"2"), Get("a")]), rehearsed=True) is None
    assert transact(Transact([], [Get("a")]), rehearsed=True) == (True, None, ((b"1", 1, None),))
    assert isinstance(transact(Transact([], [Set("c", b""), Rename("no", "c")]), rehearsed=True), Failure)
    assert store.digest() == digest
    assert store._transacts._changes == {}


def test_a_repeated_transact_has_the_answer_of_the_first() -> None:
    store = filled()
    op = Transact([Compare("a", "version", "=", 1)], [Set("a", b"2", return_previous=True), Get("b")])
    first = store.do(op, "app", ID, DIGEST)
    assert first == (True, 3, ((3, (b"1", 1, None)), (b"x", 2, None)))
    assert store.do(op, "app", ID, DIGEST) == Replayed(first)
    assert store.revision == 3


def test_of_a_repeated_transact_with_a_large_answer_the_version_is_left() -> None:
    store = Store()
    store.do(Set("a", bytes(5000)))
    op = Transact([], [Get("a"), Set("a", b"")])
    assert store.do(op, "app", ID, DIGEST) == (True, 2, ((bytes(5000), 1, None), (2, None)))
    again = store.do(op, "app", ID, DIGEST)
    assert isinstance(again, Failure)
    assert (again.code, again.outcome, again.details) == (3011, "applied", {"version": 2})


def test_values_that_no_answer_holds_make_a_transact_fail_and_change_nothing() -> None:
    store = Store()
    store.do(Set("a", bytes(8 * MIB)))
    gets: list[OfOneKey] = [Get("a"), Set("a", b"", return_previous=True)]
    assert refused(store.do(Transact([], gets)), 3004, limit=16 * MIB)
    assert store.revision == 1
    assert store.do(Transact([], [Get("a"), Set("b", b"")])) == (True, 2, ((bytes(8 * MIB), 1, None), (2, None)))


@pytest.mark.parametrize(
    ("op", "code", "details"),
    [
        (Transact([Compare("a", "exists", "=", True)] * 129, []), 4008, {"field": "compares", "limit": 128}),
        (Transact([], [Get("a")] * 129), 4008, {"field": "then", "limit": 128}),
        (Transact([], [], [Get("a")] * 129), 4008, {"field": "otherwise", "limit": 128}),
        (Transact([], [Get("a"), Get("")]), 4006, {"reason": "empty", "branch": "then", "operation": 1}),
        (Transact([Compare("\0", "exists", "=", True)], []), 4006, {"reason": "holds a NUL", "compare": 0}),
        (
            Transact([], [], [Set("a", bytes(VALUE_SIZE_MAX + 1))]),
            4007,
            {"key": "a", "length": VALUE_SIZE_MAX + 1, "limit": VALUE_SIZE_MAX, "branch": "otherwise", "operation": 0},
        ),
        (Transact([], [Set("a", bytes(8 * MIB))] * 2), 3004, {"limit": 16 * MIB}),
        (Transact([Compare("a", "value", "=", bytes(8 * MIB))] * 2, []), 3004, {"limit": 16 * MIB}),
        (
            Transact([Compare("a", "value", "=", bytes(VALUE_SIZE_MAX + 1))], []),
            4007,
            {"key": "a", "length": VALUE_SIZE_MAX + 1, "limit": VALUE_SIZE_MAX, "compare": 0},
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, int | dict) else None,
)
def test_a_transact_that_is_refused(op: Transact, code: int, details: dict[str, Any]) -> None:
    assert refused(validate(op), code, **details)


@pytest.mark.parametrize(
    "compare",
    [
        Compare("a", "version", "=", True),
        Compare("a", "version", "=", b"1"),
        Compare("a", "version", "=", -1),
        Compare("a", "version", "=", VERSION_MAX + 1),
        Compare("a", "value", "=", 1),
        Compare("a", "value", "=", True),
        Compare("a", "exists", "=", 1),
        Compare("a", "exists", "=", b""),
        Compare("a", "exists", "<", True),
        Compare("a", "exists", ">", False),
    ],
)
def test_an_operand_or_operator_that_does_not_fit_its_field_is_refused(compare: Compare) -> None:
    reason = validate(Transact([compare], []))
    assert reason is not None
    assert (reason.code, reason.details["compare"]) == (3003, 0)


def test_as_many_parts_as_may_be_are_taken() -> None:
    compares = [Compare("a", "version", "<", VERSION_MAX)] * limits.TRANSACT_PARTS_MAX
    sets = [Set(f"k{number}", b"") for number in range(limits.TRANSACT_PARTS_MAX)]
    store = Store()
    result = store.do(Transact(compares, list(sets), list(sets)))
    assert isinstance(result, tuple)
    assert (result[1], len(result[2]), store.revision) == (1, 128, 1)


@pytest.mark.parametrize(
    ("op", "freeing"),
    [
        (Transact([], [Delete("a")], [Get("a"), Delete("b")]), True),
        (Transact([], []), True),
        (Transact([], [Delete("a")], [Set("a", b"")]), False),
        (Transact([], [Rename("a", "b")]), False),
        (Delete("a"), True),
        (Set("a", b""), False),
    ],
)
def test_what_frees(op: Any, freeing: bool) -> None:
    assert frees(op) is freeing

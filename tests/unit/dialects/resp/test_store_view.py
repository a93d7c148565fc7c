"""The view of the store on which the commands of a transaction run: its results, and what is left to be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from haptera.dialects.resp.store_view import NetChange, StoreView
from haptera.errors import Failure
from haptera.node.commands import operations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.dialects.resp.store_view import Entry

NOW = 1_000_000


def view(**entries: Entry) -> StoreView:
    def look(keys: Sequence[str]) -> list[Entry | None]:
        return [entries.get(key) for key in keys]

    return StoreView(look, NOW)


def test_a_result_depends_on_the_entry_of_its_key() -> None:
    seen = view(a=(b"1", 7, None))
    seen.run(operations.Get("a"))
    seen.run(operations.Exists("b"))
    assert seen.judged == {"a": 7, "b": 0}
    assert seen.made == []


def test_a_plain_set_depends_on_nothing() -> None:
    seen = view(a=(b"1", 7, None))
    seen.run(operations.Set("a", b"2", ttl_ms=5))
    assert seen.judged == {}
    assert seen.run(operations.Get("a")) == (b"2", -1, NOW + 5)
    assert seen.judged == {}, "its own change is there"


def test_a_transact_whose_branch_fails_leaves_nothing() -> None:
    seen = view(text=(b"x", 3, None))
    failed = seen.run(operations.Transact([], [operations.Set("a", b"1"), operations.Increment("text")]))
    assert isinstance(failed, Failure)
    assert failed.code == 4004
    assert seen.made == []
    assert seen.net == {}
    assert seen.run(operations.Exists("a")) == (False,)


def test_a_transact_makes_the_branch_that_its_compares_choose() -> None:
    seen = view(a=(b"1", 7, None))
    then: list[operations.OfOneKey] = [operations.Set("b", b"then")]
    otherwise: list[operations.OfOneKey] = [operations.Set("b", b"otherwise")]
    for field, operator, operand, chosen in (
        ("version", "=", 7, True),
        ("version", ">", 7, False),
        ("value", "=", b"1", True),
        ("value", "!=", b"1", False),
        ("exists", "=", True, True),
    ):
        compare = operations.Compare("a", field, operator, operand)  # type: ignore[arg-type]
        result = seen.run(operations.Transact([compare], then, otherwise))
        assert isinstance(result, tuple)
        assert result[0] is chosen
    missing = seen.run(operations.Transact([operations.Compare("c", "value", "!=", b"1")], then, otherwise))
    assert isinstance(missing, tuple)
    assert missing[0] is False, "a missing key has no value to compare"


def test_the_net_change_of_a_key_keeps_the_end_that_it_was_given() -> None:
    seen = view(n=(b"1", 7, NOW + 50))
    seen.run(operations.Increment("n"))
    assert seen.net["n"] == NetChange(b"2", keep_ttl=True)
    seen.run(operations.Expire("n", 9))
    seen.run(operations.Increment("n"))
    assert seen.net["n"] == NetChange(b"3", 9)
    assert seen.run(operations.TimeToLive("n")) == (9,)
    seen.run(operations.Delete("n"))
    assert seen.net["n"] == NetChange(None)
    seen.run(operations.Increment("n"))
    assert seen.net["n"] == NetChange(b"1")
    assert seen.run(operations.TimeToLive("n")) == (None,)


def test_conditions_are_left_out_of_what_is_sent() -> None:
    """They hold as long as the entry is the same, and that is compared."""
    seen = view(a=(b"1", 7, None))
    seen.run(operations.Set("a", b"2", if_version=7, condition="present", return_previous=True))
    assert seen.made == [operations.Set("a", b"2")]
    assert seen.judged == {"a": 7}


def test_a_key_or_value_that_cannot_be_one_fails_alone() -> None:
    seen = view()
    for op, code in (
        (operations.Set("", b""), 4006),
        (operations.Get("a\0"), 4006),
        (operations.Increment("a\0"), 4006),
        (operations.Delete("a\0"), 4006),
        (operations.GetMany(["a", "a\0"]), 4006),
        (operations.Rename("a\0", "b"), 4006),
        (operations.Expire("a\0", 5), 4006),
        (operations.Set("a", bytes(9 * 1024 * 1024)), 4007),
        (operations.SetMany([("a", b""), ("", b"")]), 4006),
    ):
        result = seen.run(op)
        assert isinstance(result, Failure)
        assert result.code == code
    assert seen.made == []


def test_an_operation_on_a_range_is_no_part_of_a_transaction() -> None:
    for op in (operations.Count(), operations.Clear()):
        with pytest.raises(LookupError):
            view().run(op)

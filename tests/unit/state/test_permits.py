"""A user's grants, compiled: each key that a pattern matches and no other."""

from __future__ import annotations

import pytest

from haptera.access_rules import KEY_PERMISSIONS, NODE_PERMISSIONS
from haptera.state import limits
from haptera.state.grant_patterns import look_work
from haptera.state.permits import Permits
from haptera.state.sliced_work import finish


@pytest.mark.parametrize(
    ("patterns", "allowed", "denied"),
    [
        ([], [], ["", "a", "*"]),
        (["*"], ["a", "\U0010ffff", "a/b"], []),
        (["a"], ["a"], ["", "b", "aa", "A"]),
        (["a*"], ["a", "ab", "a\U0010ffff"], ["", "b", "A", "ba"]),
        (["a/*", "b/*", "a/b/*", "z*"], ["a/", "a/1", "a/b/1", "b/1", "z", "zz"], ["a", "b", "c/1", "", "y"]),
        (["ab*", "a*"], ["a", "ab", "az"], ["b"]),
        (["*.log"], [".log", "x.log", "a/b.log"], ["log", "x.log.1"]),
        (["a?c", "x*y*z"], ["abc", "xyz", "x1y2z"], ["ac", "abbc", "xz", "yz"]),
        ([r"a\*"], ["a*"], ["a", "ab", r"a\*"]),
        ([r"a\**"], ["a*", "a*b"], ["a", "ab"]),
        (["[ab]1"], ["a1", "b1"], ["c1", "[ab]1"]),
        (["ab*ba"], ["abba", "abxba"], ["aba"]),
    ],
)
def test_a_key_is_allowed_if_a_pattern_matches_it(patterns: list[str], allowed: list[str], denied: list[str]) -> None:
    permits = Permits([(pattern, ("read",)) for pattern in patterns])
    assert [key for key in allowed if not permits.may("read", key)] == []
    assert [key for key in denied if permits.may("read", key)] == []
    assert not any(permits.may(each, key) for each in KEY_PERMISSIONS[1:] for key in allowed)
    assert permits.anywhere("read") is bool(patterns)
    assert not permits.anywhere("write")


def test_the_cost_is_that_of_the_globs_that_one_key_may_be_compared_with() -> None:
    patterns = ["a/?", "a/b/*c", "b*c*d", "k", "c/*", r"x\*"]
    assert Permits([(pattern, ("read",)) for pattern in patterns]).cost("read") == 4
    assert Permits([(r"x\*", ("read",))]).cost("read") == 1
    assert Permits([(pattern, ("read",)) for pattern in ("*", "?")]).cost("read") == 0
    assert Permits([(pattern, ("read",)) for pattern in ("k", "a*")]).cost("read") == 0


def test_many_prefixes_are_found_by_one_search() -> None:
    permits = Permits([(f"{number:04}/*", ("read",)) for number in range(0, 2000, 2)])
    for number in range(2000):
        assert permits.may("read", f"{number:04}/key") is (number % 2 == 0)
        assert not permits.may("read", f"{number:04}")


@pytest.mark.parametrize(
    ("patterns", "covered", "open_"),
    [
        ([], [], ["", "a"]),
        (["*"], ["", "a"], []),
        (["a/*"], ["a/", "a/b"], ["", "a", "b"]),
        (["a"], [], ["a", ""]),
        (["a/?*", "*1"], [], ["a/", "", "1"]),
        (["a*", "b*"], ["a", "b", "bc"], ["", "c"]),
    ],
)
def test_a_prefix_is_covered_if_each_key_with_it_is_allowed(
    patterns: list[str], covered: list[str], open_: list[str]
) -> None:
    permits = Permits([(pattern, ("scan",)) for pattern in patterns])
    assert all(permits.covers("scan", prefix) for prefix in covered)
    assert not any(permits.covers("scan", prefix) for prefix in open_)
    assert not any(permits.covers("read", prefix) for prefix in covered)


def test_permissions_of_the_node_are_had_or_not() -> None:
    permits = Permits([("*", ("backup", "metrics")), ("a", ("read",))])
    assert [each for each in NODE_PERMISSIONS if permits.has(each)] == ["backup", "metrics"]
    assert not permits.may("read", "b")


def test_grants_of_several_roles_add_up() -> None:
    permits = Permits([("a*", ("read",)), ("a*", ("write",)), ("b", ("read", "delete"))])
    assert permits.may("read", "a1")
    assert permits.may("write", "a1")
    assert permits.may("delete", "b")
    assert not permits.may("delete", "a1")
    assert not permits.may("write", "b")


def test_one_check_is_the_function_that_a_hot_path_keeps() -> None:
    permits = Permits([("a*", ("read",))])
    check = permits.check_of("read")
    assert check is permits.check_of("read")
    assert (check("a1"), check("b")) == (True, False)


def test_a_pattern_is_held_by_itself_by_a_prefix_of_it_or_by_every_key() -> None:
    permits = Permits([("a/*", ("read",)), ("?b", ("read",)), ("k", ("write",)), ("*", ("scan", "backup"))])
    assert all(permits.holds("read", pattern) for pattern in ("a/*", "a/b*", "a/[xy]", "a/key", "?b"))
    assert not any(permits.holds("read", pattern) for pattern in ("*", "a*", "ab", "?/x", "b*"))
    assert permits.holds("write", "k")
    assert not permits.holds("write", "k*")
    assert permits.holds("scan", "*")
    assert permits.holds("scan", "any?")
    assert (permits.holds("backup", "*"), permits.holds("restore", "*")) == (True, False)


def steps_of(permits: Permits) -> list[int]:
    return list(permits.compile_steps())


def test_few_patterns_are_sorted_out_at_once_and_many_in_slices() -> None:
    few = Permits([(f"{number}/*/x", ("read",)) for number in range(128)])
    assert steps_of(few) == []
    many = Permits([(f"{number}/*/x", KEY_PERMISSIONS[number % 2 :]) for number in range(1000)])
    assert many.burdens
    steps = steps_of(many)
    assert len(steps) >= 4
    assert max(steps) <= 2 * limits.SLICE_WORK_MAX
    assert steps_of(many) == []
    assert many.may("read", "2/a/x")
    assert not many.may("read", "1/a/x")
    assert many.may(KEY_PERMISSIONS[1], "1/a/x")


def test_a_look_before_the_patterns_are_sorted_out_sorts_out_those_of_its_permission() -> None:
    permits = Permits([(f"{number}/*", ("read",) if number % 2 else ("write",)) for number in range(1000)])
    check = permits.read
    assert (check("1/a"), check("2/a"), permits.write("2/a")) == (True, False, True)
    assert permits.read is permits.check_of("read") is not check
    assert steps_of(permits)


def test_permissions_on_the_same_patterns_share_them() -> None:
    permits = Permits([("a*", ("read", "write", "backup")), ("*", ("backup",)), ("b", ("read",)), ("b", ("write",))])
    assert permits.check_of("read") == permits.check_of("write") != permits.check_of("delete")


def test_the_work_of_a_request_grows_with_its_size_and_the_patterns_of_its_user() -> None:
    light = Permits([("a/*", ("read",)), ("k", ("write",))])
    assert not light.burdens
    heavy = Permits([("a/*", ("read",)), ("*x*", ("write",)), ("a*y", ("scan",))])
    assert heavy.burdens
    assert heavy.work(100) < heavy.work(1000) < heavy.work(4096)
    assert heavy.work(4096) == look_work(3 * heavy.cost("write"), 4096)


@pytest.mark.parametrize("key", ["a", "ab", "xby", "axbyc", "c", "bc", ""])
def test_a_look_in_slices_comes_to_the_same(key: str) -> None:
    permits = Permits([(pattern, ("read",)) for pattern in ("ab*", "c", "*x*y", "a?b*c", "??")])
    assert finish(permits.may_steps("read", key)) is permits.may("read", key)

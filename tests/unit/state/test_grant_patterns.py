"""Patterns, sorted out: each kind is found by its own way, and a key meets the globs of its own beginnings alone."""

from __future__ import annotations

from itertools import pairwise

import pytest

from haptera.state import grant_patterns, limits
from haptera.state.glob import Glob, compile_glob
from haptera.state.grant_patterns import (
    SortedPattern,
    is_one_key,
    is_short,
    look_work,
    patterns_steps,
    rests_size,
    sorted_out,
)
from haptera.state.permits import Permits
from haptera.state.sliced_work import finish


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("key", (True, "key", "", 0)),
        ("a/*", (False, "a/", "*", 0)),
        ("a/**", (False, "a/", "**", 0)),
        ("*", (False, "", "*", 0)),
        ("a/*/\N{LATIN SMALL LETTER E WITH ACUTE}", (False, "a/", "*/\N{LATIN SMALL LETTER E WITH ACUTE}", 4)),
        (r"x\*", (False, "x*", "", 0)),
        (r"\\\\\a\?b*c", (False, r"\\a?b", "*c", 2)),
    ],
)
def test_a_pattern_is_one_key_a_prefix_or_a_glob(pattern: str, expected: tuple[bool, str, str, int]) -> None:
    assert sorted_out(pattern) == SortedPattern(*expected)


def test_a_short_pattern_is_one_key_or_a_prefix() -> None:
    assert [each for each in ("k", "a*", "*", "a?", "*a", r"x\*") if is_short(each)] == ["k", "a*", "*"]
    assert [each for each in ("k", "a*", "?", "[a]", r"\a") if is_one_key(each)] == ["k"]


def test_a_glob_is_compiled_when_a_key_with_its_beginning_is_first_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def compile_noted(text: str) -> Glob:
        compiled.append(text)
        return compile_glob(text)

    monkeypatch.setattr(grant_patterns, "compile_glob", compile_noted)
    permits = Permits([(pattern, ("read",)) for pattern in ("a/?", "a/b/*c", "b*c*d", "k", "c/*", "*/e")])
    assert compiled == []
    assert [key for key in ("a/1", "a/b/xc", "a/e", "k", "c/1") if not permits.may("read", key)] == []
    assert not permits.may("read", "a/b/x")
    assert set(compiled) == {"?", "*c", "*/e"}
    assert len(compiled) == 3


def test_the_rests_of_a_key_are_those_of_all_its_beginnings() -> None:
    assert rests_size(["a/*/x", "a/b/?", "a/b/?", "c/*d", "k", "p*"]) == 3 + 1
    assert rests_size(["k", "p*"]) == 0


def test_patterns_are_sorted_out_in_slices_of_bounded_work() -> None:
    given = frozenset(f"{number:04}/*/x" for number in range(4096)) | {f"k{number}" for number in range(4096)}
    units = list(patterns_steps(given))
    patterns = finish(patterns_steps(given))
    assert len(units) > 8
    assert max(units) <= 8 * limits.SLICE_WORK_MAX
    assert (patterns.allow("0007/a/x"), patterns.allow("k7"), patterns.allow("0007/a")) == (True, True, False)


def test_a_look_in_slices_yields_the_work_of_each_glob() -> None:
    patterns = finish(patterns_steps(frozenset({"*b*c", "a?c*d", "z*"})))
    steps = list(patterns.allow_steps("a" * 1000))
    assert sum(steps) >= sum(look_work(compile_glob(each).cost, 990) for each in ("*b*c", "?c*d"))
    assert list(patterns.allow_steps("zz")) == []


def test_the_work_of_a_look_grows_with_the_key_and_with_the_patterns() -> None:
    assert look_work(0, 4096) == 1
    works = [look_work(cost, size) for cost, size in ((5, 10), (5, 4096), (512, 4096))]
    assert all(low < high for low, high in pairwise(works))

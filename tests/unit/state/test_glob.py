"""Globs over keys."""

from __future__ import annotations

import pytest

from haptera.state import limits
from haptera.state.glob import MalformedGlob, compile_glob


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("", [""], ["a"]),
        ("abc", ["abc"], ["", "ab", "abcd", "xabc", "abc\n"]),
        ("*", ["", "a", "a/b", "a\nb"], []),
        ("**", ["", "a"], []),
        ("?", ["a", "\n", "é", "\U0001f600"], ["", "ab"]),
        ("a*", ["a", "ab", "a\n"], ["", "ba"]),
        ("*a", ["a", "ba", "aa"], ["", "ab", "a\n"]),
        ("*a*", ["a", "bab"], ["", "b"]),
        ("a*b*c", ["abc", "axbxc", "abbcc"], ["acb", "ab", "abcx"]),
        ("ab*ba", ["abba", "abxba"], ["aba", "ab"]),
        ("*ab*ba", ["abba", "xabxba"], ["aba"]),
        ("*a[b]*ba", ["abba", "xabxba"], ["aba"]),
        ("*ab*ab*", ["abab", "xabxabx"], ["ab", "aba"]),
        ("a?c", ["abc", "a?c"], ["ac", "abbc"]),
        ("*?", ["a", "ab"], [""]),
        ("?*?", ["ab", "abc"], ["a"]),
        ("[abc]", ["a", "b", "c"], ["d", "", "ab"]),
        ("[a-c]x", ["ax", "bx", "cx"], ["dx", "-x"]),
        ("[!a-c]", ["d", "-"], ["a", "b", ""]),
        ("[^a-c]", ["d", "^"], ["a"]),
        ("[a^!]", ["a", "^", "!"], ["b"]),
        ("[-a]", ["-", "a"], ["b"]),
        ("[a-]", ["-", "a"], ["b"]),
        ("[a-c-e]", ["a", "b", "c", "-", "e"], ["d"]),
        ("[\\]]", ["]"], ["\\"]),
        ("[\\a-\\c]", ["a", "b"], ["-"]),
        ("[[.*?]", ["[", ".", "*", "?"], ["a"]),
        ("[a-a]", ["a"], ["b"]),
        ("[&&~~||-]", ["&", "~", "|", "-"], ["a"]),
        ("\\*", ["*"], ["a", "\\*"]),
        ("\\?\\[\\\\", ["?[\\"], []),
        ("\\a", ["a"], ["\\a"]),
        ("a]", ["a]"], ["a"]),
        ("a.c", ["a.c"], ["abc"]),
        ("(a|b)+$", ["(a|b)+$"], ["a"]),
        ("é*", ["é", "éa"], ["e"]),
        ("[а-я]", ["ж"], ["a"]),
    ],
)
def test_a_glob_matches_whole_keys(glob: str, matching: list[str], others: list[str]) -> None:
    compiled = compile_glob(glob)
    assert [key for key in matching if not compiled.matches(key)] == []
    assert [key for key in others if compiled.matches(key)] == []
    assert all(key.startswith(compiled.prefix) for key in matching)


def test_a_run_of_several_pieces_is_found_where_all_of_it_stands() -> None:
    """A run longer than one regular expression is cut into several; the second decides as much as the first."""
    run = "[b]" * 200
    anywhere, before_two = compile_glob(f"*{run}*"), compile_glob(f"*{run}*bb")
    assert anywhere.matches("b" * 199 + "c" + "b" * 200)
    assert not anywhere.matches("b" * 199 + "c" + "b" * 199)
    assert before_two.matches("b" * 202)
    assert not before_two.matches("b" * 201), "the last two belong to the run behind the last star"


@pytest.mark.parametrize("glob", ["[", "[a", "[!", "[]", "[!]", "[^]", "[a-", "[a\\", "\\", "a\\", "[b-a]", "[a-\\"])
def test_malformed_globs_are_refused(glob: str) -> None:
    with pytest.raises(MalformedGlob):
        compile_glob(glob)


@pytest.mark.parametrize(
    ("glob", "prefix", "free"),
    [
        ("a/*", "a/", True),
        ("*", "", True),
        ("a\\**", "a*", True),
        ("a/**", "a/", True),
        ("a/*x", "a/", False),
        ("a/*?", "a/", False),
        ("abc", "abc", False),
        ("a[b]*", "a", False),
        ("?", "", False),
    ],
)
def test_the_literal_prefix_narrows_the_range_and_may_be_all_there_is(glob: str, prefix: str, free: bool) -> None:
    compiled = compile_glob(glob)
    assert compiled.prefix == prefix
    assert (compiled.cost == 0) is free


def test_hostile_globs_do_not_backtrack() -> None:
    # With backtracking each of these takes longer than the age of the universe; the suite's time-out is the proof.
    key = "a" * 4096
    for glob in ("*a" * 60 + "b", "*a?" * 60 + "*b", "*[a-z]" * 60 + "[!a]", "a*" * 60 + "b", "?*" * 60 + "b"):
        assert not compile_glob(glob).matches(key)
    assert compile_glob("*a" * 60).matches(key)


def test_the_stars_of_a_glob_are_bounded() -> None:
    most = limits.GLOB_STARS_MAX
    assert compile_glob("a*" * most + "**").matches("a" * most)
    with pytest.raises(MalformedGlob):
        compile_glob("*a" * most + "*b")

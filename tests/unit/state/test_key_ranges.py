"""Ranges of keys."""

from __future__ import annotations

import pytest

from haptera.state.key_ranges import EVERYTHING, KeyRange, key_range, prefix_end


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        ("a", "b"),
        ("a/", "a0"),
        ("az\U0010ffff", "a{"),
        ("\U0010ffff", None),
        ("", None),
        ("\ud7ff", "\ud800"),
    ],
)
def test_prefix_end_is_the_first_text_behind_the_prefix(prefix: str, end: str | None) -> None:
    assert prefix_end(prefix) == end


def test_a_range_is_what_all_its_limits_leave() -> None:
    assert key_range((None, "")) == EVERYTHING
    assert key_range(("a", "ab"), "aa", "b") == KeyRange("ab", False, "ac")
    assert key_range(("a",), "ab", "ac") == KeyRange("ab", False, "ac")
    assert key_range(("a", "b")).empty


def test_after_is_exclusive_in_the_direction_of_the_scan() -> None:
    assert key_range((), "a", "z", "m") == KeyRange("m", True, "z")
    assert key_range((), "a", "z", "m", reverse=True) == KeyRange("a", False, "m")
    assert key_range((), "m", None, "a") == KeyRange("m", False, None)
    assert key_range((), "a", "m", "z", reverse=True) == KeyRange("a", False, "m")
    assert key_range((), "a", "m", "m").empty

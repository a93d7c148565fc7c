"""The rules of a new password (error 2006)."""

from __future__ import annotations

import pytest

from haptera.security import password_refusal


@pytest.mark.parametrize(
    "password", ["correct horse battery", "abcdeabcdeab", "ünïcödé wörds", "x" * 1020 + "abcd", "ann and her dog"]
)
def test_a_long_password_of_several_signs_is_taken(password: str) -> None:
    assert password_refusal(password, "ann") is None


@pytest.mark.parametrize(
    ("password", "rule"),
    [
        ("", "it is 1 to 1024 bytes of UTF-8 without NUL"),
        ("nul\0in the middle", "it is 1 to 1024 bytes of UTF-8 without NUL"),
        ("lone \ud800 surrogate", "it is 1 to 1024 bytes of UTF-8 without NUL"),
        ("x" * 1021 + "abcd", "it is 1 to 1024 bytes of UTF-8 without NUL"),
        ("abcdeabcdea", "it has at least 12 characters"),
        ("ü" * 11, "it has at least 12 characters"),
        ("abcdabcdabcd", "it has at least 5 different characters"),
        ("my name is Alice", "it does not hold the user's name"),
        ("ALICE in wonderland", "it does not hold the user's name"),
    ],
)
def test_another_is_2006_with_the_rule_that_it_breaks_and_is_not_repeated(password: str, rule: str) -> None:
    refused = password_refusal(password, "alice")
    assert refused is not None
    assert (refused.code, refused.outcome, refused.details) == (2006, "not_applied", {"rule": rule})
    assert len(password) < 8 or password not in str(refused)

"""Patterns match as those of Redis do."""

from __future__ import annotations

import re
from unittest.mock import Mock

import pytest

from haptera.dialects.resp.redis_glob import PATTERN_SIZE_MAX, redis_glob


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (b"*", [b"a", b"a\nb", b"\xff"], []),
        (b"a*", [b"a", b"abc"], [b"ba"]),
        (b"*a", [b"a", b"ba"], [b"ab"]),
        (b"h?llo", [b"hello", b"h\nllo"], [b"hllo", b"heello"]),
        (b"h[ae]llo", [b"hallo", b"hello"], [b"hillo"]),
        (b"h[^e]llo", [b"hallo"], [b"hello"]),
        (b"h[a-c]llo", [b"hbllo"], [b"hdllo"]),
        (b"h[c-a]llo", [b"hbllo"], [b"hdllo"]),
        (b"[!a]", [b"!", b"a"], [b"b"]),
        (b"[a-]", [b"]", b"^", b"a", b"_"], [b"b", b"-"]),
        (b"[]", [], [b"]", b"a"]),
        (b"[^]", [b"]", b"a"], []),
        (b"[ab", [b"a", b"b"], [b"c", b"["]),
        (b"a[", [], [b"a[", b"a"]),
        (b"[\\]]", [b"]"], [b"\\"]),
        (b"\\*", [b"*"], [b"a", b"\\*"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"ab*ba", [b"abba", b"abxba"], [b"aba"]),
        (b"a**b", [b"ab", b"axb"], [b"a"]),
        (b"*a*b*a*", [b"aba", b"xaxbxax"], [b"ab", b"baab"]),
        (b"\xc3\xbc*", ["über".encode()], [b"u"]),
        (b"?", [b"x"], ["ü".encode()]),
        (b"[\x80-\xff]", [b"\x80", b"\xc3", b"\xff"], [b"\x7f", b"a"]),
        (b"[a-\xff]", [b"a", b"\xff", b"A", b"\x00"], [b"b", b"\xfe"]),
        (b"", [b""], [b"a"]),
    ],
)
def test_a_pattern_matches(pattern: bytes, yes: list[bytes], no: list[bytes]) -> None:
    glob = redis_glob(pattern)
    assert [key for key in yes if not glob.matches(key)] == []
    assert [key for key in no if glob.matches(key)] == []


@pytest.mark.parametrize(
    ("pattern", "prefix", "whole"),
    [
        (b"user:*", "user:", True),
        (b"user:?*", "user:", False),
        (b"user:1", "user:1", False),
        (b"us\\er[1]", "user", False),
        (b"*", "", True),
        ("ü*".encode(), "ü", True),
        ("ü".encode()[:1] + b"*", "", False),
        (b"\xff*", None, False),
        (b"a\xff\xffb*", None, False),
        (b"?" * 4097, None, False),
    ],
)
def test_the_text_at_its_beginning_is_known(pattern: bytes, prefix: str | None, whole: bool) -> None:
    glob = redis_glob(pattern)
    assert (glob.prefix, glob.all) == (prefix, whole)


def test_many_stars_take_no_time_that_grows_beyond_the_key_and_the_pattern() -> None:
    """A pattern that goes back over its runs would take longer than the age of the world."""
    glob = redis_glob(b"*a" * 2000 + b"b")
    assert not glob.matches(b"a" * 4096)
    assert glob.matches(b"a" * 4095 + b"b")
    assert glob.work(4096) > 100_000
    assert redis_glob(b"*" * PATTERN_SIZE_MAX).matches(b"x")


@pytest.mark.parametrize(
    ("pattern", "members"),
    [
        (b"[acd]", b"acd"),
        (b"[a-cx-zb]", b"abcxyz"),
        (b"[^b]", bytes(set(range(256)) - set(b"b"))),
        (b"[^a-cx]", bytes(set(range(256)) - set(b"abcx"))),
        (b"[\\--\xff]", b"-\xff"),
    ],
)
def test_a_class_has_its_members_and_no_others(pattern: bytes, members: bytes) -> None:
    glob = redis_glob(pattern)
    assert bytes(byte for byte in range(256) if glob.matches(bytes([byte]))) == bytes(sorted(members))


def test_a_class_is_compiled_in_ranges() -> None:
    _, element = redis_glob(b"~[^b]")._runs[0]
    assert len(element) < 10


def test_a_pattern_is_compiled_when_it_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_run = Mock(wraps=re.compile)
    monkeypatch.setattr(re, "compile", compile_run)
    glob = redis_glob(b"asked first*[x-z]?")
    compile_run.assert_not_called()
    assert glob.matches(b"asked first, y!")
    assert glob.matches(b"asked first, x?")
    assert compile_run.call_count == 2

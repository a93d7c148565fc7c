"""The words of a line of the shell, and a text as one word again."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.cli.shell.line_words import parted, quoted
from haptera.cli.transfer import field_escapes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("get  a\tb ", ["get", "a", "b"]),
        ("set k 'two words'", ["set", "k", "two words"]),
        (r'set k "a \"b\" \\ \n"', ["set", "k", r'a "b" \ \n']),
        (r"set k a\ b", ["set", "k", "a b"]),
        ("set k ''", ["set", "k", ""]),
        (r"set k $''", ["set", "k", ""]),
        (r"set k pre$'\t'post", ["set", "k", "pre\tpost"]),
        (r"set k $'\xff'", ["set", "k", "\udcff"]),
        ("set k $5", ["set", "k", "$5"]),
        ("set k a#b #c", ["set", "k", "a#b", "#c"]),
        ("set k 'line\nline'", ["set", "k", "line\nline"]),
        ("set k \\\nv", ["set", "k", "v"]),
    ],
)
def test_a_line_is_parted_into_words(text: str, words: list[str]) -> None:
    found = parted(text)
    assert (found.commands, found.open) == ([words], "")


def test_a_line_end_outside_of_quotes_ends_a_command_and_a_comment() -> None:
    assert parted("set a 1\n  # no 'quote\nget a").commands == [["set", "a", "1"], [], ["get", "a"]]


@pytest.mark.parametrize(
    ("text", "awaited", "begins", "last"),
    [
        ("get 'ab", "'", 4, "ab"),
        ('get x"a b', '"', 4, "xa b"),
        ("get $'a", "'", 4, "a"),
        ("get a\\", "\\", 4, "a"),
        ("get ab", "", 4, "ab"),
        ("get ", "", 4, ""),
        ("ge", "", 0, "ge"),
        ("", "", 0, ""),
    ],
)
def test_the_last_word_is_known_while_it_is_typed(text: str, awaited: str, begins: int, last: str) -> None:
    found = parted(text)
    assert (found.open, found.last_begins, found.last) == (awaited, begins, last)


def test_an_escape_that_is_none_is_refused() -> None:
    with pytest.raises(click.UsageError, match=r"escapes \\t, \\n"):
        parted(r"set k $'\q'")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_quoted_text_is_one_word_again(text: str) -> None:
    found = parted(f"get {quoted(text)}")
    assert (found.commands, found.open) == ([["get", text]], "")


@given(st.binary(min_size=1))
def test_a_field_that_scan_writes_with_escapes_is_one_word_with_its_bytes(data: bytes) -> None:
    field = field_escapes.written(data)
    if field.startswith("$'"):
        assert parted(f"set k {field}").commands[0][2].encode(errors="surrogateescape") == data


@given(st.text())
def test_any_text_is_parted_or_refused(text: str) -> None:
    try:
        found = parted(text)
    except click.UsageError:
        return
    assert 0 <= found.last_begins <= len(text)

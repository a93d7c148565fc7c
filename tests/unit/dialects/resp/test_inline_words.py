"""Inline commands are split into words as Redis splits them."""

from __future__ import annotations

import pytest

from haptera.dialects.resp.inline_words import UnbalancedQuotes, split_words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b"  \t ", []),
        (b"SET a 1", [b"SET", b"a", b"1"]),
        (b"\tSET\v a \f1 ", [b"SET", b"a", b"1"]),
        (b'"a b" c', [b"a b", b"c"]),
        (rb'"\n\r\t\b\a\q\"\\"', [b'\n\r\t\b\aq"\\']),
        (rb'"\x41\xff\xZZ"', [b"A\xffxZZ"]),
        (rb"'a\'b' 'c\n'", [b"a'b", rb"c\n"]),
        (b"a'b'", [b"ab"]),
        (b'a"b c" d', [b"ab c", b"d"]),
        (b"''", [b""]),
        (b"a b\0c 'd", [b"a", b"b"]),
        (b"'a'\0b", [b"a"]),
        (b"\xff\xfe", [b"\xff\xfe"]),
    ],
)
def test_words_and_quotes(line: bytes, words: list[bytes]) -> None:
    assert split_words(line) == words


@pytest.mark.parametrize("line", [b'"a', b"'a", b'"a"b', b"'a'b", b'"a\\"', b"'a\\'", b'a "', b"\"a'"])
def test_quotes_without_an_end_or_a_blank_behind_them_are_unbalanced(line: bytes) -> None:
    with pytest.raises(UnbalancedQuotes):
        split_words(line)

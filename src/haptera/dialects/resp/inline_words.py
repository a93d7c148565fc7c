"""Inline commands: a line of words, as Redis splits it."""

from __future__ import annotations

import re
from typing import Final

#: Blanks between words, as C's isspace has them. A NUL ends the line.
_BLANK: Final = b" \t\n\v\f\r"
_BEHIND: Final = _BLANK + b"\0"
_PLAIN: Final = re.compile(rb"[^\s\"'\0]+")
_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_DOUBLE_QUOTED: Final = re.compile(rb'(?s)"((?:[^"\\\0]|\\[^\0])*)"')
_SINGLE_QUOTED: Final = re.compile(rb"(?s)'((?:[^'\\\0]|\\'|\\(?!'))*)'")
_ESCAPE: Final = re.compile(rb"(?s)\\(x[0-9A-Fa-f]{2}|.)")


class UnbalancedQuotes(ValueError):
    """A quote has no end, or something other than a blank behind it."""


def split_words(line: bytes) -> list[bytes]:
    r"""Return the words of a line.

    A word may have parts in quotes. Between double quotes ``\n``, ``\r``, ``\t``, ``\b``, ``\a`` and ``\xHH`` are
    bytes, and any other character behind a backslash is itself; between single quotes ``\'`` alone is special. A
    blank, or the end, stands behind the quote that ends a part. Raises UnbalancedQuotes.
    """
    if b'"' not in line and b"'" not in line:
        return line.partition(b"\0")[0].split()
    words: list[bytes] = []
    at, end = 0, len(line)
    while True:
        while at < end and line[at] in _BLANK:
            at += 1
        if at == end or not line[at]:
            return words
        word = b""
        while at < end and line[at] and line[at] not in _BLANK:
            if line[at] == 34:
                found, escapes = _DOUBLE_QUOTED.match(line, at), True
            elif line[at] == 39:
                found, escapes = _SINGLE_QUOTED.match(line, at), False
            else:
                plain = _PLAIN.match(line, at)
                assert plain is not None
                word += plain[0]
                at = plain.end()
                continue
            if found is None or (found.end() < end and line[found.end()] not in _BEHIND):
                raise UnbalancedQuotes
            word += _ESCAPE.sub(_escaped, found[1]) if escapes else found[1].replace(b"\\'", b"'")
            at = found.end()
        words.append(word)


def _escaped(found: re.Match[bytes]) -> bytes:
    char = found[1]
    if len(char) == 3:
        return bytes([int(char[1:], 16)])
    return _ESCAPES.get(char, char)

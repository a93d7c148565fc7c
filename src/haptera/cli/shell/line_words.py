r"""The words of a line, as a shell of the system parts them, but without its variables, patterns and pipes.

A word in ``'…'`` is taken as it stands, one in ``"…"`` too but for ``\"`` and ``\\``, and ``$'…'`` has the escapes that
`haptera scan` writes. Outside of quotes a backslash takes the next character as it is. A line end outside of quotes
ends the command, and a ``#`` at the beginning of one has the rest of the line passed over.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

import click

from haptera.cli.transfer import field_escapes
from haptera.cli.transfer.errors import BadRow

_PIECE: Final = re.compile(
    r"""(?P<blank>[ \t\r]+)
    |(?P<end>\n)
    |(?P<escapes>\$'[^'\\]*(?:\\.[^'\\]*)*')
    |(?P<single>'[^']*')
    |(?P<double>"[^"\\]*(?:\\.[^"\\]*)*")
    |(?P<taken>\\.)
    |(?P<plain>[^ \t\r\n'"\\$]+|\$(?!'))""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT: Final = re.compile(r"#[^\n]*")
_SAFE: Final = re.compile(r"[\w./:@%+=,-]+")
#: How an open word begins, the longest beginning first.
_OPENINGS: Final = ("$'", "'", '"', "\\")


@dataclass
class Parted:
    """A text in its commands. ``open`` is the character without which a quote in it does not end, or the backslash
    that has nothing behind it; empty where the text is whole.

    ``last_begins`` is the place where the last word begins, and ``last`` its text, as far as it has come; both are of
    an empty word where the text ends with a blank.
    """

    commands: list[list[str]]
    open: str
    last_begins: int
    last: str


def parted(text: str) -> Parted:
    """Part a text into commands of words. Raises ``UsageError`` for an escape in ``$'…'`` that is none."""
    commands: list[list[str]] = [[]]
    word: list[str] | None = None
    begins = place = 0
    while place < len(text):
        if word is None and not commands[-1] and (comment := _COMMENT.match(text, place)):
            place = comment.end()
            continue
        if word is None:
            begins = place
        piece = _PIECE.match(text, place)
        if piece is None:
            rest = text[place:]
            opening = next(each for each in _OPENINGS if rest.startswith(each))
            last = "".join([*(word or ()), rest[len(opening) :]])
            return Parted(commands, opening[-1], begins, last)
        place = piece.end()
        if piece.lastgroup in {"blank", "end"}:
            if word is not None:
                commands[-1].append("".join(word))
                word = None
            if piece.lastgroup == "end":
                commands.append([])
            continue
        word = [] if word is None else word
        word.append(_text_of(piece))
    last = "" if word is None else "".join(word)
    if word is None:
        begins = len(text)
    else:
        commands[-1].append(last)
    return Parted(commands, "", begins, last)


def _text_of(piece: re.Match[str]) -> str:
    found = piece.group()
    match piece.lastgroup:
        case "escapes":
            try:
                return os.fsdecode(field_escapes.read(os.fsencode(found)) if len(found) > len("$''") else b"")
            except BadRow:
                raise click.UsageError(r"a word in $'…' has the escapes \t, \n, \r, \\, \' and \xNN alone") from None
        case "single":
            return found[1:-1]
        case "double":
            return re.sub(r'\\(["\\])', r"\1", found[1:-1])
        case "taken":
            return found[1:] if found != "\\\n" else ""
        case _:
            return found


def quoted(text: str) -> str:
    """A text as one word of a line."""
    if _SAFE.fullmatch(text) and text.isascii():
        return text
    if not text.isprintable() or text.startswith(("$'", "#")):
        return field_escapes.written(text)
    if "'" not in text:
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

r"""One field of a line: how `haptera scan` and `haptera export` write it, and how `haptera import` reads it.

A field stands as it is where it can. One with characters that break a line, control a terminal or are invisible, or
with bytes that are no UTF-8, is written as bash and zsh quote it: ``$'a\tb'``, with ``\t``, ``\n``, ``\r``, ``\\``,
``\'``, and ``\xNN`` for each other byte.

So a backslash outside of these quotes is a backslash. Files of other programs, which know no escapes, are read right,
and so are ours, without an option that tells the two apart.
"""

from __future__ import annotations

import re
from typing import Final

from haptera.cli.transfer.errors import BadRow

_LETTERS: Final = {"\t": "t", "\n": "n", "\r": "r", "\\": "\\", "'": "'"}


class _Escapes(dict[int, str]):
    """How each character is written within quotes: as many entries as there are different characters."""

    def __missing__(self, number: int) -> str:
        char = chr(number)
        if not char.isprintable():
            data = char.encode(errors="surrogateescape")
            char = "".join(f"\\x{byte:02x}" for byte in data)
        self[number] = char
        return char


_ESCAPES: Final = _Escapes({ord(char): f"\\{letter}" for char, letter in _LETTERS.items()})

#: The beginnings of a quoted field and of a comment.
_BEGINNINGS: Final = ("$'", "#")

_QUOTED: Final = re.compile(rb"[^\\']*(?:\\(?:[tnr\\']|x[0-9a-fA-F]{2})[^\\']*)*")


def written(data: bytes | str) -> str:
    """A field for a line. Bytes that are no UTF-8 are escaped, so the result is text."""
    text = data.decode(errors="surrogateescape") if isinstance(data, bytes) else data
    if text.isprintable() and not text.startswith(_BEGINNINGS):
        return text
    return f"$'{text.translate(_ESCAPES)}'"


def read(field: bytes) -> bytes:
    """The bytes of a field of a line. Raises `BadRow` for quotes around text that `written` never writes."""
    if not field.startswith(b"$'") or not field.endswith(b"'") or len(field) == 2:
        return field
    body = field[2:-1]
    if not _QUOTED.fullmatch(body):
        raise BadRow("a field in $'…' with an escape that is none (--raw takes fields as they stand)")
    # Python's codec knows these escapes, and takes each other byte for the character of its number.
    return body.decode("unicode_escape").encode("latin-1")

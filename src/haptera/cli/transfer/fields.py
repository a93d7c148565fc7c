r"""One field of a line: how `haptera scan` and `haptera export` write it, and how `haptera import` reads it.

A field stands as it is where it can. One that cannot, because a line of fields would break or the bytes are no UTF-8,
is written as bash and zsh quote it: ``$'a\tb'``, with ``\t``, ``\n``, ``\r``, ``\\``, ``\'``, and ``\xNN`` for any
other byte.

So a backslash outside of these quotes is a backslash. Files of other programs, which know no escapes, are read right,
and so are ours, without an option that tells the two apart.
"""

from __future__ import annotations

import re
from typing import Final

from haptera.cli.transfer.errors import BadRow

_LETTERS: Final = {"\t": "t", "\n": "n", "\r": "r", "\\": "\\", "'": "'"}
_BYTES: Final = {letter: char.encode() for char, letter in _LETTERS.items()}

# Control characters break a line or a terminal. The beginnings are those of a quoted field, of a comment, and of a
# byte-order mark, which an import passes over at the beginning of a file.
_CANNOT_STAND: Final = re.compile("[\x00-\x1f\x7f\udc80-\udcff]|\\A(?:\\$'|#|\ufeff)")
_TO_ESCAPE: Final = re.compile("[\x00-\x1f\x7f\udc80-\udcff'\\\\]")

_QUOTED: Final = re.compile(rb"(?:[^\\']|\\(?:[tnr\\']|x[0-9a-fA-F]{2}))*", re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(?:x(..)|(.))", re.DOTALL)


def written(data: bytes | str) -> str:
    """A field for a line. Bytes that are no UTF-8 are escaped, so the result is text."""
    text = data.decode(errors="surrogateescape") if isinstance(data, bytes) else data
    if not _CANNOT_STAND.search(text):
        return text
    return f"$'{_TO_ESCAPE.sub(_escape, text)}'"


def read(field: bytes) -> bytes:
    """The bytes of a field of a line. Raises `BadRow` for quotes that hold what `written` never writes."""
    if not field.startswith(b"$'") or not field.endswith(b"'") or len(field) == 2:
        return field
    body = field[2:-1]
    if not _QUOTED.fullmatch(body):
        raise BadRow("a field in $'…' with an escape that is none (--raw takes fields as they stand)")
    return _ESCAPE.sub(_unescape, body)


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    letter = _LETTERS.get(char)
    return f"\\x{ord(char) & 0xFF:02x}" if letter is None else f"\\{letter}"


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].decode()) if match[1] is not None else _BYTES[match[2].decode()]

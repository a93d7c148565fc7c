"""Replies of RESP as bytes: those of version 2, and those of version 3 where they differ.

A reply that is nested in others is bytes already. Functions that differ between the versions take the version, 2 or 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Version = Literal[2, 3]

OK: Final = b"+OK\r\n"
PONG: Final = b"+PONG\r\n"
QUEUED: Final = b"+QUEUED\r\n"
ZERO: Final = b":0\r\n"
ONE: Final = b":1\r\n"
EMPTY_ARRAY: Final = b"*0\r\n"
#: The heads of short bulk strings, by their lengths: a look at a list takes less time than a text that is made.
BULK_HEADS: Final = [b"$%d" % size for size in range(1025)]
#: No value, by the version.
NULL: Final = {2: b"$-1\r\n", 3: b"_\r\n"}
#: No array, by the version.
NULL_ARRAY: Final = {2: b"*-1\r\n", 3: b"_\r\n"}

_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")


def simple(text: str) -> bytes:
    """A status: a short text of one line."""
    return b"+%s\r\n" % text.encode().translate(_LINE_ENDS)


def error(words: str) -> bytes:
    """An error. Its first word is the kind: ``ERR`` where there is no better one."""
    return b"-%s\r\n" % words.strip("\r\n").encode(errors="surrogateescape").translate(_LINE_ENDS)


def integer(number: int) -> bytes:
    """A whole number."""
    return b":%d\r\n" % number


def bulk(value: bytes) -> bytes:
    """A string of bytes."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def text(value: str) -> bytes:
    """A string of UTF-8."""
    return bulk(value.encode())


def bulk_or_null(value: bytes | None, version: Version) -> bytes:
    """A string of bytes, or none."""
    return NULL[version] if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(items: Sequence[bytes]) -> bytes:
    """Replies in a row."""
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def array_of_bulks(values: Sequence[bytes]) -> bytes:
    """Strings of bytes in a row."""
    return array([b"$%d\r\n%b\r\n" % (len(value), value) for value in values])


def map_of(pairs: Sequence[tuple[bytes, bytes]], version: Version) -> bytes:
    """Replies by replies; in version 2 they are an array in which each stands behind its key."""
    body = b"".join([part for pair in pairs for part in pair])
    return b"%%%d\r\n%b" % (len(pairs), body) if version == 3 else b"*%d\r\n%b" % (2 * len(pairs), body)


def set_of(items: Sequence[bytes], version: Version) -> bytes:
    """Different replies in any order; an array in version 2."""
    return b"~%d\r\n%b" % (len(items), b"".join(items)) if version == 3 else array(items)


def push(items: Sequence[bytes], version: Version) -> bytes:
    """A message that answers nothing; an array in version 2."""
    return b">%d\r\n%b" % (len(items), b"".join(items)) if version == 3 else array(items)


def boolean(truth: bool, version: Version) -> bytes:
    """Whether something is so; 1 or 0 in version 2."""
    if version == 3:
        return b"#t\r\n" if truth else b"#f\r\n"
    return ONE if truth else ZERO


def double(number: float, version: Version) -> bytes:
    """A number with a fraction; its text in version 2."""
    shown = f"{number:.17g}"
    return b",%s\r\n" % shown.encode() if version == 3 else text(shown)


def verbatim(value: str, version: Version, kind: str = "txt") -> bytes:
    """A text for people, of a ``kind`` of three letters; a plain string in version 2."""
    body = value.encode()
    return b"=%d\r\n%s:%s\r\n" % (len(body) + 4, kind.encode(), body) if version == 3 else bulk(body)


def sizes(parts: Iterable[bytes]) -> int:
    """Bytes of some replies together."""
    return sum(map(len, parts))

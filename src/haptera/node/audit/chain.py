"""The chain of the audit log (spec/audit.md, sections 2 and 3): from fields to lines, and back. Pure.

Each line names the SHA-256 of the one before, so that no line can be changed, put in, taken out or moved without a
change of every line behind it. It has a check of its own as well, by which a line that was changed is told from the one
behind it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import google_crc32c

__all__ = ["BEGINNING", "LINE_SIZE_MAX", "SEQUENCE_MAX", "ChainLine", "Head", "read_line", "sealed"]

DIGEST_SIZE: Final = 32
#: The last sequence: exact in every language that keeps numbers as IEEE doubles.
SEQUENCE_MAX: Final = 2**53 - 1
#: Bytes of a line without its end. The texts of an event are cut long before.
LINE_SIZE_MAX: Final = 32 * 1024

_LINE: Final = re.compile(
    rb'\{"sequence":([1-9][0-9]{0,15}),[\x20-\x7e]*,"previous":"([0-9a-f]{64})","check":"([0-9a-f]{8})"\}'
)
_CHECK_SIZE: Final = len(b',"check":"01234567"}')
_HEAD: Final = re.compile(r"([1-9][0-9]{0,15}):([0-9a-f]{64})")

#: Every character that is not printable ASCII is escaped, so that a line is one line on every terminal.
_encode: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, check_circular=False).encode


class Head(NamedTuple):
    """A line of the chain: its sequence, and the SHA-256 of its bytes. It stands for all lines up to it."""

    sequence: int
    digest: bytes

    def __str__(self) -> str:
        return f"{self.sequence}:{self.digest.hex()}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read ``SEQUENCE:HASH``. Raises ValueError."""
        found = _HEAD.fullmatch(text)
        if found is None or int(found[1]) > SEQUENCE_MAX:
            raise ValueError("expected SEQUENCE:HASH, a number and 64 hex digits in lower case")
        return cls(int(found[1]), bytes.fromhex(found[2]))


#: The head of a chain without a line: the first line names it as the one before.
BEGINNING: Final = Head(0, bytes(DIGEST_SIZE))


class ChainLine(NamedTuple):
    """A line that is as it was written: its head, and the digest that it names for the line before."""

    head: Head
    previous: bytes


def sealed(fields: Mapping[str, Any], before: Head) -> tuple[bytes, Head]:
    """Make the line behind a head of its fields: its bytes without an end, and its head."""
    sequence = before.sequence + 1
    body = _encode({"sequence": sequence, **fields, "previous": before.digest.hex()})[:-1].encode()
    line = body + b',"check":"%08x"}' % google_crc32c.value(body)
    return line, Head(sequence, digest_of(line))


def read_line(line: bytes) -> ChainLine | None:
    """Read a line without its end; None for bytes that no log has written like this."""
    found = _LINE.fullmatch(line)
    if found is None or int(found[3], 16) != google_crc32c.value(line[:-_CHECK_SIZE]):
        return None
    return ChainLine(Head(int(found[1]), digest_of(line)), bytes.fromhex(found[2].decode()))


def digest_of(line: bytes) -> bytes:
    """The SHA-256 of the bytes of a line without its end."""
    return hashlib.sha256(line).digest()

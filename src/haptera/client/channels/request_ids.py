"""The ids by which a server recognises a change that is sent to it a second time (spec/protocol.md, section 7.1)."""

from __future__ import annotations

import os

#: The two top bits of a UUID's second half are 10 (RFC 9562, section 4.1).
_VARIANT = 1 << 63

_START_BITS = 61


class RequestIds:
    """Makes UUIDs of version 8: 60 random bits, then a counter that begins at a random place.

    The randomness is drawn once for each object, because a system call for each change would cost more than encoding
    it. Ids of one object never repeat; ids of two repeat only with the same 60 bits and overlapping counters.
    """

    __slots__ = ("_next", "_prefix")

    def __init__(self) -> None:
        prefix = bytearray(os.urandom(8))
        prefix[6] = 0x80 | (prefix[6] & 0x0F)
        self._prefix = bytes(prefix)
        self._next = _VARIANT | (int.from_bytes(os.urandom(8), "big") >> (64 - _START_BITS))

    def __reduce__(self) -> tuple[type[RequestIds], tuple[()]]:
        """A copy is a new object: with the ids of another client its changes would be taken for repetitions."""
        return RequestIds, ()

    def new(self) -> bytes:
        """The next id, 16 bytes."""
        self._next = number = self._next + 1
        return self._prefix + number.to_bytes(8, "big")

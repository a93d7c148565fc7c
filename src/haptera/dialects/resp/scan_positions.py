"""The cursors of SCAN: numbers that stand for the key behind which a scan goes on.

A cursor of Redis is a number of 64 bits, and a key is longer. So the keys are kept here, by a number made of each: the
same position always has the same number, and scans that are never ended leave nothing but positions. The table is
bounded for each user: its oldest positions go first, and a scan from one that is gone is told so.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

#: Bytes of the positions of one user, and of all: a position is a key, and OVERHEAD beside it. A user has 10,000 of
#: usual length, and each takes its turn with a new one only after so many others.
USER_SIZE_MAX: Final = 2 * 1024 * 1024
SIZE_MAX: Final = 32 * 1024 * 1024
OVERHEAD: Final = 160
#: A cursor has 53 bits, because clients in languages without larger exact numbers read it as a double.
_CURSOR_SHIFT: Final = 11


class ScanPositions:
    """The positions of the scans of all users."""

    def __init__(self) -> None:
        self._users: dict[str, OrderedDict[int, str]] = {}
        self._sizes: dict[str, int] = {}
        self._size = 0

    def cursor(self, user: str, key: str) -> int:
        """The number for the position behind a key, which is kept now. It is never 0."""
        digest = blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "big") >> _CURSOR_SHIFT or 1
        positions = self._users.setdefault(user, OrderedDict())
        before = positions.pop(number, None)
        positions[number] = key
        self._add(user, _size_of(key) - (0 if before is None else _size_of(before)))
        while self._sizes[user] > USER_SIZE_MAX:
            self._forget_oldest(user)
        while self._size > SIZE_MAX:
            self._forget_oldest(max(self._sizes, key=self._sizes.__getitem__))
        return number

    def key(self, user: str, cursor: int) -> str | None:
        """The key behind which a scan goes on; None where the position is not kept."""
        positions = self._users.get(user)
        key = None if positions is None else positions.get(cursor)
        if positions is not None and key is not None:
            positions.move_to_end(cursor)
        return key

    def _add(self, user: str, size: int) -> None:
        self._sizes[user] = self._sizes.get(user, 0) + size
        self._size += size

    def _forget_oldest(self, user: str) -> None:
        positions = self._users[user]
        _, key = positions.popitem(last=False)
        self._add(user, -_size_of(key))
        if not positions:
            del self._users[user], self._sizes[user]


def _size_of(key: str) -> int:
    return OVERHEAD + 4 * len(key)

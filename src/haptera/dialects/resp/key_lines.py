"""Lines of changes that are judged by what they read, one line for each key.

Such a change is made if the entries that it has read are still the same, and judged again if not. Where many are made
of one key at the same time, each would be judged again and again, because those that are with the disk already are
not in what it reads. In a line they are made one after the other, in the order in which they came.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable


class _Line:
    """``waiting`` counts the changes that wait, with the one whose turn it is."""

    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


class KeyLines:
    """The lines of all keys. Each connection waits in one turn at most, so that the connections bound them."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    @asynccontextmanager
    async def turn(self, keys: Iterable[str]) -> AsyncIterator[bool]:
        """Wait for the turn in the lines of some keys; whether others were before. The order of the keys is the same
        for all, so that no two wait for each other.
        """
        entered: list[tuple[str, _Line]] = []
        taken: list[_Line] = []
        waited = False
        try:
            for key in sorted(set(keys)):
                line = self._lines.setdefault(key, _Line())
                line.waiting += 1
                entered.append((key, line))
                waited = waited or line.lock.locked()
                await line.lock.acquire()
                taken.append(line)
            yield waited
        finally:
            for line in taken:
                line.lock.release()
            for key, line in entered:
                line.waiting -= 1
                if not line.waiting:
                    del self._lines[key]

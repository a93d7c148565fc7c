"""The sorted index of the keys, ghosts included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sortedcontainers import SortedList

if TYPE_CHECKING:
    from haptera.state.key_ranges import KeyRange


class KeyIndex:
    """The keys of the store in order, and among them the *ghosts*: deleted keys that an open reader still sees."""

    __slots__ = ("ghosts", "keys")

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys: SortedList[str] = SortedList(keys)
        self.ghosts: SortedList[str] = SortedList()

    def add(self, key: str) -> None:
        """A key that was not in the store is written; it may be there as a ghost."""
        if self.ghosts and key in self.ghosts:
            self.ghosts.remove(key)
        else:
            self.keys.add(key)

    def remove(self, key: str, *, ghost: bool) -> None:
        """A key is deleted; as a ``ghost`` it keeps its place."""
        if ghost:
            self.ghosts.add(key)
        else:
            self.keys.remove(key)

    def raise_ghost(self, key: str) -> None:
        """A reader has come that sees a key which was deleted before."""
        if key not in self.ghosts:
            self.ghosts.add(key)
            self.keys.add(key)

    def lay(self, key: str) -> None:
        """No reader needs the ghost any more."""
        self.ghosts.remove(key)
        self.keys.remove(key)

    def count(self, span: KeyRange) -> int:
        """The keys in ``span`` without ghosts, in O(log n)."""
        if span.empty:
            return 0
        low, high = self._positions(span)
        if not self.ghosts:
            return high - low
        return high - low - _count(self.ghosts, span)

    def width(self, span: KeyRange) -> int:
        """The keys in ``span``, ghosts included, in O(log n)."""
        low, high = self._positions(span)
        return max(0, high - low)

    def free(self, limit: int) -> int:
        """Let go of at most ``limit`` keys of an index that is not used any more; how many there were."""
        keys = self.ghosts or self.keys
        count = min(len(keys), limit)
        for _ in range(count):
            keys.pop()
        return count

    def iterate(self, span: KeyRange, *, reverse: bool = False) -> Iterator[str]:
        """The keys in ``span`` and its ghosts. The index must not change before the iterator is dropped."""
        if span.empty:
            return iter(())
        return self.keys.irange(span.low, span.high, inclusive=(not span.low_open, False), reverse=reverse)

    def _positions(self, span: KeyRange) -> tuple[int, int]:
        return _position(self.keys, span.low, span.low_open), _end(self.keys, span.high)


def _count(keys: SortedList[str], span: KeyRange) -> int:
    return _end(keys, span.high) - _position(keys, span.low, span.low_open)


def _position(keys: SortedList[str], low: str, low_open: bool) -> int:
    return keys.bisect_right(low) if low_open else keys.bisect_left(low)


def _end(keys: SortedList[str], high: str | None) -> int:
    return len(keys) if high is None else keys.bisect_left(high)

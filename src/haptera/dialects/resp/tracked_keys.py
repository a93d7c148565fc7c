"""The keys that a connection has read and may keep a copy of: those whose next change it is told."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Keys of one connection, and their bytes: more than most programs keep. Where a key too many comes, the oldest is told
#: as changed.
KEYS_MAX: Final = 65_536
KEYS_SIZE_MAX: Final = 8 * 1024 * 1024
#: Bytes of a key in memory beside its text.
KEY_OVERHEAD: Final = 120


class TrackedKeys:
    """The tracked keys of one connection, in the order in which they were read.

    A read is *under way* from before it is asked to after its reply is made. A change in that time may be in the reply
    or behind it, so that the key is told as changed behind the reply.
    """

    __slots__ = ("_changed", "_keys", "_under_way", "size")

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}
        self._under_way: Counter[str] = Counter()
        self._changed: set[str] = set()
        #: Bytes of memory that they take.
        self.size: int = 0

    def __len__(self) -> int:
        return len(self._keys)

    def begin(self, keys: Iterable[str]) -> None:
        """Note that reads of some keys are under way."""
        self._under_way.update(keys)

    def miss(self, key: str) -> None:
        """No change of this key, whose read is under way, would be noticed."""
        self._changed.add(key)

    def end(self, keys: Iterable[str]) -> list[str]:
        """The replies of reads are made: track the keys. Returns those that are to be told as changed at once."""
        told: list[str] = []
        for key in keys:
            self._under_way[key] -= 1
            if self._under_way[key]:
                continue
            del self._under_way[key]
            if key in self._changed:
                self._changed.discard(key)
                self._forget(key)
                told.append(key)
            else:
                self._add(key)
        while len(self._keys) > KEYS_MAX or self.size > KEYS_SIZE_MAX:
            oldest = next(iter(self._keys))
            self._forget(oldest)
            told.append(oldest)
        return told

    def change(self, keys: Iterable[str]) -> list[str]:
        """Some keys have changed: those among them that are to be told, which are tracked no longer."""
        told = []
        for key in keys:
            if key in self._under_way:
                self._changed.add(key)
            if key in self._keys:
                self._forget(key)
                told.append(key)
        return told

    def clear(self) -> None:
        """Track no key, nor those whose reads are under way: a change of any may be missed."""
        self._changed.update(self._under_way)
        self._keys.clear()
        self.size = 0

    def _add(self, key: str) -> None:
        if key in self._keys:
            del self._keys[key]  # it is the newest again
        else:
            self.size += len(key) + KEY_OVERHEAD
        self._keys[key] = None

    def _forget(self, key: str) -> None:
        if key in self._keys:
            del self._keys[key]
            self.size -= len(key) + KEY_OVERHEAD

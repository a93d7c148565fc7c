"""A table with room for so many entries, from which no one can push out an entry of another rank by making new ones.

Each entry has a rank, the higher the more it matters, and a time at which it is over. Where there is no room for
another one, an entry whose time is over goes, or else one of the lowest rank, the oldest of it. An entry that is put
again moves behind the others of its rank. All times are of one clock, passed in.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class _Place(NamedTuple, Generic[V]):
    rank: int
    value: V
    over_at: float


class RankedTable(Generic[K, V]):
    """Entries by key, ``room`` of them at most, with ranks from 0 to below ``ranks``. A step takes time for each rank,
    and none for each entry.
    """

    __slots__ = ("_keys", "_places", "_room")

    def __init__(self, room: int, ranks: int) -> None:
        self._room = room
        self._places: dict[K, _Place[V]] = {}
        self._keys: list[dict[K, None]] = [{} for _ in range(ranks)]  # of each rank, the oldest first

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._places)

    def get(self, key: K, now: float) -> V | None:
        """The value of a key; None for one that is not there, or is over."""
        place = self._places.get(key)
        if place is None:
            return None
        if place.over_at <= now:
            self.remove(key)
            return None
        return place.value

    def put(self, key: K, value: V, rank: int, over_at: float, now: float) -> None:
        """Keep a value, in place of the one that the key has."""
        self.remove(key)
        if len(self._places) >= self._room:
            self._make_room(now)
        rank = min(rank, len(self._keys) - 1)
        self._places[key] = _Place(rank, value, over_at)
        self._keys[rank][key] = None

    def remove(self, key: K) -> None:
        """Forget a key, if it is there."""
        place = self._places.pop(key, None)
        if place is not None:
            del self._keys[place.rank][key]

    def _make_room(self, now: float) -> None:
        oldest = [next(iter(keys)) for keys in self._keys if keys]
        over = [key for key in oldest if self._places[key].over_at <= now]
        self.remove((over or oldest)[0])

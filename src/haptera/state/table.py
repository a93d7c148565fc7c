"""A dict of any size that grows in short steps.

A dict that is full moves all its entries to a larger one, in a single step: 31 ms of CPU at 700,000 keys, in which a
node answers no request. A `Table` begins as a plain dict, because most stores are small and nothing is faster. Before
that grows beyond `SPLIT_AT` keys it is split into a fixed list of dicts, its *parts*, each of which grows by itself:
3 ms at 11,000,000 keys. A table that was emptied by `Table.free` is a plain dict again. One that is to be ``large`` has
its parts from the beginning, because tables that are filled together would be split together.

The order of a table is no order: it depends on hashes, which differ from process to process. Results, digests and
scans take theirs from the sorted index.
"""

from __future__ import annotations

import sys
from itertools import chain
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from haptera.state.invariants import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ValueT = TypeVar("ValueT")

_PART_BITS: Final = 9
#: Parts of a table that was split. With 256 a part of 11,000,000 keys grows for 9 ms; 1,024 take 88 KiB while they are
#: empty.
PARTS: Final = 1 << _PART_BITS
#: The highest bits of the signed hash choose the part, from -256 to 255, as a place in a list may be negative. A dict
#: begins to look for a key by the lowest bits of the hash: keys of a part that had these in common would collide.
PLACE_SHIFT: Final = sys.hash_info.width - _PART_BITS
#: Keys with which a plain dict is split, in 1.8 ms of CPU. A dict of 16,384 places is full with them.
SPLIT_AT: Final = 10_922


class Table(Generic[ValueT]):
    """Values by key. Iterating takes the same care as with a dict: the table must not change meanwhile.

    ``get(key)`` gives the value of a key, or None; it is another function after the table was split, so it is not to be
    kept from one slice of work to the next. A loop over many keys may look into ``whole`` itself, the plain dict, or,
    where that is None, into ``parts``, by ``hash(key) >> PLACE_SHIFT``.
    """

    __slots__ = ("_prepared", "get", "parts", "whole")

    get: Callable[[str], ValueT | None]
    whole: dict[str, ValueT] | None
    parts: list[dict[str, ValueT]]

    def __init__(self, *, large: bool = False) -> None:
        self._prepared: list[dict[str, ValueT]] | None = None
        if large:
            self._be_split(_empty_parts())
        else:
            self._be_whole()

    def put(self, key: str, value: ValueT) -> None:
        """Set the value of ``key``."""
        whole = self.whole
        if whole is None:
            self.parts[hash(key) >> PLACE_SHIFT][key] = value
        else:
            whole[key] = value
            if len(whole) >= SPLIT_AT:
                self._split(whole)

    def put_all(self, keys: Iterable[str], values: Iterable[ValueT]) -> None:
        """Set the value of each of ``keys``, in one loop without a call for each."""
        pairs = zip(keys, values, strict=True)
        whole, parts = self.whole, self.parts
        if whole is None:
            for key, value in pairs:
                parts[hash(key) >> PLACE_SHIFT][key] = value
        else:
            whole.update(pairs)
            if len(whole) >= SPLIT_AT:
                self._split(whole)

    def remove(self, key: str) -> None:
        """Take out ``key``, which is there."""
        whole = self.whole
        if whole is None:
            del self.parts[hash(key) >> PLACE_SHIFT][key]
        else:
            del whole[key]

    def __contains__(self, key: str) -> bool:
        whole = self.whole
        return key in (self.parts[hash(key) >> PLACE_SHIFT] if whole is None else whole)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __bool__(self) -> bool:
        return any(self.parts)

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.parts)

    def items(self) -> Iterator[tuple[str, ValueT]]:
        """The keys with their values."""
        return chain.from_iterable(map(dict.items, self.parts))

    def values(self) -> Iterator[ValueT]:
        """The values."""
        return chain.from_iterable(map(dict.values, self.parts))

    def take(self, limit: int) -> list[tuple[str, ValueT]]:
        """Take out at most ``limit`` entries, any of them. An emptied part gives its room back."""
        taken: list[tuple[str, ValueT]] = []
        for part in self.parts:
            if not part:
                continue
            taken += [part.popitem() for _ in range(min(len(part), limit - len(taken)))]
            if part:
                return taken
            part.clear()
        if self.whole is None:
            self._prepared = self.parts
            self._be_whole()
        return taken

    def free(self, limit: int) -> int:
        """Let go of at most ``limit`` entries, any of them; how many there were."""
        return len(self.take(limit))

    def track(self, value: ValueT) -> None:
        """Have the garbage collector follow each part, by putting in and taking out a ``value`` that it follows. The
        parts of a plain dict are made now, so that they are followed too.

        A dict that holds nothing but atoms is not followed, and so not frozen by ``gc.freeze``. From its next change on
        it is followed again, which is a pause for millions of entries in each collection.
        """
        if self.whole is not None and self._prepared is None:
            self._prepared = _empty_parts()
        for part in chain(self.parts, self._prepared or ()):
            part[""] = value  # no key is empty
            del part[""]

    def _be_whole(self) -> None:
        whole: dict[str, ValueT] = {}
        self.whole = whole
        self.parts = [whole]
        self.get = whole.get

    def _split(self, whole: dict[str, ValueT]) -> None:
        parts: list[dict[str, ValueT]] = self._prepared or _empty_parts()
        self._prepared = None
        for key, value in whole.items():
            parts[hash(key) >> PLACE_SHIFT][key] = value
        self._be_split(parts)

    def _be_split(self, parts: list[dict[str, ValueT]]) -> None:
        get = _getter(parts)
        self.whole, self.parts, self.get = None, parts, get

    def check(self) -> None:
        """Raise ``AssertionError`` unless each key is in its part, where alone it is found."""
        require(not any(self._prepared or ()), "the parts of a plain dict are empty")
        if self.whole is not None:
            require(self.parts == [self.whole] and len(self.whole) < SPLIT_AT, "a plain dict is small")
            return
        require(len(self.parts) == PARTS, "a split table has all its parts")
        for part in self.parts:
            require(all(self.parts[hash(key) >> PLACE_SHIFT] is part for key in part), "each key is in its part")


def _empty_parts() -> list[dict[str, ValueT]]:
    return [{} for _ in range(PARTS)]


def _getter(parts: list[dict[str, ValueT]]) -> Callable[[str], ValueT | None]:
    """A function of the parts and not a method, so that a table does not refer to itself."""

    def get(key: str) -> ValueT | None:
        return parts[hash(key) >> PLACE_SHIFT].get(key)

    return get

"""The keys that expire, by the time at which they do.

A *wheel* of coarser and coarser slots: a slot of level 0 is one millisecond, and 64 slots of a level are one of the
next. A time is filed under the level of the highest digit, to the base 64, in which it differs from the time that the
wheel has `reached`. So to add, to move and to remove a key takes the same few steps however many there are, and leaves
nothing behind. When the wheel reaches a slot, the slot's keys are filed again, each at most once for a level, until
their time has come: then they are `due`, and wait there to be removed from the store.

All of it follows from the entries of the store and is no part of the state: two nodes with the same entries may have
reached different times. So no command may depend on it but by the times themselves.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from haptera.state import limits
from haptera.state.invariants import require
from haptera.state.table import SPLIT_AT, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from haptera.state.sliced_work import Steps

#: Binary digits of a slot's number in its level: 64 slots. Seven levels hold the times of 100 years.
_SLOT_BITS: Final = 6
_SLOTS: Final = 1 << _SLOT_BITS
#: Units of work of a key that is filed again.
_FILE_WORK: Final = 8
#: Keys that are filed again in one step.
_PIECE: Final = 256

#: The place of keys that are due.
_DUE: Final = -1
#: Later than any time.
NEVER: Final = 1 << 62


class ExpiryIndex:
    """The time of each key that expires. ``next_ms`` is a time before which no key is due that is not due yet."""

    __slots__ = ("_drained", "_draining", "_slots", "count", "due", "next_ms", "reached")

    def __init__(self, reached: int = 0) -> None:
        #: Keys that expire, due ones included.
        self.count: int = 0
        #: The time up to which the wheel was turned.
        self.reached: int = reached
        #: The keys whose time is not later than `reached`, but for those of the slot that is being filed again.
        self.due: Table[int] = Table()
        self.next_ms: int = NEVER
        self._slots: dict[int, Table[int]] = {}  # by level and slot; at most 64 for each of a few levels
        self._draining: Table[int] | None = None  # the slot whose keys are being filed again
        self._drained = 0  # how many it had at first

    def add(self, key: str, time_ms: int, now_ms: int) -> None:
        """Add a key, which is not there, at a time of entries that the wheel may not have reached."""
        if not self.count:
            self.reached = max(self.reached, now_ms)
        self.count += 1
        self._file(key, time_ms)

    def remove(self, key: str, time_ms: int) -> None:
        """Take out a key, which is there with this time."""
        self.count -= 1
        draining = self._draining
        if draining is not None and key in draining:
            draining.remove(key)
        elif time_ms <= self.reached:
            self.due.remove(key)
        else:
            place = _place(time_ms, self.reached)
            slot = self._slots[place]
            slot.remove(key)
            if not slot:
                del self._slots[place]

    def move(self, key: str, time_ms: int, new_time_ms: int) -> None:
        """Give a key, which is there with a time, another one. A key that stays in its slot leaves no hole in it."""
        reached = self.reached
        if min(time_ms, new_time_ms) > reached and self._draining is None:
            place = _place(time_ms, reached)
            if place == _place(new_time_ms, reached):
                self._slots[place].put(key, new_time_ms)
                self.next_ms = min(self.next_ms, new_time_ms)
                return
        self.remove(key, time_ms)
        self.count += 1
        self._file(key, new_time_ms)

    def advance(self, now_ms: int, limit: int) -> bool:
        """Turn the wheel up to a time, unless more than about ``limit`` keys have to be filed for that. Whether it has
        come there: then the keys that expire up to that time are all `due`.
        """
        while True:
            draining = self._draining
            if draining is None:
                place = min(self._slots, default=None)
                start = NEVER if place is None else _start(place, self.reached)
                if place is None or start > now_ms:
                    self.reached = max(self.reached, now_ms)
                    self.next_ms = start
                    if not self.due:
                        self.due = Table()  # an emptied dict keeps its room
                    return True
                if limit <= 0:
                    return False
                self.reached = self.next_ms = start
                draining = self._slots.pop(place)
                if place < _SLOTS and not self.due:  # a slot of one millisecond, as it is
                    self.due = draining
                    continue
                self._draining, self._drained = draining, len(draining)
            while limit > 0 and (taken := draining.take(_PIECE)):
                limit -= len(taken)
                self._file_all(taken)
            if draining:
                return False
            self._draining = None

    def advance_steps(self, now_ms: int) -> Steps[None]:
        """As `advance`, all the way, in slices."""
        while not self.advance(now_ms, max(1, limits.SLICE_WORK_MAX // _FILE_WORK)):
            yield limits.SLICE_WORK_MAX

    def due_pieces(self, now_ms: int) -> Iterator[list[str]]:
        """Give the due keys that expire up to a time, in pieces of some thousand. The index may change meanwhile: a key
        that becomes due later, or is removed, may be given or not.
        """
        for part in list(self.due.parts):
            yield [key for key, time_ms in list(part.items()) if time_ms <= now_ms]

    def first_due(self, limit: int) -> list[str]:
        """Return at most ``limit`` of the due keys."""
        found: list[str] = []
        for part in self.due.parts:
            if not part:
                part.clear()  # to look through the places of keys that are gone takes long
            found += islice(part, limit - len(found))
            if len(found) == limit:
                break
        return found

    def free(self, limit: int) -> int:
        """Let go of at most ``limit`` keys of an index that is not used any more; how many there were."""
        tables: Iterable[Table[int]] = (self.due, self._draining or Table(), *self._slots.values())
        for table in tables:
            if table:
                return table.free(limit)
        return 0

    def _file(self, key: str, time_ms: int) -> None:
        if time_ms <= self.reached:
            self.due.put(key, time_ms)
            return
        place = _place(time_ms, self.reached)
        slot = self._slots.get(place)
        if slot is None:
            slot = self._slots[place] = Table()
        slot.put(key, time_ms)
        self.next_ms = min(self.next_ms, time_ms)

    def _file_all(self, taken: list[tuple[str, int]]) -> None:
        """As `_file`, of some keys of the slot that is being filed again: most of them have the same place again.

        The hashes of keys mix their times, so a part of the slot shows how many keys each new one will have. One that
        will have many is large from the beginning, because many such slots would be split in one step.
        """
        reached, places = self.reached, dict[int, list[tuple[str, int]]]()
        for item in taken:
            time_ms = item[1]
            place = _place(time_ms, reached) if time_ms > reached else _DUE
            together = places.get(place)
            if together is None:
                together = places[place] = []
            together.append(item)
        for place, items in places.items():
            table = self.due if place == _DUE else self._slots.get(place)
            if table is None:
                large = len(items) * self._drained >= SPLIT_AT * len(taken)
                table = self._slots[place] = Table(large=large)
            if place != _DUE:
                self.next_ms = min(self.next_ms, _start(place, reached))
            table.put_all((key for key, _ in items), (time_ms for _, time_ms in items))

    def items(self) -> Iterator[tuple[str, int]]:
        """The keys with their times, in no order."""
        for table in (self.due, self._draining, *self._slots.values()):
            if table is not None:
                yield from table.items()

    def check(self) -> None:
        """Raise ``AssertionError`` with the invariant that does not hold."""
        items = list(self.items())
        require(len({key for key, _ in items}) == len(items) == self.count, "each key that expires is there once")
        require(all(time_ms <= self.reached for time_ms in self.due.values()), "the time of a due key has come")
        for place, slot in self._slots.items():
            require(bool(slot), "no slot is empty")
            for time_ms in slot.values():
                require(time_ms > self.reached and _place(time_ms, self.reached) == place, "each key is in its slot")
                require(time_ms >= self.next_ms, "no key is due before the next time")


def _place(time_ms: int, reached: int) -> int:
    """The level and the slot of a time that is later than the one reached, as one number. Lower numbers are earlier."""
    level = ((time_ms ^ reached).bit_length() - 1) // _SLOT_BITS
    return level * _SLOTS + (time_ms >> level * _SLOT_BITS) % _SLOTS


def _start(place: int, reached: int) -> int:
    """The first time of a slot."""
    level, slot = divmod(place, _SLOTS)
    shift = level * _SLOT_BITS
    above = reached >> (shift + _SLOT_BITS)
    return ((above << _SLOT_BITS) + slot) << shift

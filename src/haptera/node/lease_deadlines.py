"""The times by which leases end unless they are renewed, at a constant cost for each renewal.

A renewal writes one number. A lease is filed under the time by which it would have ended when it was filed; when that
time comes, it is filed again under the one that it has by then. So a lease is looked at once in its time, however often
it is renewed, and renewals leave nothing behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.node.lease_clock import TICK_MS
from haptera.state import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.state import Steps

#: Leases that are looked at in one step: a tenth of a millisecond.
_PIECE: Final = 256
#: Units of work of a lease that is looked at.
_LOOK_WORK: Final = 4


class LeaseDeadlines:
    """The leases that live, with their times. Times are those of `haptera.node.lease_clock`, in milliseconds."""

    __slots__ = ("_ends_ms", "_places", "_reached", "_slots", "_ttls_ms")

    def __init__(self) -> None:
        self._ttls_ms: dict[int, int] = {}
        self._ends_ms: dict[int, int] = {}
        self._places: dict[int, int] = {}  # of each lease, the number of its slot
        self._slots: dict[int, dict[int, None]] = {}  # each has the leases of one tick; none is empty
        self._reached = 0  # no lease is filed under an earlier slot

    def __len__(self) -> int:
        return len(self._ttls_ms)

    def add(self, lease_id: int, ttl_ms: int, now_ms: int) -> None:
        """Add a lease, whose time begins now."""
        self._ttls_ms[lease_id] = ttl_ms
        self._ends_ms[lease_id] = now_ms + ttl_ms
        self._file(lease_id, now_ms + ttl_ms)

    def remove(self, lease_id: int) -> None:
        """Take out a lease, if it is there."""
        if self._ttls_ms.pop(lease_id, None) is not None:
            del self._ends_ms[lease_id]
            place = self._places.pop(lease_id)
            slot = self._slots[place]
            del slot[lease_id]
            if not slot:
                del self._slots[place]

    def renew(self, lease_ids: Sequence[int], now_ms: int) -> tuple[int | None, ...]:
        """Give leases their whole time again, from now on; of each that time, or None where it is not there."""
        ends_ms, found = self._ends_ms, tuple(map(self._ttls_ms.get, lease_ids))
        for lease_id, ttl_ms in zip(lease_ids, found, strict=True):
            if ttl_ms is not None:
                ends_ms[lease_id] = now_ms + ttl_ms
        return found

    def left_ms(self, lease_id: int, now_ms: int) -> int:
        """The time that is left of a lease; 0 for one that is not there."""
        return max(0, self._ends_ms.get(lease_id, now_ms) - now_ms)

    def take_due(self, now_ms: int, limit: int, weight: Callable[[int], int]) -> Steps[list[int]]:
        """Take out leases whose time is over, found in slices, until their weights reach ``limit``."""
        due: list[int] = []
        last, looked, weights = now_ms // TICK_MS, 0, 0
        while self._reached <= last and weights < limit:
            slot = self._slots.get(self._reached)
            if slot is None:
                self._reached += 1
                continue
            lease_id, _ = slot.popitem()
            if not slot:
                del self._slots[self._reached]
            end_ms = self._ends_ms[lease_id]
            if end_ms > now_ms:
                self._file(lease_id, end_ms)
            else:
                del self._ttls_ms[lease_id], self._ends_ms[lease_id], self._places[lease_id]
                due.append(lease_id)
                weights += weight(lease_id)
            looked += 1
            if looked == _PIECE:
                yield looked * _LOOK_WORK
                looked = 0
        return due

    def _file(self, lease_id: int, end_ms: int) -> None:
        place = self._places[lease_id] = -(-end_ms // TICK_MS)  # a slot that begins when the time is over
        slot = self._slots.get(place)
        if slot is None:
            slot = self._slots[place] = {}
        slot[lease_id] = None

    def check(self) -> None:
        """Raise ``AssertionError`` with the invariant that does not hold."""
        require(self._ttls_ms.keys() == self._ends_ms.keys() == self._places.keys(), "each lease has its time")
        filed = {lease_id: place for place, slot in self._slots.items() for lease_id in slot}
        require(filed == self._places, "each lease is in its slot")
        require(all(self._slots.values()), "no slot is empty")
        for lease_id, place in self._places.items():
            require(place >= self._reached, "each lease is still to be looked at")
            require(place * TICK_MS < self._ends_ms[lease_id] + TICK_MS, "each lease is looked at by its time")

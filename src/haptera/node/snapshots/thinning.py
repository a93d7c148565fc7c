"""Thinning: which snapshots go where there are more than are worth their files. Pure.

Every moment behind the base stays reachable without them: a recovery starts at the snapshot before it, and reads more
of the log. Their worth is the steps in which retention can cut history, so those go that lie closest to their
neighbours.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The newest snapshots, which stay: a start takes the one before the newest where that is damaged.
NEWEST_KEPT: Final = 2


class Place(msgspec.Struct, frozen=True):
    """A snapshot's place in the history that is kept: the bytes of log before it, and its entry time."""

    index: int
    log_bytes: int
    time_ms: int


def crowded(places: Sequence[Place], excess: int, pinned: frozenset[int] = frozenset()) -> list[int]:
    """The indexes of the ``excess`` snapshots that history misses least, or of all that may go.

    ``places`` begin with the base, which stays, as the newest and the ``pinned`` ones do; oldest first. The gap that a
    snapshot leaves is measured as a part of all bytes and as a part of the whole time, and the larger part counts: so
    neither a burst of changes nor a quiet week is without its snapshots.
    """
    if excess <= 0 or len(places) <= NEWEST_KEPT:
        return []
    log_bytes = max(places[-1].log_bytes - places[0].log_bytes, 1)
    time_ms = max(places[-1].time_ms - places[0].time_ms, 1)
    before, after = list(range(-1, len(places) - 1)), list(range(1, len(places) + 1))

    def gap(at: int) -> float:
        older, newer = places[before[at]], places[after[at]]
        return max((newer.log_bytes - older.log_bytes) / log_bytes, (newer.time_ms - older.time_ms) / time_ms)

    free = [at for at in range(1, len(places) - NEWEST_KEPT) if places[at].index not in pinned]
    gaps = {at: gap(at) for at in free}
    narrowest = [(gaps[at], at) for at in free]
    heapq.heapify(narrowest)
    gone: list[int] = []
    while narrowest and len(gone) < excess:
        size, at = heapq.heappop(narrowest)
        if gaps.get(at) != size:
            continue  # a neighbour has gone since, and its gap is wider by now
        gone.append(places[at].index)
        del gaps[at]
        older, newer = before[at], after[at]
        after[older], before[newer] = newer, older
        for neighbour in (older, newer):
            if neighbour in gaps:
                gaps[neighbour] = gap(neighbour)
                heapq.heappush(narrowest, (gaps[neighbour], neighbour))
    return sorted(gone)

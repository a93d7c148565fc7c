"""The gaps in the revisions of a store: the numbers that it has passed over, because changes may be lost that had them.

A store of whose changes some may be lost, because it was restored or because the power failed, goes on with a higher
revision (spec/storage-format.md, section 13). So a version, a lease's id or a token that clients know from before never
stands for something else. Of the revisions in a gap this store knows nothing: it neither reads them nor goes on from
them.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from haptera.state import limits
from haptera.state.invariants import require

#: The least by which the revision rises, also where the clock is wrong: more changes than a store loses.
GAP_MIN: Final = 2**32
#: The revision is at least this many for each millisecond since 1970: more changes than a store makes in one.
REVISIONS_PER_MS: Final = 1024
#: The highest revision that time alone leads to, in the year 2109: above it there is room for half a million gaps.
REVISION_BY_TIME_MAX: Final = 2**52
#: Bytes of the server's id, which is random, that tell two stores apart where time does not: up to 2^32 revisions.
CHANCE_SIZE: Final = 4

_encoder: Final = msgspec.msgpack.Encoder()


def revision_behind(revision: int, earlier_ms: int, time_ms: int, server_id: bytes) -> int:
    """The revision at which a store goes on that leaves a gap behind ``revision`` at an entry's time.

    Time tells stores apart that were made of one backup: the later one goes on above all that the earlier ones have
    given, although it has never heard of them. Where the clock stands at the time of the entry before, ``earlier_ms``,
    or does not lead, chance does that. Elsewhere chance would undo what time promises.
    """
    by_time = time_ms * REVISIONS_PER_MS
    if time_ms > earlier_ms and revision + GAP_MIN < by_time < REVISION_BY_TIME_MAX:
        return by_time
    return max(revision + GAP_MIN, min(by_time, REVISION_BY_TIME_MAX)) + int.from_bytes(server_id[:CHANCE_SIZE], "big")


class Gaps:
    """The gaps of a store, oldest first, each between two revisions that the store has: (before, behind).

    ``server_id`` is the id under which the store is served since the last of them, 16 bytes; empty where there is none.
    """

    __slots__ = ("found", "server_id")

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []
        self.server_id: bytes = b""

    def leave(self, before: int, behind: int, server_id: bytes) -> int:
        """Add a gap. Return the revision up to which the past is to be forgotten, because of a gap that has no room any
        more; 0 in most cases.
        """
        self.server_id = server_id
        self.found.append((before, behind))
        return self.found.pop(0)[1] if len(self.found) > limits.GAPS_MAX else 0

    def hides(self, revision: int) -> bool:
        """Whether a revision is in a gap."""
        return any(before < revision < behind for before, behind in self.found)

    def parts(self, start: int) -> bool:
        """Whether the change before a revision is in a gap, so that no one can go on with ``start``."""
        return self.hides(start - 1)

    def oldest_behind(self, compacted: int) -> int:
        """The oldest revision that can be read where the changes up to ``compacted`` are not kept."""
        if compacted == 0 and self.found and self.found[0][0] == 0:
            return self.found[0][1]  # an empty store, which is known at the end of its gap, too
        end = compacted
        for before, behind in self.found:
            if before == end:  # nothing tells the time of the end of a gap whose beginning is not kept
                end = behind
        return end + 1

    def within(self, first: int, last: int) -> list[tuple[int, int]]:
        """The gaps between two revisions."""
        return [gap for gap in self.found if first <= gap[0] and gap[1] <= last]

    def digest(self) -> bytes:
        """32 bytes that are equal for equal gaps."""
        return hashlib.sha256(_encoder.encode((self.server_id, self.found))).digest()

    def check(self, revision: int) -> None:
        """Raise ``AssertionError`` with the invariant that does not hold, for a store at this revision."""
        require(len(self.found) <= limits.GAPS_MAX, "there are not too many gaps")
        require(bool(self.found) == bool(self.server_id), "a store that has left a gap has a new id")
        ends = [end for gap in self.found for end in gap]
        require(ends == sorted(ends) and (not ends or 0 <= ends[0] <= ends[-1] <= revision), "gaps are in order")
        require(all(behind > before for before, behind in self.found), "a gap leads on")

"""The turns that the connections of an event loop have, so that none waits for a burst of the others.

Sixteen connections may each send 256 small requests in one moment: to read and begin all of them in one turn of the
loop would stop everything else for 50 ms. A connection begins a small part of its requests in the turn in which
they arrive, and more if the turn has room. The rest waits in the round, a part of each connection after the other. So
the request of a connection that has sent nothing else stands behind no other's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

#: Units of work in one turn of the loop, beside the first parts: one is a frame that is read, a request that is handed
#: to its service or 4 KiB that are read. Each takes some six microseconds, so that it is a millisecond and a half.
TURN_MAX: Final = 256
#: Frames of the part that a connection has in any case: a tenth of a millisecond.
PART_MAX: Final = 16

#: Less than this is not worth a call at the end of the turn, and counts for the next one as well.
_COUNTED_MIN: Final = TURN_MAX // 4
_BYTES_PER_UNIT: Final = 4096

_rounds: Final[WeakValueDictionary[int, Round]] = WeakValueDictionary()


class Round:
    """The round of one loop, which its connections keep."""

    __slots__ = ("__weakref__", "_spent", "_waiting", "_woken")

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()  # one of each connection, and the ends of some
        self._spent = 0
        self._woken = False

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Round:
        """The round of the loop."""
        found = _rounds.get(id(loop))  # as long as there is one, a connection keeps its loop, and so the number
        if found is None:
            found = _rounds[id(loop)] = cls()
        return found

    @property
    def has_room(self) -> bool:
        """Whether a connection may do more than its part in this turn of the loop."""
        return self._spent < TURN_MAX and not self._waiting

    @property
    def part(self) -> int:
        """Frames that may be read of a connection now."""
        left = TURN_MAX - self._spent
        return left if left > PART_MAX and not self._waiting else PART_MAX

    def spend(self, units: int, size: int = 0) -> None:
        """So much has been done: units, and bytes that were read."""
        self._spent += units + size // _BYTES_PER_UNIT
        if self._spent >= _COUNTED_MIN:
            self._wake()

    def add(self, work: Callable[[], None]) -> None:
        """Call ``work`` in a later turn of the loop, behind work that waits already."""
        self._waiting.append(work)
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._woken = False
        self._spent = 0
        waiting = self._waiting
        try:
            for _ in range(len(waiting)):  # work that comes again has its part in the next turn
                if self._spent >= TURN_MAX:
                    break
                waiting.popleft()()
        finally:
            if waiting:
                self._wake()

"""Which answers to this side's changes have been read: the source of ``answered_below`` (spec/protocol.md, 2.3).

A change is a request with a request id. The responder remembers its answer, so that a repetition under the same id is
not applied again, and forgets it when ``answered_below`` passes its stream. A stream is therefore passed only when its
answer was read, or when its caller will not repeat it.
"""

from __future__ import annotations

from typing import Final

#: Changes whose answer was damaged and whose callers may repeat them. Each is held by one call and for as long as that
#: call takes, so that only a link that damages a thousand answers at a time needs more.
HELD_CHANGES_MAX: Final = 1024

#: The next change says answered_below once this many answers have been read. A connection that is cut leaves no more
#: of them remembered, and the entry's 10 bytes are spread over 8 changes.
TOLD_EVERY: Final = 8


class Changes:
    """The streams of this side's changes that ``answered_below`` may not pass, in order."""

    __slots__ = ("_floor", "_held", "_told", "_unread")

    def __init__(self) -> None:
        self._unread: dict[int, None] = {}  # ids only grow, so that the first is the lowest
        self._held: set[int] = set()
        self._floor: int | None = None  # never passed again: there were too many to hold
        self._told = 0  # how many answers have been read since the responder was told

    def begin(self, id_: int) -> None:
        """A change is sent on a stream."""
        self._unread[id_] = None

    def end(self, id_: int) -> None:
        """A change's stream has ended: its answer was read, unless it is held."""
        if id_ not in self._held and id_ in self._unread:
            del self._unread[id_]
            self._told += 1

    def hold(self, id_: int) -> None:
        """Keep a change whose answer could not be read: its caller may send it again.

        Where too many are held nothing more is passed, and the responder forgets by time alone.
        """
        if len(self._held) < HELD_CHANGES_MAX:
            self._held.add(id_)
        elif self._floor is None:
            self._floor = next(iter(self._unread), id_)

    def release(self, id_: int, *, ended: bool) -> None:
        """The caller of a held change will not send it again; its stream may still be open."""
        if id_ in self._held:
            self._held.remove(id_)
            if ended:
                self.end(id_)

    def lowest(self, following: int) -> int:
        """Return the lowest stream that may not be passed; ``following`` is the next that will be opened."""
        if self._floor is not None:
            return self._floor
        return next(iter(self._unread), following)

    @property
    def untold(self) -> bool:
        """Whether answers have been read of which the responder was not told."""
        return self._told > 0

    def tell(self, following: int, *, least: int) -> int | None:
        """Return the next value of ``answered_below``; None where fewer than ``least`` answers have been read."""
        if self._told < least:
            return None
        self._told = 0
        return self.lowest(following)

"""The unfinished messages of a connection (spec/protocol.md, section 2, "Messages and fragments")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from haptera.connection.config import RATE_MIN_BYTES_PER_S
from haptera.connection.events import PackedItem
from haptera.wire import CONTINUED, Frame

if TYPE_CHECKING:
    from haptera.connection.stream_halves import ReceivingHalf

_NEVER: Final = float("inf")


class UnfinishedMessage(msgspec.Struct):
    """A message of which only some frames have arrived."""

    type: int
    entries: dict[int, bytes]
    since: float  # when it began, moved on by the time that its sender was without credit
    route: tuple[str, str] | None = None  # service and method, of a REQUEST
    pieces: list[bytes] = []
    size: int = 0  # before compression
    sent: int = 0  # as it was sent
    stalled_at: float | None = None  # since when its sender has been without credit
    uncredited: int = 0  # bytes that its fragments cost the half's window and have not given back
    held: int = 0  # bytes that the fragments of an ITEM are charged to the budget
    raw_lengths: list[int] | None = None  # of each piece that is kept compressed, 0 of the others; None without any

    def add(self, piece: bytes, raw_length: int) -> None:
        """Take the payload of one more frame; one that is compressed has a ``raw_length`` and is kept as it is."""
        if raw_length:
            if self.raw_lengths is None:
                self.raw_lengths = []
            self.raw_lengths += [0] * (len(self.pieces) - len(self.raw_lengths))
            self.raw_lengths.append(raw_length)
        self.pieces.append(piece)
        self.size += raw_length or len(piece)
        self.sent += len(piece)

    def joined(self) -> bytes | PackedItem:
        """Return the payload that the frames are, as it was sent."""
        pieces = self.pieces
        if self.raw_lengths is None:
            return b"".join(pieces)
        raw_lengths = self.raw_lengths + [0] * (len(pieces) - len(self.raw_lengths))
        return PackedItem(tuple(pieces), tuple(raw_lengths))


class UnfinishedMessages:
    """All unfinished messages of a connection, and the time that each has to become whole."""

    def __init__(self, timeout_s: float) -> None:
        #: The halves that have one, by their streams.
        self.halves: dict[int, ReceivingHalf] = {}
        #: Whether a time-out may be due sooner than is known: the sender of an unfinished ITEM has got credit again.
        self.stale: bool = False
        self._timeout_s = timeout_s
        self._look_at = _NEVER  # no message times out before

    def add(
        self,
        half: ReceivingHalf,
        frame: Frame,
        raw_length: int,
        now: float,
        entries: dict[int, bytes],
        route: tuple[str, str] | None = None,
    ) -> UnfinishedMessage:
        """Take one more frame of a message of several and return the result.

        ``entries`` and ``route`` are a first frame's. An unfinished message is forgotten for an ERROR that cuts
        it short.
        """
        if frame.flags & CONTINUED:
            unfinished = half.unfinished
            assert unfinished is not None  # the law has let the frame through
            unfinished.add(frame.payload, raw_length)
        else:
            unfinished = half.unfinished = UnfinishedMessage(frame.type, entries, now, route)
            unfinished.add(frame.payload, raw_length)
            self.halves[half.id] = half
            self._look_at = min(self._look_at, self._deadline(unfinished))
        return unfinished

    def drop(self, half: ReceivingHalf) -> None:
        """Forget the unfinished message of a half: it is whole now, or given up."""
        if half.unfinished is not None:
            half.unfinished = None
            self.halves.pop(half.id, None)

    def close(self) -> None:
        """Forget them all."""
        self.halves.clear()

    def next_timeout(self) -> float:
        """Return the time before which no unfinished message times out."""
        if not self.halves:
            return _NEVER
        if self.stale:
            # Until then none is looked for again, since more bytes only put one off.
            self.stale = False
            deadlines = [self._deadline(half.unfinished) for half in self.halves.values() if half.unfinished]
            self._look_at = min(deadlines, default=_NEVER)
        return self._look_at

    def overdue(self, now: float) -> list[ReceivingHalf]:
        """Return the halves whose unfinished message has not become whole in time."""
        if now < self.next_timeout():
            return []
        self.stale = True
        return [half for half in self.halves.values() if half.unfinished and now >= self._deadline(half.unfinished)]

    def _deadline(self, unfinished: UnfinishedMessage) -> float:
        if unfinished.stalled_at is not None:
            return _NEVER  # time without credit does not count
        return unfinished.since + self._timeout_s + unfinished.sent / RATE_MIN_BYTES_PER_S

    def check(self) -> None:
        """Assert the invariants."""
        for id_, half in self.halves.items():
            unfinished = half.unfinished
            assert half.id == id_
            assert unfinished is not None
            assert unfinished.sent == sum(map(len, unfinished.pieces))
            assert unfinished.held <= half.held

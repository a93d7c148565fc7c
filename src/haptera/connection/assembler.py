"""A message of several frames as it arrives (spec/protocol.md, section 2, "Messages and fragments")."""

from __future__ import annotations

import msgspec

from haptera.connection.events import PackedItem


class Assembler(msgspec.Struct):
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

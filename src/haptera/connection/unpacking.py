"""Compressed payloads of arriving messages (spec/protocol.md, section 4.1).

REQUEST, RESPONSE and ERROR are decompressed when they are whole, once limits and budgets have taken their raw length: a
message that never becomes so costs no more than what was sent of it. An ITEM is kept as it was sent until the
application takes it, so that it never costs more than its window.
"""

from haptera.connection.checks import misplaced
from haptera.connection.events import PackedItem
from haptera.connection.stream import Partial
from haptera.wire.compression import Codec
from haptera.wire.frame import COMPRESSED, Frame


def check_service(frame: Frame, *, of_session: bool) -> None:
    """Raise 1008 for a compressed frame of the session service: what it carries is never mixed with chosen bytes."""
    if of_session and frame.flags & COMPRESSED:
        raise misplaced(frame, "a frame of the session service is compressed")


def whole(frame: Frame, raw_length: int) -> bytes | PackedItem:
    """Return the payload that one frame is, as it was sent."""
    return PackedItem((frame.payload,), (raw_length,)) if raw_length else frame.payload


def joined(partial: Partial) -> bytes | PackedItem:
    """Return the payload that the frames of a message are, as it was sent."""
    pieces = partial.pieces
    if partial.raw_lengths is None:
        return b"".join(pieces)
    raw_lengths = partial.raw_lengths + [0] * (len(pieces) - len(partial.raw_lengths))
    return PackedItem(tuple(pieces), tuple(raw_lengths))


def unpack(codec: Codec, item: PackedItem) -> bytes:
    """Return a payload that was sent compressed. Raises 1010 if it is not what its sender announced."""
    return b"".join(
        codec.decompress(piece, raw_length) if raw_length else piece
        for piece, raw_length in zip(item.pieces, item.raw_lengths, strict=True)
    )

"""Compressed payloads, both ways (spec/protocol.md, section 4.1).

REQUEST, RESPONSE and ERROR are decompressed when they are whole, once limits and budgets have taken their raw length: a
message that never becomes so costs no more than its bytes on the wire. An ITEM is kept as it was sent until the
application takes it, so that it never costs more than its window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.connection.checks import misplaced
from haptera.connection.events import PackedItem
from haptera.wire import COMPRESSED, COMPRESSED_SIZE_MIN, Codec, Frame, Tag, encode_entry

if TYPE_CHECKING:
    from haptera.connection.stream_halves import SendingHalf


def pack(codec: Codec, half: SendingHalf, flags: int, metadata: bytes, payload: bytes) -> tuple[int, bytes, bytes]:
    """Return a frame's flags, metadata and payload, compressed if that makes the frame smaller."""
    size = len(payload)
    if size >= COMPRESSED_SIZE_MIN and not half.plain:
        packed = codec.compress(payload)
        entry = encode_entry(Tag.RAW_LENGTH, size.to_bytes(4, "big"))
        if len(packed) + len(entry) < size:
            return flags | COMPRESSED, metadata + entry, packed
    return flags, metadata, payload


def check_plain(frame: Frame, *, plain: bool) -> None:
    """Raise 1008 for a compressed frame of the session service: secrets and chosen bytes never meet in one."""
    if plain and frame.flags & COMPRESSED:
        raise misplaced(frame, "a frame of the session service is compressed")


def whole(frame: Frame, raw_length: int) -> bytes | PackedItem:
    """Return the payload that one frame is, as it was sent."""
    return PackedItem((frame.payload,), (raw_length,)) if raw_length else frame.payload


def unpack(codec: Codec, item: PackedItem) -> bytes:
    """Return a payload that was sent compressed. Raises 1010 if it is not as its sender announced it."""
    return b"".join(
        codec.decompress(piece, raw_length) if raw_length else piece
        for piece, raw_length in zip(item.pieces, item.raw_lengths, strict=True)
    )

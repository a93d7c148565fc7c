"""The frame: its header, types, flags, and how one is written (spec/protocol.md, section 2).

::

    offset size field
         0    2 magic            0xFA57
         2    1 version
         3    1 type
         4    2 flags
         6    2 metadata_length  at most 4096
         8    8 stream           0 = the connection itself; at most 2^53 - 1
        16    4 payload_length
        20    4 body_crc         CRC-32C of metadata and payload; 0 where SIGNED
        24    4 header_crc       CRC-32C of bytes 0..23
        28    … metadata, payload, then a 32-byte tag where SIGNED
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum, IntFlag
from typing import Final

import msgspec
from google_crc32c import extend as crc32c_extend
from google_crc32c import value as crc32c

MAGIC: Final = 0xFA57
MAGIC_BYTES: Final = MAGIC.to_bytes(2, "big")
VERSION: Final = 1
HEADER_SIZE: Final = 28
#: The place of the byte of a header that tells the frame's type.
TYPE_PLACE: Final = 3
METADATA_SIZE_MAX: Final = 4096
STREAM_MAX: Final = 2**53 - 1

#: HELLO, WELCOME and an ERROR before WELCOME are at most this large, in every version (section 4).
HANDSHAKE_FRAME_SIZE_MAX: Final = 16 * 1024
#: A frame with MORE carries at least this much (section 2), so that fragments cannot become a flood of tiny frames.
FRAGMENT_SIZE_MIN: Final = 1024
#: The bytes that an ITEM frame costs its windows besides its metadata and payload (section 3).
ITEM_OVERHEAD: Final = 64

HEADER = struct.Struct(">HBBHHQIII")
_CHECKED_PART = struct.Struct(">HBBHHQII")
CHECKED_SIZE: Final = _CHECKED_PART.size


class FrameType(IntEnum):
    """The type of a frame (section 2.2). Types below 0x80 are critical; others are skipped when unknown."""

    HELLO = 0x01
    WELCOME = 0x02
    REQUEST = 0x10
    ITEM = 0x11
    RESPONSE = 0x12
    ERROR = 0x13
    CANCEL = 0x14
    CREDIT = 0x15
    FINISH = 0x16
    PING = 0x20
    PONG = 0x21
    GOAWAY = 0x22


#: The first type that a receiver which does not know it skips.
FIRST_IGNORABLE_TYPE: Final = 0x80


class Flag(IntFlag):
    """Frame flags (section 2.1). The low byte is critical, the high byte may be ignored."""

    MORE = 0x0001
    COMPRESSED = 0x0002
    SIGNED = 0x0004
    STREAMING = 0x0008
    CONTINUED = 0x0010


# The hot paths work with plain integers: an IntFlag operation costs more than encoding the whole frame.
MORE: Final = int(Flag.MORE)
COMPRESSED: Final = int(Flag.COMPRESSED)
SIGNED: Final = int(Flag.SIGNED)
STREAMING: Final = int(Flag.STREAMING)
CONTINUED: Final = int(Flag.CONTINUED)
CRITICAL_FLAGS: Final = 0x00FF
KNOWN_CRITICAL_FLAGS: Final = MORE | COMPRESSED | SIGNED | STREAMING | CONTINUED


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame as it arrived; only its header has been believed so far.

    ``actual_crc`` is the CRC-32C that was computed over metadata and payload: the frame is damaged when it differs
    from ``body_crc``. The consequence of damage depends on the frame's type and stream (section 3).
    """

    type: int
    flags: int
    stream: int
    metadata: bytes
    payload: bytes
    body_crc: int
    actual_crc: int

    @property
    def damaged(self) -> bool:
        """Whether the body differs from the one that its sender checksummed."""
        return self.body_crc != self.actual_crc


def encode_head(type_: int, flags: int, stream: int, metadata: bytes, payload: bytes, version: int = VERSION) -> bytes:
    """Encode all of a frame that stands before its payload.

    The payload is not copied: the caller sends it right behind these bytes. Lengths are the caller's to keep
    within ``METADATA_SIZE_MAX`` and the peer's ``max_frame``.
    """
    checked: bytes = _CHECKED_PART.pack(
        MAGIC,
        version,
        type_,
        flags,
        len(metadata),
        stream,
        len(payload),
        crc32c_extend(crc32c(metadata), payload) if metadata else crc32c(payload),
    )
    head: bytes = checked + crc32c(checked).to_bytes(4, "big") + metadata
    return head


def encode_heads(type_: int, flags: int, streams: Iterable[int], metadata: bytes, payload: bytes) -> list[bytes]:
    """Encode the heads of frames that are the same but for their streams, each as ``encode_head`` does.

    The checksum over metadata and payload is made once.
    """
    pack, entries, size = _CHECKED_PART.pack, len(metadata), len(payload)
    body_crc = crc32c_extend(crc32c(metadata), payload) if metadata else crc32c(payload)
    heads = []
    for stream in streams:
        checked: bytes = pack(MAGIC, VERSION, type_, flags, entries, stream, size, body_crc)
        heads.append(checked + crc32c(checked).to_bytes(4, "big") + metadata)
    return heads


def signed_header(head: bytes) -> bytes:
    """Return the header that begins ``head`` as that of a signed frame: with the flag, and without a body checksum."""
    magic, version, type_, flags, metadata_length, stream, payload_length, _, _ = HEADER.unpack_from(head)
    checked: bytes = _CHECKED_PART.pack(
        magic, version, type_, flags | SIGNED, metadata_length, stream, payload_length, 0
    )
    header: bytes = checked + crc32c(checked).to_bytes(4, "big")
    return header


def encode_frame(
    type_: int, flags: int, stream: int, metadata: bytes = b"", payload: bytes = b"", version: int = VERSION
) -> bytes:
    """Encode a whole frame (section 2). The payload is copied twice: a large one is for ``encode_head``."""
    body = metadata + payload
    checked: bytes = _CHECKED_PART.pack(MAGIC, version, type_, flags, len(metadata), stream, len(payload), crc32c(body))
    frame: bytes = checked + crc32c(checked).to_bytes(4, "big") + body
    return frame

"""The faults of one frame by itself, in the order of checks of spec/protocol.md, section 2.

Faults of the header come first and end the connection. Then the body is checked against its checksum, its
flags, its metadata; that ends one stream, or the connection on stream 0.
"""

from __future__ import annotations

from typing import Final

from haptera.errors import Code, Failure, RemoteProtocolError
from haptera.wire import (
    COMPRESSED,
    COMPRESSED_SIZE_MIN,
    CONTINUED,
    CRITICAL_FLAGS,
    FRAGMENT_SIZE_MIN,
    KNOWN_CRITICAL_FLAGS,
    MORE,
    NO_ENTRIES,
    STREAMING,
    Frame,
    Tag,
    decode_entries,
)

UNKNOWN_FLAGS: Final = CRITICAL_FLAGS & ~KNOWN_CRITICAL_FLAGS
SUSPECT_FLAGS: Final = UNKNOWN_FLAGS | COMPRESSED
_MESSAGE_FLAGS: Final = MORE | CONTINUED | STREAMING | COMPRESSED
_RAW_LENGTH: Final = int(Tag.RAW_LENGTH)
_RAW_LENGTH_ENTRY_SIZE: Final = 6


def misplaced(frame: Frame, message: str) -> RemoteProtocolError:
    """Return the connection error for a frame that its place does not allow."""
    return RemoteProtocolError(Code.PROTOCOL_VIOLATION, message, {"type": frame.type, "stream": frame.stream})


def check_fragment(frame: Frame) -> None:
    """Raise 1002 for a frame that has more to come and is too small for it.

    A compressed one never is: no payload of less than that is compressed (``check_raw_length``).
    """
    if frame.flags & (MORE | COMPRESSED) == MORE and len(frame.payload) < FRAGMENT_SIZE_MIN:
        raise RemoteProtocolError(
            Code.MALFORMED_FRAME,
            "a frame with more to come is too small",
            {"expected": FRAGMENT_SIZE_MIN, "actual": len(frame.payload)},
        )


def check_single(frame: Frame, size: int | None) -> None:
    """Raise the fault of a frame that is never part of a larger message: 1008 for flags, 1002 for its size."""
    if frame.flags & _MESSAGE_FLAGS:
        raise misplaced(frame, "a frame has a flag for messages")
    if size is not None and len(frame.payload) != size:
        raise RemoteProtocolError(
            Code.MALFORMED_FRAME,
            "a frame's payload has the wrong size",
            {"expected": size, "actual": len(frame.payload)},
        )


def check_checksum(frame: Frame) -> None:
    """Raise 1003 if a frame's body is damaged."""
    if frame.body_crc != frame.actual_crc:
        raise RemoteProtocolError(
            Code.CHECKSUM_MISMATCH,
            "the checksum of a frame's body is wrong",
            {"expected": frame.body_crc, "actual": frame.actual_crc},
        )


def check_body(frame: Frame) -> None:
    """Raise the fault of a frame's body or flags: 1003, then 1006."""
    check_checksum(frame)
    unknown = frame.flags & UNKNOWN_FLAGS
    if unknown:
        raise RemoteProtocolError(
            Code.UNSUPPORTED_FLAG, "a frame has a critical flag that is not known", {"flags": unknown}
        )


def check_entries(frame: Frame) -> dict[int, bytes]:
    """Decode the metadata of a frame that is not a REQUEST's first. Raises 1002 or 1007."""
    if not frame.metadata and not frame.flags & COMPRESSED:
        return NO_ENTRIES
    entries = decode_entries(frame.metadata)
    if frame.flags & CONTINUED:
        alone = _RAW_LENGTH in entries and len(frame.metadata) == _RAW_LENGTH_ENTRY_SIZE
        if not alone and frame.metadata:
            raise RemoteProtocolError(Code.MALFORMED_FRAME, "a continued frame has metadata of its own")
    check_raw_length(frame, entries)
    return entries


def check_raw_length(frame: Frame, entries: dict[int, bytes]) -> None:
    """Raise 1002 for a frame that is compressed without a raw length, or has one and is not compressed."""
    if (_RAW_LENGTH in entries) is not (frame.flags & COMPRESSED != 0):
        raise RemoteProtocolError(
            Code.MALFORMED_FRAME, "a frame has only one of a raw length and the flag for compression"
        )


def take_raw_length(frame: Frame, entries: dict[int, bytes], max_frame: int) -> int:
    """Take the raw length out of a frame's entries; 0 for one that is not compressed.

    Raises 1010 for one that no frame may have: nothing has been decompressed then.
    """
    if not frame.flags & COMPRESSED:
        return 0
    raw_length = int.from_bytes(entries.pop(_RAW_LENGTH), "big")
    if not COMPRESSED_SIZE_MIN <= raw_length <= max_frame:
        raise RemoteProtocolError(Code.DECOMPRESSION_FAILED, "a compressed payload's length is out of bounds")
    return raw_length


def read_body(frame: Frame, max_frame: int) -> tuple[dict[int, bytes], int]:
    """Return the entries of a frame of a message, and its raw length; 0 if it is not compressed.

    Raises the fault of its body, flags or metadata: 1003, 1006, 1002, 1007, 1010.
    """
    check_body(frame)
    entries = check_entries(frame)
    return entries, take_raw_length(frame, entries, max_frame)


def check_control(frame: Frame, size: int | None = None) -> dict[int, bytes]:
    """Return the entries of a frame of the connection, or raise its fault.

    All of it is fatal there (section 3, "Damage").
    """
    if frame.stream:
        raise misplaced(frame, "a frame of the connection names a stream")
    check_single(frame, size)
    check_body(frame)
    return check_entries(frame)


def problem_of(frame: Frame) -> Failure | None:
    """Return the fault of the body, flags or metadata of a frame that is not a REQUEST's first."""
    if frame.body_crc == frame.actual_crc and not frame.flags & SUSPECT_FLAGS and not frame.metadata:
        return None
    try:
        check_body(frame)
        check_entries(frame)
    except RemoteProtocolError as error:
        return error.failure("unknown")
    return None

"""The frames of one direction of a recorded connection, for people who look into it (spec/protocol.md, section 2).

A recording has been judged by no one: each frame is given with its place and its faults, where a `FrameDecoder` ends.
Only a header that cannot be believed ends the reading, because the place of the next frame is then unknown.
"""

from __future__ import annotations

from typing import Final

import msgspec
from google_crc32c import extend as crc32c_extend
from google_crc32c import value as crc32c

from haptera.wire.foreign_protocols import foreign_protocol
from haptera.wire.frame import CHECKED_SIZE, HEADER, HEADER_SIZE, MAGIC, METADATA_SIZE_MAX, SIGNED, Frame
from haptera.wire.signature import TAG_SIZE

#: The largest payload that is read: no side announces more for a frame.
RECORDED_PAYLOAD_MAX: Final = 64 * 1024 * 1024


class RecordedFrame(msgspec.Struct, frozen=True):
    """A frame at ``offset`` of its recording. ``head`` is its header with its metadata, ``tag`` the one of a signed
    frame.
    """

    offset: int
    version: int
    frame: Frame
    head: bytes
    tag: bytes

    @property
    def size(self) -> int:
        """Bytes of the whole frame."""
        return len(self.head) + len(self.frame.payload) + len(self.tag)

    @property
    def whole(self) -> bytes:
        """The bytes of the frame."""
        return self.head + self.frame.payload + self.tag

    @property
    def signed(self) -> bool:
        """Whether the frame has a tag, and no checksum of its body."""
        return bool(self.frame.flags & SIGNED)


class RecordingFault(msgspec.Struct, frozen=True):
    """The reason why a recording cannot be read on at ``offset``."""

    offset: int
    reason: str


class RecordedFrames:
    """Takes a recording in pieces, gives its whole frames; ``fault`` says why there are no more."""

    def __init__(self) -> None:
        self.fault: RecordingFault | None = None
        self._offset = 0
        self._pieces: list[bytes] = []
        self._held = 0
        self._wanted = HEADER_SIZE

    def receive(self, data: bytes) -> list[RecordedFrame]:
        """Take the next bytes and return the frames that are whole now."""
        frames: list[RecordedFrame] = []
        if self.fault is not None:
            return frames
        self._pieces.append(data)
        self._held += len(data)
        if self._held < self._wanted:
            return frames
        held, at = b"".join(self._pieces), 0
        while self.fault is None and len(held) - at >= HEADER_SIZE:
            header = held[at : at + HEADER_SIZE]
            reason = _fault_of(header, first=not self._offset)
            if reason is not None:
                self.fault = RecordingFault(self._offset, reason)
                break
            fields = HEADER.unpack(header)
            metadata_size, payload_size = fields[4], fields[6]
            body = HEADER_SIZE + metadata_size
            size = body + payload_size + (TAG_SIZE if fields[3] & SIGNED else 0)
            if len(held) - at < size:
                self._wanted = size
                break
            frames.append(_frame(self._offset, held[at : at + size], body, body + payload_size))
            at += size
            self._offset += size
            self._wanted = HEADER_SIZE
        self._pieces, self._held = [held[at:]], len(held) - at
        return frames

    def end(self) -> None:
        """Note the end of the recording, which may be within a frame."""
        if self.fault is None and self._held:
            held = b"".join(self._pieces)
            protocol = foreign_protocol(held) if not self._offset else None
            reason = f"the recording ends within a frame: {self._held} of {self._wanted} bytes are there"
            if protocol is not None:
                reason = _foreign(protocol)
            elif held[:2] != MAGIC.to_bytes(2, "big")[: len(held)]:
                reason = f"no frame begins with {held[:2].hex()}, but with {MAGIC:04x}"
            self.fault = RecordingFault(self._offset, reason)


def _frame(offset: int, whole: bytes, body: int, stop: int) -> RecordedFrame:
    _, version, type_, flags, _, stream, _, body_crc, _ = HEADER.unpack_from(whole)
    metadata, payload = whole[HEADER_SIZE:body], whole[body:stop]
    actual = 0 if flags & SIGNED else crc32c_extend(crc32c(metadata), payload)
    frame = Frame(type_, flags, stream, metadata, payload, body_crc, actual)
    return RecordedFrame(offset, version, frame, whole[:body], whole[stop:])


def _fault_of(header: bytes, *, first: bool) -> str | None:
    """Why a header cannot be believed; None where it can."""
    magic, _, _, _, metadata_size, _, payload_size, _, header_crc = HEADER.unpack(header)
    if magic != MAGIC:
        protocol = foreign_protocol(header) if first else None
        return f"no frame begins with {magic:04x}, but with {MAGIC:04x}" if protocol is None else _foreign(protocol)
    actual = crc32c(header[:CHECKED_SIZE])
    if actual != header_crc:
        return f"the header is damaged: its CRC-32C is {header_crc:08x}, and that of its bytes {actual:08x}"
    if metadata_size > METADATA_SIZE_MAX:
        return f"a frame has {metadata_size} bytes of metadata, and at most {METADATA_SIZE_MAX} are allowed"
    if payload_size > RECORDED_PAYLOAD_MAX:
        return f"a frame has a payload of {payload_size} bytes, and at most {RECORDED_PAYLOAD_MAX} are read"
    return None


def _foreign(protocol: str) -> str:
    return f"the bytes are {protocol}, not Haptera"

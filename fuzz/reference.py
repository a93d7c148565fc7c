"""Frames once more, written from spec/protocol.md, section 2, and not from the code: slow, plain, and independent.

The targets compare the package's decoder with it, read what the package sends by it, and mutators take recorded bytes
apart and put them together again, so that what is mutated is not all refused for its checksums.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import google_crc32c

HELLO, WELCOME, REQUEST, ITEM, RESPONSE, ERROR = 0x01, 0x02, 0x10, 0x11, 0x12, 0x13
CANCEL, CREDIT, FINISH, PING, PONG, GOAWAY = 0x14, 0x15, 0x16, 0x20, 0x21, 0x22
TYPES = (REQUEST, ITEM, RESPONSE, ERROR, CANCEL, CREDIT, FINISH, PING, PONG, GOAWAY, HELLO, WELCOME, 0x60, 0xF1)
MORE, COMPRESSED, SIGNED, STREAMING, CONTINUED = 0x01, 0x02, 0x04, 0x08, 0x10
MAGIC = b"\xfa\x57"
METADATA_SIZE_MAX = 4096
FIRST_FRAME_SIZE_MAX = 16 * 1024
HEADER_SIZE = 28
TAG_SIZE = 32

_FIELDS = struct.Struct(">2sBBHHQII")


@dataclass(frozen=True)
class RawFrame:
    """A frame as its fields. `body_crc` None is the right one; `tag` is what stands behind a signed frame."""

    type: int
    flags: int = 0
    stream: int = 0
    metadata: bytes = b""
    payload: bytes = b""
    body_crc: int | None = None
    tag: bytes = b""
    version: int = 1

    @property
    def damaged(self) -> bool:
        return self.body_crc is not None and self.body_crc != google_crc32c.value(self.metadata + self.payload)

    def encode(self) -> bytes:
        body = self.metadata + self.payload
        crc = google_crc32c.value(body) if self.body_crc is None else self.body_crc
        fields = (self.type, self.flags & 0xFFFF, len(self.metadata), self.stream & 2**64 - 1, len(self.payload), crc)
        head = _FIELDS.pack(MAGIC, self.version, *fields)
        header_crc: int = google_crc32c.value(head)
        return head + header_crc.to_bytes(4, "big") + body + self.tag


def decode(data: bytes, max_frame: int, *, first: bool = True, signed: bool = False) -> tuple[list[RawFrame], int]:
    """The whole frames that begin `data`, and the code of the first fault in a header behind them: 0 for none.

    `first`: the first frame is a connection's first, which has a limit of its own. `signed`: a tag is behind each.
    """
    frames: list[RawFrame] = []
    at = 0
    while True:
        rest = data[at:]
        if len(rest) >= 2 and rest[:2] != MAGIC:
            return frames, 1002
        if len(rest) < HEADER_SIZE:
            return frames, 0
        head, header_crc = rest[:24], int.from_bytes(rest[24:28], "big")
        _, version, type_, flags, metadata_size, stream, size, body_crc = _FIELDS.unpack(head)
        if google_crc32c.value(head) != header_crc:
            return frames, 1003
        if version != 1:
            return frames, 1002
        limit = min(FIRST_FRAME_SIZE_MAX, max_frame) if first and not frames else max_frame
        if metadata_size > METADATA_SIZE_MAX or size > limit:
            return frames, 1004
        body = rest[28 : 28 + metadata_size + size]
        end = 28 + metadata_size + size + (TAG_SIZE if signed else 0)
        if end > len(rest):
            return frames, 0
        tag = rest[end - TAG_SIZE : end] if signed else b""
        frames.append(RawFrame(type_, flags, stream, body[:metadata_size], body[metadata_size:], body_crc, tag))
        at += end


def normal(frame: RawFrame) -> RawFrame:
    """The same frame without a right body checksum, so that it can be changed and encoded again."""
    return frame if frame.damaged else replace(frame, body_crc=None)


def split(data: bytes, *, signed: bool = False) -> tuple[list[RawFrame], bytes]:
    """What `data` begins with as frames that can be changed, and the bytes behind them that are none."""
    frames, _ = decode(data, 1 << 24, first=False, signed=signed)
    size = sum(HEADER_SIZE + len(each.metadata) + len(each.payload) + len(each.tag) for each in frames)
    return [each if signed else normal(each) for each in frames], data[size:]

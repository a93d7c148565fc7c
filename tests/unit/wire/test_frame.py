"""How a frame is written (protocol, section 2)."""

from __future__ import annotations

import struct

import google_crc32c
import pytest

from haptera.wire import frame as subject
from haptera.wire.frame import Flag, FrameType, encode_frame, encode_head, encode_heads


def test_the_checksum_is_crc_32c() -> None:
    """Section 2 gives the check value: "123456789" makes E3069283."""
    assert google_crc32c.value(b"123456789") == 0xE3069283


def test_a_frame_has_the_layout_of_the_specification() -> None:
    data = encode_frame(FrameType.REQUEST, Flag.STREAMING, 2**53 - 1, b"\x01s\x01m", b"payload", 1)
    assert len(data) == 28 + 4 + 7
    magic, version, type_, flags, metadata_length, stream, payload_length, body_crc = struct.unpack(
        ">HBBHHQII", data[:24]
    )
    assert (magic, version, type_, flags) == (0xFA57, 1, 0x10, 0x0008)
    assert (metadata_length, stream, payload_length) == (4, 2**53 - 1, 7)
    assert body_crc == google_crc32c.value(b"\x01s\x01mpayload")
    assert int.from_bytes(data[24:28], "big") == google_crc32c.value(data[:24])
    assert data[28:] == b"\x01s\x01mpayload"


def test_a_frame_without_a_body() -> None:
    data = encode_frame(FrameType.CANCEL, 0, 7)
    assert data.hex() == "fa5701140000000000000000000000070000000000000000" + data[24:].hex()
    assert len(data) == 28


def test_a_head_is_the_frame_without_its_payload() -> None:
    payload = b"p" * 1000
    for metadata in (b"", b"\x08\x01x"):
        head = encode_head(FrameType.ITEM, 0, 3, metadata, payload)
        assert head + payload == encode_frame(FrameType.ITEM, 0, 3, metadata, payload)


@pytest.mark.parametrize(("flags", "metadata"), [(0, b""), (Flag.COMPRESSED, b"\x85\x04\0\0\x10\0")])
def test_heads_of_many_streams_are_the_heads_of_each(flags: int, metadata: bytes) -> None:
    streams = [1, 3, 255, 2**32, 2**53 - 1]
    heads = encode_heads(FrameType.ITEM, flags, streams, metadata, b"payload")
    assert heads == [encode_head(FrameType.ITEM, flags, stream, metadata, b"payload") for stream in streams]
    assert encode_heads(FrameType.ITEM, flags, [], metadata, b"payload") == []


def test_the_numbers_of_the_specification() -> None:
    types = {
        "HELLO": 0x01,
        "WELCOME": 0x02,
        "REQUEST": 0x10,
        "ITEM": 0x11,
        "RESPONSE": 0x12,
        "ERROR": 0x13,
        "CANCEL": 0x14,
        "CREDIT": 0x15,
        "FINISH": 0x16,
        "PING": 0x20,
        "PONG": 0x21,
        "GOAWAY": 0x22,
    }
    assert {each.name: each.value for each in FrameType} == types
    flags = {"MORE": 1, "COMPRESSED": 2, "SIGNED": 4, "STREAMING": 8, "CONTINUED": 16}
    assert {each.name: each.value for each in Flag} == flags
    assert {name: getattr(subject, name) for name in flags} == flags
    assert subject.STREAM_MAX == 2**53 - 1
    assert subject.METADATA_SIZE_MAX == 4096
    assert subject.HEADER_SIZE == 28
    assert subject.HANDSHAKE_FRAME_SIZE_MAX == 16384
    assert subject.FRAGMENT_SIZE_MIN == 1024
    assert subject.ITEM_OVERHEAD == 64


@pytest.mark.parametrize("version", [1, 2, 255])
def test_the_version_is_the_third_byte(version: int) -> None:
    assert encode_frame(FrameType.PING, 0, 0, b"", bytes(8), version)[2] == version

"""Bytes to frames: what is whole, what is wrong, and which fault is named first (protocol, section 2)."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import google_crc32c
import pytest

from haptera.errors import RemoteProtocolError
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import Frame, FrameType, encode_frame

MAX_FRAME = 64 * 1024
_HEADER = struct.Struct(">HBBHHQII")


def _header(
    *,
    magic: int = 0xFA57,
    version: int = 1,
    type_: int = 0x10,
    flags: int = 0,
    metadata_length: int = 0,
    stream: int = 1,
    payload_length: int = 0,
    body_crc: int = 0,
    spoil: bool = False,
) -> bytes:
    head = _HEADER.pack(magic, version, type_, flags, metadata_length, stream, payload_length, body_crc)
    checksum: int = google_crc32c.value(head) ^ spoil
    return head + checksum.to_bytes(4, "big")


def _decoder(max_frame: int = MAX_FRAME) -> FrameDecoder:
    """A decoder that has had its first frame."""
    decoder = FrameDecoder(max_frame)
    assert len(decoder.receive(encode_frame(FrameType.HELLO, 0, 0))) == 1
    return decoder


def _error(decoder: FrameDecoder) -> tuple[int, dict[str, object]]:
    assert isinstance(decoder.error, RemoteProtocolError)
    return decoder.error.code, decoder.error.details


def test_frames_come_out_as_they_went_in() -> None:
    frames = [
        (0x10, 0x0009, 1, b"\x01s\x01m", b"x" * 5000),
        (0x14, 0, 2**53 - 1, b"", b""),
        (0xF7, 0x8000, 0, b"\x7f\x00", b""),
    ]
    decoded = _decoder().receive(b"".join(encode_frame(*each) for each in frames))
    assert [(each.type, each.flags, each.stream, each.metadata, each.payload) for each in decoded] == frames
    assert not any(each.damaged for each in decoded)


@pytest.mark.parametrize("size", [1, 2, 3, 27, 28, 29, 1000, 4096, 5000])
def test_pieces_of_any_size_make_the_same_frames(size: int) -> None:
    data = b"".join(encode_frame(0x11, 0, 1 + number, b"", bytes([number]) * number * 97) for number in range(60))
    whole = _decoder().receive(data)
    decoder = _decoder()
    pieces: list[Frame] = []
    for start in range(0, len(data), size):
        pieces += decoder.receive(data[start : start + size])
    assert pieces == whole
    assert len(whole) == 60
    assert decoder.held == 0


def test_damage_to_a_body_is_a_property_of_its_frame() -> None:
    data = bytearray(encode_frame(0x10, 0, 1, b"\x01s\x01m", b"payload"))
    data[-1] ^= 1
    (frame,) = _decoder().receive(bytes(data))
    assert frame.damaged
    assert frame.body_crc == google_crc32c.value(b"\x01s\x01mpayload")
    assert frame.actual_crc == google_crc32c.value(b"\x01s\x01m" + bytes(data[-7:]))


# In the order of section 2. Each is given together with every later one, and is the one that is named.
_FAULTS: list[tuple[str, dict[str, Any], int]] = [
    ("magic", {"magic": 0x1603}, 1002),
    ("header_crc", {"spoil": True}, 1003),
    ("version", {"version": 2}, 1002),
    ("metadata_length", {"metadata_length": 4097}, 1004),
    ("payload_length", {"payload_length": MAX_FRAME + 1}, 1004),
]
_NAMED = {
    "magic": "begin with 1603",
    "header_crc": "checksum",
    "version": "version",
    "metadata_length": "metadata",
    "payload_length": "payload",
}


@pytest.mark.parametrize("first", range(len(_FAULTS)))
@pytest.mark.parametrize("last", range(len(_FAULTS)))
def test_each_fault_wins_over_the_later_ones(first: int, last: int) -> None:
    fields: dict[str, Any] = {}
    for _, fault, _ in _FAULTS[first : last + 1] or [_FAULTS[first]]:
        fields |= fault
    decoder = _decoder()
    header = _header(**fields)
    assert decoder.receive(header + bytes(100)) == []
    name, _, code = _FAULTS[first]
    assert _error(decoder)[0] == code
    assert decoder.error is not None
    assert _NAMED[name] in decoder.error.message


def test_a_wrong_header_checksum_is_told_with_both_values() -> None:
    """Trap: silence instead of a structured error on a bad checksum or version."""
    decoder = _decoder()
    header = _header(spoil=True)
    decoder.receive(header)
    claimed = int.from_bytes(header[24:], "big")
    assert _error(decoder) == (1003, {"expected": claimed, "actual": google_crc32c.value(header[:24])})


def test_a_wrong_version_is_told_with_both_values() -> None:
    """Trap: silence instead of a structured error on a bad checksum or version."""
    decoder = _decoder()
    decoder.receive(_header(version=9))
    assert _error(decoder) == (1002, {"expected": 1, "actual": 9})


@pytest.mark.parametrize("rubbish", [b"GE", b"\x16\x03", b"*1", b"\xfa\x58", b"\x57\xfa"])
def test_a_foreign_protocol_is_told_by_its_first_two_bytes(rubbish: bytes) -> None:
    decoder = FrameDecoder(MAX_FRAME)
    assert decoder.receive(rubbish[:1]) == []
    assert decoder.error is None
    assert decoder.receive(rubbish[1:]) == []
    assert _error(decoder)[0] == 1002


def test_bytes_of_a_foreign_protocol_behind_a_good_frame() -> None:
    decoder = _decoder()
    assert len(decoder.receive(encode_frame(0x20, 0, 0, b"", bytes(8)) + b"GE")) == 1
    assert _error(decoder)[0] == 1002


def test_what_follows_a_fault_is_ignored_and_not_kept() -> None:
    decoder = _decoder()
    frames = decoder.receive(encode_frame(0x20, 0, 0) + _header(spoil=True) + encode_frame(0x20, 0, 0) * 10)
    assert len(frames) == 1
    error = decoder.error
    assert decoder.receive(encode_frame(0x20, 0, 0)) == []
    assert decoder.error is error
    assert decoder.held == 0


@pytest.mark.parametrize("length", [MAX_FRAME + 1, 2**31, 2**32 - 1])
def test_a_huge_length_is_refused_before_anything_is_buffered(length: int) -> None:
    decoder = _decoder()
    assert decoder.receive(_header(payload_length=length)) == []
    assert _error(decoder) == (1004, {"length": length, "limit": MAX_FRAME})
    assert decoder.held == 0


def test_the_longest_lengths_are_accepted() -> None:
    data = encode_frame(0x12, 0, 1, b"\x08\x00" * 2048, bytes(MAX_FRAME))
    assert len(_decoder().receive(data)) == 1


def test_a_length_is_no_reason_to_allocate() -> None:
    """Trap: preallocating from a count in the payload. The same holds for a length in a header."""
    decoder = _decoder(16 * 1024 * 1024)
    header = _header(payload_length=16 * 1024 * 1024)
    tracemalloc.start()
    try:
        decoder.receive(header)
        decoder.receive(bytes(100))
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()
    assert decoder.held == 128
    assert decoder.wanted == 28 + 16 * 1024 * 1024


def test_tiny_pieces_of_a_large_frame_cost_little_more_than_their_bytes() -> None:
    size = 1024 * 1024
    decoder = _decoder(size)
    data = encode_frame(0x12, 0, 1, b"", bytes(size))
    tracemalloc.start()
    try:
        for start in range(0, size, 50):
            decoder.receive(data[start : start + 50])
        assert tracemalloc.get_traced_memory()[1] < 2 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("metadata_length", [0, 1, 4095, 4096])
@pytest.mark.parametrize("payload_length", [0, 1, 100])
def test_lengths_are_added_never_subtracted(metadata_length: int, payload_length: int) -> None:
    """Trap: subtracting one length from another. Whichever is longer, the frame ends where both have been read."""
    data = encode_frame(0x11, 0, 1, bytes(metadata_length), b"p" * payload_length)
    (frame, following) = _decoder().receive(data + encode_frame(0x20, 0, 0, b"", bytes(8)))
    assert (len(frame.metadata), frame.payload) == (metadata_length, b"p" * payload_length)
    assert following.type == 0x20


@pytest.mark.parametrize(("size", "fits"), [(16 * 1024, True), (16 * 1024 + 1, False)])
def test_the_first_frame_has_at_most_16_kib(size: int, fits: bool) -> None:
    decoder = FrameDecoder(1024 * 1024)
    frames = decoder.receive(encode_frame(0x01, 0, 0, b"", bytes(size)))
    assert len(frames) == fits
    if not fits:
        assert _error(decoder) == (1004, {"length": size, "limit": 16 * 1024})


def test_the_second_frame_may_be_as_large_as_announced() -> None:
    first = encode_frame(0x01, 0, 0, b"", bytes(100))
    decoder = FrameDecoder(1024 * 1024)
    assert len(decoder.receive(first + encode_frame(0x10, 0, 1, b"", bytes(1024 * 1024)))) == 1
    assert [len(each.payload) for each in decoder.receive(b"")] == [1024 * 1024]


def test_the_first_frame_comes_alone_and_the_rest_is_kept_until_it_is_asked_for() -> None:
    """What the handshake says decides how that is read."""
    frames = [encode_frame(0x20, 0, 0, b"", bytes([number]) * 8) for number in range(4)]
    decoder = FrameDecoder(MAX_FRAME)
    assert [each.payload[0] for each in decoder.receive(b"".join(frames[:3]))] == [0]
    assert decoder.held == 2 * len(frames[0])
    assert decoder.more
    assert [each.payload[0] for each in decoder.receive(frames[3][:10])] == [1, 2]
    assert [each.payload[0] for each in decoder.receive(frames[3][10:])] == [3]
    assert decoder.held == 0


def test_a_body_is_not_needed_to_refuse_its_header() -> None:
    decoder = _decoder()
    decoder.receive(_header(payload_length=MAX_FRAME, metadata_length=4097))
    assert _error(decoder)[0] == 1004


def test_small_frames_come_some_hundreds_at_once() -> None:
    """What one peer sends in one piece must not stop the others for as long as it takes to act on all of it."""
    decoder = _decoder()
    frames = [encode_frame(0x20, 0, number, b"", bytes(100)) for number in range(3000)]
    batches = [decoder.receive(b"".join(frames) + frames[0][:40])]
    while decoder.more:
        batches.append(decoder.receive(b""))
    assert max(map(len, batches)) == 512
    assert [each.stream for batch in batches for each in batch] == list(range(3000))
    assert decoder.held == 40
    assert [each.stream for each in decoder.receive(frames[0][40:])] == [0]


def test_large_frames_come_all_at_once() -> None:
    decoder = _decoder()
    data = b"".join(encode_frame(0x20, 0, number, b"", bytes(60_000)) for number in range(100))
    assert len(decoder.receive(data)) == 100
    assert not decoder.more

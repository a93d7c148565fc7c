"""The bytes of headers and records."""

from __future__ import annotations

import hmac

import google_crc32c
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from haptera.storage.data_key import DataKey
from haptera.storage.segment_format import (
    NO_TAG,
    RECORD_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    RecordCipher,
    SegmentHeader,
    format_of,
)
from tests.unit.storage.stores import entry

KEY = DataKey.of(bytes(range(32)))
HEADER = SegmentHeader(7, b"I" * 16, KEY.id, 100, b"T" * 16, 4096, synced=True)


def test_a_segment_header_round_trips() -> None:
    data = HEADER.encode()
    assert len(data) == SEGMENT_HEADER_SIZE
    assert SegmentHeader.decode(data) == HEADER
    assert format_of(data) == 1


def test_the_bytes_of_a_segment_header() -> None:
    assert HEADER.encode()[:-4] == (
        b"HAPTERAL\x00\x01\x00\x00" + KEY.id + bytes(7) + b"\x07" + b"I" * 16 + bytes(7) + b"\x64" + b"T" * 16
    ) + (4096).to_bytes(8, "big")


def test_a_segment_header_with_any_byte_changed_is_none() -> None:
    data = HEADER.encode()
    for at in range(len(data)):
        assert SegmentHeader.decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) is None


def checked(fields: bytes) -> bytes:
    """A header of these bytes with its right CRC-32C."""
    crc: int = google_crc32c.value(fields)
    return fields + crc.to_bytes(4, "big")


@pytest.mark.parametrize(("at", "byte"), [(10, 2), (11, 1)])
def test_a_segment_header_with_bytes_that_the_format_does_not_know_is_none(at: int, byte: int) -> None:
    data = HEADER.encode()
    assert SegmentHeader.decode(checked(data[:at] + bytes([byte]) + data[at + 1 : -4])) is None


def test_a_segment_header_of_a_newer_format_may_have_other_bytes() -> None:
    data = HEADER.encode()
    newer = checked(data[:8] + b"\0\2\2\1" + data[12:-4])
    assert SegmentHeader.decode(newer) is not None
    assert format_of(newer) == 2


@pytest.mark.parametrize("size", [0, 1, 79, 81])
def test_a_segment_header_of_another_size_is_none(size: int) -> None:
    assert SegmentHeader.decode((HEADER.encode() + b"\0")[:size]) is None


def test_a_new_header_has_a_new_id() -> None:
    ids = {SegmentHeader.new(1, KEY, 1, NO_TAG, 4096, synced=True).id for _ in range(100)}
    assert len(ids) == 100


def test_records_round_trip_in_order() -> None:
    writer, reader = RecordCipher(HEADER, KEY), RecordCipher(HEADER, KEY)
    for index in range(100, 110):
        record = writer.encode(entry(index, index - 100))
        header, body = record[:RECORD_HEADER_SIZE], record[RECORD_HEADER_SIZE:]
        wrote = entry(index, index - 100)
        assert reader.decode_header(header) == (len(body), index, wrote.term, wrote.time_ms)
        assert reader.decrypt(header, body) == wrote.payload
        assert reader.tag == writer.tag


def test_a_record_with_any_byte_changed_is_refused() -> None:
    record = RecordCipher(HEADER, KEY).encode(entry(100))
    for at in range(len(record)):
        data = record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]
        header, body = data[:RECORD_HEADER_SIZE], data[RECORD_HEADER_SIZE:]
        if at < RECORD_HEADER_SIZE:
            assert RecordCipher(HEADER, KEY).decode_header(header) is None
        assert RecordCipher(HEADER, KEY).decrypt(header, body) is None


def test_a_record_is_refused_after_another_than_its_own_predecessor() -> None:
    codec = RecordCipher(HEADER, KEY)
    codec.encode(entry(100))
    second = codec.encode(entry(101))
    assert RecordCipher(HEADER, KEY).decrypt(second[:RECORD_HEADER_SIZE], second[RECORD_HEADER_SIZE:]) is None


def test_a_record_is_refused_after_another_history_of_the_same_segment() -> None:
    """Two copies of a running process write on under the same id: each record holds on to the one before."""
    one, other, reader = RecordCipher(HEADER, KEY), RecordCipher(HEADER, KEY), RecordCipher(HEADER, KEY)
    first = one.encode(entry(100))
    other.encode(entry(100, 25))
    second, foreign = one.encode(entry(101)), other.encode(entry(101))
    assert reader.decrypt(first[:RECORD_HEADER_SIZE], first[RECORD_HEADER_SIZE:]) is not None
    assert reader.decrypt(foreign[:RECORD_HEADER_SIZE], foreign[RECORD_HEADER_SIZE:]) is None
    assert reader.decrypt(second[:RECORD_HEADER_SIZE], second[RECORD_HEADER_SIZE:]) is not None


def test_the_header_of_another_segments_record_is_none() -> None:
    other = SegmentHeader(7, b"J" * 16, KEY.id, 100, b"T" * 16, 4096, synced=True)
    record = RecordCipher(other, KEY).encode(entry(100))
    assert RecordCipher(HEADER, KEY).decode_header(record[:RECORD_HEADER_SIZE]) is None


def expand(secret: bytes, salt: bytes, purpose: bytes, size: int) -> bytes:
    """HKDF-SHA256 of RFC 5869, for one block."""
    return hmac.digest(hmac.digest(salt, secret, "sha256"), purpose + b"\1", "sha256")[:size]


def test_records_are_what_the_specification_says() -> None:
    """Written from storage-format 2.2 and 4 alone: other programs read the same bytes, and so do later versions."""
    secret, header = bytes(range(32)), HEADER.encode()
    assert KEY.id == expand(secret, bytes(32), b"haptera data key id/1", 8)
    cipher = AESGCM(expand(secret, HEADER.id, b"haptera log segment/1", 32))
    codec, tag = RecordCipher(HEADER, KEY), HEADER.previous_tag
    for number, wrote in enumerate((entry(100), entry(101, 0), entry(102, 500))):
        record = codec.encode(wrote)
        fields = b"".join(
            (
                (len(wrote.payload) + 16).to_bytes(4, "big"),
                *(value.to_bytes(8, "big") for value in (wrote.index, wrote.term, wrote.time_ms)),
            )
        )
        crc: int = google_crc32c.value(HEADER.id + fields)
        assert record[:32] == fields + crc.to_bytes(4, "big")
        assert record[32:] == cipher.encrypt(number.to_bytes(12, "big"), wrote.payload, header + record[:32] + tag)
        tag = record[-16:]


def test_the_payload_does_not_show() -> None:
    assert b"1 1 1 1" not in RecordCipher(HEADER, KEY).encode(entry(1))

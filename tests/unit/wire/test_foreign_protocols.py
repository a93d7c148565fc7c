"""Other protocols are told by their first bytes (spec/protocol.md, section 2)."""

from __future__ import annotations

import pytest

from haptera.wire import FrameDecoder, encode_frame, foreign_protocol
from haptera.wire.foreign_protocols import ForeignBytes

FIRST_BYTES = [
    (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP"),
    (b"PRI * HTTP/2.0\r\n", "HTTP"),
    (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
    (b"<!DOCTYPE HTML>", "HTTP"),
    (b"*1\r\n$4\r\nPING\r\n", "RESP"),
    (b"PING\r\n", "RESP"),
    (b"-ERR unknown command '\xfaW', with args beginning with: \r\n", "RESP"),
    (b"-NOAUTH Authentication required.\r\n", "RESP"),
    (b"SSH-2.0-OpenSSH_9.2p1\r\n", "SSH"),
    (b"\x16\x03\x01\x02\x00", "TLS"),
    (b"\x15\x03\x03\x00\x02\x02\x46", "TLS"),
    (b"\xca\xfe\x01\x01", "CAFE"),
]


@pytest.mark.parametrize(("first", "protocol"), FIRST_BYTES)
def test_a_protocol_is_named_by_its_first_bytes(first: bytes, protocol: str) -> None:
    assert foreign_protocol(first) == protocol
    decoder = FrameDecoder(1024)
    assert decoder.receive(first) == []
    error = decoder.error
    assert isinstance(error, ForeignBytes)
    assert (error.code, error.protocol) == (1002, protocol)
    assert protocol in error.message


@pytest.mark.parametrize("first", [b"", b"G", b"GE", b"get k\r\n", b"\xfaW\x01\x01", b"\0" * 40, b"-", b"hello"])
def test_bytes_of_no_known_protocol_are_given_no_name(first: bytes) -> None:
    assert foreign_protocol(first) is None


def test_bytes_behind_a_frame_are_damage_and_no_protocol() -> None:
    decoder = FrameDecoder(1024)
    assert len(decoder.receive(encode_frame(0x20, 0, 0, b"", bytes(8)))) == 1
    decoder.receive(b"GET / HTTP/1.1\r\n\r\n".ljust(40))
    assert decoder.error is not None
    assert not isinstance(decoder.error, ForeignBytes)
    assert "they begin with 4745" in decoder.error.message

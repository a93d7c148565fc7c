"""The keys and tags of signed frames (protocol, section 5.2)."""

from __future__ import annotations

import hashlib
import hmac

import google_crc32c
import pytest

from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import SIGNED, FrameType, encode_frame, encode_head
from haptera.wire.signature import TAG_SIZE, Signer, check_secret, hkdf_sha256, preshared_keys

KEY = bytes(range(32))
HELLO = encode_frame(FrameType.HELLO, 0, 0)


# RFC 5869, appendix A.1 and A.3: of each output the first 32 bytes, which are one block.
@pytest.mark.parametrize(
    ("salt", "info", "output"),
    [
        (
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
        ),
        ("", "", "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"),
    ],
)
def test_the_derivation_is_that_of_rfc_5869(salt: str, info: str, output: str) -> None:
    assert hkdf_sha256(b"\x0b" * 22, bytes.fromhex(salt), bytes.fromhex(info)).hex() == output


def test_the_keys_of_both_directions_differ_and_change_with_every_byte_that_they_are_bound_to() -> None:
    secret, hello, welcome = bytes(range(40)), b"hello frame", b"welcome frame"
    keys = {*preshared_keys(secret, hello, welcome)}
    assert all(len(key) == 32 for key in keys)
    for others in (
        preshared_keys(secret[:-1] + b"x", hello, welcome),
        preshared_keys(secret, hello[:-1] + b"x", welcome),
        preshared_keys(secret, hello, b"x" + welcome[1:]),
    ):
        keys |= {*others}
    assert len(keys) == 8


@pytest.mark.parametrize("size", [0, 1, 31])
def test_a_secret_that_is_too_short_is_refused_and_not_repeated(size: int) -> None:
    secret = b"s3cr3t-" * 5
    for refuse in (lambda: check_secret(secret[:size]), lambda: preshared_keys(secret[:size], b"", b"")):
        with pytest.raises(ValueError, match="at least 32 bytes") as caught:
            refuse()
        assert "s3cr3t" not in str(caught.value)
    check_secret(bytes(32))


def test_a_tag_covers_sequence_header_metadata_and_payload() -> None:
    signer = Signer(KEY)
    for sequence, payload in enumerate([b"", b"abc", b"x" * 70_000]):
        head, same, tag = signer.seal(encode_head(0x10, 0x0008, 7, b"\x01s\x01m", payload), payload)
        assert same == payload
        flags = int.from_bytes(head[4:6], "big")
        assert flags == 0x0008 | SIGNED
        assert head[20:24] == bytes(4), "a signed body has no checksum"
        assert int.from_bytes(head[24:28], "big") == google_crc32c.value(head[:24])
        assert head[28:] == b"\x01s\x01m"
        covered = sequence.to_bytes(8, "big") + head + payload
        assert tag == hmac.new(KEY, covered, hashlib.sha256).digest()


def test_a_whole_frame_is_sealed_like_its_parts() -> None:
    whole, payload = encode_frame(0x20, 0, 0, b"", b"12345678"), b"12345678"
    parts = Signer(KEY).seal(encode_head(0x20, 0, 0, b"", payload), payload)
    assert b"".join(Signer(KEY).seal(whole, b"")) == b"".join(parts)


def _sealed(count: int, size: int = 5) -> list[bytes]:
    signer = Signer(KEY)
    return [b"".join(signer.seal(encode_frame(0x20, 0, 0, b"", bytes([n]) * size), b"")) for n in range(count)]


def _decoder(max_frame: int = 1 << 20) -> FrameDecoder:
    decoder = FrameDecoder(max_frame)
    decoder.receive(HELLO)
    decoder.verify(Signer(KEY))
    return decoder


@pytest.mark.parametrize("size", [1, 5, 31, 60, 65, 1000])
def test_signed_frames_are_decoded_in_any_pieces(size: int) -> None:
    data = b"".join(_sealed(20, 100))
    decoder = _decoder()
    frames = [frame for start in range(0, len(data), size) for frame in decoder.receive(data[start : start + size])]
    assert [each.payload for each in frames] == [bytes([n]) * 100 for n in range(20)]
    assert not any(each.damaged for each in frames)
    assert decoder.error is None
    assert decoder.held == 0


def test_small_signed_frames_come_some_hundreds_at_once() -> None:
    """As unsigned ones do: what one peer sends in one piece must not stop the others while it is verified."""
    decoder = _decoder()
    signer = Signer(KEY)
    frames = [b"".join(signer.seal(encode_frame(0x20, 0, number, b"", bytes(100)), b"")) for number in range(3000)]
    batches = [decoder.receive(b"".join(frames))]
    while decoder.more:
        batches.append(decoder.receive(b""))
    assert max(map(len, batches)) == 512
    assert [each.stream for batch in batches for each in batch] == list(range(3000))


def test_an_unfinished_signed_frame_wants_its_tag_too() -> None:
    (data,) = _sealed(1, 1000)
    decoder = _decoder()
    assert decoder.receive(data[:-1]) == []
    assert (decoder.held, decoder.wanted) == (len(data) - 1, 28 + 1000 + TAG_SIZE)
    assert len(decoder.receive(data[-1:])) == 1


@pytest.mark.parametrize("size", [1, 28, 40, 1000])
@pytest.mark.parametrize("bit", range(28 * 8, (28 + 5 + 32) * 8, 7))
def test_a_changed_body_or_tag_ends_the_decoding(bit: int, size: int) -> None:
    first, second = _sealed(2)
    altered = bytearray(second)
    altered[bit // 8] ^= 1 << bit % 8
    decoder = _decoder()
    data = first + bytes(altered) + first
    frames = [frame for start in range(0, len(data), size) for frame in decoder.receive(data[start : start + size])]
    assert len(frames) == 1
    assert decoder.error is not None
    assert decoder.error.code == 1011
    assert decoder.receive(second) == []


@pytest.mark.parametrize("order", [[0, 0], [1], [0, 2], [0, 2, 1], [1, 0]])
def test_a_repeated_omitted_or_swapped_frame_ends_the_decoding(order: list[int]) -> None:
    frames = _sealed(3)
    decoder = _decoder()
    right = len(decoder.receive(b"".join(frames[number] for number in order)))
    assert right == next(n for n, number in enumerate([*order, -1]) if n != number)
    assert decoder.error is not None
    assert decoder.error.code == 1011


def test_an_unsigned_frame_is_refused_by_its_header_alone() -> None:
    decoder = _decoder()
    assert decoder.receive(encode_frame(0x20, 0, 0, b"", bytes(8))[:28]) == []
    assert decoder.error is not None
    assert decoder.error.code == 1011


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [(0, 0, 1002), (5, 1, 1003), (24, 0, 1003), (2, 2, 1002), (6, 0x20, 1004), (16, 1, 1004)],
)
def test_magic_checksum_version_and_lengths_come_before_the_tag(offset: int, value: int, code: int) -> None:
    data = bytearray(b"".join(Signer(bytes(32)).seal(encode_frame(0x20, 0, 0, b"", bytes(8)), b"")))
    data[offset] = value
    if code != 1003:
        data[24:28] = google_crc32c.value(bytes(data[:24])).to_bytes(4, "big")
    decoder = _decoder(max_frame=16 * 1024)
    assert decoder.receive(bytes(data)) == []
    assert decoder.error is not None
    assert decoder.error.code == code


def test_tags_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long one takes must not tell how much of a forged tag is right: `==` stops at the first difference."""
    compared = []
    in_constant_time = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return in_constant_time(one, other)

    monkeypatch.setattr("hmac.compare_digest", compare)
    signer, verifier = Signer(bytes(32)), Signer(bytes(32))
    head, payload, tag = signer.seal(encode_frame(FrameType.PING, 0, 0, b"", bytes(8)), b"")
    assert not verifier.verify(head, payload, bytes(32))
    assert compared == [(tag, bytes(32))]

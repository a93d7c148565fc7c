"""Compressed payloads: what is made, and what is refused (protocol, section 4.1)."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard

from haptera.errors import RemoteProtocolError
from haptera.wire.compression import BLOCKS_MAX, COMPRESSED_SIZE_MIN, KEPT_SIZE_MAX, WINDOW_MAX, Codec, available

PAYLOAD = b"a row like the one before, and one after; " * 100
KIB = 1024
MIB = 1024 * KIB


def _zstd(payload: bytes = PAYLOAD, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**({"write_checksum": True} | options)).compress(payload)  # type: ignore[arg-type]


def _refused(data: bytes, raw_length: int = len(PAYLOAD)) -> None:
    codec = Codec()
    for _ in range(2):
        with pytest.raises(RemoteProtocolError) as caught:
            codec.decompress(data, raw_length)
        assert caught.value.code == 1010
    # What was refused leaves the codec as it was.
    assert codec.decompress(codec.compress(PAYLOAD), len(PAYLOAD)) == PAYLOAD


def test_a_payload_comes_out_as_it_went_in() -> None:
    codec = Codec()
    for payload in (PAYLOAD, bytes(MIB), bytes(range(256)) * 4, PAYLOAD[:1024]):
        packed = codec.compress(payload)
        assert len(packed) < len(payload) + 64
        assert codec.decompress(packed, len(payload)) == payload


def test_what_is_made_is_one_frame_of_the_allowed_form() -> None:
    for size in (1024, 100_000, 16 * MIB):
        packed = Codec().compress(b"x" * size)
        parameters = zstandard.get_frame_parameters(packed)
        assert parameters.content_size == size
        assert parameters.window_size <= WINDOW_MAX
        assert parameters.dict_id == 0
        assert parameters.has_checksum
        reader = zstandard.ZstdDecompressor().decompressobj()
        assert len(reader.decompress(packed)) == size
        assert reader.eof
        assert reader.unused_data == b""


def test_every_payload_is_a_fresh_frame() -> None:
    """Nothing of one payload, which may be a secret, is told by the size of another."""
    codec = Codec()
    alone = codec.compress(PAYLOAD)
    codec.compress(b"another secret" * 1000)
    assert codec.compress(PAYLOAD) == alone
    assert Codec().decompress(alone, len(PAYLOAD)) == PAYLOAD


def test_the_payload_that_is_sent_on_many_streams_is_compressed_once() -> None:
    codec, another = Codec(), PAYLOAD[1:]
    first = codec.compress(PAYLOAD)
    assert codec.compress(PAYLOAD) is first
    assert codec.decompress(codec.compress(another), len(another)) == another
    large = bytes(KEPT_SIZE_MAX + 1)
    assert codec.compress(large) is not codec.compress(large), "a large payload is not kept"
    assert codec._last is not None
    assert large not in codec._last


def test_an_unknown_content_size_is_taken_as_announced() -> None:
    packed = _zstd(write_content_size=False)
    assert zstandard.get_frame_parameters(packed).content_size == zstandard.CONTENTSIZE_UNKNOWN
    assert Codec().decompress(packed, len(PAYLOAD)) == PAYLOAD


@pytest.mark.parametrize("write_content_size", [True, False])
@pytest.mark.parametrize("wrong", [1, len(PAYLOAD) - 1, len(PAYLOAD) + 1, 2**32 - 1])
def test_exactly_the_announced_length_must_come_out(wrong: int, write_content_size: bool) -> None:
    _refused(_zstd(write_content_size=write_content_size), min(wrong, 64 * KIB))


def _flipped(packed: bytes, place: int) -> bytes:
    changed = bytearray(packed)
    changed[place] ^= 1
    return bytes(changed)


def _with_dictionary() -> bytes:
    samples: list[bytes | bytearray | memoryview[int]] = [
        f"sample {number} of a dictionary, and some text".encode() * 5 for number in range(2000)
    ]
    dictionary = zstandard.train_dictionary(4096, samples)
    return zstandard.ZstdCompressor(dict_data=dictionary, write_checksum=True).compress(PAYLOAD)


def _with_window(log: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=log, write_checksum=True, write_content_size=False)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return writer.compress(PAYLOAD) + writer.flush()


SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
REFUSED: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no zstd": lambda: PAYLOAD,
    "gzip": lambda: b"\x1f\x8b" + bytes(100),
    "no checksum": lambda: _zstd(write_checksum=False),
    "wrong checksum": lambda: _flipped(_zstd(), -1),
    "changed content": lambda: _flipped(_zstd(), 20),
    "cut short": lambda: _zstd()[:-1],
    "without its checksum": lambda: _zstd()[:-4],
    "header alone": lambda: _zstd()[:6],
    "a dictionary": _with_dictionary,
    "a window above 8 MiB": lambda: _with_window(24),
    "a byte behind it": lambda: _zstd() + b"\0",
    "an empty frame behind it": lambda: _zstd() + _zstd(b""),
    "a second frame": lambda: _zstd(PAYLOAD[:2000]) + _zstd(PAYLOAD[2000:]),
    "a skippable frame": lambda: SKIPPABLE,
    "a skippable frame before it": lambda: SKIPPABLE + _zstd(),
    "a skippable frame behind it": lambda: _zstd() + SKIPPABLE,
    "an empty frame": lambda: _zstd(b""),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_anything_but_one_frame_of_the_allowed_form_is_1010(make: Callable[[], bytes]) -> None:
    _refused(make())


def test_a_window_of_8_mib_is_allowed() -> None:
    assert Codec().decompress(_with_window(23), len(PAYLOAD)) == PAYLOAD


def _lying(declared: int, actual: int) -> bytes:
    """A frame that declares one length and holds more: as many blocks, of one byte repeated, as it takes."""
    blocks = b""
    for start in range(0, actual, 128 * KIB):
        size = min(128 * KIB, actual - start)
        last = start + size == actual
        blocks += (last | 1 << 1 | size << 3).to_bytes(3, "little") + b"a"
    # Content size in four bytes, a single segment, a checksum: one that nobody gets to look at.
    return b"\x28\xb5\x2f\xfd" + bytes((2 << 6 | 1 << 5 | 1 << 2,)) + declared.to_bytes(4, "little") + blocks + bytes(4)


@pytest.mark.parametrize(
    "bomb",
    [
        lambda: _zstd(bytes(100 * MIB)),
        lambda: _zstd(bytes(100 * MIB), write_content_size=False),
        lambda: _lying(64 * KIB, 100 * MIB),
        lambda: _lying(100 * MIB, 100 * MIB),
    ],
    ids=["declared", "undeclared", "lying about it", "declared, handmade"],
)
def test_a_bomb_makes_no_more_than_was_announced(bomb: Callable[[], bytes]) -> None:
    """Trap: zstandard's one-shot decode ignores max_output_size when the frame declares its size."""
    data = bomb()
    assert len(data) < 64 * KIB
    codec = Codec()
    codec.decompress(codec.compress(PAYLOAD), len(PAYLOAD))
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError) as caught:
            codec.decompress(data, 64 * KIB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == 1010
    assert peak < 128 * KIB


def test_the_package_is_imported_when_it_is_used_and_not_before() -> None:
    program = (
        "import sys, haptera.connection\n"
        "from haptera.wire.compression import Codec, available\n"
        "codec = Codec(); assert available(); assert 'zstandard' not in sys.modules\n"
        "codec.compress(b'x'); assert 'zstandard' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_says_whether_the_package_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available()
    monkeypatch.setattr("haptera.wire.compression._PACKAGE", "no_such_package_as_this")
    assert not available()


def test_the_least_that_is_compressed_is_what_a_fragment_has_at_least() -> None:
    assert COMPRESSED_SIZE_MIN == 1024


@pytest.mark.parametrize("declares", [True, False])
@pytest.mark.parametrize("payload", [b"", b"x", PAYLOAD, bytes(300_000)])
def test_bytes_behind_a_frame_are_refused_whatever_it_declares(payload: bytes, declares: bool) -> None:
    for checksum in (True, False):
        whole = _zstd(payload, write_content_size=declares, write_checksum=checksum)
        assert Codec().decompress_within(whole, 1 << 20) == payload
        for bad in (whole + b"\0", whole + whole, whole[:-1]):
            with pytest.raises(RemoteProtocolError) as caught:
                Codec().decompress_within(bad, 1 << 20)
            assert caught.value.code == 1010


def test_a_frame_of_unknown_length_is_refused_above_the_bound() -> None:
    for declares in (True, False):
        frame = _zstd(PAYLOAD, write_content_size=declares)
        assert Codec().decompress_within(frame, len(PAYLOAD)) == PAYLOAD
        with pytest.raises(RemoteProtocolError) as caught:
            Codec().decompress_within(frame, len(PAYLOAD) - 1)
        assert caught.value.code == 1010


def test_an_announced_length_does_not_let_bytes_stand_behind_a_frame() -> None:
    _refused(_zstd(write_content_size=False) + b"x")


def test_more_blocks_than_are_counted_are_refused() -> None:
    empty_blocks = b"\x28\xb5\x2f\xfd\x00\x00" + b"\0\0\0" * BLOCKS_MAX + b"\x01\0\0"
    with pytest.raises(RemoteProtocolError) as caught:
        Codec().decompress_within(empty_blocks, 10)
    assert caught.value.code == 1010

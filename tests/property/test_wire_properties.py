"""The wire format under arbitrary bytes, cuts and damage (protocol, section 2)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from haptera.errors import Failure, Outcome, RemoteProtocolError
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import Frame, encode_frame
from haptera.wire.metadata import decode_entries, decode_route, encode_entry, encode_route, route_length
from haptera.wire.payload import (
    LIMITS,
    Goaway,
    Hello,
    Welcome,
    decode_failure,
    decode_open_map,
    decode_payload,
    encode_payload,
)
from tests.support.nesting import nested

#: Of the profile that is in force: more where there is time for it.
EXAMPLES = settings.default.max_examples if settings.default else 100
MAX_FRAME = 2000

FRAMES = st.tuples(
    st.integers(0, 255),
    st.integers(0, 0xFFFF),
    st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 5)),
    st.binary(max_size=40),
    st.one_of(st.binary(max_size=60), st.integers(0, MAX_FRAME).map(bytes)),
)
_T = TypeVar("_T")
CUTS = st.lists(st.integers(0, 10_000), max_size=12)


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:stop] for start, stop in pairwise(places)]


def _decode(pieces: list[bytes]) -> tuple[list[Frame], tuple[object, ...]]:
    decoder = FrameDecoder(MAX_FRAME)
    frames: list[Frame] = []
    for piece in pieces:
        frames += decoder.receive(piece)
        frames += decoder.receive(b"")  # the first frame comes alone
    error = decoder.error
    return frames, () if error is None else (error.code, error.message, error.details)


def _attempt(decode: Callable[[], _T]) -> tuple[int | None, _T | None]:
    """Decode, and return the code of the error or the result; any other exception is a failure."""
    try:
        return None, decode()
    except RemoteProtocolError as error:
        return error.code, None


def _read(payload: Hello | Welcome | Goaway, data: bytes) -> Hello | Welcome | Goaway:
    """Decode as what ``payload`` is."""
    if isinstance(payload, Hello):
        return decode_payload(Hello, data)
    if isinstance(payload, Welcome):
        return decode_payload(Welcome, data)
    return decode_payload(Goaway, data)


@given(st.lists(FRAMES, max_size=6), st.binary(max_size=80), CUTS)
def test_any_bytes_in_any_pieces_decode_to_the_same_frames_or_the_same_error(
    frames: list[tuple[int, int, int, bytes, bytes]], rubbish: bytes, cuts: list[int]
) -> None:
    data = b"".join(encode_frame(*each) for each in frames) + rubbish
    whole = _decode([data])
    assert _decode(_cut(data, cuts)) == whole
    assert _decode([data[place : place + 1] for place in range(len(data))])[0] == whole[0]
    assert len(whole[0]) >= len(frames)


@given(st.binary(max_size=200), CUTS)
def test_rubbish_in_any_pieces_is_the_same_error(data: bytes, cuts: list[int]) -> None:
    frames, error = _decode([data])
    # Its very message may depend on how much of the header is there; what it is does not.
    assert (_decode(_cut(data, cuts))[0], _decode(_cut(data, cuts))[1][:1]) == (frames, error[:1])


@given(FRAMES)
def test_what_is_encoded_is_decoded(fields: tuple[int, int, int, bytes, bytes]) -> None:
    decoder = FrameDecoder(MAX_FRAME)
    (frame,) = decoder.receive(encode_frame(*fields))
    assert (frame.type, frame.flags, frame.stream, frame.metadata, frame.payload) == fields
    assert not frame.damaged
    assert decoder.held == 0


@settings(max_examples=3 * EXAMPLES)
@given(FRAMES, st.integers(0, 10**6), st.integers(0, 7), st.integers(0, 3))
def test_a_flipped_bit_never_goes_unnoticed(
    fields: tuple[int, int, int, bytes, bytes], place: int, bit: int, more: int
) -> None:
    """In the header it ends the decoding; in the body the frame says that it is damaged."""
    data = bytearray(encode_frame(*fields))
    place %= len(data)
    for offset in range(more + 1):  # and up to four neighbours: a burst
        data[(place + offset) % len(data)] ^= 1 << bit
    decoder = FrameDecoder(MAX_FRAME)
    frames = decoder.receive(bytes(data))
    if place < 28 or place + more >= len(data):
        assert frames == []
        assert decoder.error is not None
        assert decoder.error.code in {1002, 1003}
    else:
        assert [frame.damaged for frame in frames] == [True]
        assert decoder.error is None


@given(st.binary(max_size=60))
def test_any_metadata_is_entries_or_the_error_that_says_why_not(data: bytes) -> None:
    code, entries = _attempt(lambda: decode_entries(data))
    assert code in {None, 1002, 1007}
    if entries is not None:
        kept = decode_entries(b"".join(encode_entry(tag, value) for tag, value in entries.items()))
        assert kept == entries


@given(st.binary(max_size=60))
def test_any_metadata_of_a_request_is_a_route_or_1002(data: bytes) -> None:
    code, names = _attempt(lambda: decode_route(data[: route_length(data)]))
    assert code in {None, 1002}
    if names is not None:
        assert encode_route(*names) == data[: route_length(data)]


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(_NAMES, _NAMES)
def test_routes_are_read_as_written(service: str, method: str) -> None:
    route = encode_route(service, method)
    assert route_length(route + b"\x09\x00") == len(route)
    assert decode_route(route) == (service, method)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_INT = st.integers(0, 2**63 - 1)
_LIMITS = {name: st.integers(-5, 2**40) for name in LIMITS}
_COMMON = {
    "versions": st.lists(st.integers(0, 255), max_size=4),
    "agent": _TEXT,
    "session": st.binary(min_size=16, max_size=16),
    "nonce": st.binary(min_size=32, max_size=32),
    "capabilities": st.lists(_TEXT, max_size=4),
    "services": st.lists(_TEXT, max_size=4),
}
_PAYLOADS = st.one_of(
    st.builds(Hello, **_COMMON, **_LIMITS),
    st.builds(
        Welcome,
        **_COMMON,
        **_LIMITS,
        version=st.integers(0, 255),
        server_id=st.binary(min_size=16, max_size=16),
        mechanisms=st.lists(_TEXT, max_size=3),
        ping_interval_ms=_INT,
        idempotency_ms=_INT,
    ),
    st.builds(Goaway, code=st.integers(0, 99_999), name=_TEXT, message=_TEXT, last_stream=st.integers(0, 2**53 - 1)),
)


@given(_PAYLOADS, st.dictionaries(_TEXT.map("grease-{}".format), st.binary(max_size=5), max_size=3))
def test_payloads_are_read_as_written(payload: Hello | Welcome | Goaway, extra: dict[str, bytes]) -> None:
    assert _read(payload, encode_payload(payload, extra)) == payload


_VALUES = nested(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), _TEXT, st.binary(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=8,
)


@given(st.integers(0, 99_999), _TEXT, st.sampled_from(["not_applied", "unknown", "applied"]), _VALUES)
def test_errors_are_read_as_written(code: int, text: str, outcome: Outcome, value: object) -> None:
    said = Failure(code, text, text, outcome, {text: value})
    assert decode_failure(encode_payload(said)) == said


@settings(max_examples=2 * EXAMPLES)
@given(_PAYLOADS, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3), st.integers(0, 30))
def test_a_mutated_payload_is_a_payload_or_1002(
    payload: Hello | Welcome | Goaway, mutations: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(encode_payload(payload))
    for place, value in mutations:
        data[place % len(data)] = value
    decoders: list[Callable[[], object]] = [
        lambda: _read(payload, bytes(data[: len(data) - cut])),
        lambda: decode_failure(bytes(data)),
        lambda: decode_open_map(bytes(data)),
    ]
    for decode in decoders:
        assert _attempt(decode)[0] in {None, 1002}


@given(st.binary(max_size=60))
def test_any_bytes_as_a_payload_are_1002_or_a_map(data: bytes) -> None:
    decoders: list[Callable[[], object]] = [lambda: decode_open_map(data), lambda: decode_failure(data)]
    for decode in decoders:
        assert _attempt(decode)[0] in {None, 1002}

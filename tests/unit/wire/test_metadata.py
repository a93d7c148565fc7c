"""Routes and entries (protocol, section 2.3)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.errors import RemoteProtocolError
from haptera.wire import metadata as metadata_module
from haptera.wire.metadata import Tag, decode_entries, decode_route, encode_entry, encode_route, route_length

# The table of section 2.3: each tag's value where its length is fixed.
FIXED = {
    0x01: 16,
    0x02: 4,
    0x03: 26,
    0x85: 4,
    0x06: 4,
    0x07: 4,
    0x09: 0,
    0x0A: 8,
    0x0B: 8,
    0x0C: 0,
}
TEXTS = (0x04, 0x08)


def _entry(tag: int, value: bytes) -> bytes:
    return bytes((tag, len(value))) + value


def _code(metadata: bytes, start: int = 0) -> tuple[int, dict[str, object]]:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_entries(metadata, start)
    return caught.value.code, caught.value.details


def test_the_tags_are_those_of_the_specification() -> None:
    assert {int(tag) for tag in Tag} == {*FIXED, *TEXTS}


def test_a_route_comes_first_with_its_lengths() -> None:
    route = encode_route("kv", "get_many")
    assert route == b"\x02kv\x08get_many"
    metadata = route + _entry(0x08, b"text/plain")
    assert route_length(metadata) == len(route)
    assert decode_route(route) == ("kv", "get_many")
    assert decode_entries(metadata, len(route)) == {0x08: b"text/plain"}


@pytest.mark.parametrize("metadata", [b"", b"\x00", b"\x01s", b"\x01s\x01", b"\x05s\x01m", b"\x01s\xffm", b"\xff"])
def test_a_route_that_is_cut_short(metadata: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        route_length(metadata)
    assert caught.value.code == 1002


@pytest.mark.parametrize("route", [b"\x00\x01m", b"\x01s\x00", b"\x02\xff\xfe\x01m", b"\x01s\x01\x80"])
def test_a_route_that_names_nothing(route: bytes) -> None:
    assert route_length(route) == len(route)
    with pytest.raises(RemoteProtocolError) as caught:
        decode_route(route)
    assert caught.value.code == 1002


@pytest.mark.parametrize(("service", "method"), [("", "m"), ("s", ""), ("s" * 256, "m"), ("s", "é" * 128)])
def test_names_have_1_to_255_bytes(service: str, method: str) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        encode_route(service, method)
    assert len(encode_route("s" * 255, "é" * 127)) == 2 + 255 + 254


@pytest.mark.parametrize(("tag", "length"), list(FIXED.items()))
def test_a_value_of_the_right_length(tag: int, length: int) -> None:
    value = bytes(range(length))
    assert decode_entries(_entry(tag, value)) == {tag: value}


@pytest.mark.parametrize(("tag", "length"), list(FIXED.items()))
@pytest.mark.parametrize("change", [-1, 1])
def test_a_value_of_another_length(tag: int, length: int, change: int) -> None:
    wrong = length + change if length + change >= 0 else 3
    assert _code(_entry(tag, bytes(wrong))) == (1002, {"tag": tag, "expected": length, "actual": wrong})


@pytest.mark.parametrize("tag", TEXTS)
def test_texts_are_utf_8(tag: int) -> None:
    assert decode_entries(_entry(tag, "é".encode())) == {tag: "é".encode()}
    assert decode_entries(_entry(tag, b"")) == {tag: b""}
    assert _code(_entry(tag, b"\xff\xfe"))[0] == 1002


@pytest.mark.parametrize("tag", [0x05, 0x0D, 0x7F, 0x00])
def test_an_unknown_tag_is_skipped(tag: int) -> None:
    assert decode_entries(_entry(tag, b"whatever") + _entry(0x09, b"")) == {0x09: b""}


@pytest.mark.parametrize("tag", [0x80, 0x86, 0xFF])
def test_an_unknown_critical_tag(tag: int) -> None:
    assert _code(_entry(0x09, b"") + _entry(tag, b"x")) == (1007, {"tag": tag})


@pytest.mark.parametrize("tag", [0x01, 0x04, 0x7F, 0x0D])
def test_a_tag_given_twice_known_or_not(tag: int) -> None:
    entry = _entry(tag, bytes(FIXED.get(tag, 2)))
    assert _code(entry + _entry(0x09, b"") + entry) == (1002, {"tag": tag})


@pytest.mark.parametrize("metadata", [b"\x08", b"\x08\x01", b"\x7f\xff" + bytes(254), b"\x09\x00\x01"])
def test_entries_that_are_cut_short(metadata: bytes) -> None:
    assert _code(metadata)[0] == 1002


@pytest.mark.parametrize("behind", [b"\x08", b"\x09\x01x", b"\x09\x00\x09\x00", b"\x90\x00\x90\x00", b"\x04\x01\xff"])
def test_malformed_metadata_is_told_before_what_is_unknown_in_it(behind: bytes) -> None:
    """Order of checks, section 2: metadata (1002, 1007)."""
    assert _code(_entry(0x8F, b"") + behind)[0] == 1002


def test_no_entries() -> None:
    assert decode_entries(b"") == {}
    assert decode_entries(b"\x01s\x01m", 4) == {}


def test_an_entry_as_written_is_read() -> None:
    assert encode_entry(Tag.REVISION, bytes(8)) == b"\x0b\x08" + bytes(8)
    assert decode_entries(encode_entry(0x08, b"x" * 255)) == {0x08: b"x" * 255}
    with pytest.raises(ValueError, match="255"):
        encode_entry(0x08, b"x" * 256)


def _found(decode: Callable[[bytes, int], dict[int, bytes]], metadata: bytes, start: int) -> object:
    try:
        return list(decode(metadata, start).items())
    except RemoteProtocolError as error:
        return error.code, error.details


_ENTRY = st.one_of(
    st.sampled_from(list(FIXED.items())).map(lambda entry: _entry(entry[0], bytes(entry[1]))),
    st.tuples(st.sampled_from([*FIXED, *TEXTS, 0x30, 0xF0]), st.binary(max_size=20)).map(lambda entry: _entry(*entry)),
    st.binary(max_size=4),
)


@given(st.lists(_ENTRY, max_size=4).map(b"".join), st.integers(0, 3))
def test_the_short_way_through_usual_entries_says_what_the_long_one_says(entries: bytes, start: int) -> None:
    metadata = bytes(start) + entries
    assert _found(decode_entries, metadata, start) == _found(metadata_module._decode_unusual, metadata, start)

"""Headers of MessagePack arrays, read from bytes that may end anywhere."""

from __future__ import annotations

import msgspec
import pytest

from haptera.state.msgpack_arrays import array_header, read_array_header


@pytest.mark.parametrize("count", [0, 15, 16, 65_535, 65_536, 2**32 - 1])
def test_a_header_is_read_as_it_was_written(count: int) -> None:
    header = array_header(count)
    assert read_array_header(b"x" + header + b"x", 1) == (1 + len(header), count)


def test_a_short_header_is_the_encoders() -> None:
    for count in (0, 15, 16, 300):
        assert msgspec.msgpack.encode([0] * count).startswith(array_header(count))


@pytest.mark.parametrize("count", [0, 16, 65_536])
def test_a_header_that_ends_too_early_is_none(count: int) -> None:
    """Trap: the count of a cut header is taken for 0, and so a damaged argument for one of no keys."""
    header = array_header(count)
    for cut in range(len(header)):
        with pytest.raises(IndexError):
            read_array_header(header[:cut], 0)


@pytest.mark.parametrize("data", [b"\xc0", b"\x80", b"\xa1a", b"\xde\x00\x00"])
def test_another_value_is_no_array(data: bytes) -> None:
    assert read_array_header(data, 0) is None

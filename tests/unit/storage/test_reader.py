"""The search for a record behind one that is damaged, and the measure of what is there at all."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError
from haptera.storage import OsFileSystem
from haptera.storage.keys import DataKey
from haptera.storage.reader import CHUNK_SIZE, SegmentReader, nonzero_end
from haptera.storage.segment import NO_TAG, RECORD_HEADER_SIZE, SEGMENT_HEADER_SIZE, Codec, SegmentHeader
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.stores import entry

if TYPE_CHECKING:
    from pathlib import Path

KEY = DataKey.of(bytes(32))


def reader_of(first_index: int, junk: bytes, offset: int, *, synced: bool = True, capacity: int = 0) -> SegmentReader:
    """A reader of an active segment: one good record, then `junk`, then record 3 at `offset` (none if 0)."""
    capacity = capacity or offset + 4096
    header = SegmentHeader(1, b"I" * 16, KEY.id, first_index, NO_TAG, capacity, synced)
    codec = Codec(header, KEY)
    good, _, later = (codec.encode(entry(first_index + at)) for at in range(3))
    data = bytearray(capacity)
    start = header.encode() + good + junk
    data[: len(start)] = start
    if offset:
        data[offset : offset + len(later)] = later
    fs = MemoryFileSystem()
    fs.write("segment", bytes(data))
    reader = SegmentReader(fs.open("segment", "r"), "segment", capacity, header, KEY)
    assert [found.index for found in reader.entries(0, 0, lambda *_: None)] == [first_index]
    return reader


@pytest.mark.parametrize("first_index", [1, 254, 0xFFFFFD, 0xFFFFFE, 0xFFFFFF, 1 << 24, 5_000_000_000, 1 << 63])
@pytest.mark.parametrize("junk", [b"\1", b"\0" * 40 + b"\1", b"\xff" * 100], ids=["byte", "zeros", "ones"])
def test_a_later_record_is_found_whatever_its_index(first_index: int, junk: bytes) -> None:
    reader = reader_of(first_index, junk, 1000)
    with pytest.raises(CorruptionError, match=f"record {first_index + 2} follows at offset 1000"):
        reader.finish(last=True)


@pytest.mark.parametrize(
    "offset", [400, 401, *range(CHUNK_SIZE + 120, CHUNK_SIZE + 200, 3), 2 * CHUNK_SIZE + 153, 3 * CHUNK_SIZE]
)
def test_a_later_record_is_found_wherever_it_stands(offset: int) -> None:
    """Also across the edges of the chunks that are read."""
    reader = reader_of(1, b"\1", offset)
    with pytest.raises(CorruptionError, match=rf"follows at offset {offset}\b"):
        reader.finish(last=True)


def test_a_later_record_at_the_very_end_is_found_by_its_header() -> None:
    reader = reader_of(1, b"\1", 1000, capacity=1000 + RECORD_HEADER_SIZE + 40)
    with pytest.raises(CorruptionError, match="offset 1000"):
        reader.finish(last=True)


def test_without_a_later_record_it_is_a_torn_tail() -> None:
    for seed in range(20):
        junk = random.Random(seed).randbytes(300)
        reader = reader_of(1, junk, 0)
        assert reader.finish(last=True) == len(junk.rstrip(b"\0"))
        assert reader.offset == SEGMENT_HEADER_SIZE + RECORD_HEADER_SIZE + 40


def test_a_segment_that_was_not_synced_may_be_torn_before_a_later_record() -> None:
    assert reader_of(1, b"\1", 1000, synced=False).finish(last=True) > 800


def test_zeros_to_the_end_are_the_end() -> None:
    assert reader_of(1, b"", 0).finish(last=True) == 0


def test_zeros_within_a_segment_that_another_follows_are_damage() -> None:
    with pytest.raises(CorruptionError, match="sealed"):
        reader_of(1, b"", 0).finish(last=False)


def test_a_whole_segment_of_zeros_but_for_its_last_byte(tmp_path: Path) -> None:
    """Runs of zeros are stepped over as one, so this takes no time that anyone would notice."""
    size = 64 << 20
    header = SegmentHeader(1, b"I" * 16, KEY.id, 1, NO_TAG, size, synced=True)
    fs = OsFileSystem()
    file = fs.open(str(tmp_path / "segment"), "x")
    file.pwrite(header.encode(), 0)
    file.pwrite(b"\1", size - 1)
    reader = SegmentReader(file, "segment", size, header, KEY)
    assert list(reader.entries(0, 0, lambda *_: None)) == []
    assert reader.finish(last=True) == size - SEGMENT_HEADER_SIZE


@pytest.mark.parametrize("at", [None, 0, 1, 99, CHUNK_SIZE - 1, CHUNK_SIZE, 2 * CHUNK_SIZE, 2 * CHUNK_SIZE + 98])
def test_the_last_byte_that_is_not_zero(at: int | None) -> None:
    size = 2 * CHUNK_SIZE + 99
    data = bytearray(size)
    if at is not None:
        data[at] = 1
    fs = MemoryFileSystem()
    fs.write("file", bytes(data))
    assert nonzero_end(fs.open("file", "r"), 0, size) == (0 if at is None else at + 1)

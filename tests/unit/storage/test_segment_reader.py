"""The search for a record behind one that is damaged, a torn tail against damage, and how much is there at all."""

from __future__ import annotations

from copy import copy
from itertools import accumulate, count, pairwise
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.errors import CorruptionError
from haptera.storage import OsFileSystem
from haptera.storage.data_key import DataKey
from haptera.storage.segment_format import (
    ENTRY_SIZE_MAX,
    NO_TAG,
    RECORD_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    RecordCipher,
    SegmentHeader,
)
from haptera.storage.segment_reader import CHUNK_SIZE, SECTOR_SIZE, SegmentReader, nonzero_end
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.stores import entry

if TYPE_CHECKING:
    from pathlib import Path

KEY = DataKey.of(bytes(32))
SEGMENT_SIZE = 4096


def reader_of(first_index: int, junk: bytes, offset: int, *, synced: bool = True, capacity: int = 0) -> SegmentReader:
    """A reader of an active segment: one good record, then `junk`, then record 3 at `offset` (none if 0)."""
    capacity = capacity or offset + 4096
    header = SegmentHeader(1, b"I" * 16, KEY.id, first_index, NO_TAG, capacity, synced)
    codec = RecordCipher(header, KEY)
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


@pytest.mark.parametrize("damaged", range(1, 5))
def test_a_later_record_counts_however_many_before_it_are_damaged(damaged: int) -> None:
    """Trap: a torn tail that is none. Not only the record directly behind a damaged one is a later one."""
    segment = Tail(*[24] * 6)
    for at in range(1, 1 + damaged):
        segment.flip(at, 11)
    segment.damaged(f"record {2 + damaged} follows at offset {segment.starts[1 + damaged]}")


class Tail:
    """An active segment of records with payloads of `sizes`; all but the first may be damaged."""

    def __init__(self, *sizes: int, key: DataKey = KEY) -> None:
        for seed in count():
            self.header = SegmentHeader(1, seed.to_bytes(16, "big"), key.id, 1, NO_TAG, SEGMENT_SIZE, synced=True)
            codec = RecordCipher(self.header, key)
            self.records = [codec.encode(entry(index, size)) for index, size in enumerate(sizes, 1)]
            # Damage is only seen in what does not end in a zero by chance.
            if all(record[-1] and record[RECORD_HEADER_SIZE - 1] for record in self.records):
                break
        self.key = key
        self.data = bytearray(self.header.encode() + b"".join(self.records)).ljust(SEGMENT_SIZE, b"\0")
        self.starts = [*accumulate(map(len, self.records), initial=SEGMENT_HEADER_SIZE)]

    def flip(self, record: int, at: int) -> None:
        """Flip a bit in byte `at` of a record: a byte of the index in its header, unless that is beyond it."""
        self.data[self.starts[record] + at] ^= 0x10

    def zero(self, start: int, end: int) -> None:
        self.data[start:end] = bytes(end - start)

    def torn(self) -> int:
        """How many records are read before a torn tail, or before the end."""
        reader = self._reader()
        found = len(list(reader.entries(0, 0, lambda *_: None)))
        assert reader.finish(last=True) == len(self.data.rstrip(b"\0")) - reader.offset or found == len(self.records)
        assert reader.offset == self.starts[found]
        return found

    def damaged(self, reason: str) -> None:
        reader = self._reader()
        list(reader.entries(0, 0, lambda *_: None))
        with pytest.raises(CorruptionError, match=reason):
            reader.finish(last=True)

    def _reader(self) -> SegmentReader:
        fs = MemoryFileSystem()
        fs.write("segment", bytes(self.data))
        return SegmentReader(fs.open("segment", "r"), "segment", len(self.data), self.header, self.key)


@pytest.mark.parametrize("size", [0, 24, 1000])
def test_a_record_cut_at_any_byte_is_a_torn_tail(size: int) -> None:
    whole = Tail(24, size)
    for kept in range(len(whole.records[1])):
        segment = copy(whole)
        segment.data = bytearray(whole.data)
        segment.zero(segment.starts[1] + kept, SEGMENT_SIZE)
        assert segment.torn() == 1


@pytest.mark.parametrize("size", [24, 500, 1500])
def test_a_record_without_any_of_its_sectors_is_a_torn_tail(size: int) -> None:
    """Wherever the boundaries of the sectors are in it."""
    for first in range(SECTOR_SIZE):
        whole = Tail(first, size)
        start, end = whole.starts[1:]
        edges = [start, *range(start - start % SECTOR_SIZE + SECTOR_SIZE, end, SECTOR_SIZE), end]
        sectors = list(pairwise(edges))
        for lost in range(1, 1 << len(sectors)):
            segment = copy(whole)
            segment.data = bytearray(whole.data)
            for number, sector in enumerate(sectors):
                if lost >> number & 1:
                    segment.zero(*sector)
            assert segment.torn() == (2 if segment.data == whole.data else 1), (first, lost)


@pytest.mark.parametrize("at", [RECORD_HEADER_SIZE, RECORD_HEADER_SIZE + 30, -1])
def test_a_byte_behind_the_end_of_a_damaged_record_whose_header_is_valid_is_damage(at: int) -> None:
    """Trap: a torn tail that is none. The header says where the record ends, and it was the last to be begun."""
    segment = Tail(24, 24, 24)
    segment.zero(segment.starts[1] + at % len(segment.records[1]), segment.starts[3])
    assert segment.torn() == 1
    segment.data[segment.starts[2]] = 1
    segment.damaged(f"follow its end at offset {segment.starts[2]}")


def test_a_byte_beyond_the_largest_record_is_damage() -> None:
    segment = Tail(24)
    segment.data.extend(bytes(ENTRY_SIZE_MAX + 4096))
    segment.header = msgspec.structs.replace(segment.header, capacity=len(segment.data))
    segment.data[:SEGMENT_HEADER_SIZE] = segment.header.encode()
    segment.zero(segment.starts[0], len(segment.data))
    beyond = SEGMENT_HEADER_SIZE + RECORD_HEADER_SIZE + ENTRY_SIZE_MAX + 16
    segment.data[beyond - 1] = 1
    assert segment.torn() == 0
    segment.data[beyond] = 1
    segment.damaged(f"follow its end at offset {beyond}")


def test_the_last_byte_of_a_segment_is_no_part_of_a_record() -> None:
    segment = Tail(24)
    segment.data[-2] = 1
    assert segment.torn() == 1
    segment.data[-1] = 1
    segment.damaged("follow its end")


@pytest.mark.parametrize("size", [0, 24, 700])
def test_a_record_of_which_nothing_is_missing_is_damaged_and_not_torn(size: int) -> None:
    """Trap: a torn tail that is none. A crash leaves zeros; a byte that is wrong in another way was changed."""
    whole = Tail(24, size)
    for at in range(len(whole.records[1])):
        segment = copy(whole)
        segment.data = bytearray(whole.data)
        segment.flip(1, at)
        if segment.data[segment.starts[1] + RECORD_HEADER_SIZE - 1] and segment.data[segment.starts[2] - 1]:
            segment.damaged("none of its bytes is missing")


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
    with pytest.raises(CorruptionError, match="follow its end"):
        reader.finish(last=True)


@pytest.mark.parametrize("at", [None, 0, 1, 99, CHUNK_SIZE - 1, CHUNK_SIZE, 2 * CHUNK_SIZE, 2 * CHUNK_SIZE + 98])
def test_the_last_byte_that_is_not_zero(at: int | None) -> None:
    size = 2 * CHUNK_SIZE + 99
    data = bytearray(size)
    if at is not None:
        data[at] = 1
    fs = MemoryFileSystem()
    fs.write("file", bytes(data))
    assert nonzero_end(fs.open("file", "r"), 0, size) == (0 if at is None else at + 1)

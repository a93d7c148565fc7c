"""Records can't be altered, moved, dropped from the middle or mixed between files."""

from __future__ import annotations

import pytest

from haptera.errors import CorruptionError
from haptera.storage import LogEntry
from haptera.storage.segment_format import NO_TAG, RECORD_HEADER_SIZE, SEGMENT_HEADER_SIZE, RecordCipher, SegmentHeader
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.storage.stores import LOG_PATH, Store, opened

SIZE = 24
RECORD_SIZE = RECORD_HEADER_SIZE + SIZE + 16
FIRST, SECOND = f"{LOG_PATH}/{1:016x}.seg", f"{LOG_PATH}/{2:016x}.seg"


def two_segments() -> MemoryFileSystem:
    """Two segments of the same store, four records in each."""
    fs = MemoryFileSystem()
    for _ in range(2):
        with opened(fs) as store:
            store.append(4, SIZE)
    assert len(fs.read(FIRST)) == len(fs.read(SECOND)) == SEGMENT_HEADER_SIZE + 4 * RECORD_SIZE
    return fs


def parts(data: bytes) -> list[bytes]:
    """The header and the records of a segment."""
    return [data[:SEGMENT_HEADER_SIZE]] + [
        data[at : at + RECORD_SIZE] for at in range(SEGMENT_HEADER_SIZE, len(data), RECORD_SIZE)
    ]


def refused(fs: MemoryFileSystem, path: str, offset: int | None = None) -> None:
    with pytest.raises(CorruptionError) as caught:
        Store.open(fs)
    assert caught.value.file == path
    if offset is not None:
        assert caught.value.offset == offset


@pytest.mark.parametrize("record", [1, 2, 3, 4])
@pytest.mark.parametrize("at", [0, 5, 13, 21, 29, RECORD_HEADER_SIZE, RECORD_SIZE - 1])
@pytest.mark.parametrize("path", [FIRST, SECOND])
def test_altered(path: str, record: int, at: int) -> None:
    fs = two_segments()
    data = bytearray(fs.read(path))
    offset = SEGMENT_HEADER_SIZE + (record - 1) * RECORD_SIZE
    data[offset + at] ^= 4
    fs.write(path, bytes(data))
    refused(fs, path, offset)


def test_moved_within_a_segment() -> None:
    fs = two_segments()
    header, one, two, three, four = parts(fs.read(SECOND))
    fs.write(SECOND, header + one + three + two + four)
    refused(fs, SECOND, SEGMENT_HEADER_SIZE + RECORD_SIZE)


def test_repeated() -> None:
    fs = two_segments()
    header, one, two, three, _ = parts(fs.read(SECOND))
    fs.write(SECOND, header + one + two + two + three)
    refused(fs, SECOND, SEGMENT_HEADER_SIZE + 2 * RECORD_SIZE)


@pytest.mark.parametrize("path", [FIRST, SECOND])
def test_dropped_from_the_middle(path: str) -> None:
    fs = two_segments()
    header, one, _, three, four = parts(fs.read(path))
    fs.write(path, header + one + three + four)
    refused(fs, path, SEGMENT_HEADER_SIZE + RECORD_SIZE)


def test_dropped_from_the_end_of_a_segment_that_another_follows() -> None:
    """The chain crosses segments: the next one's header holds the tag that is gone."""
    fs = two_segments()
    fs.write(FIRST, b"".join(parts(fs.read(FIRST))[:-1]))
    refused(fs, SECOND)


@pytest.mark.parametrize("path", [FIRST, SECOND])
def test_all_records_dropped_from_a_segment(path: str) -> None:
    """None is sealed without a record."""
    fs = two_segments()
    fs.write(path, parts(fs.read(path))[0])
    refused(fs, path, SEGMENT_HEADER_SIZE)


def test_mixed_between_the_segments_of_a_store() -> None:
    fs = two_segments()
    first, second = parts(fs.read(FIRST)), parts(fs.read(SECOND))
    fs.write(SECOND, b"".join(second[:2] + first[2:]))
    refused(fs, SECOND, SEGMENT_HEADER_SIZE + RECORD_SIZE)


def test_segments_exchanged() -> None:
    fs = two_segments()
    first, second = fs.read(FIRST), fs.read(SECOND)
    fs.write(FIRST, second)
    fs.write(SECOND, first)
    refused(fs, FIRST)


def forged(number: int, first_index: int, entries: list[LogEntry]) -> MemoryFileSystem:
    """A store with one segment, sealed and valid in itself, as only the holder of the key can make it."""
    fs = MemoryFileSystem()
    with opened(fs) as store:
        key = store.keyring.newest
    header = SegmentHeader.new(number, key, first_index, NO_TAG, 4096, synced=True)
    codec = RecordCipher(header, key)
    fs.write(FIRST, header.encode() + b"".join(codec.encode(entry) for entry in entries))
    return fs


def test_a_forged_segment_that_is_right_in_all_is_read() -> None:
    """What follows differs from this in one thing each."""
    with opened(forged(1, 1, [LogEntry(3, 1, 5, b""), LogEntry(3, 2, 5, b"")])) as store:
        assert store.log.last_index == 2


@pytest.mark.parametrize(
    "second", [LogEntry(3, 3, 5, b""), LogEntry(3, 1, 5, b""), LogEntry(2, 2, 5, b""), LogEntry(3, 2, 4, b"")]
)
def test_a_record_whose_index_term_or_time_is_out_of_place(second: LogEntry) -> None:
    refused(forged(1, 1, [LogEntry(3, 1, 5, b""), second]), FIRST, SEGMENT_HEADER_SIZE + 48)


def test_a_log_that_does_not_begin_at_the_first_index() -> None:
    refused(forged(1, 2, [LogEntry(3, 2, 5, b"")]), FIRST)


def test_a_segment_under_another_number() -> None:
    refused(forged(2, 1, [LogEntry(3, 1, 5, b"")]), FIRST)


def test_a_segment_of_another_history_under_the_same_key() -> None:
    """Two copies of a directory go their own ways: a segment of one does not pass in the other."""
    fs = two_segments()
    other = fs.power_failure("keep")
    for one in (fs, other):
        with opened(one) as store:
            store.append(4, SIZE)
        with opened(one) as store:
            store.append(4, SIZE)
    third = f"{LOG_PATH}/{3:016x}.seg"
    fs.write(third, other.read(third))
    refused(fs, f"{LOG_PATH}/{4:016x}.seg")

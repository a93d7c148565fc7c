"""The log: appending, replaying, rolling over, refusing."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from haptera.errors import CorruptionError
from haptera.storage import DataDirectory, Log, LogEntry, OsFileSystem, open_keyring
from haptera.storage.errors import DiskFailed, DiskFull, NewerFormat
from haptera.storage.segment_format import EMPTY_CAPACITY, SEGMENT_HEADER_SIZE, SegmentHeader
from haptera.storage.segment_reader import CHUNK_SIZE
from haptera.storage.segment_writer import ZEROED_AHEAD
from haptera.testing.filesystem import MemoryFile, MemoryFileSystem
from tests.unit.storage.stores import LOG_PATH, PATH, SEGMENT_SIZE, Store, entries, entry, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def segment_path(number: int) -> str:
    return f"{LOG_PATH}/{number:016x}.seg"


def test_an_empty_log_has_no_index_and_no_segments() -> None:
    with opened(MemoryFileSystem()) as store:
        assert (store.log.first_index, store.log.last_index, store.log.segments, store.log.size_bytes) == (0, 0, (), 0)
        assert store.entries == []


def test_entries_come_back_in_order() -> None:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(20)
        assert (store.log.first_index, store.log.last_index) == (1, 20)
        before = store.log.segments
    with opened(fs) as store:
        assert store.entries == entries(20)
        assert (store.log.first_index, store.log.last_index) == (1, 20)
        assert store.log.segments == before
        assert store.log.recovery.entries == 20
        assert store.log.recovery.bytes == store.log.size_bytes
        assert store.log.recovery.torn_bytes == 0


def test_an_append_writes_zeros_ahead_for_many_records_within_the_segment_and_over_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[range] = []
    zeros: list[range] = []
    pwrite = MemoryFile.pwrite

    def noted(file: MemoryFile, data: bytes, offset: int) -> None:
        place = range(offset, offset + len(data))
        assert not any(each.start < place.stop and place.start < each.stop for each in written)
        (written if any(data) else zeros).append(place)
        pwrite(file, data, offset)

    capacity = 3 * ZEROED_AHEAD
    store = Store.open(MemoryFileSystem(), segment_size=capacity)
    store.append(1)  # the segment has its header
    monkeypatch.setattr(MemoryFile, "pwrite", noted)
    store.append(180, size=4000)
    store.close()
    assert len(written) == 180
    assert 2 <= len(zeros) <= 3
    assert max(place.stop for place in zeros) <= capacity


def test_the_operating_systems_files_hold_a_log(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    for count in (0, 7, 14):
        with opened(OsFileSystem(), path) as store:
            assert store.entries == entries(count)
            store.append(7)


def test_every_opening_appends_to_a_new_segment_with_a_new_id() -> None:
    fs = MemoryFileSystem()
    for _ in range(3):
        with opened(fs) as store:
            store.append(1)
    assert sorted(fs.listdir(LOG_PATH)) == [segment_path(number)[len(LOG_PATH) + 1 :] for number in (1, 2, 3)]
    assert len({fs.read(segment_path(number))[28:44] for number in (1, 2, 3)}) == 3


def test_openings_without_an_append_leave_one_segment_without_room() -> None:
    """So that a directory without any segment is known to have lost them; and it takes no space to speak of."""
    fs = MemoryFileSystem()
    seen = set()
    for _ in range(3):
        opened(fs).__enter__().close()
        assert fs.listdir(LOG_PATH) == [segment_path(1)[len(LOG_PATH) + 1 :]]
        seen.add(fs.read(segment_path(1)))
    [data] = seen
    assert len(data) == EMPTY_CAPACITY
    assert SegmentHeader.decode(data[:SEGMENT_HEADER_SIZE]) is not None


def test_a_directory_that_has_lost_all_segments_is_refused() -> None:
    fs = MemoryFileSystem()
    opened(fs).__enter__().close()
    fs.unlink(segment_path(1))
    for _ in range(2):
        with pytest.raises(CorruptionError, match="a segment") as caught:
            Store.open(fs)
        assert caught.value.file == segment_path(1)


def test_segments_are_preallocated_and_sealed_at_their_length() -> None:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(10)
        for segment in store.log.segments[:-1]:
            assert len(fs.read(segment.path)) == segment.size_bytes < SEGMENT_SIZE
        assert len(fs.read(store.log.segments[-1].path)) == SEGMENT_SIZE
    for segment in store.log.segments:
        assert len(fs.read(segment.path)) == segment.size_bytes


def test_an_entry_larger_than_a_segment_gets_a_segment_of_its_size() -> None:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        for size in (10, 5000, 10, CHUNK_SIZE + 5000, 10):
            store.append(1, size)
    with opened(fs) as store:
        assert [len(entry.payload) for entry in store.entries] == [10, 5000, 10, CHUNK_SIZE + 5000, 10]
        assert store.entries[3] == entry(4, CHUNK_SIZE + 5000)


@pytest.mark.parametrize("size", range(105, 120))
def test_no_entry_fills_a_segment_to_its_last_byte(size: int) -> None:
    """A sealed segment is told from an active one by being shorter."""
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(3, size)
    with opened(fs) as store:
        assert len(store.entries) == 3
        for segment in store.log.segments:
            capacity = int.from_bytes(fs.read(segment.path)[68:76], "big")
            assert segment.size_bytes < capacity


def test_an_empty_payload_is_an_entry() -> None:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(3, 0)
    with opened(fs) as store:
        assert store.entries == entries(3, 0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (LogEntry(5, 3, 5, b""), "index 3"),
        (LogEntry(5, 1, 5, b""), "index 1"),
        (LogEntry(4, 2, 5, b""), "goes back"),
        (LogEntry(5, 2, 4, b""), "goes back"),
        (LogEntry(1 << 64, 2, 5, b""), "term"),
        (LogEntry(5, 2, 1 << 64, b""), "time"),
    ],
)
def test_an_entry_out_of_its_place_is_refused_before_it_is_written(wrong: LogEntry, says: str) -> None:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.log.append(LogEntry(5, 1, 5, b"one"))
        calls = len(fs.calls)
        with pytest.raises(ValueError, match=says):
            store.log.append(wrong)
        assert len(fs.calls) == calls
        store.log.append(LogEntry(5, 2, 5, b"two"))
    with opened(fs) as store:
        assert [entry.payload for entry in store.entries] == [b"one", b"two"]


def test_a_log_is_replayed_before_it_is_appended_to_and_once() -> None:
    fs = MemoryFileSystem()
    directory = DataDirectory.open(fs, PATH)
    log = Log.open(fs, directory, open_keyring(directory))
    with pytest.raises(RuntimeError, match="opened"):
        log.append(entry(1))
    assert list(log.replay()) == []
    with pytest.raises(RuntimeError, match="once"):
        list(log.replay())
    log.close()
    log.close()
    with pytest.raises(RuntimeError, match="closed"):
        log.append(entry(1))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_not_a_failed_one(number: int) -> None:
    """DiskFull leaves nothing behind, and the same entry goes in when there is room."""
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(1)
        fs.failing, fs.fail_with = frozenset({"allocate"}), number
        for _ in range(3):
            with pytest.raises(DiskFull):
                store.append(10)
            assert len(fs.listdir(LOG_PATH)) == len(store.log.segments) == 1
        assert store.log.last_index > 1, "the segment at hand is filled first"
        fs.failing = frozenset()
        store.append(10)
        last = store.log.last_index
    with opened(fs) as store:
        assert store.entries == entries(last)


def test_a_store_on_a_full_disk_opens_and_is_read() -> None:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(10)
    fs.failing, fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
    with opened(fs) as store:
        assert store.entries == entries(10)
        with pytest.raises(DiskFull):
            store.append(1)


def test_progress_is_reported_for_each_chunk_and_at_the_end() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=8 << 20)
    store.append(5, CHUNK_SIZE)
    store.close()
    seen: list[tuple[int, int, int]] = []
    directory = DataDirectory.open(fs, PATH)
    keyring = open_keyring(directory)
    log = Log.open(fs, directory, keyring, on_progress=lambda *numbers: seen.append(numbers))
    assert len(list(log.replay())) == 5
    assert seen == sorted(seen)
    assert 5 <= len(seen) <= 20
    total = log.size_bytes
    assert seen[-1] == (5, total, total)


def test_replay_reads_a_chunk_at_a_time() -> None:
    """The log streams: no read is larger than a chunk, whatever the segment's size."""
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=5 * CHUNK_SIZE)
    store.append(80, 50_000)
    store.close()
    directory = DataDirectory.open(fs, PATH)
    log = Log.open(fs, directory, open_keyring(directory))
    replay = log.replay()
    before = len(fs.calls)
    for _ in range(10):
        next(replay)
    assert [name for name, _ in fs.calls[before:]].count("pread") == 1
    assert len(list(replay)) == 70


def test_durability_os_does_not_sync_and_says_so_in_the_segment() -> None:
    for durability, syncs, flag in (("sync", 3, 0), ("os", 0, 1)):
        fs = MemoryFileSystem()
        store = Store.open(fs, segment_size=4096, durability=durability)  # type: ignore[arg-type]
        store.append(1)
        before = len(fs.calls)
        store.append(3)
        assert [name for name, _ in fs.calls[before:]].count("fdatasync") == syncs
        assert fs.read(segment_path(1))[10] == flag
        assert store.log.durability == durability
        store.close()


def test_a_newer_segment_format_is_named_as_such() -> None:
    import google_crc32c

    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(1)
    data = fs.read(segment_path(1))
    header = data[:8] + b"\0\2" + data[10:76]
    crc: int = google_crc32c.value(header)
    fs.write(segment_path(1), header + crc.to_bytes(4, "big") + data[SEGMENT_HEADER_SIZE:])
    with pytest.raises(NewerFormat):
        Store.open(fs)


@pytest.mark.parametrize("missing", [1, 2])
def test_a_missing_segment_is_named(missing: int) -> None:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(12)
    fs.unlink(segment_path(missing))
    with pytest.raises(CorruptionError) as caught:
        Store.open(fs)
    assert caught.value.file == segment_path(missing)


def test_other_files_beside_the_segments_are_left_alone() -> None:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(3)
    fs.write(f"{LOG_PATH}/notes.txt", b"mine")
    with opened(fs) as store:
        assert store.entries == entries(3)
    assert fs.read(f"{LOG_PATH}/notes.txt") == b"mine"


def test_a_segment_that_another_process_has_made_is_not_replaced() -> None:
    """It got past the lock, on a network file system for instance."""
    fs = MemoryFileSystem()
    with opened(fs) as store:
        fs.write(segment_path(1), b"another's")
        with pytest.raises(DiskFailed, match="another process has made it"):
            store.append(1)
    assert fs.read(segment_path(1)) == b"another's"
    assert len(fs.listdir(LOG_PATH)) == 1


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_after_a_failed_write_or_sync_the_log_takes_no_more(call: str, number: int, *, prepared: bool) -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=4096)
    store.append(2)
    ways: list[Callable[[LogEntry], object]] = [store.log.append, store.write_prepared]
    fs.fail_at, fs.fail_with = len(fs.calls) + ["pwrite", "fdatasync"].index(call) + 1, number
    with pytest.raises(DiskFailed, match="cannot append to the log"):
        ways[prepared](entry(3))
    calls = len(fs.calls)
    for write in ways * 2:
        with pytest.raises(DiskFailed):
            write(entry(3))
    store.close()
    assert len(fs.calls) == calls, "not even closing may write or sync again"


def test_an_interrupted_append_closes_the_log_for_writes() -> None:
    """An exception that is no error of the disk, such as KeyboardInterrupt, leaves the same doubt."""
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=4096)
    store.append(2)
    fs.stop_after = len(fs.calls) + 1
    with pytest.raises(BaseException, match="stopped"):
        store.append(1)
    fs.stop_after = None
    with pytest.raises(DiskFailed):
        store.append(1)


def test_a_record_is_prepared_where_one_write_makes_it_durable() -> None:
    """Neither a segment, nor the zeros that are written ahead, nor room may lack."""
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=2 * ZEROED_AHEAD)
    assert not store.write_prepared(entry(1)), "there is no segment"
    store.log.append(entry(1))
    calls, prepared = len(fs.calls), 0
    while store.write_prepared(entry(store.log.last_index + 1, 10_000)):
        prepared += 1
        assert len(fs.calls) == calls + 2 * prepared, "one write and one sync"
    assert prepared == ZEROED_AHEAD // 10_048
    store.append(1, 10_000)
    assert store.write_prepared(entry(store.log.last_index + 1)), "zeros were written ahead again"
    last = store.log.last_index
    store.close()
    with opened(fs) as store:
        assert [each.index for each in store.entries] == list(range(1, last + 1))


def test_no_record_is_prepared_that_the_segment_has_no_room_for() -> None:
    store = Store.open(MemoryFileSystem(), segment_size=400)
    store.append(1)
    active = store.log._active
    assert active is not None
    room = active.header.capacity - active.offset - 48 - 1  # the last byte is never used
    assert store.log.prepare(entry(2, room + 1)) is None
    assert store.write_prepared(entry(2, room))
    store.append(1)
    assert [segment.number for segment in store.log.segments] == [1, 2]
    store.close()


def test_durability_os_prepares_a_record_that_is_not_synced() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=4096, durability="os")
    store.append(1)
    calls = len(fs.calls)
    assert store.write_prepared(entry(2))
    assert len(fs.calls) == calls + 1
    store.close()


def test_a_log_takes_nothing_while_a_prepared_record_is_written() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=4096)
    store.append(1)
    record = store.log.prepare(entry(2))
    assert record is not None
    for refused in (lambda: store.log.append(entry(2)), lambda: store.log.prepare(entry(2)), store.log.roll):
        with pytest.raises(DiskFailed):
            refused()
    record.write()
    store.log.finish(record, None)
    store.append(1)
    store.close()
    with opened(fs) as store:
        assert store.entries == entries(3)


def test_an_entry_out_of_its_place_is_not_prepared() -> None:
    with opened(MemoryFileSystem()) as store:
        store.append(2)
        for wrong in (entry(2), entry(4), LogEntry(0, 3, entry(2).time_ms, b"")):
            with pytest.raises(ValueError, match=r"the next is 3|goes back"):
                store.log.prepare(wrong)
        store.append(1)
        assert store.log.last_index == 3

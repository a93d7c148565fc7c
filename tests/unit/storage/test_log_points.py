"""The points of a log: opening it from one, rolling over to a new one, forgetting the segments before one."""

from __future__ import annotations

import errno

import pytest

from haptera.errors import CorruptionError, OutdatedCopy
from haptera.storage import LogPoint, Segment, read_segments
from haptera.storage.errors import DiskFailed, DiskFull
from haptera.storage.segment_format import EMPTY_CAPACITY, NO_TAG
from haptera.testing.filesystem import Crashed, MemoryFileSystem
from tests.unit.storage.stores import LOG_PATH, SEGMENT_SIZE, Store, entries, entry, opened


def segment_path(number: int) -> str:
    return f"{LOG_PATH}/{number:016x}.seg"


def numbers(fs: MemoryFileSystem) -> list[int]:
    return sorted(int(name[:16], 16) for name in fs.listdir(LOG_PATH))


def open_from(fs: MemoryFileSystem, start: LogPoint) -> Store:
    return Store.open(fs, start=start)


def all_points(count: int = 20) -> tuple[MemoryFileSystem, list[LogPoint]]:
    """A log of several segments, and the point at the beginning of each of them."""
    fs = MemoryFileSystem()
    points = []
    with opened(fs) as store:
        for _ in range(count):
            store.append(1)
            points.append(store.log.point)
    return fs, list(dict.fromkeys(points))


def test_the_point_of_an_empty_log_is_the_start() -> None:
    with opened(MemoryFileSystem()) as store:
        assert store.log.point == LogPoint.START == LogPoint(0, 0, 0, NO_TAG, 1)
        assert store.log.roll() == LogPoint.START


def test_the_point_moves_with_the_beginning_of_the_newest_segment() -> None:
    fs, points = all_points()
    assert len(points) > 3
    assert [point.next_segment for point in points] == list(range(1, len(points) + 1))
    for point in points[1:]:
        last = entry(point.index)
        header = fs.read(segment_path(point.next_segment))
        assert (point.term, point.time_ms) == (last.term, last.time_ms)
        assert point.tag == header[52:68]
        assert point.index + 1 == int.from_bytes(header[44:52], "big")


def test_a_log_goes_on_from_any_of_its_points() -> None:
    whole, points = all_points()
    for point in points:
        fs = whole.power_failure("keep")
        store = open_from(fs, point)
        assert store.entries == entries(20)[point.index :]
        assert store.log.recovery.entries == 20 - point.index
        assert (store.log.first_index, store.log.last_index) == (1, 20)
        store.append(3)
        store.close()
        with opened(fs) as store:
            assert store.entries == entries(23)


def test_the_segments_before_the_point_are_history() -> None:
    """They are listed with what their headers and those behind them say, and none of their records is read."""
    fs, points = all_points()
    with opened(fs) as store:
        whole = store.log.segments
    data = bytearray(fs.read(segment_path(1)))
    data[-20] ^= 1
    fs.write(segment_path(1), bytes(data))
    store = open_from(fs, points[-1])
    found = store.log.segments
    store.close()
    for replayed, listed in zip(whole, found, strict=True):
        assert (listed.number, listed.path, listed.first_index) == (
            replayed.number,
            replayed.path,
            replayed.first_index,
        )
        assert (listed.last_index, listed.size_bytes) == (replayed.last_index, replayed.size_bytes)
        assert replayed.last_time_ms == entry(replayed.last_index).time_ms
        assert replayed.last_time_ms <= listed.last_time_ms <= entry(min(20, replayed.last_index + 1)).time_ms
    assert found[-2].last_time_ms == entry(found[-2].last_index).time_ms, "the point has the time of its last entry"


def test_the_segments_say_which_entries_they_hold() -> None:
    with opened(MemoryFileSystem()) as store:
        store.append(20)
        segments = store.log.segments
        assert all(isinstance(segment, Segment) for segment in segments)
        assert segments[0].first_index == 1
        assert [segment.first_index for segment in segments[1:]] == [each.last_index + 1 for each in segments[:-1]]
        assert segments[-1].last_index == 20
        for segment in segments:
            assert segment.last_time_ms == entry(segment.last_index).time_ms


def test_rolling_seals_the_segment_and_begins_the_next() -> None:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(2)
        sealed = store.log.roll()
        assert (sealed.index, sealed.next_segment) == (2, 2)
        assert store.log.roll() == sealed == store.log.point
        assert len(fs.read(segment_path(1))) < SEGMENT_SIZE
        assert len(fs.read(segment_path(2))) == EMPTY_CAPACITY
        store.append(1)
        assert len(fs.read(segment_path(2))) == SEGMENT_SIZE
        assert store.log.point == sealed
    store = open_from(fs, sealed)
    assert store.entries == entries(3)[2:]
    store.close()


def test_a_roll_is_durable() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=4096)
    store.append(5)
    point = store.log.roll()
    left = open_from(fs.power_failure("drop"), point)
    assert left.entries == []
    assert left.log.last_index == 5


def test_a_full_disk_at_a_roll_stops_neither_reads_nor_writes() -> None:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(2)
        before = store.log.point
        fs.failing, fs.fail_with = frozenset({"allocate"}), errno.ENOSPC
        with pytest.raises(DiskFull):
            store.log.roll()
        assert store.log.point == before, "a snapshot stands where a segment begins"
        assert store.log.segments[-1].last_index == 2
        fs.failing = frozenset()
        assert store.log.roll().next_segment == 2
        store.append(1)
    with opened(fs) as store:
        assert store.entries == entries(3)


def test_a_failed_roll_closes_the_log_for_writes() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs, segment_size=4096)
    store.append(2)
    fs.fail_at, fs.fail_with = len(fs.calls) + 2, errno.EIO
    with pytest.raises(DiskFailed):
        store.log.roll()
    for attempt in (store.log.roll, lambda: store.append(1)):
        with pytest.raises(DiskFailed, match="takes no more writes"):
            attempt()


def test_a_closed_log_is_not_rolled() -> None:
    store = Store.open(MemoryFileSystem())
    store.close()
    with pytest.raises(RuntimeError, match="closed"):
        store.log.roll()


def test_segments_before_a_point_can_be_forgotten() -> None:
    fs, points = all_points()
    with opened(fs) as store:
        store.log.forget_before(points[2].next_segment)
        assert numbers(fs)[0] == points[2].next_segment
        assert store.log.first_index == points[2].index + 1
        assert sum(segment.size_bytes for segment in store.log.segments) == store.log.size_bytes
        store.log.forget_before(1)
        assert numbers(fs)[0] == points[2].next_segment
    for point in points[2:]:
        again = open_from(fs.power_failure("keep"), point)
        assert again.entries == entries(20)[point.index :]
    for point in points[:2]:
        with pytest.raises(CorruptionError) as caught:
            open_from(fs.power_failure("keep"), point)
        assert caught.value.file == segment_path(point.next_segment)


def test_the_newest_segment_is_never_forgotten() -> None:
    fs = MemoryFileSystem()
    with opened(fs) as store:
        store.append(20)
        point = store.log.roll()
        with pytest.raises(ValueError, match="not older than the newest"):
            store.log.forget_before(point.next_segment + 1)
        store.log.forget_before(point.next_segment)
        assert numbers(fs) == [point.next_segment]
        assert (store.log.segments, store.log.first_index, store.log.last_index) == ((), 0, 20)
        store.append(1)
        assert store.log.first_index == 21
    store = open_from(fs, point)
    assert store.entries == [entry(21)]
    store.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_while_segments_are_forgotten_leaves_no_gap(seed: int) -> None:
    whole, points = all_points()
    for stop in range(40):
        fs = whole.power_failure("keep")
        store = open_from(fs, points[-1])
        fs.stop_after = len(fs.calls) + stop
        try:
            store.log.forget_before(points[-1].next_segment)
        except Crashed:
            pass
        left = open_from(fs.power_failure("reorder", seed), points[-1])
        assert left.entries == entries(20)[points[-1].index :]


def test_a_segment_that_cannot_be_removed_is_kept_in_the_list() -> None:
    fs, points = all_points()
    with opened(fs) as store:
        before = store.log.segments
        fs.failing = frozenset({"unlink"})
        with pytest.raises(DiskFailed):
            store.log.forget_before(points[-1].next_segment)
        fs.failing = frozenset()
        assert store.log.segments == before
        store.append(1)
        store.log.forget_before(points[-1].next_segment)


def test_a_log_that_ends_before_the_point_is_an_outdated_copy() -> None:
    whole, points = all_points()
    for point in points[1:]:
        for newest in range(point.next_segment):
            fs = whole.power_failure("keep")
            for number in numbers(fs):
                if number > newest:
                    fs.unlink(segment_path(number))
            before = {number: fs.read(segment_path(number)) for number in numbers(fs)}
            with pytest.raises(OutdatedCopy) as caught:
                open_from(fs, point)
            assert caught.value.file == LOG_PATH
            assert {number: fs.read(segment_path(number)) for number in numbers(fs)} == before


def test_a_point_of_another_log_is_refused() -> None:
    fs, points = all_points()
    _, others = all_points()
    for mine, other in zip(points[1:], others[1:], strict=True):
        with pytest.raises(CorruptionError) as caught:
            open_from(fs, other)
        assert caught.value.file == segment_path(mine.next_segment)


def test_history_whose_headers_are_no_logs_is_refused() -> None:
    fs, points = all_points()
    fs.write(segment_path(2), fs.read(segment_path(1)))
    with pytest.raises(CorruptionError):
        open_from(fs, points[-1])
    fs, points = all_points()
    fs.write(segment_path(2), fs.read(segment_path(2))[:80])
    with pytest.raises(CorruptionError, match="a segment with records"):
        open_from(fs, points[-1])


def test_sealed_segments_are_read_beside_a_log_at_work() -> None:
    """Nothing is changed, nothing is repaired, and the segments around them may come and go."""
    fs, points = all_points()
    store = open_from(fs, points[-1])
    store.append(7)
    store.log.roll()
    end = store.log.point
    store.log.forget_before(3)
    calls = len(fs.calls)
    for start in points[2:]:
        for until in range(start.next_segment, end.next_segment + 1):
            found = read_segments(fs, LOG_PATH, store.keyring, start, until)
            assert list(found) == entries(27)[start.index : found.point.index]
            assert found.point.next_segment == until
            assert found.point in {*points, end} or until > points[-1].next_segment
            assert until < end.next_segment or found.point == end
    assert {name for name, _ in fs.calls[calls:]} <= {"listdir", "open", "pread", "size"}
    with pytest.raises(CorruptionError):
        read_segments(fs, LOG_PATH, store.keyring, points[0], end.next_segment)
    with pytest.raises(CorruptionError, match="no record"):
        list(read_segments(fs, LOG_PATH, store.keyring, points[2], end.next_segment + 1))


def test_an_unsealed_segment_is_no_end_of_sealed_ones() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs)
    store.append(2)
    with pytest.raises(CorruptionError, match="no record"):
        list(read_segments(fs, LOG_PATH, store.keyring, until=2))


def test_a_log_without_a_node_is_read_to_its_end() -> None:
    fs = MemoryFileSystem()
    store = Store.open(fs)
    store.append(12)
    fs.stop_after = len(fs.calls) + 1
    with pytest.raises(Crashed):
        store.append(1)
    left = fs.power_failure("tear", 3)
    before = {number: left.read(segment_path(number)) for number in numbers(left)}
    found = read_segments(left, LOG_PATH, store.keyring)
    assert list(found) == entries(12)
    assert {number: left.read(segment_path(number)) for number in numbers(left)} == before

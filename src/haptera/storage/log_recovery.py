"""Recovery of a log: reads its segments in order from a point on, and leaves the last one sealed.

The rules are in the text of `haptera.storage.log`. `haptera.node.recovery` rebuilds the state from the entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from haptera.errors import CorruptionError
from haptera.storage.directory import segment_name
from haptera.storage.errors import OutdatedCopy, failing, translated
from haptera.storage.found_segments import (
    FoundSegment,
    Segment,
    find_segments,
    missing_segment,
    segment_numbers,
    segments_of,
)
from haptera.storage.segment_format import EMPTY_CAPACITY, LogEntry, LogPoint, SegmentHeader
from haptera.storage.segment_reader import SegmentReader
from haptera.storage.segment_writer import seal

if TYPE_CHECKING:
    from haptera.storage.filesystem import FileSystem
    from haptera.storage.keyring import Keyring
    from haptera.storage.open_end import OpenEnd

__all__ = ["LogEnd", "Progress", "Recovery", "Replay", "read_segments"]

#: on_progress(entries, bytes_done, bytes_total), called for each few MiB that are replayed, and at the end.
Progress = Callable[[int, int, int], None]


@dataclass(slots=True)
class Recovery:
    """The findings of a replay: entries and the bytes they take, and the torn tail it cut off: `torn_bytes` of `file`
    from `offset`, or none.
    """

    entries: int = 0
    bytes: int = 0
    torn_bytes: int = 0
    file: str | None = None
    offset: int | None = None


@dataclass(slots=True)
class LogEnd:
    """Where a log ends: its last entry, its sealed segments, and the chain that the next one continues."""

    index: int
    term: int
    time_ms: int
    tag: bytes
    next_number: int
    #: Where the newest segment file begins.
    point: LogPoint
    #: The header of the newest segment file, if it holds no record; the next segment takes its place.
    empty: SegmentHeader | None = None
    sealed: list[Segment] = field(default_factory=list)

    def begin(self, number: int) -> None:
        """Note that the newest segment file is ``number``, which begins here."""
        self.next_number = number
        self.point = LogPoint(self.index, self.term, self.time_ms, self.tag, number)


class Replay:
    """Reads a log from a point on. After `entries`, `end` is where the log goes on and `recovery` says what was found.

    The segments before the point are history: their headers are looked at, unless the replay is of segments that
    others write (`until`). Raises CorruptionError (a segment is missing or its header damaged), OutdatedCopy, WrongKey,
    NewerFormat, DiskFailed.
    """

    def __init__(
        self,
        fs: FileSystem,
        log_path: str,
        keyring: Keyring,
        start: LogPoint,
        *,
        until: int | None = None,
        open_end: OpenEnd | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.recovery: Recovery = Recovery()
        self.end: LogEnd = LogEnd(start.index, start.term, start.time_ms, start.tag, start.next_segment, start)
        self._fs = fs
        self._until = until
        self._open_end = open_end  # of a log that is repaired
        self._on_progress = on_progress
        with translated(log_path, "open the log"):
            numbers = segment_numbers(fs, log_path)
            _check_numbers(log_path, numbers, start, until)
            if until is not None:
                numbers = [number for number in numbers if start.next_segment <= number < until]
            found = find_segments(fs, log_path, keyring, numbers)
        history = [segment for segment in found if segment.number < start.next_segment]
        self._found = found[len(history) :]
        self.end.sealed = segments_of(history, start.index, start.time_ms)

    @property
    def empty(self) -> bool:
        """Whether there is no segment at all."""
        return not self._found and not self.end.sealed

    @property
    def point(self) -> LogPoint:
        """The point behind the segments that have been read."""
        end = self.end
        return LogPoint(end.index, end.term, end.time_ms, end.tag, end.next_number)

    def __iter__(self) -> Iterator[LogEntry]:
        return self.entries()

    def entries(self) -> Iterator[LogEntry]:
        """Every entry, oldest first, once. At the end of a repair a torn tail was cut off and the last segment is
        sealed.
        """
        bytes_total = sum(found.size for found in self._found)
        bytes_done = 0
        for found in self._found:
            with failing(found.path, "recover the segment"):
                yield from self._replay_segment(found, bytes_done, bytes_total)
            bytes_done += found.size
        self._found = []

    def _replay_segment(self, found: FoundSegment, bytes_done: int, bytes_total: int) -> Iterator[LogEntry]:
        last = found is self._found[-1] and self._until is None
        end = self.end
        self._check_header(found)
        end.begin(found.number)
        file = self._fs.open(found.path, "r+" if last and self._open_end is not None else "r")
        try:
            if last:
                file.drop_cache()  # after a failed sync the cache may hold bytes that the disk does not
            reader = SegmentReader(file, found.path, found.size, found.header, found.key)

            def progress(count: int, offset: int) -> None:
                if self._on_progress is not None:
                    self._on_progress(self.recovery.entries + count, bytes_done + offset, bytes_total)

            yield from reader.entries(end.term, end.time_ms, progress)
            torn = reader.finish(last)
            self._take(found, reader, torn)
            if last and self._open_end is not None and _is_unsynced(found.header, reader):
                self._open_end.found_unsealed(torn=torn > 0)
            if last and self._open_end is not None and reader.count:
                try:
                    with failing(reader.path, "seal the segment"):
                        seal(file, reader.offset, data_synced=False)
                except BaseException:
                    self._open_end.failed()
                    raise
        finally:
            file.close()

    def _check_header(self, found: FoundSegment) -> None:
        header, next_index = found.header, self.end.index + 1
        if header.previous_tag != self.end.tag:
            raise CorruptionError(found.path, 0, "a header that continues the segment before", "another segment's tag")
        if header.first_index != next_index:
            raise CorruptionError(
                found.path, 0, f"a segment from index {next_index}", f"from index {header.first_index}"
            )

    def _take(self, found: FoundSegment, reader: SegmentReader, torn: int) -> None:
        """Go on after the segment that has been read."""
        recovery, end = self.recovery, self.end
        if torn:
            recovery.torn_bytes, recovery.file, recovery.offset = torn, found.path, reader.offset
        if not reader.count:
            end.empty = found.header
            return
        end.index, end.term, end.time_ms, end.tag = reader.index, reader.term, reader.time_ms, reader.tag
        end.sealed.append(
            Segment(found.number, found.path, found.header.first_index, end.index, end.time_ms, reader.offset)
        )
        end.next_number += 1
        recovery.entries += reader.count
        recovery.bytes += reader.offset


def _is_unsynced(header: SegmentHeader, reader: SegmentReader) -> bool:
    """Whether a loss of power may have taken records of a segment."""
    return not header.synced and not reader.sealed and header.capacity > EMPTY_CAPACITY


def read_segments(
    fs: FileSystem,
    log_path: str,
    keyring: Keyring,
    start: LogPoint = LogPoint.START,
    until: int | None = None,
    on_progress: Progress | None = None,
) -> Replay:
    """The entries of the segments from `start` on and before the segment `until`, and nothing is changed.

    Iterate over the result; its `point` is then the one behind them. Segments before `until` must be sealed: a node may
    write to later ones, and may remove earlier ones, meanwhile. Without `until` the log is read to its end; it must
    belong to no node then. A torn tail is left where it is, and `recovery` names it. Raises CorruptionError,
    OutdatedCopy, WrongKey, NewerFormat, DiskFailed.
    """
    return Replay(fs, log_path, keyring, start, until=until, on_progress=on_progress)


def _check_numbers(log_path: str, numbers: list[int], start: LogPoint, until: int | None) -> None:
    """Refuse a log that does not reach from the point `start`, or to the segment `until`."""
    if until is not None:
        reached = {*numbers}
        for number in range(start.next_segment, until):
            if number not in reached:
                raise missing_segment(log_path, number)
    elif not numbers:
        return  # a log that has yet to be made; `Log.open` knows whether it is one
    elif numbers[-1] < start.next_segment:
        newest = segment_name(numbers[-1])
        raise OutdatedCopy(log_path, segment_name(start.next_segment), f"{newest} as its newest segment")
    elif numbers[0] > start.next_segment:
        raise missing_segment(log_path, start.next_segment)

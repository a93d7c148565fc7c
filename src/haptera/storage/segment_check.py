"""The check of a log's segments: it reads every byte, and goes on behind each fault to find the next.

A node may be writing the last segment meanwhile. The record that it writes looks torn for a moment, so the check looks
at each fault twice, and names it only if it stays.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from haptera.errors import CorruptionError, StorageError
from haptera.storage.check_findings import Finding, Findings
from haptera.storage.directory import segment_name
from haptera.storage.errors import translate
from haptera.storage.filesystem import TEMPORARY
from haptera.storage.found_segments import read_segment_header, segment_numbers
from haptera.storage.segment_format import NO_TAG, SEGMENT_HEADER_SIZE, SegmentHeader
from haptera.storage.segment_reader import SegmentReader, nonzero_end

if TYPE_CHECKING:
    from haptera.storage.data_key import DataKey
    from haptera.storage.filesystem import FileSystem
    from haptera.storage.keyring import Keyring
    from haptera.storage.segment_format import LogEntry

__all__ = ["CheckedSegment", "check_segments"]


@dataclass(slots=True)
class CheckedSegment:
    """A segment file as the check has found it.

    `header` is None where it cannot be read. `records` counts the valid records; `seen_index` and `seen_time_ms` are
    the last one's, and `first_time_ms` is the first one's. `end`, `index`, `term`, `time_ms` and `tag` are those of the
    last record before the first fault, and `whole` is false where there is one.
    """

    number: int
    path: str
    size: int = 0
    #: Bytes up to the last one that is not zero: an active segment has zeros behind its records.
    used: int = 0
    header: SegmentHeader | None = None
    records: int = 0
    seen_index: int = 0
    seen_time_ms: int = 0
    end: int = SEGMENT_HEADER_SIZE
    index: int = 0
    term: int = 0
    first_time_ms: int = 0
    time_ms: int = 0
    tag: bytes = NO_TAG
    whole: bool = False
    sealed: bool = False


def check_segments(fs: FileSystem, log_path: str, keyring: Keyring | None, findings: Findings) -> list[CheckedSegment]:
    """Check every segment of a log, oldest first. Without a keyring their headers alone are read.

    Raises FileNotFoundError if a segment is gone that was listed: a node that runs has removed it.
    """
    try:
        names = sorted(fs.listdir(log_path))
        numbers = segment_numbers(fs, log_path)
    except OSError as error:
        findings.add_error(translate(error, log_path, "list the log"), log_path)
        return []
    for name in names:
        if name.endswith(TEMPORARY):
            findings.add(Finding.left_over(os.path.join(log_path, name)))
    checked: list[CheckedSegment] = []
    for number in numbers:
        before = checked[-1] if checked else None
        for missing in range(before.number + 1 if before else number, number)[:_MISSING_MAX]:
            path = os.path.join(log_path, segment_name(missing))
            findings.add(Finding("damage", path, 0, "a segment", "no file"))
        segment = CheckedSegment(number, os.path.join(log_path, segment_name(number)))
        try:
            _SegmentCheck(fs, segment, before, findings, last=number == numbers[-1]).run(keyring)
        except FileNotFoundError:
            raise
        except OSError as error:
            findings.add_error(translate(error, segment.path, "read the segment"), segment.path)
        checked.append(segment)
    return checked


#: Missing segments in a row that are named one by one.
_MISSING_MAX: Final = 100


class _SegmentCheck:
    """Reads one segment, on behind every fault. `before` is the segment before it, if there is one."""

    def __init__(
        self, fs: FileSystem, segment: CheckedSegment, before: CheckedSegment | None, findings: Findings, *, last: bool
    ) -> None:
        self._fs = fs
        self._segment = segment
        self._before = before
        self._findings = findings
        self._last = last
        self._term, self._time_ms = (before.term, before.time_ms) if before is not None else (0, 0)

    def run(self, keyring: Keyring | None) -> None:
        segment = self._segment
        file = self._fs.open(segment.path, "r")
        try:
            segment.size = file.size()
            segment.used = nonzero_end(file, 0, segment.size)
            key = self._begin(keyring)
            if segment.header is not None and key is not None:
                self._read(SegmentReader(file, segment.path, segment.size, segment.header, key))
        finally:
            file.close()

    def _begin(self, keyring: Keyring | None) -> DataKey | None:
        """Read the header, and find its key."""
        segment = self._segment
        try:
            header, segment.size, _ = read_segment_header(self._fs, segment.path, segment.number)
            segment.header = header
            segment.index, segment.tag = header.first_index - 1, header.previous_tag
            self._check_chain(header)
            return None if keyring is None else keyring.key_of(segment.path, header.key_id)
        except StorageError as error:
            self._findings.add_error(error, segment.path)
            return None

    def _check_chain(self, header: SegmentHeader) -> None:
        before = self._before
        if before is None or not before.whole or before.number + 1 != header.number:
            return  # it is not known where this one should begin
        expected = f"a segment that continues index {before.index} of the one before"
        if header.first_index != before.index + 1:
            actual = f"one from index {header.first_index}"
        elif header.previous_tag != before.tag:
            actual = "another segment's tag"
        else:
            return
        self._findings.add(Finding("damage", self._segment.path, 0, expected, actual))

    def _read(self, reader: SegmentReader) -> None:
        segment = self._segment
        segment.whole, segment.sealed = True, reader.sealed
        looked_at = -1
        while True:
            fault, torn = None, 0
            try:
                for entry in reader.entries(self._term, self._time_ms, _no_progress):
                    self._count(entry)
                torn = reader.finish(self._last)
            except CorruptionError as error:
                fault = error
            if segment.whole:
                segment.end, segment.index, segment.tag = reader.offset, reader.index, reader.tag
            if (fault is not None or torn) and looked_at != reader.offset:
                looked_at = reader.offset  # a node that runs may be writing here
                continue
            if torn:
                self._findings.add(_torn(segment.path, reader, torn))
            if fault is None:
                return
            segment.whole = False
            self._findings.add_error(fault, segment.path)
            if not reader.skip_damage():
                return

    def _count(self, entry: LogEntry) -> None:
        segment = self._segment
        self._term, self._time_ms = entry.term, entry.time_ms
        segment.records += 1
        segment.seen_index, segment.seen_time_ms = entry.index, entry.time_ms
        if segment.whole:
            segment.term, segment.time_ms = entry.term, entry.time_ms
            if segment.records == 1:
                segment.first_time_ms = entry.time_ms


def _torn(path: str, reader: SegmentReader, size: int) -> Finding:
    expected = f"the record of index {reader.index + 1}, or the end"
    return Finding("torn_tail", path, reader.offset, expected, f"{size} bytes of a write that was cut short")


def _no_progress(count: int, offset: int) -> None:
    """No caller waits for the progress of a check."""

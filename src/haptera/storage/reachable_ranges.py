"""The states that a data directory can give back: ranges of its history, each a state to begin from and the entries
behind it without a gap.

A range begins at a whole snapshot, or at the empty log where its first segment is there. It ends at the log's end, or
before the first fault. A snapshot behind the fault begins the next range.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from haptera.errors import CorruptionError
from haptera.storage.log_recovery import read_segments
from haptera.storage.segment_format import LogPoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.storage.directory_check import Check
    from haptera.storage.filesystem import FileSystem
    from haptera.storage.segment_check import CheckedSegment
    from haptera.storage.segment_format import LogEntry

__all__ = ["Base", "ReachableRange", "reachable_ranges"]


@dataclass(frozen=True, slots=True)
class Base:
    """A state to begin from: that of the snapshot `file`, or the empty one before the first entry (`file` is None)."""

    point: LogPoint
    revision: int = 0
    file: str | None = None


@dataclass(slots=True)
class ReachableRange:
    """A part of the history: `bases`, oldest first, and the `segments` from the oldest base on.

    `index` and `time_ms` are those of its last entry. `broken` says that a fault follows there.
    """

    bases: list[Base]
    index: int
    time_ms: int
    segments: list[CheckedSegment] = field(default_factory=list)
    broken: bool = False

    def entries(self, fs: FileSystem, check: Check, base: Base) -> Iterator[LogEntry]:
        """The entries behind one of the bases, in order, all of them.

        Raises CorruptionError and DiskFailed if the files have changed since they were checked.
        """
        index = base.point.index
        if index == self.index or check.keyring is None:
            return
        # Up to the one with the last entry: one behind it may be under a key that is not at hand.
        until = next(segment.number for segment in self.segments if segment.index >= self.index) + 1
        for entry in read_segments(fs, check.log_path, check.keyring, base.point, until):
            index = entry.index
            yield entry
            if index == self.index:
                return  # what follows is torn or damaged, or was written since
        raise CorruptionError(check.log_path, 0, f"entries up to index {self.index}, as before", f"up to {index}")

    def is_removed(self, fs: FileSystem) -> bool:
        """Whether a file of the range is gone: a node that runs removes the oldest ones. Raises OSError."""
        paths = [base.file for base in self.bases if base.file is not None]
        paths += [segment.path for segment in self.segments]
        names = {folder: set(fs.listdir(folder)) for folder in {os.path.dirname(path) for path in paths}}
        return any(os.path.basename(path) not in names[os.path.dirname(path)] for path in paths)


def reachable_ranges(check: Check) -> list[ReachableRange]:
    """The ranges of a directory that was checked, oldest first."""
    segments = {segment.number: segment for segment in check.segments}
    bases = [
        Base(snapshot.point, snapshot.revision, snapshot.path)
        for snapshot in check.snapshots
        if snapshot.whole and snapshot.point is not None
    ]
    first = segments.get(LogPoint.START.next_segment)
    if first is not None and first.header is not None and first.header.first_index == 1:
        bases.append(Base(LogPoint.START))
    ranges: list[ReachableRange] = []
    for base in sorted(bases, key=lambda base: base.point.index):
        if ranges and _holds(ranges[-1], base.point):
            ranges[-1].bases.append(base)
        else:
            ranges.append(_from(base, segments))
    return ranges


def _from(base: Base, segments: dict[int, CheckedSegment]) -> ReachableRange:
    """The range from a base on, as far as each segment continues the one before."""
    point = base.point
    found = ReachableRange([base], point.index, point.time_ms)
    tag, number = point.tag, point.next_segment
    while (segment := segments.get(number)) is not None:
        header = segment.header
        if header is None or header.previous_tag != tag or header.first_index != found.index + 1:
            found.broken = True
            return found
        found.segments.append(segment)
        if segment.index > found.index:
            found.index, found.time_ms = segment.index, segment.time_ms
        if not segment.whole:
            found.broken = True
            return found
        tag, number = segment.tag, number + 1
    found.broken = any(later > number for later in segments)
    return found


def _holds(found: ReachableRange, point: LogPoint) -> bool:
    """Whether a range passes through a point."""
    before = next((segment for segment in found.segments if segment.number == point.next_segment - 1), None)
    if before is None:
        return point == found.bases[0].point
    return before.whole and (before.index, before.tag) == (point.index, point.tag)

"""Point-in-time recovery: a directory with the state that another had at a revision or a time that its files reach."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from haptera.errors import ForeignArchive, StorageError
from haptera.node.offline.rebuild import Moment, Rebuilt, rebuild
from haptera.storage import check_directory, reachable_ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.storage import Base, Check, FileSystem, HistorySource, ReachableRange, Unlock

__all__ = ["Reach", "Timeline", "shown_time"]


@dataclass(frozen=True, slots=True)
class Reach:
    """A range with its revisions: every one from the first to the last can be restored, and every time.

    `last` of the directory's newest range is its present. Times are Unix milliseconds; `first_time_ms` is 0 if nothing
    was written before the range's end. `broken` says that a fault follows. The revisions between the two of one of the
    `gaps` were never made.
    """

    first_revision: int
    first_index: int
    first_time_ms: int
    last_revision: int
    last_index: int
    last_time_ms: int
    snapshots: int
    segments: int
    broken: bool
    gaps: list[tuple[int, int]]

    def __str__(self) -> str:
        ends = [self.first_revision, *(end for gap in self.gaps for end in gap), self.last_revision]
        revisions = " and ".join(f"{first} to {last}" for first, last in zip(ends[::2], ends[1::2], strict=True))
        return f"revisions {revisions}, {shown_time(self.first_time_ms)} to {shown_time(self.last_time_ms)}"


class Timeline:
    """The history of a data directory, as far as its files reach. Nothing is changed and nothing is locked.

    `fs` shows the directory. Everything that is damaged is left out: `check.findings` has it.
    """

    def __init__(self, fs: FileSystem, path: str, unlock: Unlock, *, current: bool = True) -> None:
        """Check every byte of the directory. `current` says that the end of its log is the present of its store.

        Raises StorageError where there is none, DiskFailed, and the error of the keys where they cannot be read.
        """
        self.fs = fs
        self.check: Check = check_directory(fs, path, unlock)
        if self.check.refusal is not None:
            raise self.check.refusal
        self._current = current
        self.ranges: list[ReachableRange] = reachable_ranges(self.check)

    @classmethod
    def of(cls, source: HistorySource) -> Timeline:
        """The history of a data directory or a backup, with its archive. Raises ForeignArchive, too."""
        found = cls(source.fs, source.path, source.unlock, current=source.current)
        if source.archive_of and source.archive_of != found.check.node_id:
            raise ForeignArchive(source.archive_path, found.check.node_id.hex(), source.archive_of.hex())
        return found

    def reach(self) -> list[Reach]:
        """Every range that can be reached, oldest first. Takes as long as a start for each of them.

        Raises CorruptionError, ApplyFailed, DiskFailed.
        """
        return [self._reach(found) for found in self.ranges]

    def at_revision(self, revision: int) -> Rebuilt:
        """The state right after the change that made a revision.

        Raises StorageError with the ranges if it cannot be reached, CorruptionError, ApplyFailed, DiskFailed.
        """
        found = self._rebuilt(Moment(revision=revision), lambda base: base.revision <= revision)
        if found is None or found.machine.revision != revision:
            raise self._unreachable(f"revision {revision}")
        return found

    def at_time(self, time_ms: int, now_ms: int) -> Rebuilt:
        """The state after the last entry whose time is not later than `time_ms`, Unix milliseconds.

        A time behind the last entry is that entry's state, if the log is current and whole to its end, and `now_ms` is
        not earlier.
        Raises as `at_revision`.
        """
        newest = self.ranges[-1] if self.ranges else None
        for found in reversed(self.ranges):
            present = self._current and found is newest and not found.broken and time_ms <= now_ms
            if _first_time_ms(found) <= time_ms and (time_ms <= found.time_ms or present):
                base = next(base for base in reversed(found.bases) if base.point.time_ms <= time_ms)
                return rebuild(self.fs, self.check, found, base, Moment(time_ms=time_ms))
        raise self._unreachable(shown_time(time_ms))

    def _rebuilt(self, moment: Moment, reaches: Callable[[Base], bool]) -> Rebuilt | None:
        for found in reversed(self.ranges):
            for base in reversed(found.bases):
                if reaches(base):
                    return rebuild(self.fs, self.check, found, base, moment)
        return None

    def _reach(self, found: ReachableRange) -> Reach:
        first = found.bases[0]
        last = rebuild(self.fs, self.check, found, found.bases[-1], Moment()).machine
        return Reach(
            first.revision,
            first.point.index,
            _first_time_ms(found),
            last.revision,
            found.index,
            found.time_ms,
            sum(base.file is not None for base in found.bases),
            len(found.segments),
            found.broken,
            last.kv.gaps.within(first.revision, last.revision),
        )

    def _unreachable(self, wanted: str) -> StorageError:
        ranges, lacking = self.reach(), self.check.findings.lacking_key
        reached = f"; these can: {'; '.join(map(str, ranges))}" if ranges else ", and nor can anything else"
        key = f"; {lacking.file} is under {lacking.actual}, and not under {lacking.expected}" if lacking else ""
        return StorageError(f"{self.check.path}: {wanted} cannot be reached{reached}{key}")


def _first_time_ms(found: ReachableRange) -> int:
    """The earliest time of a range: its first base's, or its first entry's where it begins with the empty log."""
    base = found.bases[0]
    if base.file is not None:
        return base.point.time_ms
    return found.segments[0].first_time_ms if found.segments else 0


def shown_time(time_ms: int) -> str:
    """A time as people and `--to-time` read it, to the millisecond."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return f"{time_ms / 1000} s"

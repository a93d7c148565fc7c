"""Retention at work: it knows the files of the past, removes the oldest beyond the bounds, and spares pinned ones."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from haptera.errors import StorageError
from haptera.node.snapshots.decision import Bounds, Disposal, Kept, SegmentFile, Snapshot, decide, next_age_ms
from haptera.node.snapshots.disposal import dispose

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from haptera.storage import FileSystem, Log

_logger = logging.getLogger(__name__)


class Pin:
    """Keeps files from removal until `release`, which may be called again. ``snapshot`` is the one that is kept."""

    def __init__(self, kept: Kept, snapshot: Snapshot | None, release: Callable[[Pin], None]) -> None:
        self.kept = kept
        self.snapshot = snapshot
        self._release = release

    def release(self) -> None:
        """Let the files go."""
        self._release(self)

    def __enter__(self) -> Pin:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Retention:
    """The snapshots and segments of one data directory. It belongs to the node's loop; files go on another thread.

    ``snapshots`` are those that were found, oldest first. ``retain_bytes`` and ``retain_ms`` are the bounds,
    ``time_ms`` gives entry time. ``held_back`` gives the number of the lowest segment that is still to be copied
    elsewhere, if one is: it and all behind it stay.
    """

    def __init__(
        self,
        fs: FileSystem,
        log: Log,
        snapshots_path: str,
        snapshots: list[Snapshot],
        *,
        retain_bytes: int,
        retain_ms: int,
        time_ms: Callable[[], int],
        held_back: Callable[[], int | None] = lambda: None,
    ) -> None:
        #: Whether a removal has failed. Nothing is removed from then on: what did go may not be gone for good.
        self.failed: bool = False
        self._fs = fs
        self._log = log
        self._snapshots_path = snapshots_path
        self._snapshots = snapshots
        self._retain_bytes = retain_bytes
        self._retain_ms = retain_ms
        self._time_ms = time_ms
        self._held_back = held_back
        self._removed_before = 0  # segments with lower numbers are gone, or about to go
        self._pins: set[Pin] = set()  # bounded by its users: a backup at a time has one
        self._running: asyncio.Future[None] | None = None

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The snapshots that are there, oldest first."""
        return tuple(self._snapshots)

    @property
    def newest(self) -> Snapshot | None:
        """The newest whole snapshot."""
        return next((each for each in reversed(self._snapshots) if each.whole), None)

    @property
    def oldest(self) -> Snapshot | None:
        """The snapshot at which the reachable past begins; None while it is all that ever was."""
        segments = self._log.segments
        if not segments or segments[0].number == 1:
            return None
        return next((each for each in self._snapshots if each.whole and each.next_segment >= segments[0].number), None)

    def add(self, snapshot: Snapshot) -> None:
        """Note a snapshot that is whole, durable and newer than all others."""
        self._snapshots = [each for each in self._snapshots if each.index < snapshot.index]
        self._snapshots.append(snapshot)

    def mark_damaged(self, indexes: Collection[int]) -> None:
        """Note that the snapshots of these indexes are damaged, so that nothing relies on them."""
        self._snapshots = [
            msgspec.structs.replace(each, whole=False) if each.index in indexes else each for each in self._snapshots
        ]

    def pin(self, lowest_segment: int, snapshot: int | None = None) -> Pin:
        """Keep the segments from this number on, and the snapshot of this index, until the pin is released.

        Raises ValueError where one of them is not there any more. The newest snapshot always is.
        """
        numbers = [segment.number for segment in self._log.segments]
        oldest = max(self._removed_before, numbers[0] if numbers else 1)
        if oldest > lowest_segment:
            raise ValueError(f"segment {lowest_segment} was removed; the oldest is {oldest}")
        found = next((each for each in self._snapshots if each.index == snapshot), None)
        if snapshot is not None and found is None:
            raise ValueError(f"there is no snapshot of index {snapshot}")
        pin = Pin(Kept(lowest_segment, snapshot), found, self._pins.discard)
        self._pins.add(pin)
        return pin

    def pin_newest(self) -> Pin:
        """Keep the newest whole snapshot and all of the log behind it; the whole log, where there is none."""
        newest = self.newest
        return self.pin(1, None) if newest is None else self.pin(newest.next_segment, newest.index)

    def decide(self, incoming_bytes: int = 0) -> Disposal:
        """The files that are to be removed now, with so many bytes about to be written."""
        kept = [pin.kept for pin in self._pins]
        held_back = self._held_back()
        if held_back is not None:
            kept.append(Kept(held_back))
        # With the next segment: it is made at any moment, perhaps before a file is gone.
        incoming_bytes += self._log.reserved_bytes + self._log.segment_size
        bounds = Bounds(self._retain_bytes, self._time_ms() - self._retain_ms, incoming_bytes)
        return decide(self._snapshots, self._segments(), bounds, kept)

    @property
    def next_in_s(self) -> float | None:
        """Seconds of entry time until something will be too old; None while nothing will be."""
        at_ms = next_age_ms(self._snapshots, self._segments(), self._retain_ms)
        return None if at_ms is None or self.failed else max(at_ms - self._time_ms(), 0) / 1000

    async def run(self, incoming_bytes: int = 0) -> None:
        """Remove what is to be removed, and return when it is gone, or could not be removed."""
        while self._running is not None:
            await asyncio.shield(self._running)
        if self.failed:
            return
        disposal = self.decide(incoming_bytes)
        if not disposal:
            return
        loop = asyncio.get_running_loop()
        # From here on the files are no longer there for anyone, so that none is pinned while it goes.
        gone = set(disposal.snapshots)
        self._snapshots = [each for each in self._snapshots if each.index not in gone]
        if disposal.segments:
            self._removed_before = disposal.segments[-1] + 1
        self._running = loop.create_future()
        try:
            await loop.run_in_executor(None, dispose, self._fs, self._log, self._snapshots_path, disposal)
        except StorageError as error:
            self.failed = True
            _logger.error(
                "retention_failed",
                exc_info=error,
                extra={"meaning": "nothing old is removed until the node starts again, so the directory grows"},
            )
        else:
            _logger.info(
                "history_removed", extra={"snapshots": len(disposal.snapshots), "segments": len(disposal.segments)}
            )
        finally:
            self._running.set_result(None)
            self._running = None

    def _segments(self) -> list[SegmentFile]:
        return [
            SegmentFile(each.number, each.size_bytes)
            for each in self._log.segments
            if each.number >= self._removed_before
        ]

    def disown(self) -> None:
        """Remove nothing in a forked child: the files are the parent's."""
        self.failed = True

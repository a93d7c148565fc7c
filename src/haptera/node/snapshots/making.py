"""Makes one snapshot: recovers the state up to a point of the log, and writes it. Any process may run it."""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import TYPE_CHECKING, TypeVar

from haptera.errors import CorruptionError
from haptera.node.recovery import recover
from haptera.node.snapshots.messages import Made
from haptera.state import SNAPSHOT_BOUNDS, dump_pieces
from haptera.storage import SnapshotReader, read_segments, remove_snapshots, write_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from haptera.storage import FileSystem, Keyring, LogEntry, LogPoint, Replay, SnapshotFile

T = TypeVar("T")


def make_snapshot(
    fs: FileSystem,
    path: str,
    keyring: Keyring,
    point: LogPoint,
    events_size: int,
    progress: Callable[[], None],
    damaged: list[int],
) -> Made:
    """Make a snapshot of the data directory at `path`, which stands at ``point``, and read it back.

    ``point`` is behind a sealed segment. The events in the snapshot take at most ``events_size`` bytes. ``progress`` is
    called often. ``damaged`` gets the indexes of the older
    snapshots that turn out to be damaged, also where an error follows. Raises the errors of recovery, CorruptionError
    too where the log leads to another record than the point's, and DiskFull and DiskFailed.
    """
    started = time.monotonic()
    log_path, snapshots_path = os.path.join(path, "log"), os.path.join(path, "snapshots")
    replays: list[Replay] = []

    def entries_after(start: LogPoint) -> Iterator[LogEntry]:
        replays.append(read_segments(fs, log_path, keyring, start, point.next_segment))
        return iter(replays[0])

    def told() -> bool:
        progress()
        return False

    found = recover(
        fs,
        log_path,
        snapshots_path,
        keyring,
        entries_after,
        index_max=point.index,
        abandoned=told,
        on_damage=lambda file: damaged.append(file.index),
        bounds=SNAPSHOT_BOUNDS._replace(size=events_size),
    )
    if replays[0].point != point:
        raise CorruptionError(log_path, 0, f"a log that leads to {point}", f"one that leads to {replays[0].point}")
    machine = found.machine
    file = write_snapshot(
        fs, snapshots_path, keyring, point, machine.revision, _ticking(dump_pieces(machine), progress)
    )
    _read_back(fs, file, keyring, progress)
    return Made(
        index=point.index,
        revision=machine.revision,
        time_ms=point.time_ms,
        next_segment=point.next_segment,
        keys=len(machine.kv.entries),
        size_bytes=file.size_bytes,
        seconds=time.monotonic() - started,
        memory_bytes=_most_memory(),
        damaged=tuple(damaged),
    )


def _read_back(fs: FileSystem, file: SnapshotFile, keyring: Keyring, progress: Callable[[], None]) -> None:
    """Read a snapshot that was just written, before anything that it replaces is removed.

    Raises CorruptionError, and then the snapshot is removed.
    """
    try:
        with SnapshotReader(fs, file.path, keyring) as reader:
            for _ in _ticking(reader.pieces(), progress):
                pass
    except CorruptionError:
        remove_snapshots(fs, os.path.dirname(file.path), [file.index])
        raise


def _ticking(items: Iterable[T], progress: Callable[[], None]) -> Iterator[T]:
    for item in items:
        yield item
        progress()


def _most_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""Salvage: the newest consistent state that a damaged data directory still gives, in a new one.

Each range of the history gives a state at its end: the oldest from the first entry or snapshot up to the first fault, a
later one from a whole snapshot behind that fault. The state with the highest index is the newest, because a state at an
index holds every change up to it. Entries behind its end are not taken: without the ones before them they would make a
state that never was.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haptera.errors import StorageError
from haptera.node.apply_committed import ApplyFailed
from haptera.node.offline.rebuild import Moment, Rebuilt, rebuild
from haptera.node.offline.target import build_directory
from haptera.storage import check_directory, reachable_ranges, segment_name

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.storage import Check, FileSystem, ReachableRange, Unlock

__all__ = ["Lost", "NothingWhole", "Salvaged", "salvage"]


class NothingWhole(StorageError):
    """A damaged data directory has neither a whole snapshot nor the beginning of its log: no state can be rebuilt."""

    name = "NOTHING_WHOLE"


@dataclass(frozen=True, slots=True)
class Lost:
    """The part of a segment whose entries are not in the salvaged state: from `offset` on, `bytes` of it.

    `first_index` is that of the first such entry, and `last_index` the last one's as far as it is known, or 0. No entry
    of it is later than `until_ms` (Unix milliseconds), if that is known and not 0.
    """

    file: str
    offset: int
    bytes: int
    first_index: int
    last_index: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Salvaged:
    """The result of `salvage`. `rule` says in words why this is the newest state."""

    check: Check
    node_id: bytes
    revision: int
    index: int
    time_ms: int
    keys: int
    rule: str
    lost: list[Lost]


def salvage(fs: FileSystem, source: NodeConfig, target: NodeConfig, unlock: Unlock) -> Salvaged:
    """Make a new data directory with the newest consistent state of a damaged one, which stays as it is.

    Raises NothingWhole, StorageError (the target is there), DiskFull, DiskFailed, and the error of the keys where they
    cannot be read.
    """
    check = check_directory(fs, source.data_dir, unlock)
    if check.refusal is not None:
        raise check.refusal
    found, rebuilt = _newest(fs, check)
    machine = rebuilt.machine
    rule = _rule(check, found, machine.index)
    revision, index, time_ms, keys = machine.revision, machine.index, machine.time_ms, len(machine.kv.entries)
    del machine
    node_id = build_directory(fs, target, unlock, rebuilt)
    return Salvaged(check, node_id, revision, index, time_ms, keys, rule, _lost(check, index))


def _newest(fs: FileSystem, check: Check) -> tuple[ReachableRange, Rebuilt]:
    """The state at the highest index, and its range."""
    ranges = reachable_ranges(check)
    failure: StorageError | None = None
    while ranges:
        found = max(ranges, key=lambda found: found.index)
        base = found.bases[-1]
        try:
            return found, rebuild(fs, check, found, base, Moment(index=found.index))
        except StorageError as error:
            failure = error
            check.findings.add_error(error, base.file or check.log_path)
            if isinstance(error, ApplyFailed) and base.point.index < error.index <= found.index:
                found.index, found.broken = error.index - 1, True
            elif len(found.bases) > 1:
                found.bases.pop()
            else:
                ranges.remove(found)
    raise NothingWhole(
        f"{check.path}: no state can be rebuilt, because no snapshot and no beginning of the log is whole"
    ) from failure


def _rule(check: Check, found: ReachableRange, index: int) -> str:
    base = found.bases[0]
    begins = "the first entry" if base.file is None else f"the snapshot {base.file}"
    if not found.broken:
        return f"everything from {begins} to the end of the log, at index {index}"
    return f"everything from {begins} to the first fault behind it, at index {index}"


def _lost(check: Check, index: int) -> list[Lost]:
    """The parts of the log whose entries are not in a state at `index`, oldest first."""
    lost = []
    last = until_ms = 0  # of the segment at hand, as far as the segments behind it say; 0 where they do not
    for segment in reversed(check.segments):
        header = segment.header
        last, until_ms = last or segment.seen_index, until_ms or segment.seen_time_ms
        # Behind a fault at the log's end one record more was written, at least.
        reaches = max(last, segment.index + 1) if header is not None and not segment.whole else last
        if reaches > index or (header is None and not last):
            partly = header is not None and header.first_index <= index + 1 and segment.index <= index
            offset = segment.end if partly else 0
            first = index + 1 if header is None else max(index + 1, header.first_index)
            size = max(0, segment.used - offset)
            lost.append(Lost(segment.path, offset, size, first, last if last >= first else 0, until_ms))
        last, until_ms = (header.first_index - 1, segment.first_time_ms) if header is not None else (0, 0)
    return [*lost[::-1], *_missing_end(check, index)]


def _missing_end(check: Check, index: int) -> list[Lost]:
    """The segment behind the newest snapshot, where it is gone: its entries, and all after them."""
    points = [snapshot.point for snapshot in check.snapshots if snapshot.point is not None]
    if not points:
        return []
    newest = max(points, key=lambda point: point.index)
    if newest.index > index or any(segment.number >= newest.next_segment for segment in check.segments):
        return []
    path = os.path.join(check.log_path, segment_name(newest.next_segment))
    return [Lost(path, 0, 0, newest.index + 1, 0, 0)]

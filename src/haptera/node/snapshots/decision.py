"""Retention: which snapshots and segments the data directory keeps.

`decide` is pure. It looks for the oldest *base* within the bounds, and everything older than the base goes. A base is a
place from which the log can be followed to its end: a whole snapshot whose next segment is still there, or the log's
beginning. The newest of the bases stays for any bounds, because without it nothing can be recovered. Of the
snapshots behind the base those go that are too many (`thinning`); the log there stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from haptera.node.snapshots.thinning import Place, crowded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: The number of the log's first segment, whose beginning needs no snapshot.
FIRST_SEGMENT: Final = 1

#: Snapshots that are kept: four times the 16 that the schedule makes within the default bytes. Requests may make
#: thousands. History is cut at a snapshot, and with so many none that goes leaves a gap of more than a fifteenth of it.
SNAPSHOTS_MAX: Final = 64

#: Segments that are kept: a snapshot ends one, however small it is, and a snapshot in each minute of a week makes
#: 10,080. A start reads the header of each, which takes a second or two, and the loop weighs all of them in 2 ms.
SEGMENTS_MAX: Final = 16_384


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot of the data directory. ``whole`` is false for one that is known to be damaged: it is no base."""

    index: int
    next_segment: int
    time_ms: int
    size_bytes: int
    revision: int = 0
    whole: bool = True


class SegmentFile(msgspec.Struct, frozen=True):
    """A segment of the log, with the bytes that it takes on the disk."""

    number: int
    size_bytes: int


class Kept(msgspec.Struct, frozen=True):
    """Files that must stay: the segments from ``lowest_segment`` on, and the snapshot of ``index`` where it is one."""

    lowest_segment: int
    index: int | None = None


class Bounds(msgspec.Struct, frozen=True):
    """The bounds of what is kept.

    ``size_bytes`` is for snapshots and segments together. ``horizon_ms`` is the entry time from which on every moment
    is to stay reachable. ``incoming_bytes`` are about to be written, by a snapshot that is being made.
    ``snapshots_max`` and ``segments_max`` bound the numbers of files.
    """

    size_bytes: int
    horizon_ms: int
    incoming_bytes: int = 0
    snapshots_max: int = SNAPSHOTS_MAX
    segments_max: int = SEGMENTS_MAX


class Disposal(msgspec.Struct, frozen=True):
    """The files to remove, oldest first: snapshots by their index, segments by their number."""

    snapshots: tuple[int, ...] = ()
    segments: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.snapshots or self.segments)


class _Base(msgspec.Struct, frozen=True):
    """A place from which the log can be followed. The log's beginning has index 0 and the time before all others."""

    index: int
    next_segment: int
    time_ms: int


def decide(
    snapshots: Sequence[Snapshot], segments: Sequence[SegmentFile], bounds: Bounds, kept: Iterable[Kept] = ()
) -> Disposal:
    """Choose the files to remove.

    ``snapshots`` and ``segments`` are all there are, each oldest first. ``kept`` are files that something else needs.
    The newest base is never given up; an older one is as soon as it is beyond the bounds.
    """
    needs = list(kept)
    bases = _bases(snapshots, segments)
    for need in needs:
        bases = [
            base
            for base in bases
            if base.next_segment <= need.lowest_segment and (need.index is None or base.index <= need.index)
        ]
    if not bases:
        return Disposal()
    chosen = 0
    sizes = _sizes(bases, snapshots, segments)
    while chosen + 1 < len(bases) and (
        bounds.incoming_bytes + sizes[chosen] > bounds.size_bytes
        or bases[chosen + 1].time_ms <= bounds.horizon_ms
        or _count(bases[chosen], segments) > bounds.segments_max
    ):
        chosen += 1
    base = bases[chosen]
    gone = [snapshot.index for snapshot in snapshots if snapshot.index < base.index]
    left = snapshots[len(gone) :]
    return Disposal(
        (*gone, *_too_many(base, left, segments, bounds.snapshots_max, needs)),
        tuple(segment.number for segment in segments if segment.number < base.next_segment),
    )


def next_age_ms(snapshots: Sequence[Snapshot], segments: Sequence[SegmentFile], retain_ms: int) -> int | None:
    """The entry time at which something will be too old; None while there is nothing but the newest base."""
    bases = _bases(snapshots, segments)
    return bases[1].time_ms + retain_ms if len(bases) > 1 else None


def _bases(snapshots: Sequence[Snapshot], segments: Sequence[SegmentFile]) -> list[_Base]:
    """The bases, oldest first."""
    oldest = segments[0].number if segments else None
    bases = [_Base(0, FIRST_SEGMENT, -1)] if oldest == FIRST_SEGMENT else []
    bases += [
        _Base(snapshot.index, snapshot.next_segment, snapshot.time_ms)
        for snapshot in snapshots
        if snapshot.whole and (oldest is None or oldest <= snapshot.next_segment)
    ]
    return bases


def _count(base: _Base, segments: Sequence[SegmentFile]) -> int:
    """How many segments are kept with a base. Their numbers have no gap."""
    return segments[-1].number + 1 - base.next_segment if segments else 0


def _too_many(
    base: _Base, snapshots: Sequence[Snapshot], segments: Sequence[SegmentFile], most: int, kept: Iterable[Kept]
) -> list[int]:
    """The snapshots from the base on that are more than ``most``, oldest first: damaged ones, and then crowded ones."""
    excess = len(snapshots) - most
    if excess <= 0:
        return []
    pinned = frozenset(need.index for need in kept if need.index is not None)
    whole = [each for each in snapshots if each.whole]
    newest = whole[-1].index if whole else base.index
    damaged = [each.index for each in snapshots if not each.whole and each.index < newest and each.index not in pinned]
    del damaged[excess:]
    return sorted(damaged + crowded(_places(base, whole, segments), excess - len(damaged), pinned))


def _places(base: _Base, snapshots: Sequence[Snapshot], segments: Sequence[SegmentFile]) -> list[Place]:
    """The places of whole snapshots, oldest first, behind that of the base."""
    places, log_bytes, at = [], 0, 0
    for snapshot in snapshots:
        while at < len(segments) and segments[at].number < snapshot.next_segment:
            log_bytes += segments[at].size_bytes * (segments[at].number >= base.next_segment)
            at += 1
        places.append(Place(snapshot.index, log_bytes, snapshot.time_ms))
    if not base.index:  # the log's beginning, whose time is not known
        places.insert(0, Place(0, 0, places[0].time_ms if places else 0))
    return places


def _sizes(bases: Sequence[_Base], snapshots: Sequence[Snapshot], segments: Sequence[SegmentFile]) -> list[int]:
    """Bytes of all that is kept with each base. One pass: a week at rest may leave thousands too old at once."""
    sizes = []
    size, snapshot, segment = 0, len(snapshots), len(segments)
    for base in reversed(bases):
        while snapshot and snapshots[snapshot - 1].index >= base.index:
            snapshot -= 1
            size += snapshots[snapshot].size_bytes
        while segment and segments[segment - 1].number >= base.next_segment:
            segment -= 1
            size += segments[segment].size_bytes
        sizes.append(size)
    return sizes[::-1]

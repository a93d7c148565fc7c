"""Of too many snapshots those go that lie closest to their neighbours (haptera.node.snapshots.thinning)."""

from __future__ import annotations

import random
from itertools import pairwise

from haptera.node.snapshots.decision import SEGMENTS_MAX, SNAPSHOTS_MAX, Bounds, SegmentFile, Snapshot, decide
from haptera.node.snapshots.thinning import Place, crowded
from haptera.testing import virtual_clock
from tests.unit.node.snapshots.doubles import Kept, settle


def places(*at: int) -> list[Place]:
    return [Place(number, number * 100, number * 100) for number in at]


def test_the_base_the_pinned_ones_and_the_newest_two_stay() -> None:
    assert crowded(places(1, 2, 3, 4, 5), 9) == [2, 3]
    assert crowded(places(1, 2, 3, 4, 5), 9, frozenset({3})) == [2]
    assert crowded(places(1, 2), 9) == []
    assert crowded(places(1, 2, 3, 4, 5), 0) == []


def test_the_closest_to_its_neighbours_goes_first_and_then_its_neighbours_are_further() -> None:
    assert crowded(places(0, 40, 41, 42, 80, 100, 120), 1) == [41]
    assert crowded(places(0, 40, 41, 42, 80, 100, 120), 2) in ([40, 41], [41, 42])


def test_neither_a_burst_of_changes_nor_a_quiet_week_is_left_without_its_snapshots() -> None:
    """The first half has all the time, the second all the bytes."""
    quiet = [Place(number, number, number * 1000) for number in range(50)]
    burst = [Place(50 + number, 50 + number * 1000, 50_000 + number) for number in range(50)]
    gone = crowded([*quiet, *burst], 60)
    assert 25 <= sum(index < 50 for index in gone) <= 35


def test_snapshots_that_are_asked_for_all_the_time_leave_no_gap_of_more_than_a_fifteenth() -> None:
    choices = random.Random(4)
    snapshots: list[Snapshot] = []
    segments: list[SegmentFile] = []
    time_ms = 0
    for number in range(1, 2000):
        time_ms += choices.choice((1, 1000, 60_000))
        segments.append(SegmentFile(number, choices.choice((300, 5000))))
        snapshots.append(Snapshot(number * 10, number + 1, time_ms, 500))
        gone = decide(snapshots, segments, Bounds(1 << 40, -1))
        assert not gone.segments, "all of history stays"
        snapshots = [each for each in snapshots if each.index not in gone.snapshots]
        assert len(snapshots) <= SNAPSHOTS_MAX
    starts = [1, *(each.next_segment for each in snapshots)]
    total = sum(each.size_bytes for each in segments)
    for older, newer in pairwise(starts):
        assert sum(each.size_bytes for each in segments[older - 1 : newer - 1]) <= total / 15
    times = [each.time_ms for each in snapshots]
    assert max(newer - older for older, newer in pairwise(times)) <= time_ms / 15


def test_history_of_too_many_segments_is_cut() -> None:
    count = SEGMENTS_MAX + 100
    segments = [SegmentFile(number, 300) for number in range(1, count + 1)]
    snapshots = [Snapshot(number * 10, number + 1, number, 500) for number in range(150, count, 300)]
    gone = decide(snapshots, segments, Bounds(1 << 40, -1))
    assert gone.segments == tuple(range(1, 151))


@virtual_clock
async def test_a_node_that_is_asked_for_snapshots_all_the_time_keeps_few_and_all_of_its_log() -> None:
    kept = Kept(snapshot_after=1 << 30, retain_bytes=1 << 40)
    count = SNAPSHOTS_MAX + 6
    for _ in range(count):
        kept.write()
        answer = kept.keeper.request()
        await settle()
        kept.maker.done()
        await answer
    await settle()
    snapshots, segments = kept.files
    assert len(snapshots) == SNAPSHOTS_MAX
    assert snapshots[-2:] == [(count - 1) * 10, count * 10]
    assert segments == list(range(1, count + 1))
    await kept.keeper.close()

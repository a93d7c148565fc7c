"""Retention keeps enough to recover, and no more than its bounds (haptera.node.snapshots.decision)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from haptera.node.snapshots.decision import Bounds, Disposal, Kept, SegmentFile, Snapshot, decide

MIB = 1 << 20


@st.composite
def directories(draw: st.DrawFn) -> tuple[list[Snapshot], list[SegmentFile]]:
    """A directory as a node leaves it, a crash in the middle of a disposal included."""
    last = draw(st.integers(1, 14))
    first = draw(st.sampled_from([1, 1, draw(st.integers(1, last))]))
    segments = [SegmentFile(number, draw(st.integers(1, 4 * MIB))) for number in range(first, last + 1)]
    places = sorted(draw(st.sets(st.integers(max(2, first - 2), last + 1), max_size=5)))
    snapshots = [
        Snapshot(
            index=place * 10,
            next_segment=place,
            time_ms=place * 1000 + draw(st.integers(0, 999)),
            size_bytes=draw(st.integers(1, 4 * MIB)),
            whole=draw(st.sampled_from([True, True, True, False])),
        )
        for place in places
    ]
    return snapshots, segments


bounds = st.builds(
    Bounds,
    st.integers(1, 40 * MIB),
    st.integers(-1, 16_000),
    st.sampled_from([0, 0, 3 * MIB]),
    snapshots_max=st.sampled_from([1, 2, 3, 64]),
    segments_max=st.sampled_from([4, 9, 100]),
)
needs = st.lists(
    st.builds(Kept, st.integers(1, 15), st.one_of(st.none(), st.integers(1, 15).map(lambda place: place * 10))),
    max_size=2,
)


def rest(
    snapshots: list[Snapshot], segments: list[SegmentFile], gone: Disposal
) -> tuple[list[Snapshot], list[SegmentFile]]:
    return (
        [each for each in snapshots if each.index not in gone.snapshots],
        [each for each in segments if each.number not in gone.segments],
    )


def recoverable(snapshots: list[Snapshot], segments: list[SegmentFile]) -> list[int]:
    """The indexes from which a start could go on, by the rule of recovery and not by the code under test."""
    numbers = [each.number for each in segments]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    found = [0] if numbers and numbers[0] == 1 else []
    return found + [each.index for each in snapshots if each.whole and (not numbers or each.next_segment >= numbers[0])]


def size(snapshots: list[Snapshot], segments: list[SegmentFile]) -> int:
    return sum(each.size_bytes for each in snapshots) + sum(each.size_bytes for each in segments)


@given(directories(), bounds, needs)
def test_a_directory_that_can_be_recovered_stays_so_after_each_single_removal(
    directory: tuple[list[Snapshot], list[SegmentFile]], bound: Bounds, kept: list[Kept]
) -> None:
    snapshots, segments = directory
    before = recoverable(snapshots, segments)
    gone = decide(snapshots, segments, bound, kept)
    if not before:
        assert not gone
        return
    newest = before[-1]
    for index in gone.snapshots:
        snapshots = [each for each in snapshots if each.index != index]
        assert recoverable(snapshots, segments)[-1] == newest
    for number in gone.segments:
        assert segments[0].number == number, "the oldest goes first"
        segments = segments[1:]
        assert recoverable(snapshots, segments)[-1] == newest, "the newest base and all behind it stay"


@given(directories(), bounds)
def test_more_than_a_bound_is_kept_only_where_the_newest_base_needs_it(
    directory: tuple[list[Snapshot], list[SegmentFile]], bound: Bounds
) -> None:
    snapshots, segments = directory
    left = rest(snapshots, segments, decide(snapshots, segments, bound))
    too_large = size(*left) + bound.incoming_bytes > bound.size_bytes
    if recoverable(snapshots, segments) and (too_large or len(left[1]) > bound.segments_max):
        assert len(recoverable(*left)) == 1


@given(directories(), bounds, needs)
def test_no_more_snapshots_are_kept_than_the_bound_but_for_the_ends_and_the_pinned_ones(
    directory: tuple[list[Snapshot], list[SegmentFile]], bound: Bounds, kept: list[Kept]
) -> None:
    before = recoverable(*directory)
    starts = {0: 1} | {each.index: each.next_segment for each in directory[0]}
    if not before or any(
        need.lowest_segment < starts[before[0]] or (need.index or before[0]) < before[0] for need in kept
    ):
        return  # a pin of what is not there, with which nothing goes
    snapshots, segments = rest(*directory, decide(*directory, bound, kept))
    bases = recoverable(snapshots, segments)
    needed = {*bases[:1], *[base for base in before if base][-2:], *(need.index for need in kept)}
    free = [each for each in snapshots if each.index not in needed and each.index < bases[-1]]
    assert len(snapshots) <= bound.snapshots_max or not free


@given(directories(), bounds, needs)
def test_the_number_of_snapshots_is_no_reason_to_give_up_history(
    directory: tuple[list[Snapshot], list[SegmentFile]], bound: Bounds, kept: list[Kept]
) -> None:
    snapshots, segments = directory
    many = rest(snapshots, segments, decide(snapshots, segments, replace(bound, snapshots_max=64), kept))
    few = rest(snapshots, segments, decide(snapshots, segments, bound, kept))
    assert few[1] == many[1]
    assert recoverable(*few)[:1] == recoverable(*many)[:1]
    assert recoverable(*few)[-2:] == recoverable(*many)[-2:], "damage of the newest leads to the one before it"


@given(directories(), bounds)
def test_nothing_goes_before_a_bound_is_passed(
    directory: tuple[list[Snapshot], list[SegmentFile]], bound: Bounds
) -> None:
    """One base older than the chosen one would break a bound: retention is not a segment too eager."""
    snapshots, segments = directory
    gone = decide(snapshots, segments, bound)
    before, after = recoverable(snapshots, segments), recoverable(*rest(snapshots, segments, gone))
    if not before or before == after:
        return
    at = before.index(after[0])
    if not at:
        return  # snapshots went by their number alone
    dropped = before[at - 1]
    times = {0: -1} | {each.index: each.time_ms for each in snapshots}
    starts = {0: 1} | {each.index: each.next_segment for each in snapshots}
    with_it = (
        [each for each in snapshots if each.index >= dropped],
        [each for each in segments if each.number >= starts[dropped]],
    )
    too_large = size(*with_it) + bound.incoming_bytes > bound.size_bytes
    too_many = len(with_it[1]) > bound.segments_max
    assert too_large or too_many or times[after[0]] <= bound.horizon_ms


@given(directories(), bounds)
def test_every_moment_from_the_horizon_on_stays_reachable_within_the_bytes(
    directory: tuple[list[Snapshot], list[SegmentFile]], bound: Bounds
) -> None:
    snapshots, segments = directory
    unbounded = Bounds(1 << 60, bound.horizon_ms)
    left = rest(snapshots, segments, decide(snapshots, segments, unbounded))
    times = {0: -1} | {each.index: each.time_ms for each in snapshots}
    before, after = recoverable(snapshots, segments), recoverable(*left)
    if before and times[before[0]] <= bound.horizon_ms:
        assert times[after[0]] <= bound.horizon_ms
    elif before:
        assert after == before, "all of it is younger than the horizon"


@given(directories(), bounds, needs)
def test_pinned_files_stay(
    directory: tuple[list[Snapshot], list[SegmentFile]], bound: Bounds, kept: list[Kept]
) -> None:
    snapshots, segments = directory
    gone = decide(snapshots, segments, bound, kept)
    for need in kept:
        assert all(number < need.lowest_segment for number in gone.segments)
        assert need.index not in gone.snapshots


@given(directories(), bounds, needs)
def test_a_second_look_finds_nothing_more_to_remove(
    directory: tuple[list[Snapshot], list[SegmentFile]], bound: Bounds, kept: list[Kept]
) -> None:
    left = rest(*directory, decide(*directory, bound, kept))
    assert not decide(*left, bound, kept)

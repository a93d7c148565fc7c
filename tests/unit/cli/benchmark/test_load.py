"""The load generator, on virtual time: what starts when, and from when a duration counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.cli.benchmark.load import ERROR_PAUSE_NS, INTERVALS_MAX, NS, Operation, Plan, Recorder, run_load
from haptera.errors import Code, ConnectionLost, failure
from haptera.testing import virtual_clock
from tests.support.clocks import LoopClock

if TYPE_CHECKING:
    from collections.abc import Iterator

MS = 1_000_000


def operation(clock: LoopClock, durations: Iterator[int], started: list[int]) -> Operation:
    """An operation that takes the next of ``durations``, and notes when it really started."""

    async def operate() -> tuple[int, int, int]:
        started.append(clock.now())
        await clock.sleep_until(clock.now() + next(durations))
        return 0, 10, 1

    return operate


def stalls(at: int, stall: int, usual: int) -> Iterator[int]:
    """Durations, of which the one numbered ``at`` is a stall."""
    number = 0
    while True:
        yield stall if number == at else usual
        number += 1


async def load(
    *, workers: int, durations: Iterator[int], rate: float | None, end: int | None = None, count: int | None = None
) -> tuple[Recorder, list[int]]:
    clock, started = LoopClock(), list[int]()
    plan = Plan(clock, end=end, count=count, rate=rate)
    recorder = Recorder(["op"], 0)
    await run_load([operation(clock, durations, started) for _ in range(workers)], plan, recorder, clock)
    return recorder, started


@virtual_clock
async def test_an_open_loop_starts_evenly_spaced_while_the_target_keeps_up() -> None:
    recorder, started = await load(workers=4, durations=stalls(-1, 0, 2 * MS), rate=100.0, end=NS)
    assert started == [number * 10 * MS for number in range(100)]
    assert (recorder.durations()[0].min, recorder.durations()[0].max) == (2 * MS, 2 * MS)
    assert recorder.never_started == 0


@virtual_clock
async def test_an_open_loop_counts_from_the_intended_start_so_a_stall_shows_in_what_waited_behind_it() -> None:
    # The first operation takes 1 s; the 99 that were to start meanwhile each waited for the rest of it.
    recorder, started = await load(workers=1, durations=stalls(0, NS, 0), rate=100.0, count=200)
    durations = recorder.durations()[0]
    assert started[:3] == [0, NS, NS]
    assert started[101:] == [number * 10 * MS for number in range(101, 200)]
    assert durations.max == NS
    assert durations.total == sum(NS - number * 10 * MS for number in range(100))


@virtual_clock
async def test_a_closed_loop_counts_the_same_stall_once() -> None:
    recorder, started = await load(workers=1, durations=stalls(0, NS, MS), rate=None, count=200)
    durations = recorder.durations()[0]
    assert started[:3] == [0, NS, NS + MS]
    assert durations.total == NS + 199 * MS


@virtual_clock
async def test_what_an_open_loop_could_not_start_before_its_end_is_counted() -> None:
    # Each takes 50 ms, 2 at a time: 40 a second start, of 100.
    recorder, started = await load(workers=2, durations=stalls(-1, 0, 50 * MS), rate=100.0, end=NS)
    assert recorder.operations == len(started) == 40
    assert recorder.never_started == 60
    assert max(started) < NS


@virtual_clock
async def test_all_workers_that_are_free_start_what_is_due() -> None:
    # Each takes as long as four starts are apart, so four workers are busy and one waits by the clock.
    recorder, started = await load(workers=5, durations=stalls(-1, 0, 40 * MS), rate=100.0, count=50)
    assert started == [number * 10 * MS for number in range(50)]
    assert recorder.durations()[0].max == 40 * MS


@virtual_clock
async def test_a_closed_loop_keeps_all_workers_busy_until_the_end() -> None:
    recorder, started = await load(workers=3, durations=stalls(-1, 0, 10 * MS), rate=None, end=NS)
    assert recorder.operations == len(started) == 300
    assert recorder.size == 3000
    assert recorder.rows == 300
    assert recorder.end == NS


@virtual_clock
async def test_a_count_ends_a_run_before_its_time() -> None:
    recorder, _ = await load(workers=3, durations=stalls(-1, 0, 10 * MS), rate=None, end=NS, count=7)
    assert recorder.operations == 7
    assert recorder.end < NS


@virtual_clock
async def test_errors_are_counted_by_code_and_their_worker_pauses() -> None:
    clock = LoopClock()
    errors = iter(
        [
            failure(Code.STORAGE_FULL).exception(),
            ConnectionLost("gone", outcome="not_applied"),
            failure(Code.STORAGE_FULL).exception(),
        ]
    )

    async def fail() -> tuple[int, int, int]:
        raise next(errors)

    recorder = Recorder(["op"], 0)
    await run_load([fail], Plan(clock, end=None, count=3, rate=None), recorder, clock)
    assert recorder.operations == 0
    assert sum(recorder.errors.values()) == 3
    assert recorder.errors["connection lost (not_applied)"] == 1
    assert [name for name in recorder.errors if name.startswith("STORAGE_FULL (")]
    assert recorder.end == 3 * ERROR_PAUSE_NS


def test_kinds_are_recorded_apart() -> None:
    recorder = Recorder(["read", "write"], 0)
    recorder.ended(10, 0, 0, 1, 1)
    recorder.ended(30, 0, 1, 2, 1)
    recorder.finish(40)
    read, write = recorder.durations()
    assert (read.count, read.max, write.count, write.max) == (1, 10, 1, 30)


def test_intervals_are_whole_in_a_row_and_bounded_however_long_a_run_is() -> None:
    recorder = Recorder(["op"], 0)
    for number in range(10_000):
        recorder.ended(number * 50 * MS, number * 50 * MS - number, 0, 0, 0)
    recorder.finish(10_000 * 50 * MS)
    assert INTERVALS_MAX // 2 <= len(recorder.intervals) < INTERVALS_MAX
    assert recorder.intervals[0].start == 0
    assert all(one.end == other.start for one, other in zip(recorder.intervals, recorder.intervals[1:], strict=False))
    assert len({interval.end - interval.start for interval in recorder.intervals}) == 1
    assert recorder.durations()[0].count == 10_000


def test_an_interval_in_which_nothing_ended_is_kept() -> None:
    recorder = Recorder(["op"], 0)
    recorder.ended(50 * MS, 0, 0, 0, 0)
    recorder.ended(450 * MS, 0, 0, 0, 0)
    recorder.finish(500 * MS)
    assert [interval.all().count for interval in recorder.intervals] == [1, 0, 0, 0, 1]

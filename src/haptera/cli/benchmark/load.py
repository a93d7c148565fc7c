"""Load: operations started by a rule, their durations measured, in intervals.

Closed loop: each worker starts its next operation when its last one has ended, so a slow server is asked less.

Open loop: operations have intended starts, evenly spaced, whether or not the server keeps up, and a duration counts
from the intended start. So the wait behind a slow operation is in the figures: a load generator
that leaves that wait out shows the best moments of a bad minute. The number of workers bounds what is in flight; what
none of them could start before the end is counted as never started.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Final, Protocol

from haptera.cli.benchmark.histogram import Histogram
from haptera.errors import ConnectionLost, HapteraError, ProtocolError, ServerError

NS: Final = 1_000_000_000

#: So long before an intended start the loop is polled instead of slept in: its timers are no finer than 1 ms.
SPIN_NS: Final = 1_500_000

#: Intervals kept. When there are so many, each two neighbours become one: a run of any length keeps 60 to 120.
INTERVALS_MAX: Final = 120

FIRST_INTERVAL_NS: Final = 100_000_000

#: A worker whose operation failed waits so long, so that a target that refuses at once is not asked in a tight loop.
ERROR_PAUSE_NS: Final = 10_000_000

#: After so many operations a worker lets others run, because operations of an embedded store may end without a wait.
YIELD_EVERY: Final = 256

#: Does one operation. Returns its kind (an index into the workload's kinds), the bytes of its values, and its rows.
Operation = Callable[[], Awaitable[tuple[int, int, int]]]


class Clock(Protocol):
    """Time in nanoseconds, from any beginning; a test has its own."""

    def now(self) -> int: ...

    async def sleep_until(self, time: int) -> None: ...


class RealClock:
    """The computer's clock. Wakes within microseconds, which costs a core while the rate is above some hundred/s."""

    def __init__(self) -> None:
        self.now = perf_counter_ns

    async def sleep_until(self, time: int) -> None:
        early = time - perf_counter_ns() - SPIN_NS
        if early > 0:
            await asyncio.sleep(early / NS)
        while perf_counter_ns() < time:  # noqa: ASYNC110 - there is no event: it is the time that is waited for
            await asyncio.sleep(0)


@dataclass
class Interval:
    """The operations that ended in a stretch of a run: a histogram for each kind."""

    start: int
    end: int
    durations: list[Histogram]

    def all(self) -> Histogram:
        """The durations of all kinds together."""
        return merged(self.durations)


class Recorder:
    """The measurements of a run so far. ``kinds`` are the names of the workload's kinds of operation."""

    def __init__(self, kinds: Sequence[str], start: int) -> None:
        self.kinds: tuple[str, ...] = tuple(kinds)
        self.errors: Counter[str] = Counter()
        self.last_error: dict[str, HapteraError] = {}
        self.operations: int = 0
        self.size: int = 0
        self.rows: int = 0
        self.never_started = 0
        self.start = start
        self.end: int = start
        self.intervals: list[Interval] = []
        self._interval_ns = FIRST_INTERVAL_NS
        self._current = self._interval(start)
        self._end_of_interval = self._current.end

    def ended(self, now: int, since: int, kind: int, size: int, rows: int) -> None:
        """An operation of which the caller waited for the answer from ``since`` on has ended."""
        if now >= self._end_of_interval:
            self._pass(now)
        self._current.durations[kind].record(now - since)
        self.operations += 1
        self.size += size
        self.rows += rows

    def failed(self, error: HapteraError) -> None:
        """An operation has failed; how long that took is not among the durations."""
        name = error_name(error)
        self.errors[name] += 1
        self.last_error[name] = error

    def finish(self, now: int) -> None:
        """The run is over. The interval that it ends within counts as it is; `intervals` has the whole ones."""
        if now >= self._end_of_interval:
            self._pass(now)
        self.end = now

    def durations(self) -> list[Histogram]:
        """All durations, a histogram for each kind."""
        intervals = [*self.intervals, self._current]
        return [merged([interval.durations[kind] for interval in intervals]) for kind in range(len(self.kinds))]

    def _interval(self, start: int) -> Interval:
        return Interval(start, start + self._interval_ns, [Histogram() for _ in self.kinds])

    def _pass(self, now: int) -> None:
        """End the intervals that are over; an interval in which nothing ended counts too."""
        while now >= self._current.end:
            self.intervals.append(self._current)
            if len(self.intervals) == INTERVALS_MAX:
                self.intervals = [_joined(*self.intervals[at : at + 2]) for at in range(0, INTERVALS_MAX, 2)]
                self._interval_ns *= 2
            self._current = self._interval(self._current.end)
        self._end_of_interval = self._current.end


def merged(histograms: Sequence[Histogram]) -> Histogram:
    whole = Histogram()
    for histogram in histograms:
        whole.add(histogram)
    return whole


def _joined(first: Interval, second: Interval) -> Interval:
    durations = [merged(both) for both in zip(first.durations, second.durations, strict=True)]
    return Interval(first.start, second.end, durations)


def error_name(error: HapteraError) -> str:
    """The name under which an error is counted: its code's, as in spec/error-codes.md, else that of its class."""
    if isinstance(error, ServerError | ProtocolError):
        return f"{error.name} ({error.code})"
    if isinstance(error, ConnectionLost):
        return f"connection lost ({error.outcome})"
    return type(error).__name__


class Plan:
    """Which operation starts when: one for all workers of a run.

    ``end`` is the time from which on nothing starts, ``count`` the number of operations, ``rate`` intended starts a
    second, or None for a closed loop. At least one of ``end`` and ``count`` is given.
    """

    def __init__(self, clock: Clock, *, end: int | None, count: int | None, rate: float | None) -> None:
        self._clock = clock
        self._start = clock.now()
        self._end = end
        self._count = count
        self._rate = rate
        self._started = 0
        self._sleeping = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> int | None:
        """Wait for the turn of the next operation and give its (intended) start; None: there is no next one."""
        while True:
            now = self._clock.now()
            due = now if self._rate is None else self._intended(self._started)
            if not self._open(max(due, now)):
                self._wake(len(self._waiting))
                return None
            if due <= now:
                self._started += 1
                return due
            await self._until(due)

    async def _until(self, due: int) -> None:
        """Wait until the next start may have come: one worker by the clock, the others for that one."""
        if self._sleeping:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
            return
        self._sleeping = True
        try:
            await self._clock.sleep_until(due)
        finally:
            self._sleeping = False
            # As many as have something to start by now, and one to sleep until the next.
            due_now = bisect_right(
                range(self._started, self._started + len(self._waiting)), self._clock.now(), key=self._intended
            )
            self._wake(due_now + 1)

    def _intended(self, number: int) -> int:
        assert self._rate is not None
        return self._start + round(number * NS / self._rate)

    def _wake(self, count: int) -> None:
        for _ in range(min(count, len(self._waiting))):
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)

    def never_started(self) -> int:
        """How many intended starts lay before the end and found no free worker by then."""
        if self._rate is None or self._end is None:
            return 0
        intended = -(-(self._end - self._start) * self._rate // NS)
        return max(0, int(min(intended, self._count or intended)) - self._started)

    def _open(self, start: int) -> bool:
        return (self._end is None or start < self._end) and (self._count is None or self._started < self._count)


async def run_load(operations: Sequence[Operation], plan: Plan, recorder: Recorder, clock: Clock) -> None:
    """Run ``plan`` with a worker for each of ``operations``, until it is over and its operations have ended."""

    async def work(operation: Operation) -> None:
        turns = 0
        while (start := await plan.next()) is not None:
            try:
                kind, size, rows = await operation()
            except HapteraError as error:
                recorder.failed(error)
                await clock.sleep_until(clock.now() + ERROR_PAUSE_NS)
            else:
                recorder.ended(clock.now(), start, kind, size, rows)
            turns += 1
            if turns % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as workers:
        for operation in operations:
            workers.create_task(work(operation))
    recorder.never_started += plan.never_started()
    recorder.finish(clock.now())

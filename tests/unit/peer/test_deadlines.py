"""Deadlines of calls: when they pass, in which order, and how many are kept."""

import random
from collections.abc import Callable

import pytest

from haptera.peer.deadlines import Deadlines


class Timer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """As much of a loop as deadlines use, with a time that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(when, callback)
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [timer for timer in self.timers if timer.when <= self.now and not timer.cancelled]:
            self.timers.remove(timer)
            timer.callback()

    @property
    def armed(self) -> list[float]:
        return [timer.when for timer in self.timers if not timer.cancelled]


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.open: set[int] = set()
        self.added = 0
        self.expired: list[int] = []
        self.deadlines = Deadlines(self.clock, self.open, self.expire)  # type: ignore[arg-type]

    def expire(self, number: int) -> None:
        self.expired.append(number)
        self.open.remove(number)

    def add(self, timeout: float) -> int:
        self.added += 1
        self.open.add(self.added)
        self.deadlines.add(self.added, self.clock.now + timeout)
        return self.added

    def end(self, number: int) -> None:
        self.open.remove(number)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_each_passes_at_its_time_in_order_of_time(bench: Bench) -> None:
    late, soon, middle = bench.add(3), bench.add(1), bench.add(2)
    bench.clock.advance(0.5)
    assert bench.expired == []
    bench.clock.advance(0.5)
    assert bench.expired == [soon]
    bench.clock.advance(2)
    assert bench.expired == [soon, middle, late]


def test_equal_times_pass_in_the_order_in_which_they_were_added(bench: Bench) -> None:
    items = [bench.add(1) for _ in range(100)]
    bench.clock.advance(1)
    assert bench.expired == items


def test_what_is_done_does_not_pass(bench: Bench) -> None:
    done, open_ = bench.add(1), bench.add(1)
    bench.end(done)
    bench.clock.advance(1)
    assert bench.expired == [open_]


def test_there_is_one_timer_however_many_deadlines(bench: Bench) -> None:
    draw = random.Random(random.getrandbits(64))
    for _ in range(1000):
        bench.add(draw.uniform(1, 10))
    assert len(bench.clock.armed) == 1
    bench.clock.advance(10)
    assert len(bench.expired) == 1000
    assert bench.clock.armed == []


def test_a_long_call_keeps_nothing_alive_that_came_behind_it(bench: Bench) -> None:
    long_ = bench.add(3600)
    for _ in range(20_000):
        bench.end(bench.add(3600))
    assert len(bench.deadlines) <= 1024
    bench.clock.advance(3600)
    assert bench.expired == [long_]


def test_timeouts_that_all_differ_keep_no_more_either(bench: Bench) -> None:
    draw = random.Random(random.getrandbits(64))
    open_ = [bench.add(draw.uniform(1, 100)) for _ in range(3000)]
    for _ in range(20_000):
        bench.end(bench.add(draw.uniform(1, 100)))
    assert len(bench.deadlines) <= 2 * len(open_)
    bench.clock.advance(100)
    assert set(bench.expired) == set(open_)


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_time_that_has_passed_already_passes_in_the_next_turn(bench: Bench, timeout: float) -> None:
    item = bench.add(timeout)
    assert bench.expired == []
    bench.clock.advance(0)
    assert bench.expired == [item]


@pytest.mark.parametrize("timeout", [float("inf"), float("nan")])
def test_what_is_no_time_is_no_deadline_and_disturbs_no_other(bench: Bench, timeout: float) -> None:
    bench.add(timeout)
    item = bench.add(1)
    bench.add(timeout)
    bench.clock.advance(1)
    assert bench.expired == [item]
    assert bench.clock.armed == []


def test_closing_forgets_all(bench: Bench) -> None:
    bench.add(1)
    bench.deadlines.close()
    bench.clock.advance(1)
    assert (bench.expired, len(bench.deadlines), bench.clock.armed) == ([], 0, [])


def test_what_is_added_while_others_pass_is_watched(bench: Bench) -> None:
    def expire(number: int) -> None:
        bench.expire(number)
        if number == 1:
            bench.add(1)

    bench.deadlines = Deadlines(bench.clock, bench.open, expire)  # type: ignore[arg-type]
    bench.add(1)
    bench.clock.advance(1)
    assert bench.expired == [1]
    bench.clock.advance(1)
    assert bench.expired == [1, 2]

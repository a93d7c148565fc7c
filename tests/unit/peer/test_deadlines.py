"""Deadlines of calls: when they pass, in which order, and how many are kept."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from haptera.peer.deadlines import Deadlines
from haptera.testing import VirtualClockLoop


class Bench:
    """Deadlines of numbered items, on a clock that the test moves."""

    def __init__(self) -> None:
        self.loop = VirtualClockLoop()
        self.open: set[int] = set()
        self.added = 0
        self.expired: list[int] = []
        self.deadlines = Deadlines(self.loop, self.open, self.expire)
        self.advance(100.0)

    def advance(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.loop.run_until_complete(asyncio.sleep(0))  # what is due at the same moment

    def expire(self, number: int) -> None:
        self.expired.append(number)
        self.open.remove(number)

    def add(self, timeout: float) -> int:
        self.added += 1
        self.open.add(self.added)
        self.deadlines.add(self.added, self.loop.time() + timeout)
        return self.added

    def end(self, number: int) -> None:
        self.open.remove(number)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.loop.close()


def test_each_passes_at_its_time_in_order_of_time(bench: Bench) -> None:
    late, soon, middle = bench.add(3), bench.add(1), bench.add(2)
    bench.advance(0.5)
    assert bench.expired == []
    bench.advance(0.5)
    assert bench.expired == [soon]
    bench.advance(2)
    assert bench.expired == [soon, middle, late]


def test_equal_times_pass_in_the_order_in_which_they_were_added(bench: Bench) -> None:
    items = [bench.add(1) for _ in range(100)]
    bench.advance(1)
    assert bench.expired == items


def test_what_is_done_does_not_pass(bench: Bench) -> None:
    done, open_ = bench.add(1), bench.add(1)
    bench.end(done)
    bench.advance(1)
    assert bench.expired == [open_]


def test_there_is_one_timer_however_many_deadlines(bench: Bench) -> None:
    draw = random.Random(random.getrandbits(64))
    for _ in range(1000):
        bench.add(draw.uniform(1, 10))
    assert len(bench.loop.timers) == 1
    bench.advance(10)
    assert len(bench.expired) == 1000
    assert bench.loop.timers == []


def test_a_long_call_keeps_nothing_alive_that_came_behind_it(bench: Bench) -> None:
    long_ = bench.add(3600)
    for _ in range(20_000):
        bench.end(bench.add(3600))
    assert len(bench.deadlines) <= 1024
    bench.advance(3600)
    assert bench.expired == [long_]


def test_timeouts_that_all_differ_keep_no_more_either(bench: Bench) -> None:
    draw = random.Random(random.getrandbits(64))
    open_ = [bench.add(draw.uniform(1, 100)) for _ in range(3000)]
    for _ in range(20_000):
        bench.end(bench.add(draw.uniform(1, 100)))
    assert len(bench.deadlines) <= 2 * len(open_)
    bench.advance(100)
    assert set(bench.expired) == set(open_)


def test_timeouts_each_shorter_than_the_one_before_keep_no_more_either(bench: Bench) -> None:
    for number in range(20_000):
        bench.end(bench.add(50_000 - number))
    assert len(bench.deadlines) <= 1024


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_time_that_has_passed_already_passes_in_the_next_turn(bench: Bench, timeout: float) -> None:
    item = bench.add(timeout)
    assert bench.expired == []
    bench.advance(0)
    assert bench.expired == [item]


@pytest.mark.parametrize("timeout", [float("inf"), float("nan")])
def test_what_is_no_time_is_no_deadline_and_disturbs_no_other(bench: Bench, timeout: float) -> None:
    bench.add(timeout)
    item = bench.add(1)
    bench.add(timeout)
    bench.advance(1)
    assert bench.expired == [item]
    assert bench.loop.timers == []


def test_closing_forgets_all(bench: Bench) -> None:
    bench.add(1)
    bench.deadlines.close()
    bench.advance(1)
    assert (bench.expired, len(bench.deadlines), bench.loop.timers) == ([], 0, [])


def test_what_is_added_while_others_pass_is_watched(bench: Bench) -> None:
    def expire(number: int) -> None:
        bench.expire(number)
        if number == 1:
            bench.add(1)

    bench.deadlines = Deadlines(bench.loop, bench.open, expire)
    bench.add(1)
    bench.advance(1)
    assert bench.expired == [1]
    bench.advance(1)
    assert bench.expired == [1, 2]

"""Entry time: how it follows a wall clock that is set to anything."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.node.entry_clock import OFFSET_LARGE_MS, SLEW, EntryClock
from haptera.state.operations import Set
from haptera.storage import DataDirectory, Log, open_keyring
from haptera.testing.filesystem import MemoryFileSystem
from tests.unit.node.nodes import CONFIG, Asked, opened, turn

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from haptera.node.node import Node

NOW_MS = 1_700_000_000_000
SECOND_MS, MINUTE_MS, HOUR_MS = 1000, 60_000, 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS
#: Nanoseconds in a millisecond.
NS = 1_000_000


class Times:
    """A wall clock that a test sets and a monotonic one that it lets run, both in milliseconds."""

    def __init__(self, wall_ms: int = NOW_MS) -> None:
        self.wall_ms = wall_ms
        self.monotonic_ms = 5_000

    def pass_(self, elapsed_ms: int) -> None:
        self.wall_ms += elapsed_ms
        self.monotonic_ms += elapsed_ms

    def started(self, last_ms: int = 0) -> EntryClock:
        return EntryClock(last_ms, self.wall_ms, self.monotonic_ms * NS)

    def read(self, clock: EntryClock) -> int:
        return clock.read(self.wall_ms, self.monotonic_ms * NS)

    def opened(self, fs: MemoryFileSystem) -> AbstractAsyncContextManager[Node]:
        return opened(fs, clock_ms=lambda: self.wall_ms, monotonic_ns=lambda: self.monotonic_ms * NS)


STEPS = st.lists(st.tuples(st.integers(0, 10 * HOUR_MS), st.integers(-2 * YEAR_MS, 2 * YEAR_MS)), min_size=1)


@given(steps=STEPS, last_ms=st.integers(0, NOW_MS + YEAR_MS))
def test_it_measures_what_has_passed_to_a_tenth_whatever_the_wall_clock_does(
    steps: list[tuple[int, int]], last_ms: int
) -> None:
    """Trap: expiry by a clock that cannot be put right, or that a jump moves."""
    times = Times()
    clock = times.started(last_ms)
    start, begun = times.read(clock), times.monotonic_ms
    assert start == max(last_ms, NOW_MS)
    for elapsed_ms, jump_ms in steps:
        before = times.read(clock)
        times.pass_(elapsed_ms)
        times.wall_ms += jump_ms
        passed = times.read(clock) - before
        assert elapsed_ms * (SLEW - 1) // SLEW <= passed <= elapsed_ms * (SLEW + 1) // SLEW + 1
        assert clock.offset_ms == times.read(clock) - times.wall_ms
    whole = times.monotonic_ms - begun
    assert whole * (SLEW - 1) // SLEW <= times.read(clock) - start <= whole * (SLEW + 1) // SLEW + 1


def test_it_is_the_wall_clock_where_that_is_right() -> None:
    times = Times()
    clock = times.started(last_ms=NOW_MS - HOUR_MS)
    for _ in range(1000):
        times.pass_(7)
        assert times.read(clock) == times.wall_ms
    assert clock.news() is None


@pytest.mark.parametrize("interval_ms", [5, 250, MINUTE_MS])
@pytest.mark.parametrize("jump_ms", [MINUTE_MS, -MINUTE_MS])
def test_an_offset_is_made_up_in_ten_times_its_length_however_often_it_is_read(jump_ms: int, interval_ms: int) -> None:
    times = Times()
    clock = times.started()
    times.wall_ms += jump_ms
    times.read(clock)
    assert clock.made_up_in_s == SLEW * MINUTE_MS // SECOND_MS
    for passed_ms in range(0, SLEW * MINUTE_MS, interval_ms):
        left_ms = MINUTE_MS - passed_ms // SLEW
        assert left_ms - 1 <= abs(clock.offset_ms) <= left_ms + 1
        times.pass_(interval_ms)
        times.read(clock)
    assert times.read(clock) == times.wall_ms


@pytest.mark.parametrize("restarts", [0, 1, 5])
@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS])
def test_a_node_that_was_started_under_a_wrong_clock_recovers_in_ten_times_the_offset(
    ahead_ms: int, restarts: int
) -> None:
    """Trap: expiry by a clock that cannot be put right. It takes the wrong time over at its start."""
    times = Times(NOW_MS + ahead_ms)
    clock = times.started()
    times.pass_(MINUTE_MS)
    last_ms = times.read(clock)
    assert last_ms == times.wall_ms
    times.wall_ms -= ahead_ms  # it is put right
    for _ in range(restarts):
        clock = times.started(last_ms)
        times.pass_(MINUTE_MS)
        now_ms = times.read(clock)
        assert now_ms > last_ms
        last_ms = now_ms
    times.pass_(SLEW * HOUR_MS)
    assert times.read(clock) == times.wall_ms


def test_a_monotonic_clock_that_goes_back_moves_nothing() -> None:
    """As that of a process that is moved to another machine while it runs."""
    times = Times()
    clock = times.started()
    times.pass_(HOUR_MS)
    before = times.read(clock)
    times.monotonic_ms -= HOUR_MS
    assert times.read(clock) == before
    times.pass_(MINUTE_MS)
    assert times.read(clock) == before + MINUTE_MS


def test_a_large_offset_is_news_when_it_begins_doubles_and_ends() -> None:
    times = Times()
    clock = times.started()
    for offset_ms, news in (
        (OFFSET_LARGE_MS - 1, None),
        (OFFSET_LARGE_MS, True),
        (2 * OFFSET_LARGE_MS - 1, None),
        (2 * OFFSET_LARGE_MS, True),
        (OFFSET_LARGE_MS // 2, None),
        (OFFSET_LARGE_MS // 2 - 1, False),
        (0, None),
        (-OFFSET_LARGE_MS, True),
    ):
        times.wall_ms = NOW_MS + offset_ms
        times.read(clock)
        assert clock.news() is news


def entry_times(fs: MemoryFileSystem) -> list[int]:
    """The entries' times in the log that a closed node left."""
    directory = DataDirectory.open(fs, CONFIG.data_dir)
    log = Log.open(fs, directory, open_keyring(directory))
    try:
        return [entry.time_ms for entry in log.replay()]
    finally:
        log.close()
        directory.close()


async def write(node: Node, times: Times, elapsed_ms: int) -> None:
    times.pass_(elapsed_ms)
    asked = Asked(node, Set("a", b""))
    await turn()
    assert asked.answered


@pytest.mark.parametrize("jump_ms", [YEAR_MS, -YEAR_MS])
async def test_a_wall_clock_that_jumps_and_is_put_right_neither_hastens_nor_stops_entry_time(jump_ms: int) -> None:
    """Trap: expiry by a clock that cannot be put right. Over restarts too, where the log may be a year ahead."""
    fs, times = MemoryFileSystem(), Times()
    async with times.opened(fs) as node:
        await write(node, times, 0)
        times.wall_ms += jump_ms
        await write(node, times, MINUTE_MS)
        times.wall_ms -= jump_ms
        await write(node, times, MINUTE_MS)
    first, wrong, right = entry_times(fs)
    assert first == NOW_MS
    for passed in (wrong - first, right - wrong):
        assert MINUTE_MS * 9 // 10 <= passed <= MINUTE_MS * 11 // 10
    times.wall_ms += jump_ms  # and is wrong while the node starts
    async with times.opened(fs) as node:
        await write(node, times, 0)
    times.wall_ms -= jump_ms
    for _ in range(3):
        async with times.opened(fs) as node:
            for _ in range(3):
                await write(node, times, MINUTE_MS)
    times_after = entry_times(fs)[3:]
    assert times_after[0] == max(right, NOW_MS + 2 * MINUTE_MS + jump_ms)
    for before, after in pairwise(times_after):
        assert MINUTE_MS * 9 // 10 <= after - before <= MINUTE_MS * 11 // 10


async def test_an_operator_is_told_of_a_large_offset_and_of_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "haptera.node.node")
    fs, times = MemoryFileSystem(), Times()
    async with times.opened(fs) as node:
        await write(node, times, 0)
        assert node.metrics.values()["entry_time_offset_seconds"] == 0
    times.wall_ms -= MINUTE_MS
    async with times.opened(fs) as node:
        assert node.metrics.values()["entry_time_offset_seconds"] == 60
        (told,) = [record for record in caplog.records if record.getMessage() == "entry_time_off"]
        assert (told.levelname, vars(told)["offset_seconds"], vars(told)["made_up_in_seconds"]) == ("WARNING", 60, 600)
        assert "set back" in vars(told)["meaning"]
        await write(node, times, 5 * MINUTE_MS)
        assert node.metrics.values()["entry_time_offset_seconds"] == 30
        await write(node, times, 5 * MINUTE_MS)
        assert node.metrics.values()["entry_time_offset_seconds"] == 0
    assert [record.getMessage() for record in caplog.records if "entry_time" in record.getMessage()] == [
        "entry_time_off",
        "entry_time_agrees",
    ]

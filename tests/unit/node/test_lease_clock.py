"""The clock of the leases counts the time in which the node runs, and never more than passes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haptera.node.lease_clock import TICK_MAX_MS, TICK_MS, LeaseClock

MS = 1_000_000
MINUTE = 60_000 * MS


def test_it_goes_on_with_the_monotonic_clock() -> None:
    clock = LeaseClock(5)
    assert clock.tick(5 + TICK_MS * MS)
    assert clock.ticked_ms == TICK_MS
    assert clock.now_ms(5 + TICK_MS * MS) == TICK_MS
    assert clock.now_ms(5 + TICK_MS * MS + 1) == TICK_MS + 1
    assert clock.ticked_ms == TICK_MS


def test_ticks_lose_no_part_of_a_millisecond() -> None:
    clock = LeaseClock(0)
    for number in range(1, 1001):
        assert clock.tick(number * (TICK_MS * MS + 900_000))
    assert clock.ticked_ms == 1000 * TICK_MS + 900


def test_a_pause_counts_for_no_more_than_two_ticks_and_no_lease_may_be_ended_right_after_it() -> None:
    clock = LeaseClock(0)
    assert clock.now_ms(MINUTE) == TICK_MAX_MS
    assert not clock.tick(MINUTE)
    assert clock.ticked_ms == TICK_MAX_MS
    assert clock.tick(MINUTE + TICK_MS * MS)
    assert clock.ticked_ms == TICK_MAX_MS + TICK_MS


def test_a_node_whose_every_tick_is_late_ends_leases_all_the_same() -> None:
    clock = LeaseClock(0)
    assert [clock.tick(number * MINUTE) for number in range(1, 5)] == [False, True, False, True]


def test_the_time_without_leases_is_not_counted() -> None:
    clock = LeaseClock(0)
    clock.resume(MINUTE)
    assert clock.now_ms(MINUTE) == 0
    assert clock.tick(MINUTE + TICK_MS * MS)


def test_a_monotonic_clock_that_goes_back_stops_it() -> None:
    """In a process that was moved to another machine."""
    clock = LeaseClock(MINUTE)
    assert clock.now_ms(0) == 0
    assert clock.tick(0)
    assert clock.ticked_ms == 0


def test_a_reading_just_above_the_bound_of_a_tick_is_not_followed_by_a_faster_clock() -> None:
    clock = LeaseClock(0)
    begun_ns = TICK_MAX_MS * MS + 1
    begun_ms = clock.now_ms(begun_ns)
    clock.tick(begun_ns)
    clock.tick(begun_ns + MS - 1)
    assert clock.ticked_ms == begun_ms


@given(st.lists(st.integers(0, 2000 * MS), min_size=1), st.data())
def test_it_never_runs_faster_than_the_monotonic_clock(steps: list[int], data: st.DataObject) -> None:
    """From any moment to any later tick: so a lease that is renewed at that moment has its whole time."""
    now_ns = 0
    clock = LeaseClock(0)
    readings: list[tuple[int, int]] = []
    for step in steps:
        now_ns += step
        readings.append((now_ns, clock.now_ms(now_ns)))
        if data.draw(st.booleans()):
            clock.tick(now_ns)
            for at_ns, at_ms in readings:
                assert (clock.ticked_ms - at_ms) * MS <= now_ns - at_ns

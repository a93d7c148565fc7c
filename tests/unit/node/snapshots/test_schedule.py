"""When a snapshot is due (haptera.node.snapshots.schedule)."""

from __future__ import annotations

from haptera.node.snapshots.schedule import INTERVAL_MAX_S, RETRY_MAX_S, RETRY_MIN_S, Schedule

DAY = 86_400.0
WEEK = 7 * DAY


def schedule(*, snapshot_after: int = 1000, retain_bytes: int = 100_000, retain_for: float = WEEK) -> Schedule:
    return Schedule(snapshot_after=snapshot_after, retain_bytes=retain_bytes, retain_for=retain_for, now=50.0)


def test_a_snapshot_is_due_when_the_log_has_grown_by_that_much() -> None:
    due = schedule().due
    assert not due(51.0, 999, changed=True)
    assert due(51.0, 1000, changed=True)


def test_a_quarter_of_the_bytes_that_are_kept_is_the_most_between_two_snapshots() -> None:
    due = schedule(snapshot_after=100_000).due
    assert not due(51.0, 24_999, changed=True)
    assert due(51.0, 25_000, changed=True)


def test_a_snapshot_is_due_once_a_day_if_anything_has_changed() -> None:
    due = schedule().due
    assert not due(50.0 + DAY - 1, 10, changed=True)
    assert due(50.0 + DAY, 10, changed=True)
    assert not due(50.0 + 3 * DAY, 2000, changed=False)
    assert INTERVAL_MAX_S == DAY


def test_a_look_at_the_time_that_was_announced_finds_a_snapshot_due() -> None:
    for started in (number / 977 for number in range(2000)):
        found = Schedule(snapshot_after=1000, retain_bytes=100_000, retain_for=1.0, now=started)
        now = started
        for _ in range(3):
            now += found.next_look(now, 10)
        assert found.due(now, 10, changed=True), started


def test_a_seventh_of_the_time_that_is_kept_is_the_longest_between_two_snapshots() -> None:
    due = schedule(retain_for=700.0).due
    assert not due(149.0, 10, changed=True)
    assert due(150.0, 10, changed=True)


def test_the_time_counts_from_the_last_snapshot() -> None:
    plan = schedule(retain_for=700.0)
    plan.made(100.0)
    assert not plan.due(199.0, 10, changed=True)
    assert plan.due(200.0, 10, changed=True)


def test_a_failed_snapshot_is_tried_again_later_and_later() -> None:
    plan = schedule()
    now, waits = 60.0, []
    for _ in range(20):
        assert plan.due(now, 5000, changed=True)
        waits.append(plan.failed(now))
        assert not plan.due(now + waits[-1] - 0.1, 5000, changed=True)
        now += waits[-1]
    assert waits[:3] == [RETRY_MIN_S, 2 * RETRY_MIN_S, 4 * RETRY_MIN_S]
    assert waits[-1] == RETRY_MAX_S
    plan.made(now)
    assert plan.failed(now) == RETRY_MIN_S, "one that was made ends the series"


def test_the_next_look_is_when_time_alone_makes_one_due() -> None:
    plan = schedule(retain_for=700.0)
    assert plan.next_look(60.0, 0) == 90.0
    wait = plan.failed(60.0)
    assert plan.next_look(61.0, 1000) == wait - 1
    assert plan.next_look(1000.0, 1000) == 0.0
    plan.made(1000.0)
    assert plan.next_look(1000.0, 0) == 100.0


def test_one_that_was_asked_for_and_failed_is_not_due_sooner() -> None:
    plan = schedule(retain_for=700.0)
    plan.failed(60.0)
    assert not plan.due(100.0, 10, changed=True)
    assert plan.next_look(100.0, 10) == 50.0

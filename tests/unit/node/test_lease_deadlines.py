"""The times of leases against a plain dict, over any renewals and ends."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from haptera.node.lease_clock import TICK_MS
from haptera.node.lease_deadlines import LeaseDeadlines
from haptera.state import finish

IDS = st.integers(1, 6)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), IDS, st.integers(1000, 3000)),
        st.tuples(st.just("renew"), st.lists(IDS, max_size=5)),
        st.tuples(st.just("remove"), IDS),
        st.tuples(st.just("pass"), st.integers(0, 3 * TICK_MS)),
        st.tuples(st.just("take"), st.integers(1, 5)),
    ),
    min_size=20,
    max_size=60,
)


def one(_: int) -> int:
    """The weight of a lease without keys."""
    return 1


@given(STEPS)
def test_leases_are_due_when_their_time_is_over_and_not_before(steps: list[tuple[Any, ...]]) -> None:
    deadlines, model, now_ms = LeaseDeadlines(), dict[int, tuple[int, int]](), 0
    for step in steps:
        match step:  # type: ignore[exhaustive-match]  # of STEPS
            case "add", lease, ttl_ms:
                if lease not in model:
                    deadlines.add(lease, ttl_ms, now_ms)
                    model[lease] = (ttl_ms, now_ms + ttl_ms)
            case "renew", leases:
                expected = tuple(model[lease][0] if lease in model else None for lease in leases)
                assert deadlines.renew(leases, now_ms) == expected
                model.update({each: (model[each][0], now_ms + model[each][0]) for each in leases if each in model})
            case "remove", lease:
                deadlines.remove(lease)
                model.pop(lease, None)
            case "pass", milliseconds:
                now_ms += milliseconds
            case "take", limit:
                due = finish(deadlines.take_due(now_ms, limit, one))
                assert len(due) <= limit
                over = {lease for lease, (_, end_ms) in model.items() if end_ms <= now_ms // TICK_MS * TICK_MS}
                assert len(due) == limit or over <= set(due)
                for lease in due:
                    assert model.pop(lease)[1] <= now_ms
        deadlines.check()
        assert len(deadlines) == len(model)
        for lease, (_, end_ms) in model.items():
            assert deadlines.left_ms(lease, now_ms) == max(0, end_ms - now_ms)
    assert len(finish(deadlines.take_due(now_ms + 60_000, 100, one))) == len(model)
    deadlines.check()


def test_a_lease_that_has_some_milliseconds_left_of_its_tick_waits_for_the_next_one() -> None:
    deadlines = LeaseDeadlines()
    deadlines.add(1, 1000 + TICK_MS // 2, 0)
    steps = deadlines.take_due(1000 + TICK_MS // 4, 5, one)
    assert next(steps, "the end") == "the end"
    deadlines.check()
    assert finish(deadlines.take_due(1000 + TICK_MS, 5, one)) == [1]


def test_a_lease_that_was_revoked_is_not_due_any_more() -> None:
    deadlines = LeaseDeadlines()
    deadlines.add(1, 1000, 0)
    deadlines.add(2, 1000, 0)
    deadlines.remove(1)
    deadlines.check()
    assert finish(deadlines.take_due(1000, 5, one)) == [2]


def test_leases_are_taken_until_their_weights_reach_the_limit() -> None:
    deadlines = LeaseDeadlines()
    for lease in range(1, 31):
        deadlines.add(lease, 1000, 0)
    assert len(finish(deadlines.take_due(1000, 10, lambda _: 4))) == 3
    assert len(finish(deadlines.take_due(1000, 10, lambda _: 100))) == 1
    assert len(finish(deadlines.take_due(1000, 100, one))) == 26


def test_renewals_leave_nothing_behind() -> None:
    deadlines = LeaseDeadlines()
    ids = list(range(1, 1001))
    for lease in ids:
        deadlines.add(lease, 30_000, 0)

    def size() -> int:
        return sum(sys.getsizeof(getattr(deadlines, name)) for name in ("_ttls_ms", "_ends_ms", "_places"))

    def filed() -> int:
        return sum(map(len, deadlines._slots.values()))

    before, now_ms = size(), 0
    for _ in range(1000):
        now_ms += TICK_MS
        deadlines.renew(ids, now_ms)
        assert not finish(deadlines.take_due(now_ms, 10, one))
        assert filed() == 1000
    assert size() <= before
    deadlines.check()


def test_leases_are_looked_at_in_slices() -> None:
    deadlines = LeaseDeadlines()
    for lease in range(1, 2001):
        deadlines.add(lease, 1000, 0)
    steps = deadlines.take_due(1000, 1500, one)
    assert len(list(steps)) >= 1500 // 256
    assert len(deadlines) == 500

"""Whether requests are worth an early write, by the time that an answer takes."""

from __future__ import annotations

from haptera.peer.early_writes import EarlyWrites
from haptera.peer.limits import EARLY_WRITE_PATIENCE, REQUESTS_PER_WRITE

#: The work of this side on as many requests as a write has, in seconds.
WORK_S = 0.0005


def judged(writes: EarlyWrites, stream: int, read_at: float, *unanswered: int, writes_due: int = 1) -> bool:
    """Judge in a turn that began with a read, by the work on so many writes later."""
    now = read_at + writes_due * WORK_S
    return writes.are_worth_it(stream, writes_due * REQUESTS_PER_WRITE, now, read_at, unanswered)


def seen(seconds: float) -> EarlyWrites:
    """Return a judge that has seen an answer take so long."""
    writes = EarlyWrites()
    assert not judged(writes, 16, 1.0), "nothing is known before the first answer"
    judged(writes, 66, 1.0 + WORK_S + seconds)
    return writes


def test_an_answer_may_take_four_times_as_long_as_the_work_on_the_requests() -> None:
    assert judged(seen(EARLY_WRITE_PATIENCE * WORK_S * 0.99), 82, 1.1, 66)
    assert not judged(seen(EARLY_WRITE_PATIENCE * WORK_S * 1.01), 82, 1.1, 66)


def test_requests_that_have_waited_are_no_better_a_reason() -> None:
    writes = seen(EARLY_WRITE_PATIENCE * WORK_S * 1.5)
    assert [judged(writes, 82, 2.0, 66, writes_due=number) for number in (1, 2, 3)] == [False] * 3


def test_the_last_answer_counts_until_the_next_request_that_is_watched_has_one() -> None:
    writes = seen(1.0)
    assert not judged(writes, 82, 2.1, 66)
    assert not judged(writes, 98, 2.2, 66)
    fast = seen(0.001)
    assert judged(fast, 82, 2.1, 66)
    assert not judged(fast, 116, 3.0), "the watched one has its answer now, which took two seconds"


def test_more_work_of_this_side_makes_a_slow_answer_worth_it() -> None:
    writes = seen(0.010)
    assert not judged(writes, 82, 1.1, 66)
    assert writes.are_worth_it(82, REQUESTS_PER_WRITE, 1.210, 1.2, (66,))


def test_a_call_that_was_given_up_counts_as_no_slow_answer() -> None:
    """It is under way no more, and nothing was read since it was made."""
    writes = EarlyWrites()
    judged(writes, 16, 1.0)
    assert writes.are_worth_it(17, REQUESTS_PER_WRITE, 1.001, 0.9995, ())

"""Whether requests are worth an early write, by the time that an answer takes."""

from __future__ import annotations

from haptera.peer.early_writes import EarlyWrites
from haptera.peer.limits import EARLY_WRITE_PATIENCE

#: The work of this side on sixteen requests, in seconds.
WORK_S = 0.0005


def judged(writes: EarlyWrites, stream: int, now: float, *unanswered: int) -> bool:
    """Judge in a turn that began with a read, ``WORK_S`` before now."""
    return writes.are_worth_it(stream, now, now - WORK_S, unanswered)


def test_an_early_write_is_worth_a_try_until_an_answer_was_seen() -> None:
    writes = EarlyWrites()
    assert judged(writes, 16, 1.0)
    assert judged(writes, 32, 1.1, 16)


def test_an_answer_may_take_four_times_as_long_as_the_work_on_the_requests() -> None:
    for seconds, worth in ((EARLY_WRITE_PATIENCE * WORK_S * 0.99, True), (EARLY_WRITE_PATIENCE * WORK_S * 1.01, False)):
        writes = EarlyWrites()
        judged(writes, 16, 1.0)
        assert judged(writes, 66, 1.0 + seconds + WORK_S) is worth


def test_the_last_answer_counts_until_the_next_request_that_is_watched_has_one() -> None:
    writes = EarlyWrites()
    judged(writes, 16, 1.0)
    assert not judged(writes, 66, 2.0)
    assert not judged(writes, 82, 2.001, 66)
    assert not judged(writes, 98, 2.002, 66)
    assert judged(writes, 116, 2.0 + 3 * WORK_S)


def test_more_work_of_this_side_makes_a_slow_answer_worth_it() -> None:
    writes = EarlyWrites()
    judged(writes, 16, 1.0)
    assert not judged(writes, 66, 1.010)
    assert writes.are_worth_it(82, 1.030, 1.020, (66,))


def test_a_call_that_was_given_up_counts_as_no_slow_answer() -> None:
    """It is under way no more, and nothing was read since it was made."""
    writes = EarlyWrites()
    judged(writes, 16, 1.0)
    assert writes.are_worth_it(17, 1.0001, 0.9995, ())

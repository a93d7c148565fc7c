"""Whether requests are worth an early write, by the time that an answer takes."""

from __future__ import annotations

from haptera.peer.early_writes import WATCHED_MAX_S, WORK_STEP_S, EarlyWrites
from haptera.peer.limits import EARLY_WRITE_PATIENCE, REQUESTS_PER_WRITE

#: The work of this side on as many requests as a write has, in seconds, and the judgements until it is believed.
WORK_S = 0.0005
JUDGEMENTS = 25


class Connection:
    """A connection whose turns begin with a read and go on with requests. Each answer is read by the next turn."""

    def __init__(self) -> None:
        self.now = 100.0
        self.early = EarlyWrites(lambda: self.now)
        self.stream = 0

    def turn(self, answer_s: float, *unanswered: int, work_s: float = WORK_S, writes: int = 1) -> list[bool]:
        """Read after so many seconds, and judge after the work on each write. None of them leaves early."""
        self.now += answer_s
        self.early.begin_turn()
        judged: list[bool] = []
        under_way = {*unanswered}
        for number in range(1, writes + 1):
            self.now += work_s
            self.stream += REQUESTS_PER_WRITE
            under_way.add(self.stream)
            judged.append(self.early.are_worth_it(self.stream, number * REQUESTS_PER_WRITE, under_way))
        return judged

    def settled(self, answer_s: float) -> Connection:
        """Take so many turns that the work is known."""
        for _ in range(JUDGEMENTS + 1):
            self.turn(answer_s)
        return self


def test_the_work_is_believed_step_by_step() -> None:
    assert JUDGEMENTS * WORK_STEP_S == WORK_S
    connection = Connection()
    judged = [connection.turn(0.0009)[0] for _ in range(JUDGEMENTS)]
    assert judged == sorted(judged), "once it is worth it, it stays so"
    assert 3 <= judged.index(True) < 8


def test_an_answer_may_take_nine_times_as_long_as_the_work_on_the_requests() -> None:
    assert EARLY_WRITE_PATIENCE == 9
    for times, worth in ((8.9, True), (9.1, False)):
        connection = Connection().settled(times * WORK_S)
        assert connection.turn(times * WORK_S) == [worth]


def test_one_slow_turn_makes_no_slow_answer_worth_it() -> None:
    """It collects garbage, or it is the first of the program."""
    connection = Connection()
    assert connection.turn(0.005, work_s=0.010) == [False]
    assert connection.turn(0.005, work_s=0.010) == [False]
    connection.settled(0.005)
    assert connection.turn(0.005, work_s=0.010) == [False]


def test_requests_that_have_waited_are_no_better_a_reason() -> None:
    connection = Connection().settled(10 * WORK_S)
    assert connection.turn(10 * WORK_S, writes=4) == [False] * 4


def test_the_last_answer_counts_until_the_watched_request_has_one() -> None:
    connection = Connection().settled(0.001)
    watched = connection.stream
    assert connection.turn(0.500, watched) == [True]
    assert connection.turn(0.100) == [False], "it took 600 ms"
    assert connection.turn(0.001) == [True]


def test_a_call_that_was_given_up_counts_as_no_slow_answer() -> None:
    """It is under way no more, and its turn has not ended."""
    connection = Connection().settled(0.001)
    assert connection.early.are_worth_it(connection.stream + 1, REQUESTS_PER_WRITE, ())


def test_a_call_that_waits_long_does_not_keep_others_from_being_watched() -> None:
    """It is one for an event, such as the release of a lock: its answer says nothing of the others'."""
    connection = Connection().settled(0.001)
    lock = connection.stream
    assert connection.turn(WATCHED_MAX_S + 1, lock) == [True]
    assert connection.turn(0.5, lock) == [False], "the next one that is watched had a slow answer"
    assert connection.turn(0.001, lock) == [True]

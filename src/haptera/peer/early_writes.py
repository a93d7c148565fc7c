"""Whether the requests of one turn of the loop leave in several writes, or in one at its end.

In several, the other side works on the first of them while this one makes the rest. That wins where the two need about
as long as each other. Where the other side waits for something else most of the time, a disk that takes milliseconds or
another continent, it wins little, and loses what the other side would save by doing all of them together: changes that
come in one write share one sync of the disk. And changes that came apart once go on apart, because their answers do.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

from haptera.peer.limits import EARLY_WRITE_PATIENCE, REQUESTS_PER_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Container

#: Seconds after which a request without an answer says nothing of the others: it waits for an event.
WATCHED_MAX_S: Final = 1.0
#: Seconds by which the work counts as more with a judgement. The first turns of a program are slow, and so is one that
#: collects garbage: a few dozen judgements are needed before early writes begin, and none is wrong for one slow turn.
WORK_STEP_S: Final = 20e-6


class EarlyWrites:
    """Judges for one connection, by the time that an answer takes. One request at a time is watched for that.

    Time is given by ``clock``, in seconds. That of the loop is too coarse: uvloop's has milliseconds.
    """

    __slots__ = ("_answer_s", "_begun", "_clock", "_stream", "_turn_at", "_work_s")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turn_at = 0.0  # when the turn's first request was made
        self._answer_s = math.inf  # the seconds that the last watched answer took; nothing is known yet
        self._work_s = 0.0  # those of this side's work on the requests of a write
        self._stream = 0  # of the request that is watched
        self._begun = 0.0

    def begin_turn(self) -> None:
        """The first request of a turn is made now."""
        self._turn_at = self._clock()

    def are_worth_it(self, stream: int, count: int, unanswered: Container[Any]) -> bool:
        """Whether ``count`` requests of this turn, up to that of ``stream``, should leave now, and not at its end.

        ``unanswered`` are the streams of the calls under way.
        """
        now = self._clock()
        answered = self._stream not in unanswered
        if answered and self._stream:
            self._answer_s = max(0.0, self._turn_at - self._begun)
        if answered or now - self._begun > WATCHED_MAX_S:
            self._stream, self._begun = stream, now
        # More requests took more work, and are no better a reason.
        work = (now - self._turn_at) * REQUESTS_PER_WRITE / count
        self._work_s = min(work, self._work_s + WORK_STEP_S)
        return self._answer_s <= EARLY_WRITE_PATIENCE * self._work_s

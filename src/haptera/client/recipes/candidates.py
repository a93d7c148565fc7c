"""The jobs that a worker may try to take, and which of them it tries while others do the same. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import Final

from haptera.client.recipes.queue_keys import digits_of

#: Jobs that a worker knows of at most, however many there are: more than the workers that may try the first of them.
KNOWN_MAX: Final = 512
#: Jobs that are read at once, and how few may be known before more are read: so a worker never waits for a page.
PAGE_JOBS: Final = 256
KNOWN_LOW: Final = 128
#: The most competitors that a worker reckons with. The more it does, the later it tries the only job that there is.
RIVALS_MAX: Final = 256
#: Seconds for each competitor by which tries for a single job are spread: a try is seen by all others in that time.
PAUSE_S: Final = 0.001
#: Factors by which the number of competitors is guessed: upwards with a job that another had first, and downwards with
#: one that was had. They meet where six tries of seven succeed.
RIVALS_UP: Final = 2.0
RIVALS_DOWN: Final = 0.9


class Candidates:
    """The first jobs of a queue that are free, as far as a worker knows: by their digits, in order.

    They are read page by page behind ``cursor``, the digits up to which every job was looked at. Jobs before it that
    become free are told by a watch, and so are all new ones once the end was reached. A job may have been taken
    meanwhile: to claim it is the only proof.
    """

    __slots__ = ("_known", "cursor", "end_reached")

    def __init__(self) -> None:
        self._known: list[str] = []
        self.cursor: str = ""
        self.end_reached: bool = False

    def __len__(self) -> int:
        return len(self._known)

    @property
    def wanting(self) -> bool:
        """Whether a page is to be read."""
        return not self.end_reached and len(self._known) < KNOWN_LOW

    def begin(self) -> None:
        """Forget everything: the changes since the pages were read are not known."""
        self._known.clear()
        self.cursor = ""
        self.end_reached = False

    def read(self, free: Sequence[str], cursor: str, *, last: bool) -> None:
        """Take over a page that ends at ``cursor``: the free jobs in it, and whether it was the ``last`` one."""
        self.cursor = cursor
        self.end_reached = last
        for digits in free:
            self._insert(digits)
        self._trim()

    def free(self, first: int, last: int) -> None:
        """Note that jobs have become free. The ones behind the cursor are read in their turn."""
        for digits in map(digits_of, range(first, min(last, first + KNOWN_MAX) + 1)):  # one too many is trimmed
            if digits > self.cursor and not self.end_reached:
                break
            self.cursor = max(self.cursor, digits)
            self._insert(digits)
        self._trim()

    def taken(self, digits: str) -> None:
        """Note that another worker has taken a job."""
        place = bisect_left(self._known, digits)
        if place < len(self._known) and self._known[place] == digits:
            del self._known[place]

    def pick(self, place: int) -> str | None:
        """Take the job at a place out of those that are known; None if there is none."""
        return self._known.pop(place) if place < len(self._known) else None

    def _insert(self, digits: str) -> None:
        place = bisect_left(self._known, digits)
        if place == len(self._known) or self._known[place] != digits:
            insort(self._known, digits)

    def _trim(self) -> None:
        """Keep the first of them. The others are read again."""
        if len(self._known) > KNOWN_MAX:
            del self._known[KNOWN_MAX:]
            self.cursor = min(self.cursor, self._known[-1])
            self.end_reached = False


class Crowd:
    """How many workers try to take jobs at the same time, guessed by how often another was first.

    A worker that is alone takes the first job at once. Many choose among as many of the first jobs by chance, and where
    there are fewer jobs than workers, they wait by chance: so the first try is seen before most others are made.
    """

    __slots__ = ("_rivals", "_uniform")

    def __init__(self, uniform: Callable[[], float]) -> None:
        self._rivals = 1.0
        self._uniform = uniform

    def won(self) -> None:
        """A job was taken."""
        self._rivals = max(1.0, self._rivals * RIVALS_DOWN)

    def lost(self) -> None:
        """Another worker had taken it first."""
        self._rivals = min(float(RIVALS_MAX), self._rivals * RIVALS_UP)

    def pause(self, jobs: int) -> float:
        """The seconds to wait before a try for one of the first ``jobs``."""
        return max(0.0, self._rivals / jobs - 1) * PAUSE_S * self._uniform()

    def place(self, jobs: int) -> int:
        """Which of the first ``jobs`` to try."""
        return math.floor(self._uniform() * min(self._rivals, jobs))

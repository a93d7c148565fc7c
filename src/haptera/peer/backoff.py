"""The pauses before a failed attempt is repeated."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

#: The longest first wait. Short, because a node that is restarted listens again within some tens of milliseconds.
FIRST_S = 0.05

#: The longest wait of all: a node that comes back is found within this time.
LONGEST_S = 2.0

#: Exponents are capped here, so that a number of attempts without bound stays arithmetic on small numbers.
DOUBLINGS_MAX = 16


def _uniform() -> float:
    """A random number in [0, 1)."""
    import random  # noqa: PLC0415  # most programs end without a failed attempt, and do without the module

    return random.random()


class Backoff:
    """Exponential waits with full jitter: the n-th is uniform between 0 and ``first * 2**n``, at most ``longest``.

    Full jitter, so that many clients which lost one node at one instant do not return at one instant.
    ``uniform`` gives a number in [0, 1); by default a random one.
    """

    __slots__ = ("_first", "_longest", "_uniform")

    def __init__(
        self,
        *,
        first: float = FIRST_S,
        longest: float = LONGEST_S,
        uniform: Callable[[], float] | None = None,
    ) -> None:
        self._first = first
        self._longest = longest
        self._uniform = uniform or _uniform

    def ceiling(self, attempt: int) -> float:
        """The longest that the wait before attempt ``attempt`` (1 is the first repetition) may be, in seconds."""
        return float(min(self._longest, self._first * 2 ** min(attempt - 1, DOUBLINGS_MAX)))

    async def wait(self, attempt: int, within: float = math.inf) -> None:
        """Wait before repetition ``attempt`` (from 1), at most ``within`` seconds."""
        await asyncio.sleep(min(self._uniform() * self.ceiling(attempt), within))


class Pauses:
    """The pauses of one who tries again and again: each failure behind another makes the next one longer, and a success
    makes it short again.
    """

    __slots__ = ("_backoff", "_failures")

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._failures = 0

    def begin_anew(self) -> None:
        """Note a success."""
        self._failures = 0

    async def wait(self, within: float = math.inf) -> None:
        """Wait after a failure, at most ``within`` seconds."""
        self._failures += 1
        await self._backoff.wait(self._failures, within)

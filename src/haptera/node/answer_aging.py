"""Lets remembered answers age while they are many, or a connection's share of them is full, and no client writes.

Answers age by the entries of the log, each of which moves their clock by a minute at most (`haptera.state.requests`).
So after a quiet night, or a day without the node, a full table would be as full as before, and would refuse the first
changes for most of ten minutes. A connection that is alone and whose share is full would be refused for ever, because a
refusal makes no entry. While the answers are many, or a share refuses changes, the node writes an entry now and then
that changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from haptera.state import limits

if TYPE_CHECKING:
    from collections.abc import Callable

#: Less than an entry may move the answers' clock (`limits.ANSWER_CLOCK_STEP_MS_MAX`), with room for an entry clock that
#: runs a tenth faster. Some thirteen entries expire all remembered answers.
AGE_EVERY_S: Final = 50.0

#: From this part of the bound on, a user's answers are many. The log and `health` warn then, while an operator can
#: still find the clients that end without a word. From here on a connection's share is less than the changes that it
#: may have under way by default.
CROWDED_PART: Final = 2 / 3


def crowded(answers: int) -> bool:
    """Whether this number of remembered answers is many for one user."""
    return answers >= CROWDED_PART * limits.ANSWERS_PER_USER_MAX


class Aging:
    """One timer, while the answers are many or a share refuses changes. ``count`` says how many there are, ``write``
    writes an entry.
    """

    __slots__ = ("_count", "_refused", "_timer", "_write")

    def __init__(self, count: Callable[[], int], write: Callable[[], object]) -> None:
        self._count = count
        self._write = write
        self._refused = False  # since the timer was set
        self._timer: asyncio.TimerHandle | None = None

    def refused(self) -> None:
        """A connection's share is full, and a change was refused: begin, if it has not begun."""
        self._refused = True
        self.look()

    def look(self) -> None:
        """Begin if the answers are many, and it has not begun."""
        if self._timer is None and (self._refused or crowded(self._count())):
            self._timer = asyncio.get_running_loop().call_later(AGE_EVERY_S, self._age)

    def stop(self) -> None:
        """Write nothing more: the node ends."""
        if self._timer is not None:
            self._timer.cancel()

    def _age(self) -> None:
        self._timer = None
        if self._refused or crowded(self._count()):
            self._refused = False
            self._write()
        self.look()

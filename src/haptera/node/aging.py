"""Lets remembered answers age while they are many and no client writes.

Answers age by the entries of the log, each of which moves their clock by a minute at most (`haptera.state.requests`).
So after a quiet night, or a day without the node, a full table would be as full as before, and would refuse the first
changes for most of ten minutes. While the answers are many, the node writes an entry now and then that changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from haptera.state import limits

if TYPE_CHECKING:
    from collections.abc import Callable

AGE_EVERY_S: Final = 50.0
"""Less than an entry may move the answers' clock (`limits.ANSWER_CLOCK_STEP_MS_MAX`), with room for an entry clock that
runs a tenth faster. Some thirteen entries expire all that is remembered."""

CROWDED_SHARE: Final = 0.8
"""Part of a user's answers that is many. The log and `health` warn then, while what unclean ends leave can still be
found."""


def crowded(answers: int) -> bool:
    """Whether a user with so many remembered answers has many of them."""
    return answers >= CROWDED_SHARE * limits.ANSWERS_PER_USER_MAX


class Aging:
    """One timer, while the answers are many. ``count`` says how many there are, ``write`` writes an entry."""

    __slots__ = ("_count", "_timer", "_write")

    def __init__(self, count: Callable[[], int], write: Callable[[], object]) -> None:
        self._count = count
        self._write = write
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Begin if the answers are many, and it has not begun."""
        if self._timer is None and crowded(self._count()):
            self._timer = asyncio.get_running_loop().call_later(AGE_EVERY_S, self._age)

    def stop(self) -> None:
        """Write nothing more: the node ends."""
        if self._timer is not None:
            self._timer.cancel()

    def _age(self) -> None:
        self._timer = None
        if crowded(self._count()):
            self._write()
        self.look()

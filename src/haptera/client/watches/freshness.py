"""The age of a copy, proved by the store: news that arrive prove nothing, because they may be old.

A copy asks for the store's revision again and again. The answer was made after the question was sent, so every change
before that moment has this revision or a lower one. Once the copy has all changes up to it, it is as fresh as the
moment when the question was sent: however long the answer or the changes were on their way, and whether this process
was stopped or the machine slept meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from haptera.boot_clock import boot_time_ns
from haptera.errors import HapteraError

#: Seconds between two questions.
ASK_INTERVAL_S: Final = 0.5

#: Answers whose changes the copy does not have yet. A copy that is further behind than so many questions takes no more
#: of them, and learns its age from the ones that it has.
ANSWERS_MAX: Final = 64

#: The moment up to which a copy is fresh that has never been whole.
NEVER_NS: Final = -(1 << 62)

#: Gives the id of a server, and the present revision of its store.
Ask = Callable[[], Awaitable[tuple[bytes | None, int]]]


class Freshness:
    """How fresh a copy is. ``fresh_ns`` is the latest moment, by `haptera.boot_clock`, of which it is known that the
    copy has every change from before it.
    """

    __slots__ = ("_answers", "_asked", "_revision", "_server_id", "fresh_ns")

    def __init__(self) -> None:
        self.fresh_ns: int = NEVER_NS
        self._server_id: bytes | None = None  # of the store that the copy follows, and its revision there
        self._revision = 0
        self._asked: bytes | None = None  # the server that has given the answers
        self._answers: deque[tuple[int, int]] = deque()  # when it was asked, and the revision

    @property
    def age_s(self) -> float:
        """Seconds since the moment up to which the copy is fresh."""
        return (boot_time_ns() - self.fresh_ns) / 1e9

    def read_anew(self, begun_ns: int, server_id: bytes | None, revision: int) -> None:
        """The copy has the entries of one revision of a store, which was asked for them at ``begun_ns``."""
        self.fresh_ns = max(self.fresh_ns, begun_ns)
        self._server_id = server_id
        self.reached(revision)

    def reached(self, revision: int) -> None:
        """The copy has all changes up to a revision."""
        self._revision = revision
        if self._asked != self._server_id:
            return
        while self._answers and self._answers[0][1] <= revision:
            self.fresh_ns = max(self.fresh_ns, self._answers.popleft()[0])

    def answered(self, asked_ns: int, server_id: bytes | None, revision: int) -> None:
        """A server has said its revision, to a question of ``asked_ns``."""
        answers = self._answers
        if server_id != self._asked:
            self._asked = server_id
            answers.clear()
        if answers and answers[-1][1] == revision:
            answers[-1] = (asked_ns, revision)
        elif len(answers) < ANSWERS_MAX:
            answers.append((asked_ns, revision))
        self.reached(self._revision)

    async def keep_asking(self, ask: Ask) -> None:
        """Ask without end. A question that fails proves nothing, and the next one follows."""
        time = asyncio.get_running_loop().time
        while True:
            due, asked_ns = time() + ASK_INTERVAL_S, boot_time_ns()
            try:
                server_id, revision = await ask()
            except HapteraError:
                pass
            else:
                self.answered(asked_ns, server_id, revision)
            await asyncio.sleep(due - time())

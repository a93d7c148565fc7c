"""The holder's knowledge of a lease: when it was renewed last, and whether it still stands."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from haptera.client.leases.instant import Instant
from haptera.client.once import Once
from haptera.errors import LeaseLost

if TYPE_CHECKING:
    import asyncio

#: The part of its time at which a lease that was not renewed is taken for lost. The rest is for clocks that run at
#: different rates, and for a holder that has to stop (spec/protocol.md, section 7).
LOST_AT: Final = 0.9
#: Why it is lost where another server answers.
ELSEWHERE: Final = "another server answers now, and its leases are others"


class KeptLease:
    """A lease of ``seconds``, which was asked for at ``granted`` and which the server ``server_id`` has granted.

    A lease of the same id at another server, such as one with a restored store, is another one.

    Its time counts from before each renewal was sent, because the node counts from when it takes one. Once it is lost
    it stays lost, also where a later answer says otherwise: its holder may have acted on the loss.
    """

    __slots__ = (
        "_loop",
        "_lost_at",
        "_pid",
        "_renewed",
        "_timer",
        "asked",
        "ended",
        "gone",
        "id",
        "seconds",
        "server_id",
        "trouble",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lease_id: int,
        seconds: float,
        granted: Instant,
        server_id: bytes | None,
    ) -> None:
        self.id: int = lease_id
        self.seconds: float = seconds
        self.server_id: bytes | None = server_id
        #: Whether a renewal is under way.
        self.asked: bool = False
        #: How it ended: with the error that says why it was lost, or with None for one that was closed.
        self.ended: Once[LeaseLost | None] = Once(loop)
        #: Whether the node is known to have ended it.
        self.gone: bool = False
        #: Why the last renewal failed.
        self.trouble: Exception | None = None
        self._loop = loop
        self._lost_at = seconds * LOST_AT
        self._pid = os.getpid()
        self._renewed = granted
        self._timer = loop.call_later(max(self._lost_at - self.age(Instant.now(loop)), 0.0), self._look)

    @property
    def inherited(self) -> bool:
        """Whether it belongs to the process that this one was forked from."""
        return self._pid != os.getpid()

    @property
    def held(self) -> bool:
        """Whether it certainly stands. The clock says so, and no timer, because a process that was stopped goes on
        anywhere.
        """
        standing = not self.ended.happened and self.age(Instant.now(self._loop)) < self._lost_at
        return standing and not self.inherited

    def age(self, now: Instant) -> float:
        """The seconds since the last renewal that was answered was sent."""
        return now.since(self._renewed)

    def over(self, age: float) -> bool:
        """Whether it has ended. If its time is over, it is lost by this."""
        if age >= self._lost_at:
            self.lose(f"no renewal of the lease was answered for {self._lost_at:g} seconds")
        return self.ended.happened

    def renew(self, sent: Instant, now: Instant) -> None:
        """Begin its time then: a renewal that was sent then was taken. One that is told too late changes nothing."""
        if not self.over(self.age(now)):
            self._renewed = sent
            self.trouble = None

    def lose(self, why: str) -> None:
        """Take it for lost."""
        if not self.ended.happened:
            error = LeaseLost(why)
            error.__cause__ = self.trouble
            self._end(error)

    def end_elsewhere(self) -> None:
        """Take it for lost, because another server answers: there is nothing to revoke there."""
        self.gone = True
        self.lose(ELSEWHERE)

    def close(self) -> None:
        """Give it up: its holder needs it no more."""
        if not self.ended.happened:
            self._end(None)

    def _end(self, error: LeaseLost | None) -> None:
        self._timer.cancel()
        self.ended.happen(error)

    def _look(self) -> None:
        """Take it for lost if its time is over, and look again when it will be."""
        age = self.age(Instant.now(self._loop))
        if not self.over(age):
            self._timer = self._loop.call_later(self._lost_at - age, self._look)

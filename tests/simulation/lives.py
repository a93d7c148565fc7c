"""Times to live, held against virtual time: while a node's wall clock is not set, entry time is exactly that."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tests.simulation.promises import require

#: Seconds by which the rounding of clocks to milliseconds may move the end of a key.
ROUNDING_S = 0.002


@dataclass
class Life:
    """The time in which one key ends: not before ``earliest`` and not behind ``latest``."""

    earliest: float = 0.0
    latest: float = math.inf
    is_known: bool = True

    def begins(self, sent: float, answered: float, ttl: float) -> None:
        """Note a change that has given the key so long to live, at a time between two."""
        self.earliest, self.latest = sent + ttl, answered + ttl

    def persists(self) -> None:
        """Note that the key does not expire any more."""
        self.earliest = self.latest = math.inf

    def may_have_changed(self) -> None:
        """Note a change whose outcome is not known: it may be made at any later time."""
        self.is_known = False

    def seen(self, sent: float, answered: float, *, alive: bool) -> None:
        """Hold a read against it, which was made at a time between two. Raises PromiseBroken."""
        if not self.is_known:
            return
        if alive:
            require(sent < self.latest + ROUNDING_S, f"a key that ended by {self.latest} was read at {sent}")
        else:
            require(answered > self.earliest - ROUNDING_S, f"a key was gone by {answered}, before {self.earliest}")

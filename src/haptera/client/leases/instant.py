"""Instants, and the time between them as a holder of a lease has to count it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from haptera.boot_clock import boot_time_ns_of

if TYPE_CHECKING:
    import asyncio


class Instant(NamedTuple):
    """An instant by two clocks: the loop's, which may stand still while the machine sleeps, and the one that goes on.

    The one that has gone further counts.
    """

    loop_s: float
    boot_ns: int

    @classmethod
    def now(cls, loop: asyncio.AbstractEventLoop) -> Instant:
        """The present instant."""
        return cls(loop.time(), boot_time_ns_of(loop))

    def since(self, earlier: Instant) -> float:
        """The seconds from an earlier instant to this one."""
        return max(self.loop_s - earlier.loop_s, (self.boot_ns - earlier.boot_ns) / 1e9)

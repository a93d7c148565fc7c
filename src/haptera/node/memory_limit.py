"""The bound on the memory of the store's entries: `--memory-max`.

A change that would make the entries take more is refused before it is logged. The changes that were taken and are not
applied yet count with what they will add, so a burst does not pass the bound. Everything that adds nothing goes on:
deletes, clears, and changes that put shorter values in the place of longer ones.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from haptera.errors import Code, Failure, failure
from haptera.state import operations

if TYPE_CHECKING:
    from haptera.node.metrics import Metrics
    from haptera.state import Logged, Operation, StateMachine, Steps

_logger = logging.getLogger(__name__)

#: Parts of the bound: from the first on the log and `health` warn, and they do again once the memory has been below the
#: second; changes that were refused for want of memory are said to be over below the third. The distances keep a store
#: at one of them from filling the log.
HIGH_PART: Final = 0.80
LOW_PART: Final = 0.75
ROOM_PART: Final = 0.95


class MemoryLimit:
    """Judges changes by the memory that they would add. ``limit`` is the bound in bytes, 0 for none."""

    __slots__ = ("_full", "_high", "_machine", "_metrics", "limit")

    def __init__(self, machine: StateMachine, limit: int, metrics: Metrics) -> None:
        self.limit: int = limit
        self._machine = machine
        self._metrics = metrics
        self._high = False
        self._full = False
        self.look()

    @property
    def size(self) -> int:
        """Bytes of memory that the entries and the leases take."""
        return self._machine.size

    @property
    def full(self) -> bool:
        """Whether changes are refused for want of memory."""
        self.look()
        return self._full

    @property
    def high(self) -> bool:
        """Whether little memory is left."""
        self.look()
        return self._high

    def growth_steps(self, op: Operation) -> Steps[int | None]:
        """Bytes that a large change adds, found in slices; None where `judge` finds them at once."""
        if not self.limit or not isinstance(op, operations.SetMany):
            return None
        return (yield from self._machine.growth_steps(op))

    def judge(self, change: Logged, growth: int | None, pending: int) -> int | Failure:
        """Return the bytes that a change adds, or 5007 where that is too much.

        ``growth`` is what `growth_steps` found, ``pending`` what the changes before it add that are not applied yet.
        """
        self.look()
        if growth is None:
            growth = self._machine.growth(change.op)
        if growth <= 0:
            return 0
        if self.size + pending + growth <= self.limit:
            return growth
        if change.request_id is not None and self._machine.requests.remembers(change.user, change.request_id):
            return 0  # it is a repetition, and applied already
        self._metrics.writes_out_of_memory_total += 1
        if not self._full:
            self._full = self._high = True
            _logger.warning("memory_full", extra={"code": int(Code.MEMORY_FULL), **self._fields()})
        return failure(Code.MEMORY_FULL, {"limit": self.limit}, outcome="not_applied")

    def look(self) -> None:
        """Tell the log when the memory gets scarce, and when it is not any more."""
        size, limit = self.size, self.limit
        if not limit:
            return
        if self._full and size < ROOM_PART * limit:
            self._full = False
            _logger.info("memory_has_room", extra=self._fields())
        if self._high:
            self._high = size >= LOW_PART * limit
        elif size >= HIGH_PART * limit:
            self._high = True
            _logger.warning("memory_high", extra=self._fields())

    def _fields(self) -> dict[str, int]:
        return {"size": self.size, "memory_max": self.limit}

"""The records of callers: of a key that one of them alone writes, and of those that all of them change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.calls import shown
from tests.simulation.promises import PromiseBroken

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera import Entry


@dataclass
class Claim:
    """A key that one caller alone writes: the value that it knows of, and the changes whose outcome it does not know.
    Each of them may have happened, or happen late; never twice.
    """

    value: bytes | None = None
    version: int = 0
    open: list[bytes | None] = field(default_factory=list)

    def changed(self, value: bytes | None, version: int) -> None:
        """Note an acknowledged change."""
        if version and version <= self.version:
            raise PromiseBroken(f"version {version} was given after version {self.version}")
        self.value = value
        self.version = max(self.version, version)

    def seen(self, entry: Entry | None) -> None:
        """Hold what was read against the record."""
        value = None if entry is None else bytes(entry.value)
        if entry is not None and entry.version < self.version:
            raise PromiseBroken(f"version {entry.version} was read after version {self.version}")
        if value == self.value:
            return
        if value not in self.open:
            raise PromiseBroken(f"{shown(value)} was read, and {shown(self.value)} was acknowledged")
        self.open.remove(value)
        self.value = value
        self.version = self.version if entry is None else entry.version


@dataclass
class Shared:
    """The record of the keys that all callers change. ``clock_was_set`` tells of the node's wall clock."""

    clock_was_set: Callable[[], bool]
    counted: set[int] = field(default_factory=set)
    count_open: int = 0

    def incremented(self, number: int) -> None:
        """Note an answer to an increment by one, which no other increment may have had."""
        if number in self.counted:
            raise PromiseBroken(f"two increments were answered with {number}")
        self.counted.add(number)

    def counter_is(self, number: int) -> None:
        """Hold the counter against all increments."""
        done, most = len(self.counted), len(self.counted) + self.count_open
        if not done <= number <= most or (self.counted and number < max(self.counted)):
            raise PromiseBroken(
                f"the counter is {number} after {done} acknowledged increments and {self.count_open} open"
            )

"""A bound on the lines that strangers can have written: beyond a rate, equal events are counted.

A user that may do nothing could otherwise fill the log with denials until retention has removed what it did before.
Pure: time is passed in.
"""

from __future__ import annotations

from typing import Final

from msgspec import structs

from haptera.node.audit.event import AuditCaller, AuditEvent

__all__ = ["FOLD_S", "LINES_BURST", "LINES_PER_S", "Repetitions"]

#: Lines of denials and of attempts to authenticate that are written one by one: at once, and in each second after that.
#: At this rate a log of the default size reaches nine hours back, and it takes as long to push an event out of it.
LINES_BURST: Final = 1000
LINES_PER_S: Final = 100
#: Seconds after which the others have their lines, one for all that are equal.
FOLD_S: Final = 1.0
#: Kinds of events that are told apart in that time; beyond, they are told apart by kind and code alone.
ALIKE_MAX: Final = 50

_Key = tuple[str, str, str, int]


class Repetitions:
    """Admits events up to the rate, and counts the others."""

    def __init__(self) -> None:
        self._tokens = float(LINES_BURST)
        self._filled = 0.0
        self._counted: dict[_Key, tuple[AuditEvent, int]] = {}

    def admits(self, event: AuditEvent, now: float) -> bool:
        """Whether the event has a line of its own; else it is counted."""
        self._tokens = min(LINES_BURST, self._tokens + (now - self._filled) * LINES_PER_S)
        self._filled = now
        if self._tokens >= 1:
            self._tokens -= 1
            return True
        key: _Key = (event.kind, event.caller.user, event.method, event.code)
        if key not in self._counted and len(self._counted) >= ALIKE_MAX:
            key = (event.kind, "", "", event.code)
            event = structs.replace(event, caller=AuditCaller(), method="audit.others")
        first, count = self._counted.get(key, (event, 0))
        self._counted[key] = first, count + 1
        return False

    def take(self) -> list[AuditEvent]:
        """Give an event for all that are equal, with their number, and forget them. It is the first of them, without
        what may be another in the others.
        """
        counted, self._counted = self._counted, {}
        return [
            structs.replace(event, key=None, keys=None, target=None, latency_us=None, detail={"times": count})
            for event, count in counted.values()
        ]

"""Lines in the log about connections, limited where strangers cause them (spec/protocol.md, section 8)."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

_logger = logging.getLogger("haptera.peer")

#: Of what whoever connects can cause at will, so many lines of one event are written in so many seconds: enough to see
#: what is the matter, too few to fill a disk.
LINES_MAX: Final = 10
INTERVAL_S: Final = 10.0
#: Characters of what a peer says that a line has room for. Escaped they are six times as many.
TEXT_MAX: Final = 200


def shortened(text: str) -> str:
    """Return a peer's own words as a line has room for them."""
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


class EventLog:
    """Writes a line for each event: that of connections which this side has dialled."""

    def write(
        self, level: int, event: str, fields: Callable[[], dict[str, Any]], error: BaseException | None = None
    ) -> None:
        """Write a line if anybody reads lines of this level.

        ``fields`` gives what it says besides the event; the traceback of ``error`` stands behind it.
        """
        if _logger.isEnabledFor(level):
            _logger.log(level, event, exc_info=error, extra=fields())

    def settle(self) -> None:
        """Write what was left out until now."""


class LimitedLog(EventLog):
    """The log of what others cause: behind the first lines of an event, how many more there would have been.

    ``place`` is the listener's URL, or the other side of a dialled connection.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._until = 0.0
        self._counts: Counter[tuple[int, str]] = Counter()  # since the interval began; the events are few
        self._timer: asyncio.TimerHandle | None = None

    def write(
        self, level: int, event: str, fields: Callable[[], dict[str, Any]], error: BaseException | None = None
    ) -> None:
        """Write a line, or count it as left out."""
        if not _logger.isEnabledFor(level):
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= self._until:
            self.settle()
            self._until = now + INTERVAL_S
        self._counts[level, event] += 1
        if self._counts[level, event] <= LINES_MAX:
            super().write(level, event, fields, error)
        elif self._timer is None:
            self._timer = loop.call_at(self._until, self.settle)

    def settle(self) -> None:
        """Write what was left out until now: the interval is over, or the listener or the connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counts, self._counts = self._counts, Counter()
        for (level, event), count in counts.items():
            if count > LINES_MAX:
                _logger.log(
                    level, "lines_left_out", extra={"url": self._place, "of": event, "count": count - LINES_MAX}
                )

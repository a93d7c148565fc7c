"""Lines in the log about connections, limited where strangers cause them (spec/protocol.md, section 8)."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import Code

if TYPE_CHECKING:
    from haptera.peer.link import Link
    from haptera.peer.request import Request

_logger = logging.getLogger("haptera.peer")

#: Strangers can cause some events at will. So many lines of one event are written in so many seconds: enough to see
#: the trouble, too few to fill a disk.
LINES_MAX: Final = 10
INTERVAL_S: Final = 10.0
#: Characters of a peer's own words in a line. Escaped they are six times as many.
TEXT_MAX: Final = 200


def shortened(text: str) -> str:
    """Return a peer's own words as a line has room for them."""
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


class EventLog:
    """Writes a line for each event of some connections.

    ``place`` is where others cause the events: a listener's URL, or the other side of a dialled connection. Then the
    first lines of an event stand for all in some seconds, and behind them the number of the others.
    """

    def __init__(self, place: str | None = None) -> None:
        self._place = place
        self._until = 0.0
        self._counts: Counter[tuple[int, str]] = Counter()  # since the interval began; the events are few
        self._timer: asyncio.TimerHandle | None = None

    def write(
        self, level: int, event: str, fields: Callable[[], dict[str, Any]], error: BaseException | None = None
    ) -> None:
        """Write a line if lines of this level are read, or count it as left out.

        ``fields`` gives the rest of the line; the traceback of ``error`` stands behind it.
        """
        if _logger.isEnabledFor(level) and (self._place is None or self._admits(level, event)):
            _logger.log(level, event, exc_info=error, extra=fields())

    def _admits(self, level: int, event: str) -> bool:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now >= self._until:
            self.settle()
            self._until = now + INTERVAL_S
        self._counts[level, event] += 1
        if self._counts[level, event] <= LINES_MAX:
            return True
        if self._timer is None:
            self._timer = loop.call_at(self._until, self.settle)
        return False

    def settle(self) -> None:
        """Write how many lines were left out: the interval is over, or the listener or the connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counts, self._counts = self._counts, Counter()
        for (level, event), count in counts.items():
            if count > LINES_MAX:
                _logger.log(
                    level, "lines_left_out", extra={"url": self._place, "of": event, "count": count - LINES_MAX}
                )


class RequestLog:
    """Writes lines about the requests of one connection. Their callers cause them at will, a dialled one's too."""

    def __init__(self, link: Link, shared: EventLog | None) -> None:
        self._link = link
        self._shared = shared  # of the listener
        self._own: EventLog | None = None  # of a dialled connection, once there is something to write

    def write(self, event: str, request: Request, error: BaseException) -> None:
        """Write a line about a request that ends with HandlerFailed."""
        log = self._shared or self._own
        if log is None:
            log = self._own = EventLog(self._link.remote)
        log.write(
            logging.ERROR,
            event,
            lambda: self._link.log_fields(
                stream=request.stream,
                request_id=request.request_id,
                code=Code.HANDLER_FAILED,
                service=request.service,
                method=f"{request.service}.{request.method}",
            ),
            error,
        )

    def settle(self) -> None:
        """Write how many lines were left out: the connection is closed."""
        if self._own is not None:
            self._own.settle()


def guard(callback: Callable[[], None]) -> None:
    """Call an application's function: its fault is logged, and is not the connection's."""
    try:
        callback()
    except Exception as error:
        _logger.error("callback_failed", exc_info=error)

"""How long requests waited and were worked on, for answers under ``server_metrics`` (spec/protocol.md, 4.1)."""

from __future__ import annotations

import asyncio
import math
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from haptera.wire import Tag

if TYPE_CHECKING:
    from haptera.peer.request import Request

#: Both entries in one: tag and length, then the value, of the server's time and of the queue's.
_ENTRIES: Final = struct.Struct(">HIHI")
_SERVER_TIME_HEAD: Final = Tag.SERVER_TIME_US << 8 | 4
_QUEUE_TIME_HEAD: Final = Tag.QUEUE_TIME_US << 8 | 4
_TIME_US_MAX: Final = 2**32 - 1
#: Answers that a service gives before it returns from a batch share a reading of the clock, so many of them: a reading
#: for each would cost more than all else about the times.
_ANSWERS_PER_READING: Final = 32


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return a clock, in seconds, that tells microseconds.

    asyncio's own does, or is a test's. uvloop's counts milliseconds and stands still during a turn of the loop.
    """
    return loop.time if isinstance(loop, asyncio.BaseEventLoop) else time.monotonic


class Stopwatch:
    """Measures the requests of one connection.

    The time in the handler is that of its task; for a service that takes batches, that of ``handle``. All the rest
    between a request's arrival and its answer is time of waiting: for the handler, for the disk.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: When the bytes that are looked at were read: the requests in them have been received then.
        self.now: float = clock()
        self._in_batch = False
        self._shared = 0  # answers of the batch that may still share the last reading
        self._shared_reading = 0.0
        self._received = self._used = self._now = math.nan  # the times of what is `_encoded`
        self._encoded = b""

    def read(self) -> None:
        """Bytes have been read, or there is room for answers again: requests are received and started now."""
        self.now = self._clock()

    def begin(self, request: Request) -> None:
        """A handler takes its first step in a task of its own."""
        request._begun = self._clock()

    def begin_batch(self) -> None:
        """A service is about to be given requests."""
        self._in_batch = True
        self._shared = 0

    def end_batch(self, left: list[Request]) -> None:
        """The service has returned. The requests that are ``left`` to be answered wait from now on. Of answered ones
        among them the time means nothing.
        """
        self._in_batch = False
        if left:
            used = self._clock() - self.now
            for request in left:
                request._used = used

    def reading(self, answers: int) -> float:
        """The time for so many answers that are given together now."""
        if not self._in_batch:
            return self._clock()
        if self._shared <= 0:
            self._shared = _ANSWERS_PER_READING
            self._shared_reading = self._clock()
        self._shared -= answers
        return self._shared_reading

    def entries(self, request: Request, now: float) -> bytes:
        """Encode the times of a request that is answered ``now`` as metadata entries."""
        received, used = request._received, request._used
        if self._in_batch:
            used = now - self.now
        elif request._begun is not None:
            used = now - request._begun
        if received != self._received or used != self._used or now != self._now:
            self._received, self._used, self._now = received, used, now
            used_us, waited_us = round(used * 1_000_000), round((now - received - used) * 1_000_000)
            if not (0 <= used_us <= _TIME_US_MAX and 0 <= waited_us <= _TIME_US_MAX):
                used_us = min(max(used_us, 0), _TIME_US_MAX)
                waited_us = min(max(waited_us, 0), _TIME_US_MAX)
            self._encoded = _ENTRIES.pack(_SERVER_TIME_HEAD, used_us, _QUEUE_TIME_HEAD, waited_us)
        return self._encoded

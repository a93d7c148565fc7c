"""The watchers of a node's metrics (spec/protocol.md 7.2): a sample for each interval, encoded once for all.

There is one timer for all watchers with one interval, and only while there are some. A watcher that has not taken its
last sample misses this one, and gets the newest when it has: nothing queues up for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from haptera.errors import Code, Failure, failure

if TYPE_CHECKING:
    from haptera.peer import Peer, Request

#: Often enough for a person's eyes; a sample takes a fraction of a millisecond.
INTERVAL_MS_MIN: Final = 100

INTERVAL_MS_MAX: Final = 3_600_000
INTERVAL_MS_DEFAULT: Final = 1000


#: Says why a request's user may not have its answer any more, or None.
Judge = Callable[[], "Failure | None"]


class WatchMetrics(msgspec.Struct, frozen=True):
    """The argument of ``server.watch_metrics``: the milliseconds from one sample to the next."""

    interval_ms: Annotated[int, Meta(ge=INTERVAL_MS_MIN, le=INTERVAL_MS_MAX)] = INTERVAL_MS_DEFAULT


#: Watchers of one node: more than look at it, few enough that a sample for each costs little.
WATCHERS_MAX = 1024

#: Watchers on one connection: as many as a dashboard has views, and so few that none keeps the others from watching.
WATCHERS_PER_CONNECTION_MAX = 16

#: Timers that are due within this share a sample, so that many intervals cost no more than fifty samples a second.
SAMPLE_AGE_MAX_S = 0.02


class Watchers:
    """The watchers of one node. ``sample`` gives the metrics by name, ``clock_ms`` Unix time in milliseconds."""

    def __init__(self, sample: Callable[[], dict[str, float]], clock_ms: Callable[[], int]) -> None:
        self._sample = sample
        self._clock_ms = clock_ms
        self._encode = msgspec.msgpack.Encoder().encode
        self._feeds: dict[int, _Feed] = {}
        self._count = 0
        self._of_connection: Counter[Peer] = Counter()
        self._stopped = False
        self._item = b""
        self._sampled_at = float("-inf")

    def __len__(self) -> int:
        return self._count

    def add(self, request: Request, interval_ms: int, judge: Judge) -> None:
        """Send the request a sample now and after each interval, until it is cancelled, `stop` is called, or ``judge``
        says why its user may not see them any more.
        """
        if self._stopped:
            request.fail(_stopping())
        elif self._of_connection[request.peer] >= WATCHERS_PER_CONNECTION_MAX:
            request.fail(_too_many(WATCHERS_PER_CONNECTION_MAX))
        elif self._count >= WATCHERS_MAX:
            request.fail(_too_many(WATCHERS_MAX))
        else:
            feed = self._feeds.get(interval_ms)
            if feed is None:
                feed = self._feeds[interval_ms] = _Feed(self, interval_ms, asyncio.get_running_loop())
            self._count += 1
            self._of_connection[request.peer] += 1
            cancelled = failure(Code.CANCELLED, outcome="not_applied")
            request.on_cancel = lambda: self.remove(request, interval_ms, cancelled)
            feed.add(request, judge)

    def stop(self) -> None:
        """End every watch: the node is stopping (5005)."""
        self._stopped = True
        feeds = list(self._feeds.values())
        self._feeds.clear()
        self._of_connection.clear()
        self._count = 0
        for feed in feeds:
            for request in feed.close():
                request.on_cancel = None
                request.fail(_stopping())

    def item(self, now: float) -> bytes:
        """The present sample as an ITEM's payload; `now` is the loop's time."""
        if now - self._sampled_at >= SAMPLE_AGE_MAX_S:
            self._sampled_at = now
            self._item = self._encode((self._clock_ms(), self._sample()))
        return self._item

    def remove(self, request: Request, interval_ms: int, reason: Failure) -> None:
        """End a watcher, for this reason."""
        request.on_cancel = None
        feed = self._feeds[interval_ms]
        feed.remove(request)
        self._count -= 1
        self._of_connection[request.peer] -= 1
        if not self._of_connection[request.peer]:
            del self._of_connection[request.peer]
        if not feed:
            feed.close()
            del self._feeds[interval_ms]
        request.fail(reason)


class _Feed:
    """The watchers of one interval, in milliseconds."""

    def __init__(self, watchers: Watchers, interval_ms: int, loop: asyncio.AbstractEventLoop) -> None:
        self._watchers = watchers
        self._interval_ms = interval_ms
        self._interval = interval_ms / 1000
        self._loop = loop
        self._requests: dict[Request, Judge] = {}  # in the order in which they came
        self._due = loop.time() + self._interval
        self._timer = loop.call_at(self._due, self._tick)

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request, judge: Judge) -> None:
        self._requests[request] = judge
        request.try_send(self._watchers.item(self._loop.time()))

    def remove(self, request: Request) -> None:
        del self._requests[request]

    def close(self) -> list[Request]:
        """End the timer, and return its watchers."""
        self._timer.cancel()
        requests = list(self._requests)
        self._requests.clear()
        return requests

    def _tick(self) -> None:
        now = self._loop.time()
        # Samples keep to their times, without drift; missed ones (the machine slept, say) are left out.
        self._due += self._interval
        if self._due <= now:
            self._due = now + self._interval
        self._timer = self._loop.call_at(self._due, self._tick)
        item = self._watchers.item(now)
        for request, judge in list(self._requests.items()):
            refused = judge()
            if refused is None:
                request.try_send(item)
            else:
                self._watchers.remove(request, self._interval_ms, refused)


def _too_many(limit: int) -> Failure:
    return failure(Code.TOO_MANY_REQUESTS, {"watchers_max": limit}, outcome="not_applied")


def _stopping() -> Failure:
    return failure(Code.SHUTTING_DOWN, outcome="not_applied")

"""One queue of slices for the whole node, so that no caller waits for the long work of another.

Long work (the page of a scan, a count that looks at each key, a large argument, a large change) is a generator of
slices (`haptera.state.sliced_work`). The queue runs a bounded number of units of it, then gives the event loop a turn,
in which every connection is read and every small request is answered. The wait of a small request is therefore one
turn, for any number of items in the queue.

Turns go round between owners: a connection or an embedded database. An owner's items go round among themselves. So a
caller with 256 scans waits longer for each of them, and others do not. The commit pipeline stands outside of the round,
because every writer waits for it: it has the first half of each turn, however many owners there are.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import Code, failure

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from haptera.state import ResultT, Steps

_logger = logging.getLogger(__name__)

#: Units of work in one turn of the loop: two slices, about two milliseconds. A tenth of that would cost throughput,
#: because a turn of the loop has a price of its own; others would notice ten times that.
TURN_WORK_MAX: Final = 8192

#: The same while a write waits. It waits for several turns: for the one in which it is read, and for those in which the
#: disk is asked and has answered.
HURRIED_WORK_MAX: Final = 1024

#: Units charged for a slice beside its work: the queue itself, and the task that is woken by the last one.
SLICE_OVERHEAD: Final = 64


class _Item:
    """Work that is under way. ``waiting`` gets its result; without one the work tells its results itself."""

    __slots__ = ("_steps", "_waiting")

    def __init__(self, steps: Steps[Any], waiting: asyncio.Future[Any] | None) -> None:
        self._steps = steps
        self._waiting = waiting

    def step(self) -> int | None:
        """Run one slice: its units, or None when the work has ended."""
        waiting = self._waiting
        if waiting is not None and waiting.done():  # its task was cancelled
            self._steps.close()
            return None
        try:
            return next(self._steps)
        except StopIteration as end:
            if waiting is not None:
                waiting.set_result(end.value)
        except Exception as error:
            if waiting is not None:
                waiting.set_exception(error)
            else:
                _logger.exception("work_failed")
        return None

    def close(self) -> None:
        self._steps.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(failure(Code.SHUTTING_DOWN, outcome="not_applied").exception())


class Turns:
    """The queue of one node. For the event loop's thread alone.

    Every item belongs to a request, a scan or a call that waits for it, or to the pipeline: their limits bound the
    queue.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: dict[object, deque[_Item]] = {}
        self._owners: deque[object] = deque()  # whose turn is next; each owner with items once
        self._first: deque[_Item] = deque()  # the commit pipeline's work: one item at most
        self._scheduled = False
        self._closed = False
        self._worked = False  # whether the last turn was one of much work
        self._inline = 0  # units done beside the queue in this turn of the loop
        #: Whether a write waits, so that turns and the slices of scans are to be short.
        self.hurried: Callable[[], bool] = lambda: False

    def __len__(self) -> int:
        return len(self._first) + sum(map(len, self._items.values()))

    def admits(self, units: int) -> bool:
        """Whether this much work may be done at once, beside the queue; other work is for `run`.

        A request by itself is too small for the queue, but the requests that all connections have in one turn are not.
        """
        if not self._inline:
            self._loop.call_soon(self._begin_turn)
        self._inline += units
        return self._inline <= TURN_WORK_MAX

    def start_first(self, steps: Steps[None]) -> None:
        """Run work that all wait for, in slices: half of each turn, and more where no other work is there."""
        item = _Item(steps, None)
        if self._closed:
            item.close()
            return
        self._first.append(item)
        self._schedule()

    def start(self, owner: object, steps: Steps[None]) -> None:
        """Run work that no caller waits for, in slices."""
        self._add(owner, _Item(steps, None))

    def start_once(self, owner: object, work: Callable[[], Steps[None]]) -> None:
        """As `start`, unless the owner has work already."""
        if owner not in self._items:
            self.start(owner, work())

    async def run(self, owner: object, steps: Steps[ResultT]) -> ResultT:
        """Run work in slices and return its result. A caller that is cancelled ends the work at its next slice.

        Raises ShuttingDown when the queue is closed before the end of the work, or was.
        """
        waiting: asyncio.Future[ResultT] = self._loop.create_future()
        self._add(owner, _Item(steps, waiting))
        return await waiting

    def close(self) -> None:
        """End all work where it is, and do none that comes later."""
        self._closed = True
        items = [*self._first, *(item for queue in self._items.values() for item in queue)]
        self._first.clear()
        self._items.clear()
        self._owners.clear()
        for item in items:
            item.close()

    def _add(self, owner: object, item: _Item) -> None:
        if self._closed:
            item.close()
            return
        queue = self._items.get(owner)
        if queue is None:
            self._items[owner] = deque((item,))
            self._owners.append(owner)
        else:
            queue.append(item)  # the owner is in the round, or has its turn now and comes into it again
        self._schedule()

    def _begin_turn(self) -> None:
        self._inline = 0

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            # A short scan, of which the next one comes at once, keeps no one waiting.
            if self._worked:
                self._rest()
            else:
                self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        owners = self._owners
        work = left = HURRIED_WORK_MAX if self.hurried() and not self._first else TURN_WORK_MAX
        while self._first and left > TURN_WORK_MAX // 2:
            left -= self._step(self._first)
        while owners and left > 0:
            owner = owners.popleft()
            queue = self._items[owner]
            left -= self._step(queue)
            if queue:
                owners.append(owner)
            else:
                del self._items[owner]
        while self._first and left > 0:
            left -= self._step(self._first)
        self._worked = work - left >= HURRIED_WORK_MAX
        if owners or self._first:
            self._loop.call_soon(self._rest)
        else:
            self._scheduled = False

    @staticmethod
    def _step(queue: deque[_Item]) -> int:
        """Run a slice of the queue's next item, and put it behind the others if it goes on. Returns its charge."""
        item = queue.popleft()
        units = item.step()
        if units is not None:
            queue.append(item)
        return SLICE_OVERHEAD + (units or 0)

    def _rest(self) -> None:
        """Let a whole turn of the loop pass, and let the callbacks run that the requests in it have scheduled.

        The loop runs scheduled callbacks before it reads: a turn scheduled at once would begin before the requests that
        came during the last one are read, and one scheduled for then before their writes are handed to the disk.
        """
        self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._loop.call_soon(self._turn)

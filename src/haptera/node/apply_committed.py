"""Applies committed entries in the order of the log, and hands each one's results on.

An entry that takes longer than a slice goes on in the node's turns; the next one, committed meanwhile, waits for its
end. A failed apply is the end: the state may hold half an entry, and only a replay of the log makes a whole one.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from haptera.errors import Code, StorageError, failure
from haptera.node.garbage_collection import YOUNG_COLLECTIONS
from haptera.node.slice_queue import TURN_WORK_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from haptera.node.slice_queue import Turns
    from haptera.state import Logged, Result, StateMachine, Steps
    from haptera.storage import LogEntry

_logger = logging.getLogger(__name__)

#: Changes of keys after which the garbage collector looks at new objects. A change leaves two tuples, which the
#: collector follows until it has seen them once. By itself it begins when enough more objects were made than released.
#: Where as many are released, keys that are overwritten or the oldest events of a full history, that is hardly ever,
#: and then it stops the loop for hundreds of thousands at once. This many take half a millisecond.
COLLECTED_CHANGES: Final = 1024

#: Scans and counts that go on in one turn of the loop when a large change is applied: a task each.
READERS_WOKEN_MAX: Final = 64

#: Why everything is refused after a failed apply: the disk is not to blame.
APPLY_FAILED: Final = (
    "the node could not apply a change that it has stored; it ends, and applies it when it starts again"
)


class ApplyFailed(StorageError):
    """An entry of the log could not be applied. The state holds a part of it, so it is not to be used any more.

    `index` is the entry's. The log has the whole entry: opening the directory again replays it.
    """

    def __init__(self, index: int, reason: BaseException) -> None:
        super().__init__(f"the entry of index {index} cannot be applied: {type(reason).__name__}: {reason}")
        self.index = index


class Applied(NamedTuple):
    """The state after an entry: the store's revision, and the entry's time in Unix milliseconds."""

    revision: int
    time_ms: int


class Applier:
    """Applies entries to the state machine.

    ``published`` is called when an entry was applied whole. ``answer`` gives the steps that hand on the results of the
    entry of an index; ``rest`` is called when nothing is
    left to apply. ``failed`` is called with the error of the entry that could not be applied, and with the indexes of
    the entries behind it.
    """

    def __init__(
        self,
        machine: StateMachine,
        turns: Turns,
        *,
        published: Callable[[], None],
        answer: Callable[[int, list[Result]], Steps[None]],
        rest: Callable[[], None],
        failed: Callable[[ApplyFailed, list[int]], None],
    ) -> None:
        #: Whether an entry is applied, or its results are handed on.
        self.busy: bool = False
        self._machine = machine
        self._turns = turns
        self._published = published
        self._answer = answer
        self._rest = rest
        self._failed = failed
        self._waiting: deque[tuple[LogEntry, Sequence[Logged]]] = deque()  # bounded as the writes without a result are
        self._readers: deque[asyncio.Future[None]] = deque()  # each is of a scan or count, whose limits bound it
        self._collected = machine.kv.events.end  # the changes at which the collector has looked
        self._looks = 0
        self._index = machine.index  # of the last entry that was applied whole; the machine's own is ahead in slices
        self._marks: dict[int, list[asyncio.Future[Applied]]] = {}  # each is of a backup, of which there are few

    def apply(self, entry: LogEntry, commands: Sequence[Logged]) -> None:
        """Apply a committed entry with these commands, behind the entries before it."""
        self._waiting.append((entry, commands))
        if not self.busy:
            self.busy = True
            steps = self._steps()
            if next(steps, None) is not None:  # an entry like most is applied and answered by the first slice
                self._turns.start_first(self._collecting(steps))

    async def settled(self) -> None:
        """Return when no large change is applied in part: now, in most cases."""
        while self._machine.changing:
            reader = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            await reader

    def applied(self, index: int) -> asyncio.Future[Applied]:
        """The state right after the entry of this index, before that of any later one. It is committed, and nothing
        behind it is applied yet.
        """
        mark: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self._marks.setdefault(index, []).append(mark)
        if self._index >= index:
            self._mark(index)
        return mark

    def _steps(self) -> Steps[None]:
        machine, waiting = self._machine, self._waiting
        while waiting:
            entry, commands = waiting.popleft()
            try:
                results = yield from machine.steps(entry.index, entry.time_ms, commands)
            except GeneratorExit:  # the node is closed
                raise
            except BaseException as error:
                self.busy = False
                self._abandon(entry, error)
                if not isinstance(error, Exception):  # KeyboardInterrupt, which ends the loop
                    raise
                return
            self._index = entry.index
            self._published()
            if self._marks:
                self._mark(entry.index)
            yield from self._answer(entry.index, results)
            self._collect()
            while self._readers:
                self._wake_readers(READERS_WOKEN_MAX)
                yield TURN_WORK_MAX  # they have begun before the next large change does
        self.busy = False
        self._rest()
        if machine.burdened:
            self._turns.start_once(machine, machine.sweep_steps)

    def _abandon(self, entry: LogEntry, reason: BaseException) -> None:
        """The end of the state: an entry was applied in part."""
        _logger.critical(
            "apply_failed", exc_info=reason, extra={"index": entry.index, "code": int(Code.STORAGE_FAILED)}
        )
        self._machine.abandon(failure(Code.STORAGE_FAILED, outcome="not_applied", message=APPLY_FAILED))
        behind = [each.index for each, _ in self._waiting]
        self._waiting.clear()
        self._failed(ApplyFailed(entry.index, reason), behind)
        self._wake_readers(len(self._readers))
        for mark in chain.from_iterable(self._marks.values()):
            if not mark.done():
                mark.set_exception(ApplyFailed(entry.index, reason))
        self._marks.clear()

    def _mark(self, index: int) -> None:
        state = Applied(self._machine.revision, self._machine.time_ms)
        for mark in self._marks.pop(index, ()):
            if not mark.done():
                mark.set_result(state)

    def _collecting(self, steps: Steps[None]) -> Steps[None]:
        """As ``steps``, of which the first was done: the garbage collector looks at the new objects of a large change
        before they are many.
        """
        self._collect()
        for work in steps:
            yield work
            self._collect()

    def _collect(self) -> None:
        changes = self._machine.kv.events.end
        if changes - self._collected >= COLLECTED_CHANGES:
            self._collected = changes
            if gc.isenabled():
                # Else the survivors of all looks would wait for Python to begin by itself: 30 ms for a million changes.
                self._looks += 1
                gc.collect(0 if self._looks % YOUNG_COLLECTIONS else 1)

    def _wake_readers(self, limit: int) -> None:
        for _ in range(min(len(self._readers), limit)):
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)

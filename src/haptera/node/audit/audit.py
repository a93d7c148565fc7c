"""The audit log as a node's services use it: events in, lines on the disk, and a word when they are there.

    record ─> waiting ─┐ the writer idle: at the end of this turn of the loop
                       └ the writer busy: when its batch is on the disk
                            └─> writer's thread: AuditFiles.append (a write and a fdatasync for all that waited)

Administration is recorded twice: that it begins, before anything is done, and how it ended, before its answer. It is
refused where the first line cannot be written. Everything else goes on without the log: its events wait while the disk
is full, as many as there is room for; the others are counted, and a line has their number once it can be written.
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from haptera.errors import Code, Failure, failure
from haptera.node.audit.chain import BEGINNING
from haptera.node.audit.event import EXPENDABLE, LOST, AuditEvent
from haptera.node.audit.repetitions import FOLD_S, Repetitions
from haptera.node.shortage import no_room
from haptera.storage import DiskFull

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from haptera.node.audit.chain import Head
    from haptera.node.audit.event import Kind
    from haptera.node.audit.files import Appended, AuditFiles
    from haptera.node.metrics import Metrics

__all__ = ["NOTE_INTERVAL_S", "RETRY_S", "WAITING_MAX", "Audit"]

_logger = logging.getLogger(__name__)

#: Events that wait for the disk, some 10 MB: four of the largest batches of writes. The last quarter of the room is for
#: those that are not expendable.
WAITING_MAX: Final = 20_480
EXPENDABLE_WAITING_MAX: Final = WAITING_MAX * 3 // 4
#: Events of one job of the writer, which the log's entries wait for: some 20 ms.
JOB_MAX: Final = 4096
#: Seconds after which a full disk is tried again.
RETRY_S: Final = 1.0
#: Seconds within which the head of the chain is noted elsewhere: what is changed later is found out there.
NOTE_INTERVAL_S: Final = 60.0

#: Events of these kinds are as many as strangers like.
_OF_STRANGERS: Final = frozenset({"denied", "authentication"})

_CANNOT_RECORD: Final = "the audit log cannot be written, and administration is refused until it can"


class _Waiting(NamedTuple):
    """An event, and the future of a caller that waits until it is on the disk."""

    event: AuditEvent
    told: asyncio.Future[Failure | None] | None = None


class Audit:
    """Records events. For the event loop's thread alone.

    ``on_writer`` runs a job on the thread that waits for the disk. ``note_head`` is called with the sequence and the
    digest of the last line, at most once in `NOTE_INTERVAL_S`; the owner sets it.
    """

    def __init__(
        self,
        files: AuditFiles,
        on_writer: Callable[[Callable[[], Appended]], asyncio.Future[Appended]],
        loop: asyncio.AbstractEventLoop,
        clock_ms: Callable[[], int],
        monotonic_ns: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self.clock_ms = clock_ms
        self.monotonic_ns = monotonic_ns
        self.note_head: Callable[[int, bytes], None] | None = None
        #: Why the last attempt to write failed, or "", and the time of the loop at which that began.
        self.trouble: str = ""
        self.trouble_since: float = 0.0
        self._files = files
        self._on_writer = on_writer
        self._loop = loop
        self._metrics = metrics
        self._waiting: list[_Waiting] = []
        self._lost: Counter[Kind] = Counter()
        self._busy = self._scheduled = self._closed = False
        self._retry: asyncio.TimerHandle | None = None
        self._noting: asyncio.TimerHandle | None = None
        self._repetitions = Repetitions()
        self._folding: asyncio.TimerHandle | None = None
        self._noted = BEGINNING.sequence
        self._idle: asyncio.Future[None] | None = None
        if files.failed is not None:
            self._note_trouble(str(files.failed))

    @property
    def head(self) -> Head:
        """The last line that is on the disk."""
        return self._files.head

    @property
    def damage(self) -> str:
        """The fault that was found in it when it was opened, in a clause, or ""."""
        return self._files.damage

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return self._files.size

    @property
    def waiting(self) -> int:
        """The number of events that are not on the disk yet."""
        return len(self._waiting)

    def record(self, event: AuditEvent) -> None:
        """Have an event written soon."""
        if event.kind in _OF_STRANGERS and not self._repetitions.admits(event, self._loop.time()):
            if self._folding is None:
                self._folding = self._loop.call_later(FOLD_S, self._fold)
            return
        self._add(event)

    def _add(self, event: AuditEvent) -> None:
        room = EXPENDABLE_WAITING_MAX if event.kind in EXPENDABLE else WAITING_MAX
        if self._closed or self._files.failed is not None or len(self._waiting) >= room:
            self._lose(event.kind)
        else:
            self._waiting.append(_Waiting(event))
            if self._retry is None:
                self._wake()

    def _fold(self) -> None:
        """Have the events that were counted written, a line for all that are equal."""
        if self._folding is not None:
            self._folding.cancel()
            self._folding = None
        for event in self._repetitions.take():
            self._add(event)

    def synced(self, event: AuditEvent) -> asyncio.Future[Failure | None]:
        """Have an event written. The future resolves when it is on the disk, or to why it is not there: 5001, 5002 or
        3007, `not_applied`.
        """
        told: asyncio.Future[Failure | None] = self._loop.create_future()
        if event.kind in _OF_STRANGERS:
            self.record(event)
            told.set_result(None)  # nothing was done, and the refusal need not wait
        elif self._closed or self._files.failed is not None:
            self._lose(event.kind)
            told.set_result(_refused())
        elif len(self._waiting) >= WAITING_MAX:
            self._lose(event.kind)
            told.set_result(failure(Code.TOO_MANY_REQUESTS, outcome="not_applied", message=_CANNOT_RECORD))
        else:
            self._waiting.append(_Waiting(event, told))
            self._wake()  # a full disk, too, is tried at once
        return told

    async def written(self) -> None:
        """Write what waits, if the disk takes it, and return when that is done."""
        self._fold()
        while self._busy or (self._waiting and self._files.failed is None):
            self._idle = self._loop.create_future()
            self._wake()
            await self._idle
            if self.trouble:
                break

    async def aclose(self) -> None:
        """Write what waits, if the disk takes it, and nothing later."""
        await self.written()
        self._closed = True
        for timer in (self._retry, self._noting):
            if timer is not None:
                timer.cancel()
        self._give_up()

    def abandon(self) -> None:
        """Write what waits, on this thread: the loop is closed, and the writer has ended."""
        self._closed = True
        if self._waiting and not self._busy:
            self._files.append([event for event, _ in self._waiting])

    # -- the way to the disk ----------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """See that what waits is written, at the end of this turn of the loop or behind what is with the disk."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if not (self._busy or self._scheduled):
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled, self._retry = False, None
        if self._busy or self._closed or not self._waiting:
            return
        if self._lost:
            detail = {str(kind): count for kind, count in sorted(self._lost.items())}
            self._waiting.insert(
                0, _Waiting(AuditEvent(time_ms=self.clock_ms(), kind="log", method=LOST, detail=detail))
            )
            self._lost.clear()
        job, self._waiting = self._waiting[:JOB_MAX], self._waiting[JOB_MAX:]
        self._busy = True
        written = self._on_writer(partial(self._files.append, [event for event, _ in job]))
        written.add_done_callback(partial(self._written, job))

    def _written(
        self,
        job: Sequence[_Waiting],
        written: asyncio.Future[Appended],
    ) -> None:
        self._busy = False
        if written.cancelled() or written.exception() is not None:
            _logger.error("audit_failed", exc_info=None if written.cancelled() else written.exception())
            self._stay_failed(job, "the audit log could not be written")
            return
        count, error = written.result()
        self._metrics.audit_lines_total += count
        for _, told in job[:count]:
            if told is not None and not told.done():
                told.set_result(None)
        if isinstance(error, DiskFull):
            self._wait_for_room(job[count:], error)
        elif error is not None:
            _logger.error("audit_failed", extra={"reason": str(error), "code": int(Code.STORAGE_FAILED)})
            self._stay_failed(job[count:], str(error))
            return
        elif self.trouble:
            self.trouble = ""
            _logger.info("audit_resumed", extra={"sequence": self.head.sequence})
        self._look_at_head()
        if self._waiting and self._retry is None:
            self._wake()
        self._tell_idle()

    def _wait_for_room(self, left: Sequence[_Waiting], error: DiskFull) -> None:
        self._note_trouble(str(error))
        refused = no_room(error.number)
        for _, told in left:
            if told is not None and not told.done():
                told.set_result(refused)
        self._waiting[:0] = [_Waiting(event) for event, _ in left]
        self._retry = self._loop.call_later(RETRY_S, self._flush)

    def _stay_failed(self, left: Sequence[_Waiting], reason: str) -> None:
        self._note_trouble(reason)
        self._waiting[:0] = left
        self._give_up()
        self._tell_idle()

    def _give_up(self) -> None:
        left, self._waiting = self._waiting, []
        for event, told in left:
            self._lose(event.kind)
            if told is not None and not told.done():
                told.set_result(_refused())

    def _tell_idle(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _note_trouble(self, reason: str) -> None:
        if not self.trouble:
            self.trouble_since = self._loop.time()
            _logger.warning("audit_not_written", extra={"reason": reason, "meaning": _CANNOT_RECORD})
        self.trouble = reason

    def _lose(self, kind: Kind) -> None:
        self._lost[kind] += 1
        self._metrics.audit_lost_total += 1

    # -- the head ---------------------------------------------------------------------------------------------------

    def _look_at_head(self) -> None:
        if self.note_head is not None and self._noting is None and self.head.sequence > self._noted:
            self._noting = self._loop.call_later(NOTE_INTERVAL_S, self.note)

    def note(self) -> None:
        """Have the head noted now, if there are lines behind the one that was noted last."""
        if self._noting is not None:
            self._noting.cancel()
            self._noting = None
        head = self.head
        if self.note_head is not None and head.sequence > self._noted:
            self._noted = head.sequence
            self.note_head(*head)


def _refused() -> Failure:
    return failure(Code.STORAGE_FAILED, outcome="not_applied", message=_CANNOT_RECORD)

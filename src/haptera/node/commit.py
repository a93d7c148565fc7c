"""The commit pipeline: from a list of writes to entries that are durable, then applied, then answered.

    append ─> open batch ─┐ disk idle: at the end of this turn of the loop
                          ├ disk busy: as soon as the batch before it is durable
                          └─> writer thread: encode, Log.append (one write, one fdatasync)
                                └─> loop: apply in log order, in turns ─> results to each submission

Log first, then apply: nothing that could be lost is ever visible. There are no timers: while the disk is busy with one
batch, the next fills, so the batches grow with the load and a lone write waits for nothing but the disk. One batch is
with the disk at a time; the next is handed over before the last one is applied, so the two overlap. A batch whose
applying takes longer than a slice goes on in the node's turns; the next one, durable meanwhile, waits for its end.

The first failure is the end. After a failed write or sync nothing more is written. After a failed apply nothing more is
applied, read or acknowledged either, because the state may hold half an entry: only a replay of the log makes a whole
one. A write that may be in the log by then is `unknown`, one that never was is `not_applied`.

Everything but `_write` runs on the event loop's thread, which owns all state here.
"""

from __future__ import annotations

import gc
import logging
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

import msgspec

from haptera.errors import Code, StorageError, failure
from haptera.node.batch import DROPPED, Batch
from haptera.node.turns import TURN_WORK_MAX
from haptera.state.commands import encode_steps
from haptera.state.limits import SLICE_WORK_MAX
from haptera.state.steps import finish
from haptera.storage.errors import StorageFull
from haptera.storage.log import Entry

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from haptera.errors import Failure, Outcome
    from haptera.node.batch import Submission
    from haptera.node.metrics import Metrics
    from haptera.node.turns import Turns
    from haptera.state.commands import Logged
    from haptera.state.machine import StateMachine
    from haptera.state.results import Result
    from haptera.state.steps import Steps

log = logging.getLogger(__name__)

TERM = 1
"""A single node is a cluster of one that has led since its first entry."""

BATCH_SIZE_MAX = 4 * 1024 * 1024
"""Bytes of commands in one entry of several. An eighth of what a record may hold, and a few milliseconds of encryption:
beyond it a larger batch saves nothing. A single larger command is an entry of its own."""

BATCH_COMMANDS_MAX = 4096
"""Commands in one entry: applying them stops the loop for some milliseconds."""

PENDING_SIZE_MAX = 64 * 1024 * 1024
"""Bytes of commands that wait or are with the disk: four of the largest commands. Over it a write is 3007."""

PENDING_COMMANDS_MAX = 65536
"""Commands that wait or are with the disk: more than 50 connections with all their streams in use."""

FRESH_MS = 1000
"""While the last entry is younger than that, a change that a full table refuses needs none. Remembered answers age by
entries alone, so that one refusal in a second is logged, and the table empties although nothing else is."""

LOGGED_OVERHEAD = 64
"""What a `Logged` adds to its command beside the user's name (`state.commands.size_bound`)."""


COLLECT_SIZE = 128 * 1024
"""Bytes of commands applied after which the garbage collector looks at what is new. A write leaves a tuple, which the
collector follows until it has seen it once. It begins by itself after so many more objects were made than released: in
a store whose keys are overwritten hardly ever, and then it stops the loop for hundreds of thousands at once. So many
bytes are some thousand tuples at most, and a fraction of a millisecond."""


APPLY_FAILED = "the node could not apply a change that it has stored; it ends, and applies it when it starts again"
"""Why everything is refused after a failed apply: the disk is not to blame."""


class ApplyFailed(StorageError):
    """An entry of the log could not be applied. The state holds a part of it, so it is not to be used any more.

    `index` is the entry's. The log has the whole entry: opening the directory again replays it.
    """

    def __init__(self, index: int, reason: BaseException) -> None:
        super().__init__(f"the entry of index {index} cannot be applied: {type(reason).__name__}: {reason}")
        self.index = index


ANSWER_WORK = 32
"""Units of work of the answer to one write: its response is encoded, framed and written."""

READERS_WOKEN_MAX = 64
"""Scans and counts that go on in one turn of the loop when a large change is applied: a task each."""


class Writer(Protocol):
    """Runs blocking jobs one after the other, in order, beside the loop."""

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` after all that were submitted before it."""

    def close(self) -> None:
        """Return when every job has run."""


class ThreadWriter:
    """One thread fed through a queue. At most one job is ever in it: the pipeline keeps one batch with the disk."""

    def __init__(self, name: str = "haptera-log") -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon, so that a disk that hangs for ever cannot keep a process alive that was told to end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` on the thread."""
        self._jobs.put(job)

    def close(self) -> None:
        """End the thread when its jobs are done. Safe to call again."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class CommitPipeline:
    """Makes writes durable in batches and applies them; see the module's text.

    ``append_entry`` is `Log.append`; ``entry_time_ms`` gives the time for an entry, which never goes back;
    ``on_failure`` is called once, with the error after which nothing more can be written.
    """

    def __init__(
        self,
        *,
        machine: StateMachine,
        append_entry: Callable[[Entry], None],
        writer: Writer,
        loop: asyncio.AbstractEventLoop,
        entry_time_ms: Callable[[], int],
        metrics: Metrics,
        turns: Turns,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._machine = machine
        self._turns = turns
        self._append_entry = append_entry
        self._writer = writer
        self._loop = loop
        self._entry_time_ms = entry_time_ms
        self._metrics = metrics
        self._on_failure = on_failure
        self._full: deque[Batch] = deque()  # bounded by PENDING_COMMANDS_MAX and PENDING_SIZE_MAX, as is the open one
        self._open = Batch()
        self._with_disk: Batch | None = None
        self._unapplied: deque[tuple[Batch, Entry]] = deque()  # durable; bounded as those that wait are
        self._applying = False
        self._readers: deque[asyncio.Future[None]] = deque()  # each is of a scan or count, whose limits bound it
        self._scheduled = False
        self._index = machine.index
        self._size = 0
        self._count = 0
        self._uncollected = 0  # bytes of commands applied since the collector looked
        self._refusal: Failure | None = None
        self._failed = False
        self._message: str | None = None  # in place of the code's own
        #: Whether the last batch found the disk full: writes are refused until one finds room again.
        self.full = False
        self._idle: list[asyncio.Future[None]] = []

    def append(self, command: Logged, size: int, submission: Submission, position: int) -> Failure | None:
        """Put a valid write into the open batch; its result will be ``submission.results[position]``.

        `size` is an upper bound of its encoded bytes. Returns why it was refused (nothing will happen then), or None.
        """
        if self._refusal is not None:
            return self._refusal
        if self._count >= PENDING_COMMANDS_MAX or self._size + size > PENDING_SIZE_MAX:
            self._metrics.writes_refused_total += 1
            return failure(Code.TOO_MANY_REQUESTS, outcome="not_applied")
        batch = self._open
        if batch.commands and (batch.size + size > BATCH_SIZE_MAX or len(batch.commands) >= BATCH_COMMANDS_MAX):
            self._full.append(batch)
            batch = self._open = Batch()
        batch.commands.append(command)
        batch.places.append((submission, position, size))
        batch.size += size
        submission.waiting += 1
        self._size += size
        self._count += 1
        if self._with_disk is None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return None

    def drop(self, submission: Submission, position: int) -> bool:
        """Take a write back while it is not with the disk. Its result is then `DROPPED`: it was not applied.

        False, and nothing has happened, when it is with the disk or has its result.
        """
        for batch in (self._open, *self._full):
            size = batch.drop(submission, position)
            if size is not None:
                break
        else:
            return False
        self._size -= size
        self._count -= 1
        if not batch.commands and batch is not self._open:
            self._full.remove(batch)
        self._metrics.writes_dropped_total += 1
        submission.results[position] = DROPPED
        submission.waiting -= 1
        submission.writes -= 1
        if not submission.waiting:
            self._finish(submission)
        self._wake_idle()
        return True

    @property
    def at_rest(self) -> bool:
        """Whether every write has its result, and writes are taken: the applied state is all that there is."""
        return not self._count and self._refusal is None

    @property
    def fresh(self) -> bool:
        """Whether the last entry is less than a second old."""
        return self._entry_time_ms() - self._machine.time_ms < FRESH_MS

    @property
    def pending(self) -> int:
        """Writes that have no result yet."""
        return self._count

    async def drain(self) -> None:
        """Return when every write so far has its result."""
        if self._count or self._applying:  # a large batch is counted no more while it is answered in turns
            waiter = self._loop.create_future()
            self._idle.append(waiter)
            await waiter

    def disown(self) -> None:
        """Refuse new writes in a forked child: the writer's thread and the log's files are the parent's."""
        self._refusal = self._failure("not_applied")

    async def settled(self) -> None:
        """Return when no large change is applied in part: now, in most cases."""
        while self._machine.changing:
            reader = self._loop.create_future()
            self._readers.append(reader)
            await reader

    def abandon(self) -> None:
        """End the writer after the loop was closed. Changes that are not with the disk are dropped, unanswered."""
        self._writer.close()

    async def close(self) -> None:
        """Refuse new writes (5005), wait for the others' results, and end the writer."""
        if self._refusal is None:
            self._refusal = failure(Code.SHUTTING_DOWN, outcome="not_applied")
        await self.drain()
        self._writer.close()

    def _flush(self) -> None:
        self._scheduled = False
        if self._with_disk is None:
            self._next()  # nothing, if what was scheduled has been taken back

    def _hand_over(self) -> None:
        if self._full:
            batch = self._full.popleft()
        else:
            batch, self._open = self._open, Batch()
        batch.seal()
        self._with_disk = batch
        entry = Entry(TERM, self._index + 1, self._entry_time_ms(), b"")
        self._writer.submit(lambda: self._write(batch, entry))

    def _write(self, batch: Batch, entry: Entry) -> None:
        """On the writer's thread: the one place where a write of the database waits for the disk."""
        error: BaseException | None = None
        started = time.perf_counter()
        try:
            entry = msgspec.structs.replace(entry, payload=_encoded(batch.commands))
            self._append_entry(entry)
        except BaseException as caught:  # whatever it was, the loop must hear of it
            error = caught
        seconds = time.perf_counter() - started
        try:
            self._loop.call_soon_threadsafe(self._written, batch, entry, seconds, error)
        except RuntimeError:
            pass  # the loop was closed while the disk was busy: no caller is left

    def _written(self, batch: Batch, entry: Entry, seconds: float, error: BaseException | None) -> None:
        self._with_disk = None
        self._metrics.log_write_seconds_total += seconds
        if self._failed:
            # The batch before it could not be applied. This one is in the log or may be, unless there was no room.
            full = isinstance(error, StorageFull)
            self._refuse(batch, self._failure("not_applied" if full else "unknown"))
        elif isinstance(error, StorageFull):
            # Nothing was written and the index is free again. Reads go on, and the next batch tries again.
            if not self.full:  # told when it begins and when it ends, not for each batch in between
                log.warning("storage_full", extra={"code": int(Code.STORAGE_FULL)})
            self.full = True
            self._metrics.log_full_total += 1
            self._next()
            self._refuse(batch, failure(Code.STORAGE_FULL, outcome="not_applied"))
        elif error is not None:
            log.error("storage_failed", exc_info=error, extra={"code": int(Code.STORAGE_FAILED)})
            self._fail(batch, error)
        else:
            if self.full:
                log.info("storage_has_room")
                self.full = False
            self._index = entry.index
            self._metrics.log_entries_total += 1
            self._metrics.log_commands_total += len(batch.commands)
            self._metrics.log_bytes_total += len(entry.payload)
            self._next()  # before applying, so that the disk is not idle meanwhile
            self._apply(batch, entry)

    def _wake_idle(self) -> None:
        if not self._count and not self._applying and self._idle:
            for waiter in self._idle:
                if not waiter.done():
                    waiter.set_result(None)
            self._idle.clear()

    def _next(self) -> None:
        if self._full or self._open.commands:
            self._hand_over()

    def _apply(self, batch: Batch, entry: Entry) -> None:
        self._unapplied.append((batch, entry))
        if not self._applying:
            self._applying = True
            steps = self._apply_steps()
            if next(steps, None) is not None:  # a batch like most is applied and answered by the first slice
                self._turns.start_first(steps)

    def _apply_steps(self) -> Steps[None]:
        """Apply and answer what is durable, in log order."""
        while self._unapplied:
            batch, entry = self._unapplied.popleft()
            try:
                results = yield from self._machine.steps(entry.index, entry.time_ms, batch.commands)
            except GeneratorExit:  # the node is closed
                raise
            except BaseException as error:
                self._applying = False
                self._abandon(batch, entry, error)
                self._wake_readers()
                if not isinstance(error, Exception):  # KeyboardInterrupt, which ends the loop
                    raise
                return
            yield from self._answer_steps(batch, results)
            self._uncollected += len(entry.payload)
            if self._uncollected >= COLLECT_SIZE:
                self._uncollected = 0
                if gc.isenabled():
                    gc.collect(0)
            while self._readers:
                self._wake_readers(READERS_WOKEN_MAX)
                yield TURN_WORK_MAX  # they have begun before the next large change does
        self._applying = False
        self._wake_idle()
        if self._machine.burdened:
            self._turns.start_once(self._machine, self._machine.sweep_steps)

    def _wake_readers(self, limit: int | None = None) -> None:
        for _ in range(min(len(self._readers), limit or len(self._readers))):
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)

    def _answer_steps(self, batch: Batch, results: list[Result]) -> Steps[None]:
        self._size -= batch.size
        self._count -= len(batch.commands)
        complete: list[Submission] = []
        for (submission, position, _), result in zip(batch.places, results, strict=True):
            submission.results[position] = result
            submission.waiting -= 1
            if not submission.waiting:
                complete.append(submission)
        now = time.perf_counter()
        work = 0
        for submission in complete:
            self._metrics.write_wait_seconds_total += (now - submission.begun) * submission.writes
            self._finish(submission)
            work += ANSWER_WORK * submission.writes
            if work >= SLICE_WORK_MAX:
                yield work
                work = 0

    @staticmethod
    def _finish(submission: Submission) -> None:
        try:
            submission.done(submission.results)
        except Exception:  # one caller's mistake must not keep the others from their answers
            log.exception("answer_failed")

    def _refuse(self, batch: Batch, reason: Failure) -> None:
        batch.seal()
        finish(self._answer_steps(batch, [reason] * len(batch.commands)))
        self._wake_idle()

    def _abandon(self, batch: Batch, entry: Entry, reason: BaseException) -> None:
        """The end of the state: an entry was applied in part. A batch with the disk is answered when it comes back."""
        log.critical("apply_failed", exc_info=reason, extra={"index": entry.index, "code": int(Code.STORAGE_FAILED)})
        self._message = APPLY_FAILED
        self._machine.abandon(self._failure("not_applied"))
        self._fail(batch, ApplyFailed(entry.index, reason))

    def _fail(self, batch: Batch, error: BaseException) -> None:
        """The end of all writing. `batch` may be in the log; those that wait are not and never will be."""
        self._failed = True
        self._refusal = self._failure("not_applied")
        self._on_failure(error)
        waiting = [*self._full, self._open]
        self._full.clear()
        self._open = Batch()
        self._refuse(batch, self._failure("unknown"))
        while self._unapplied and not self._applying:  # in the log, behind an entry that cannot be applied
            self._refuse(self._unapplied.popleft()[0], self._failure("unknown"))
        for never_written in waiting:
            self._refuse(never_written, self._refusal)

    def _failure(self, outcome: Outcome) -> Failure:
        return failure(Code.STORAGE_FAILED, outcome=outcome, message=self._message)


def _encoded(commands: Sequence[Logged]) -> bytes:
    """The entry's payload, on the writer's thread: it lets the loop go on between two slices, which else would wait
    for the interpreter until all of it is done."""
    steps = encode_steps(commands)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            payload: bytes = end.value
            return payload
        time.sleep(0)

"""The commit pipeline: from a list of writes to entries that are committed, then applied, then answered.

    append ─> open batch ─┐ disk idle: at the end of this turn of the loop
                          ├ disk busy: as soon as the batch before it is durable
                          └─> propose (haptera.replication) ─> committed
                                └─> apply in log order (node.applier) ─> results, by the index of their entry

Log first, then apply: nothing that could be lost is ever visible. There are no timers: while the disk is busy with one
batch, the next fills, so the batches grow with the load and a lone write waits for nothing but the disk. One batch is
with the disk at a time; the next is handed over before the last one is applied, so the two overlap.

The first failure is the end. After a failed write or sync nothing more is written. After a failed apply nothing more is
applied, read or acknowledged either. A write that may be in the log by then is `unknown`, one that never was is
`not_applied`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from haptera.errors import Code, Failure, failure
from haptera.node.apply_committed import APPLY_FAILED, Applied, Applier, ApplyFailed
from haptera.node.shortage import no_room
from haptera.node.write_batch import DROPPED, Batch, Submission
from haptera.replication import ClusterOfOne
from haptera.state import SLICE_WORK_MAX, encode_steps, finish, size_bound
from haptera.storage import DiskFull

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from haptera.errors import Outcome
    from haptera.node.memory_limit import MemoryLimit
    from haptera.node.metrics import Metrics
    from haptera.node.slice_queue import Turns
    from haptera.replication import EntryLog, Writers
    from haptera.state import Logged, Result, StateMachine, Steps
    from haptera.storage import LogEntry

R = TypeVar("R")

_logger = logging.getLogger(__name__)

#: Bytes of commands in one entry of several. An eighth of the largest record, and a few milliseconds of encryption:
#: beyond it a larger batch saves nothing. A single larger command is an entry of its own.
BATCH_SIZE_MAX = 4 * 1024 * 1024

#: Commands in one entry: applying them stops the loop for some milliseconds.
BATCH_COMMANDS_MAX = 4096

#: Bytes of commands that wait or are with the disk: four of the largest commands. Over it a write is 3007.
PENDING_SIZE_MAX = 64 * 1024 * 1024

#: Commands that wait or are with the disk: more than 50 connections with all their streams in use.
PENDING_COMMANDS_MAX = 65536

#: While the last entry is younger than that, a change that a full table refuses needs none. Remembered answers age by
#: entries alone, so that one refusal in a second is logged, and the table empties although nothing else is.
FRESH_MS = 1000

#: Bytes that a `Logged` adds to its command beside the user's name (`state.commands.size_bound`).
LOGGED_OVERHEAD = 64

#: Seconds after which the node tries again when the log has not taken a command of its own.
RETRY_S = 1.0

#: Units of work of the answer to one write: its response is encoded, framed and written.
ANSWER_WORK = 32


class CommitPipeline:
    """Makes writes durable in batches and applies them; see the module's text.

    ``log`` is the node's, ``writers`` write its entries; ``entry_time_ms`` gives the time of an entry of this moment,
    which never goes back; ``on_entry`` is called for each entry; ``published`` when an entry was applied whole, and
    ``on_applied`` when nothing is left to apply; ``on_failure`` once, with the error after which nothing more can be
    written.
    """

    def __init__(
        self,
        *,
        machine: StateMachine,
        log: EntryLog,
        writers: Writers,
        loop: asyncio.AbstractEventLoop,
        entry_time_ms: Callable[[], int],
        metrics: Metrics,
        memory: MemoryLimit,
        turns: Turns,
        published: Callable[[], None],
        on_entry: Callable[[], None],
        on_applied: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._machine = machine
        self._cluster = ClusterOfOne(
            log=log,
            last_index=machine.index,
            writers=writers,
            loop=loop,
            committed=self._committed,
            refused=self._refused,
        )
        self._applier = Applier(
            machine,
            turns,
            published=published,
            answer=self._answer,
            rest=self._rest,
            failed=self._cannot_apply,
        )
        self._loop = loop
        self._entry_time_ms = entry_time_ms
        self._metrics = metrics
        #: The bound on the memory of the store.
        self.memory = memory
        self._on_entry = on_entry
        self._on_applied = on_applied
        self._on_failure = on_failure
        self._full: deque[Batch] = deque()  # bounded by PENDING_COMMANDS_MAX and PENDING_SIZE_MAX, as is the open one
        self._open = Batch()
        self._proposed: dict[int, Batch] = {}  # by log index, until answered; bounded as the waiting ones are
        self._scheduled = False
        self._size = 0
        self._growth = 0  # bytes of memory that the writes without a result add to the store
        self._count = 0
        self._refusal: Failure | None = None
        self._failed = False
        self._message: str | None = None  # in place of the code's own
        #: Whether the disk was full for the last batch that needed room: such writes are refused until one finds room
        #: again. Writes that only free may go on, from the log's reserve.
        self.full: bool = False
        #: The errno of the last shortage, and the time of the loop at which it began.
        self.shortage: int = 0
        self.full_since: float = 0.0
        self._idle: list[asyncio.Future[None]] = []

    def append(
        self,
        commands: Sequence[Logged],
        sizes: Sequence[int],
        growths: Sequence[int | None],
        submission: Submission,
        position: int,
    ) -> None:
        """Put valid writes into the open batch: their results will be ``submission.results[position]`` and the ones
        behind it. One that is refused, of which nothing will happen then, has the reason for its result now.

        Of each, ``sizes`` has an upper bound of its encoded bytes, and ``growths`` the memory that it adds, where that
        is known already.
        """
        batch, size, count = self._open, sum(sizes), len(commands)
        if (
            self._takes(count, size)
            and not (self.memory.limit or self.full)
            and batch.size + size <= BATCH_SIZE_MAX
            and len(batch.commands) + count <= BATCH_COMMANDS_MAX
        ):
            self._put(commands, sizes, submission, position, 0)  # all of them at once, as in most cases
            return
        for number, (command, size, growth) in enumerate(zip(commands, sizes, growths, strict=True)):
            grows = self._judge(command, size, growth)
            if isinstance(grows, Failure):
                submission.results[position + number] = grows
            else:
                self._make_room(command, size)
                self._put((command,), (size,), submission, position + number, grows)

    def _takes(self, count: int, size: int) -> bool:
        """Whether so many writes of so many bytes may wait beside those that do."""
        return (
            self._refusal is None
            and self._count + count <= PENDING_COMMANDS_MAX
            and self._size + size <= PENDING_SIZE_MAX
        )

    def _judge(self, command: Logged, size: int, growth: int | None) -> int | Failure:
        """The memory that a write adds as far as that is bounded, or why it is refused."""
        if self._refusal is not None:
            return self._refusal
        if not self._takes(1, size):
            self._metrics.writes_refused_total += 1
            return failure(Code.TOO_MANY_REQUESTS, outcome="not_applied")
        return self.memory.judge(command, growth, self._growth) if self.memory.limit else 0

    def _make_room(self, command: Logged, size: int) -> None:
        """Begin another batch where the open one does not take a write."""
        batch = self._open
        if batch.commands and (
            batch.size + size > BATCH_SIZE_MAX
            or len(batch.commands) >= BATCH_COMMANDS_MAX
            or (self.full and not batch.takes(command))
        ):
            self._full.append(batch)
            self._open = Batch()

    def _put(
        self, commands: Sequence[Logged], sizes: Sequence[int], submission: Submission, position: int, grows: int
    ) -> None:
        batch = self._open
        before = batch.size
        batch.add(commands, sizes, submission, position)
        batch.growth += grows
        self._size += batch.size - before
        self._growth += grows
        self._count += len(commands)
        if not self._cluster.busy and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def append_own(self, command: Logged, done: Callable[[list[Result]], None]) -> Failure | None:
        """Put a command of the node itself into the open batch, for which no caller waits.

        ``done`` is called with its one result. Returns why it was refused (``done`` is not called then), or None.
        """
        submission = Submission(done)
        submission.results.append(())
        size = size_bound(command.op) + LOGGED_OVERHEAD + len(command.user)
        self.append((command,), (size,), (None,), submission, 0)
        refused = submission.results[0]
        return refused if isinstance(refused, Failure) else None

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
        if not batch.commands:
            self._growth -= batch.growth
            batch.growth = 0
            if batch is not self._open:
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

    def read_time_ms(self) -> int:
        """The time by which a read of the applied state judges whether a key is dead.

        It is not later than that of any entry which is not applied: such an entry may have the key live on, and a read
        that has called it dead would have been wrong.
        """
        for batch in self._proposed.values():  # in the order of the log
            return batch.time_ms
        return self._entry_time_ms()

    @property
    def pending(self) -> int:
        """Writes that have no result yet."""
        return self._count

    async def drain(self) -> None:
        """Return when every write so far has its result."""
        if self._count or self._applier.busy:  # a large batch is counted no more while it is answered in turns
            waiter = self._loop.create_future()
            self._idle.append(waiter)
            await waiter

    def disown(self) -> None:
        """Refuse new writes in a forked child: the writer's thread and the log's files are the parent's."""
        self._refusal = self._failure("not_applied")

    async def settled(self) -> None:
        """Return when no large change is applied in part: now, in most cases."""
        await self._applier.settled()

    def on_writer(self, job: Callable[[], R], told: Callable[[R], None] | None = None) -> asyncio.Future[R]:
        """Run a job on the writer's thread, between two entries; see `ClusterOfOne.between`."""
        return self._cluster.between(job, told)

    def applied(self, index: int) -> asyncio.Future[Applied]:
        """The state right after the last entry of the log, whose index this is; see `Applier.applied`."""
        return self._applier.applied(index)

    def abandon(self) -> None:
        """End the writer after the loop was closed. Changes that are not with the disk are dropped, unanswered."""
        self._cluster.close()

    async def stop(self) -> None:
        """Refuse new writes (5005), and wait for the others' results."""
        if self._refusal is None:
            self._refusal = failure(Code.SHUTTING_DOWN, outcome="not_applied")
        await self.drain()

    async def close(self) -> None:
        """Stop, and end the writer."""
        await self.stop()
        self._cluster.close()

    def _flush(self) -> None:
        self._scheduled = False
        if not self._cluster.busy:
            self._next()  # nothing, if the scheduled writes have been taken back

    def _next(self) -> None:
        if self._full or self._open.commands:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._full:
            batch = self._full.popleft()
        else:
            batch, self._open = self._open, Batch()
        batch.seal()
        batch.frees = self.full and batch.only_frees()
        self._on_entry()
        batch.time_ms = self._entry_time_ms()
        index = self._cluster.propose(batch.time_ms, partial(_encoded, batch.commands), batch.size, frees=batch.frees)
        self._proposed[index] = batch

    def _committed(self, entry: LogEntry, seconds: float) -> None:
        self._metrics.log_write_seconds_total += seconds
        if self._failed:  # an entry before it could not be applied
            self._refuse(entry.index, self._failure("unknown"))
            return
        batch = self._proposed[entry.index]
        if self.full and not batch.frees:
            _logger.info("storage_has_room")
            self.full = False
        self._metrics.log_entries_total += 1
        self._metrics.log_commands_total += len(batch.commands)
        self._metrics.log_bytes_total += len(entry.payload)
        self._next()  # before applying, so that the disk is not idle meanwhile
        self._applier.apply(entry, batch.commands)

    def _refused(self, index: int, error: BaseException, seconds: float) -> None:
        """An entry was not committed. With DiskFull nothing was written, and the index is free again."""
        self._metrics.log_write_seconds_total += seconds
        if self._failed:  # an entry before it could not be applied
            self._refuse(index, self._failure("not_applied" if isinstance(error, DiskFull) else "unknown"))
        elif isinstance(error, DiskFull):
            if not self.full:  # told when it begins and when it ends, not for each batch in between
                _logger.warning("storage_full", extra={"code": int(Code.STORAGE_FULL), "reason": str(error)})
                self.full_since = self._loop.time()
            self.full, self.shortage = True, error.number
            self._metrics.log_full_total += 1
            batch = self._proposed.pop(index)
            if not batch.frees and (freeing := batch.split()).commands:
                self._full.appendleft(freeing)  # which the disk may have a reserve for
            self._next()  # which has the index now, and tries again
            self._refuse_batch(batch, no_room(error.number))
        else:
            _logger.error("storage_failed", exc_info=error, extra={"code": int(Code.STORAGE_FAILED)})
            self._fail([index], error)

    def _cannot_apply(self, error: ApplyFailed, behind: list[int]) -> None:
        """The state is lost. An entry with the disk is answered when it comes back."""
        self._message = APPLY_FAILED
        self._fail([error.index, *behind], error)

    def _fail(self, indexes: list[int], error: BaseException) -> None:
        """The end of all writing. Entries of `indexes` may be in the log; writes that wait never will be."""
        self._failed = True
        self._refusal = self._failure("not_applied")
        self._on_failure(error)
        waiting = [*self._full, self._open]
        self._full.clear()
        self._open = Batch()
        for index in indexes:
            self._refuse(index, self._failure("unknown"))
        for never_written in waiting:
            self._refuse_batch(never_written, self._refusal)

    def _refuse(self, index: int, reason: Failure) -> None:
        self._refuse_batch(self._proposed.pop(index), reason)

    def _refuse_batch(self, batch: Batch, reason: Failure) -> None:
        batch.seal()
        finish(self._answer_steps(batch, [reason] * len(batch.commands)))
        self._wake_idle()

    def _rest(self) -> None:
        self._on_applied()
        if self._idle:
            self._wake_idle()

    def _wake_idle(self) -> None:
        if not self._count and not self._applier.busy and self._idle:
            for waiter in self._idle:
                if not waiter.done():
                    waiter.set_result(None)
            self._idle.clear()

    def _answer(self, index: int, results: list[Result]) -> Steps[None]:
        """Hand on the results of the entry of this index."""
        return self._answer_steps(self._proposed.pop(index), results)

    def _answer_steps(self, batch: Batch, results: list[Result]) -> Steps[None]:
        self._size -= batch.size
        self._growth -= batch.growth
        self._count -= len(batch.commands)
        now = time.perf_counter()
        work = 0
        for submission in batch.hand_out(results):
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
            _logger.exception("answer_failed")

    def _failure(self, outcome: Outcome) -> Failure:
        return failure(Code.STORAGE_FAILED, outcome=outcome, message=self._message)


def _encoded(commands: Sequence[Logged]) -> bytes:
    """The entry's payload, on the writer's thread where it is large: it lets the loop go on between two slices, which
    else would wait for the interpreter until all of it is done.
    """
    steps = encode_steps(commands)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            payload: bytes = end.value
            return payload
        time.sleep(0)

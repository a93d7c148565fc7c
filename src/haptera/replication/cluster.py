"""A cluster of one: an entry is committed as soon as the log of this node has it.

    propose ─> loop: encode, Log.prepare; the kernel: one write, one sync
            or writer thread: encode, Log.append (one write, one fdatasync)
                 └─> loop: committed(entry), in the order of the log
                     or    refused(index, error): DiskFull, and nothing was written; else it may be in the log

One entry is with the disk at a time, and the next may be proposed as soon as the last is told. After an error that is
not DiskFull the log takes no more entries.

The kernel writes a small record behind the last one of a segment, where it can: the loop and a thread would hand the
interpreter to each other ten times for it. The thread does all else: large records, new segments, jobs between two
entries. The two never have the log at the same time. Only `_write`, `_write_prepared` and the jobs run on the thread.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from haptera.replication.record_writer import NOT_WRITTEN, PREPARED_MAX
from haptera.storage import LogEntry

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from haptera.replication.record_writer import RecordWriter, Writers
    from haptera.storage import PreparedRecord

R = TypeVar("R")

#: A single node has led its cluster of one since its first entry.
TERM: Final = 1


class EntryLog(Protocol):
    """The log of this node, as far as it is written to: `haptera.storage.Log`."""

    def append(self, entry: LogEntry, frees: bool = False) -> None:
        """Write the next entry, durable on return."""

    def prepare(self, entry: LogEntry) -> PreparedRecord | None:
        """Make the record of the next entry for a `RecordWriter`; None where it takes more than one write."""

    def finish(self, record: PreparedRecord, error: BaseException | None) -> None:
        """Take note of the end of a prepared record's write. Raises its error, an OSError as DiskFailed."""


class ClusterOfOne:
    """Commits entries one after the other.

    ``last_index`` is the index of the last entry of ``log``, which ``writers`` write to. ``committed`` and ``refused``
    are called on the loop, once for each proposal, with the seconds that the writer took as their last argument.
    """

    def __init__(
        self,
        *,
        log: EntryLog,
        last_index: int,
        writers: Writers,
        loop: asyncio.AbstractEventLoop,
        committed: Callable[[LogEntry, float], None],
        refused: Callable[[int, BaseException, float], None],
    ) -> None:
        #: Whether an entry is with the disk: nothing can be proposed meanwhile.
        self.busy: bool = False
        self._log = log
        self._index = last_index
        self._writer, self._records = writers
        self._loop = loop
        self._committed = committed
        self._refused = refused
        self._jobs = 0  # on the thread, or before it, and not told yet: until then the log is the thread's
        self._held: list[Callable[[], None]] = []  # jobs that wait until a prepared record is written
        self._prepared: PreparedRecord | None = None  # with the disk
        self._started = 0.0

    def propose(self, time_ms: int, encode: Callable[[], bytes], size: int, *, frees: bool = False) -> int:
        """Propose an entry of this time, and return its index. ``encode`` gives its payload, of ``size`` bytes at most,
        on the writer's thread unless that is little.

        One that ``frees`` space may use the log's reserve where the disk is full.
        """
        assert not self.busy, "one entry is with the disk at a time"
        self.busy = True
        entry = LogEntry(TERM, self._index + 1, time_ms, b"")
        if self._records is None or self._jobs or size > PREPARED_MAX:
            self._writer.submit(lambda: self._write(entry, encode, frees))
        else:
            self._begin(entry, encode, frees, self._records)
        return entry.index

    def between(self, job: Callable[[], R], told: Callable[[R], None] | None = None) -> asyncio.Future[R]:
        """Run a job on the writer's thread, between two entries.

        ``told`` is called with its result on the loop: after every entry that the job sees in the log was told as
        committed or refused, and before any later one is. The future's waiter may go on later than that.
        """
        result: asyncio.Future[R] = self._loop.create_future()
        self._jobs += 1
        if self._prepared is None:
            self._writer.submit(lambda: self._run(job, result, told))
        else:
            self._held.append(lambda: self._run(job, result, told))
        return result

    def close(self) -> None:
        """Return when the disk has all proposals, and end the writer. Safe to call again.

        With the loop closed nothing is told any more.
        """
        if self._records is not None:
            self._records.finish()
            self._records.close()
        self._writer.close()

    def _begin(self, entry: LogEntry, encode: Callable[[], bytes], frees: bool, records: RecordWriter) -> None:
        """Have an entry written from the loop. An error before that is not raised but told, in a later turn."""
        self._started = time.perf_counter()
        try:
            payload = encode()
            entry = LogEntry(TERM, entry.index, entry.time_ms, payload)
            record = self._log.prepare(entry)
        except BaseException as caught:
            self._loop.call_soon(self._written, entry, caught, time.perf_counter() - self._started)
            return
        if record is None:
            self._writer.submit(partial(self._write, entry, lambda: payload, frees))
            return
        self._prepared = record
        try:
            records.start(record, self._ended)
        except OSError:  # it is short of something, which a thread does without
            self._prepared = None
            self._writer.submit(partial(self._write_prepared, record))

    def _ended(self, error: BaseException | None) -> None:
        """A prepared record is written, or failed."""
        record, self._prepared = self._prepared, None
        assert record is not None
        undone = isinstance(error, OSError) and error.errno in NOT_WRITTEN
        failure = None
        if undone:
            self._writer.submit(partial(self._write_prepared, record))
        else:
            failure = self._finish(record, error)
        for job in self._held:
            self._writer.submit(job)
        self._held.clear()
        if not undone and not self._loop.is_closed():
            self._written(record.entry, failure, time.perf_counter() - self._started)

    def _finish(self, record: PreparedRecord, error: BaseException | None) -> BaseException | None:
        try:
            self._log.finish(record, error)
        except BaseException as caught:
            return caught
        return None

    def _write(self, entry: LogEntry, encode: Callable[[], bytes], frees: bool) -> None:
        """On the writer's thread, which waits for the disk here."""
        error: BaseException | None = None
        started = time.perf_counter()
        try:
            entry = msgspec.structs.replace(entry, payload=encode())
            self._log.append(entry, frees)
        except BaseException as caught:  # the loop must hear of any error
            error = caught
        self._tell(entry, error, time.perf_counter() - started)

    def _write_prepared(self, record: PreparedRecord) -> None:
        """On the writer's thread, for a record that has to be written as it is: its nonce is used."""
        started = time.perf_counter()
        failure = self._finish(record, record.attempt())
        self._tell(record.entry, failure, time.perf_counter() - started)

    def _tell(self, entry: LogEntry, error: BaseException | None, seconds: float) -> None:
        with suppress(RuntimeError):  # the loop was closed while the disk was busy: no caller is left
            self._loop.call_soon_threadsafe(self._written, entry, error, seconds)

    def _run(self, job: Callable[[], R], result: asyncio.Future[R], told: Callable[[R], None] | None) -> None:
        settle: Callable[[], None]
        try:
            settle = partial(self._settle, partial(_settle, result, job(), told))
        except BaseException as error:
            settle = partial(self._settle, partial(_fail, result, error))
        with suppress(RuntimeError):  # the loop was closed meanwhile: no caller is left
            self._loop.call_soon_threadsafe(settle)

    def _settle(self, tell: Callable[[], None]) -> None:
        self._jobs -= 1
        tell()

    def _written(self, entry: LogEntry, error: BaseException | None, seconds: float) -> None:
        self.busy = False
        if error is None:
            self._index = entry.index
            self._committed(entry, seconds)
        else:
            self._refused(entry.index, error, seconds)


def _settle(result: asyncio.Future[R], value: R, told: Callable[[R], None] | None) -> None:
    if not result.done():  # else its caller was cancelled
        if told is not None:
            told(value)
        result.set_result(value)


def _fail(result: asyncio.Future[Any], error: BaseException) -> None:
    if not result.done():
        result.set_exception(error)

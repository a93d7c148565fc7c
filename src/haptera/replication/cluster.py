"""A cluster of one: an entry is committed as soon as the log of this node has it.

    propose ─> writer thread: encode, Log.append (one write, one fdatasync)
                 └─> loop: committed(entry), in the order of the log
                     or    refused(index, error): DiskFull, and nothing was written; else it may be in the log

One entry is with the disk at a time, and the next may be proposed as soon as the last is told. After an error that is
not DiskFull the log takes no more entries.

Everything but `_write` runs on the event loop's thread.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from haptera.storage import LogEntry

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from haptera.replication.disk_thread import Writer

R = TypeVar("R")

#: A single node has led its cluster of one since its first entry.
TERM: Final = 1


class ClusterOfOne:
    """Commits entries one after the other.

    ``append`` is `Log.append`, ``last_index`` the index of the log's last entry. ``committed`` and ``refused`` are
    called on the loop, once for each proposal, with the seconds that the writer took as their last argument.
    """

    def __init__(
        self,
        *,
        append: Callable[[LogEntry, bool], None],
        last_index: int,
        writer: Writer,
        loop: asyncio.AbstractEventLoop,
        committed: Callable[[LogEntry, float], None],
        refused: Callable[[int, BaseException, float], None],
    ) -> None:
        #: Whether an entry is with the disk: nothing can be proposed meanwhile.
        self.busy: bool = False
        self._append = append
        self._index = last_index
        self._writer = writer
        self._loop = loop
        self._committed = committed
        self._refused = refused

    def propose(self, time_ms: int, encode: Callable[[], bytes], *, frees: bool = False) -> int:
        """Propose an entry of this time, and return its index. ``encode`` gives its payload, on the writer's thread.

        One that ``frees`` space may use the log's reserve where the disk is full.
        """
        assert not self.busy, "one entry is with the disk at a time"
        self.busy = True
        entry = LogEntry(TERM, self._index + 1, time_ms, b"")
        self._writer.submit(lambda: self._write(entry, encode, frees))
        return entry.index

    def between(self, job: Callable[[], R], told: Callable[[R], None] | None = None) -> asyncio.Future[R]:
        """Run a job on the writer's thread, between two entries.

        ``told`` is called with its result on the loop: after every entry that the job sees in the log was told as
        committed or refused, and before any later one is. The future's waiter may go on later than that.
        """
        result: asyncio.Future[R] = self._loop.create_future()
        self._writer.submit(lambda: self._run(job, result, told))
        return result

    def close(self) -> None:
        """Return when the disk has all proposals, and end the writer. Safe to call again."""
        self._writer.close()

    def _write(self, entry: LogEntry, encode: Callable[[], bytes], frees: bool) -> None:
        """On the writer's thread: the one place where a write of the database waits for the disk."""
        error: BaseException | None = None
        started = time.perf_counter()
        try:
            entry = msgspec.structs.replace(entry, payload=encode())
            self._append(entry, frees)
        except BaseException as caught:  # the loop must hear of any error
            error = caught
        seconds = time.perf_counter() - started
        try:
            self._loop.call_soon_threadsafe(self._written, entry, error, seconds)
        except RuntimeError:
            pass  # the loop was closed while the disk was busy: no caller is left

    def _run(self, job: Callable[[], R], result: asyncio.Future[R], told: Callable[[R], None] | None) -> None:
        settle: Callable[[], None]
        try:
            settle = partial(_settle, result, job(), told)
        except BaseException as error:
            settle = partial(_fail, result, error)
        with suppress(RuntimeError):  # the loop was closed meanwhile: no caller is left
            self._loop.call_soon_threadsafe(settle)

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

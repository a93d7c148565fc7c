"""A record's way to the disk without a thread of this process, where the system has one."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from haptera.replication.disk_thread import ThreadWriter
from haptera.storage import RING_WRITE_MAX, IoRing, OsFile

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from haptera.replication.disk_thread import Writer
    from haptera.storage import PreparedRecord

#: Bytes of a payload that the loop encodes and encrypts itself, and leaves to the writer's thread above: a tenth of a
#: millisecond.
PREPARED_MAX: Final = RING_WRITE_MAX // 2


#: Errors that say nothing of the disk: the kernel had no thread for a write, or no memory.
NOT_WRITTEN: Final = frozenset({errno.ECANCELED, errno.EAGAIN})


class RecordWriter(Protocol):
    """Writes one record at a time, beside the loop. Every method is for the loop's thread."""

    def start(self, record: PreparedRecord, ended: Callable[[BaseException | None], None]) -> None:
        """Begin to write a record. ``ended`` is called in a later turn of the loop, with the error if there was one:
        an OSError of `NOT_WRITTEN` where the record was not written and may be written by another.

        Raises OSError when the write cannot begin: nothing is written then, and ``ended`` is not called.
        """

    def finish(self) -> None:
        """Return when the record that has begun, if there is one, is written. ``ended`` is called before that."""

    def close(self) -> None:
        """Let go of what it writes by. Safe to call again, and when the loop is closed."""


class Writers(NamedTuple):
    """The writers of a log: a thread, and for small records something cheaper, where the system has it."""

    thread: Writer
    records: RecordWriter | None = None

    @classmethod
    def open(
        cls, loop: asyncio.AbstractEventLoop, thread: Writer | None, records: RecordWriter | None, *, by_ring: bool
    ) -> Writers:
        """The given ones, or a thread of its own, and the kernel's ring if that may be used."""
        if thread is None:
            return cls(ThreadWriter(), RingWriter.open(loop) if by_ring else records)
        return cls(thread, records)


class RingWriter:
    """Has the kernel write records, by its ring."""

    def __init__(self, ring: IoRing, loop: asyncio.AbstractEventLoop) -> None:
        self._ring = ring
        self._loop = loop
        self._ended: Callable[[BaseException | None], None] | None = None
        loop.add_reader(ring.fileno(), self._look)

    @classmethod
    def open(cls, loop: asyncio.AbstractEventLoop) -> RingWriter | None:
        """A writer, or None where the system has no ring, or the loop cannot wait for one."""
        ring = IoRing.open()
        if ring is None:
            return None
        try:
            return cls(ring, loop)
        except Exception:  # loops have errors of their own for what they cannot do, and a thread does as well
            ring.close()
            return None

    def start(self, record: PreparedRecord, ended: Callable[[BaseException | None], None]) -> None:
        """Have a record of an `OsFile` written."""
        assert isinstance(record.file, OsFile)
        self._ended = ended  # before the call: a signal may end this method by an exception behind it
        self._ring.start(record.file.fileno(), record.data, record.offset, synced=record.synced)

    def finish(self) -> None:
        """Wait for the kernel, on this thread."""
        while self._ring.busy:
            self._ring.wait()
            self._look()

    def close(self) -> None:
        """Close the ring, which must not write."""
        descriptor = self._ring.fileno()
        if descriptor >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(descriptor)
            self._ring.close()

    def _look(self) -> None:
        error: OSError | None = None
        try:
            if not self._ring.ended():
                return
        except OSError as caught:
            error = caught
        ended, self._ended = self._ended, None
        assert ended is not None
        ended(error)

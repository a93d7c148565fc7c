"""A write that Linux does beside the calling thread: io_uring, with one write at a time.

A thread that waits for the disk costs each write some ten hand-overs of Python's interpreter between two threads. Here
one system call starts a write together with its sync, a thread of the kernel waits for the disk, and the ring's
descriptor becomes readable at the end. Everything is asked of the kernel's thread (IOSQE_ASYNC), so that the call which
starts a write never waits for a disk.

The sync is a flag of the write (RWF_DSYNC) on file systems that are known to do it. 9p, and FUSE without a cache, leave
it undone. So all others get an fdatasync of its own, linked to the write, for which the kernel wakes the waiting loop
once more: some ten microseconds.

Linux 5.17 is the first that ends a write without a word where a sync follows (IOSQE_CQE_SKIP_SUCCESS), which would wake
the loop for nothing. Before 5.12 the kernel's thread was none of the process's: a write could outlive the process, and
with it the lock of the directory.

The memory that is shared with the kernel is laid out as io_uring(7) and linux/io_uring.h say. All numbers are in the
machine's own byte order.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import struct
import sys
from typing import Any, ClassVar, Final

from haptera import forks

__all__ = ["RING_WRITE_MAX", "IoRing"]

#: Bytes of the largest write: a copy that takes microseconds. Larger ones are rare, and worth a thread.
RING_WRITE_MAX: Final = 128 * 1024

#: The system calls have these numbers on every processor but Alpha and MIPS, which have no call of these numbers.
_IO_URING_SETUP: Final = 425
_IO_URING_ENTER: Final = 426

#: A write and its sync.
_ENTRIES: Final = 2
_OFF_SQES: Final = 0x1000_0000
#: One mapping for both queues (Linux 5.4), and writes that end without a word (5.17).
_FEATURES_NEEDED: Final = 1 << 0 | 1 << 11
_ENTER_GETEVENTS: Final = 1 << 0
_OP_NOP: Final = 0
_OP_FSYNC: Final = 3
_OP_WRITE: Final = 23
_SQE_ASYNC: Final = 1 << 4
#: The next request begins when this one has succeeded, which alone is told then. A failure is told in its place.
_SQE_LINK_SKIP: Final = 1 << 2 | 1 << 6
_FSYNC_DATASYNC: Final = 1 << 0
_RWF_DSYNC: Final = 2

#: The first field of statfs for file systems that sync a write of that flag: ext4, xfs, btrfs, f2fs.
_SYNCING: Final = frozenset({0xEF53, 0x58465342, 0x9123683E, 0xF2F52010})
#: Bytes that hold a statfs of any processor.
_STATFS_SIZE: Final = 256

#: Milliseconds in which the kernel must have made its thread: it takes less than one of them.
_WORKER_MS: Final = 1000

_U32: Final = struct.Struct("=I")
#: io_uring_params: ten numbers, of which the first two are the entries of the queues and the sixth the features; then
#: the offsets of the submission queue and of the completion queue.
_PARAMETERS: Final = struct.Struct("=10I8IQ8IQ")
#: io_uring_sqe: operation, flags, priority, descriptor, offset, address, length, flags of the operation, user data.
_SUBMISSION: Final = struct.Struct("=BBHiQQIIQ24x")
_SQE_SIZE: Final = _SUBMISSION.size
#: io_uring_cqe: user data, result, flags.
_COMPLETION: Final = struct.Struct("=QiI")

_libc: Final = ctypes.CDLL(None, use_errno=True)
#: The number of the system call, and six arguments.
_call: Final[Any] = _libc.syscall
_call.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * 6]
_call.restype = ctypes.c_long
_fstatfs: Final[Any] = _libc.fstatfs
_fstatfs.argtypes = [ctypes.c_int, ctypes.c_void_p]


class IoRing:
    """A ring of the kernel's for one write at a time, to files of one file system. Every method is for one thread.

    It belongs to the process that opened it: in a forked child it is closed.
    """

    #: Rings that write: the kernel reads their buffers, although the store that had them was dropped without a close.
    _writing: ClassVar[set[IoRing]] = set()

    def __init__(self, descriptor: int, parameters: bytes) -> None:
        fields = _PARAMETERS.unpack(parameters)
        submissions, completions = fields[0], fields[1]
        self._sq_tail, sq_mask, self._sq_array = fields[11], fields[12], fields[16]
        self._cq_head, self._cq_tail, cq_mask, self._cqes = fields[19], fields[20], fields[21], fields[24]
        self._descriptor = descriptor
        self._buffer = mmap.mmap(-1, RING_WRITE_MAX, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._queues = mmap.mmap(
            descriptor, max(self._sq_array + 4 * submissions, self._cqes + _COMPLETION.size * completions)
        )
        self._sqes = mmap.mmap(descriptor, _SQE_SIZE * submissions, offset=_OFF_SQES)
        self._sq_mask = self._number(sq_mask)
        self._cq_mask = self._number(cq_mask)
        for place in range(submissions):
            _U32.pack_into(self._queues, self._sq_array + 4 * place, place)
        #: Whether a write has begun whose end was not told.
        self.busy: bool = False
        self._file = -1
        self._offset = 0  # in the file, of the bytes that are being written
        self._start = 0  # of the same bytes in the buffer
        self._end = 0
        self._flags = 0
        self._linked = False  # whether a sync of its own follows the write
        self._syncing = False  # whether the file system does a sync that is a flag of the write
        self._name = 0  # of what was asked for last, by which its end is known
        self._broken = False  # whether the kernel began a write and not its sync
        forks.watch(self)

    @classmethod
    def open(cls) -> IoRing | None:
        """A ring, or None where the system has none or forbids it, as many containers do."""
        if not sys.platform.startswith("linux"):
            return None
        parameters = ctypes.create_string_buffer(_PARAMETERS.size)
        descriptor = _call(_IO_URING_SETUP, _ENTRIES, ctypes.addressof(parameters), None, None, None, None)
        if descriptor < 0:
            return None
        features = _PARAMETERS.unpack(parameters.raw)[5]
        if features & _FEATURES_NEEDED != _FEATURES_NEEDED:
            os.close(descriptor)
            return None
        try:
            ring = cls(descriptor, parameters.raw)
        except OSError:  # no memory to share
            os.close(descriptor)
            return None
        if ring._has_worker():
            return ring
        ring.close()
        return None

    def fileno(self) -> int:
        """The descriptor that is readable when a write has ended."""
        return self._descriptor

    def start(self, descriptor: int, data: bytes, offset: int, *, synced: bool) -> None:
        """Begin to write ``data``, at most `RING_WRITE_MAX` bytes, at ``offset`` of a file, and to sync what it wrote.

        Raises OSError when it cannot begin: nothing is written then, or these bytes at most, so that another may write
        them.
        """
        assert not self.busy, "one write at a time"
        size = len(data)
        if size > RING_WRITE_MAX:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        self._buffer[:size] = data
        if descriptor != self._file:
            self._syncing = self._syncs_writes(descriptor)
        self._file, self._offset, self._start, self._end = descriptor, offset, 0, size
        self._flags = _RWF_DSYNC if synced and self._syncing else 0
        self._linked = synced and not self._flags
        self._begin()

    def ended(self) -> bool:
        """Whether the write has ended. Raises OSError when it failed: any part of it may have been written.

        ECANCELED and EAGAIN say that the kernel did not do it. The same bytes may be written once more then.
        """
        head = self._number(self._cq_head)
        if head == self._number(self._cq_tail):
            return False
        name, result, _ = _COMPLETION.unpack_from(self._queues, self._cqes + _COMPLETION.size * (head & self._cq_mask))
        _U32.pack_into(self._queues, self._cq_head, head + 1 & 0xFFFF_FFFF)
        if not self.busy or name >> 1 != self._name:  # of a write that was given up
            return False
        is_sync = name & 1
        if result < 0 or (result == 0 and not is_sync):
            self._leave()
            number = -result or errno.EIO
            raise OSError(number, os.strerror(number))
        if not is_sync:
            self._start += result
            self._offset += result
            if self._start < self._end:
                self._begin()
            if self._linked or self._start < self._end:
                return False
        self._leave()
        return True

    def wait(self) -> None:
        """Return when `ended` will have something to say."""
        while self._number(self._cq_head) == self._number(self._cq_tail):
            if _call(_IO_URING_ENTER, self._descriptor, 0, 1, _ENTER_GETEVENTS, None, 0) < 0:
                number = ctypes.get_errno()
                if number != errno.EINTR:
                    raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Let go of the ring, which must not be busy. Safe to call again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._queues.close()
            self._sqes.close()
            os.close(descriptor)

    def disown(self, owner: int) -> None:
        """Close what a forked child has of it. A write that has begun is the process ``owner``'s, and goes on."""
        self._leave()
        self.close()

    def _has_worker(self) -> bool:
        """Whether the kernel has a thread for the writes of this one, which it keeps. At a limit on processes it has
        none.
        """
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        try:
            _SUBMISSION.pack_into(self._sqes, 0, _OP_NOP, _SQE_ASYNC, 0, 0, 0, 0, 0, 0, 0)
            self._enter(0, 1)
        except OSError:
            return False
        if not poll.poll(_WORKER_MS):
            return False
        result = _COMPLETION.unpack_from(self._queues, self._cqes)[1]
        _U32.pack_into(self._queues, self._cq_head, 1)
        return bool(result == 0)

    def _begin(self) -> None:
        """Begin to write what is left, or raise OSError."""
        # Before the call: a signal may end this method by an exception as soon as the kernel has begun.
        self.busy = True
        self._writing.add(self)
        self._name = self._name + 1 & 0xFFFF_FFFF
        name, sqes, mask = self._name << 1, self._sqes, self._sq_mask
        tail = self._number(self._sq_tail)
        address, size = self._address + self._start, self._end - self._start
        how = _SQE_ASYNC | _SQE_LINK_SKIP if self._linked else _SQE_ASYNC
        _SUBMISSION.pack_into(
            sqes,
            (tail & mask) * _SQE_SIZE,
            _OP_WRITE,
            how,
            0,
            self._file,
            self._offset,
            address,
            size,
            self._flags,
            name,
        )
        if self._linked:
            place = (tail + 1 & mask) * _SQE_SIZE
            _SUBMISSION.pack_into(sqes, place, _OP_FSYNC, _SQE_ASYNC, 0, self._file, 0, 0, 0, _FSYNC_DATASYNC, name | 1)
        try:
            self._enter(tail, 2 if self._linked else 1)
        except OSError:
            self._leave()
            raise

    def _syncs_writes(self, descriptor: int) -> bool:
        """Whether the file system is known to sync a write that has the flag for it."""
        status = ctypes.create_string_buffer(_STATFS_SIZE)
        if _fstatfs(descriptor, ctypes.addressof(status)) != 0:
            return False
        # A long, but an int on S/390, which has it in the other half: it is taken for an unknown file system there.
        return ctypes.c_long.from_buffer(status).value & 0xFFFF_FFFF in _SYNCING

    def _leave(self) -> None:
        self.busy = False
        self._writing.discard(self)

    def _enter(self, tail: int, count: int) -> None:
        """Have the kernel begin the requests in so many places from ``tail`` on. Raises OSError when it does not."""
        if self._broken:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        _U32.pack_into(self._queues, self._sq_tail, tail + count & 0xFFFF_FFFF)
        begun = _call(_IO_URING_ENTER, self._descriptor, count, 0, 0, None, 0)
        if begun != count:
            number = ctypes.get_errno() if begun < 0 else errno.EAGAIN
            self._broken = begun > 0  # a write without its sync, which is told or not: another writer writes the same
            # Else the next call would begin the rest of these as well.
            _U32.pack_into(self._queues, self._sq_tail, tail + max(begun, 0) & 0xFFFF_FFFF)
            raise OSError(number, os.strerror(number))

    def _number(self, place: int) -> int:
        number: int = _U32.unpack_from(self._queues, place)[0]
        return number

"""A write that Linux does beside the calling thread: io_uring, with one write at a time.

A thread that waits for the disk costs each write some ten hand-overs of Python's interpreter between two threads. Here
one system call starts a write together with its sync, a thread of the kernel waits for the disk, and the ring's
descriptor becomes readable at the end. Everything is asked of the kernel's thread (IOSQE_ASYNC), so that the call which
starts a write never waits for a disk.

The memory that is shared with the kernel is laid out as io_uring(7) and linux/io_uring.h say. All numbers are in the
machine's own byte order.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import sys
from typing import Any, Final

from haptera import forks

__all__ = ["RING_WRITE_MAX", "IoRing"]

#: Bytes of the largest write: a copy that takes microseconds. Larger ones are rare, and worth a thread.
RING_WRITE_MAX: Final = 128 * 1024

#: The system calls have these numbers on every processor that Linux 5.6 or later runs on, but for Alpha.
_IO_URING_SETUP: Final = 425
_IO_URING_ENTER: Final = 426

_ENTRIES: Final = 1
_OFF_SQES: Final = 0x1000_0000
#: One mapping for both queues (Linux 5.4), and IORING_OP_WRITE (5.6, which is known by a feature that came with it).
_FEATURES_NEEDED: Final = 1 << 0 | 1 << 3
_ENTER_GETEVENTS: Final = 1 << 0
_OP_WRITE: Final = 23
_SQE_ASYNC: Final = 1 << 4
_RWF_DSYNC: Final = 2

_U32: Final = struct.Struct("=I")
#: io_uring_params: ten numbers, of which the first two are the entries of the queues and the sixth the features; then
#: the offsets of the submission queue and of the completion queue.
_PARAMETERS: Final = struct.Struct("=10I8IQ8IQ")
#: io_uring_sqe: operation, flags, priority, descriptor, offset, address, length, flags of the write, user data.
_SUBMISSION: Final = struct.Struct("=BBHiQQIIQ24x")
#: io_uring_cqe: user data, result, flags.
_COMPLETION: Final = struct.Struct("=QiI")

#: ``syscall`` of the C library: the number of the system call, and six arguments.
_call: Final[Any] = ctypes.CDLL(None, use_errno=True).syscall
_call.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * 6]
_call.restype = ctypes.c_long


class IoRing:
    """A ring of the kernel's for one write at a time. Every method is for one thread.

    It belongs to the process that opened it: in a forked child it is closed.
    """

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
        self._sqes = mmap.mmap(descriptor, _SUBMISSION.size * submissions, offset=_OFF_SQES)
        self._sq_mask = self._number(sq_mask)
        self._cq_mask = self._number(cq_mask)
        #: Whether a write has begun whose end was not told.
        self.busy: bool = False
        self._file = -1
        self._offset = 0  # in the file, of the bytes that are being written
        self._start = 0  # of the same bytes in the buffer
        self._end = 0
        self._flags = 0
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
        if features & _FEATURES_NEEDED == _FEATURES_NEEDED:
            try:
                return cls(descriptor, parameters.raw)
            except OSError:  # no memory to share
                pass
        os.close(descriptor)
        return None

    def fileno(self) -> int:
        """The descriptor that is readable when a write has ended."""
        return self._descriptor

    def start(self, descriptor: int, data: bytes, offset: int, *, synced: bool) -> None:
        """Begin to write ``data``, at most `RING_WRITE_MAX` bytes, at ``offset`` of a file, and to sync what it wrote.

        Raises OSError when it cannot begin; nothing is written then.
        """
        assert not self.busy, "one write at a time"
        size = len(data)
        if size > RING_WRITE_MAX:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        self._buffer[:size] = data
        self._file, self._offset, self._start, self._end = descriptor, offset, 0, size
        self._flags = _RWF_DSYNC if synced else 0
        self._submit()
        self.busy = True

    def ended(self) -> bool:
        """Whether the write has ended. Raises OSError when it failed: any part of it may have been written."""
        head = self._number(self._cq_head)
        if head == self._number(self._cq_tail):
            return False
        _, result, _ = _COMPLETION.unpack_from(self._queues, self._cqes + _COMPLETION.size * (head & self._cq_mask))
        _U32.pack_into(self._queues, self._cq_head, head + 1 & 0xFFFF_FFFF)
        self.busy = False
        if result <= 0:
            number = -result or errno.EIO
            raise OSError(number, os.strerror(number))
        self._start += result
        self._offset += result
        if self._start < self._end:
            self._submit()
            self.busy = True
        return not self.busy

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
        self.busy = False
        self.close()

    def _submit(self) -> None:
        tail = self._number(self._sq_tail)
        place = tail & self._sq_mask
        _SUBMISSION.pack_into(
            self._sqes,
            place * _SUBMISSION.size,
            _OP_WRITE,
            _SQE_ASYNC,
            0,
            self._file,
            self._offset,
            self._address + self._start,
            self._end - self._start,
            self._flags,
            0,
        )
        _U32.pack_into(self._queues, self._sq_array + 4 * place, place)
        _U32.pack_into(self._queues, self._sq_tail, tail + 1 & 0xFFFF_FFFF)
        begun = _call(_IO_URING_ENTER, self._descriptor, 1, 0, 0, None, 0)
        if begun != 1:
            number = ctypes.get_errno() if begun < 0 else errno.EAGAIN
            _U32.pack_into(self._queues, self._sq_tail, tail)  # else the next call would begin this write as well
            raise OSError(number, os.strerror(number))

    def _number(self, place: int) -> int:
        number: int = _U32.unpack_from(self._queues, place)[0]
        return number

"""The place of the second process behind the node: last for the processor and the disk, first to give its memory up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys
from typing import Final

#: The part that the process takes back of its share of a processor that others want: a tenth of theirs is left.
NICENESS: Final = 10

#: Nanoseconds that the process runs before the scheduler looks whether another wants the processor: the least that
#: Linux takes. By default it is 3 ms, and each step of a request, through client, node and disk, would wait that long.
SLICE_NS: Final = 100_000

_SCHED_BATCH: Final = 3
_SCHED_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")

#: The numbers of the system calls `sched_setattr` and `ioprio_set`, which C libraries have no function for.
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "armv7l": 380, "ppc64le": 355, "s390x": 345}
_IOPRIO_SET: Final = {
    "x86_64": 251,
    "aarch64": 30,
    "riscv64": 30,
    "i686": 289,
    "armv7l": 314,
    "ppc64le": 273,
    "s390x": 282,
}
_IOPRIO_WHO_PROCESS: Final = 1
_IOPRIO_CLASS_IDLE: Final = 3
_IOPRIO_CLASS_SHIFT: Final = 13
_PR_SET_PDEATHSIG: Final = 1
_SIGKILL: Final = 9


def go_behind() -> None:
    """Give way to every other process, as far as the system knows how. Nothing of it is needed for the result."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    if not sys.platform.startswith("linux"):
        return
    machine = platform.machine()
    if machine in _IOPRIO_SET:
        _call("syscall", _IOPRIO_SET[machine], _IOPRIO_WHO_PROCESS, 0, _IOPRIO_CLASS_IDLE << _IOPRIO_CLASS_SHIFT)
    if machine in _SCHED_SETATTR:
        attributes = ctypes.create_string_buffer(
            _SCHED_ATTRIBUTES.pack(_SCHED_ATTRIBUTES.size, _SCHED_BATCH, 0, NICENESS, 0, SLICE_NS, 0, 0)
        )
        _call("syscall", _SCHED_SETATTR[machine], 0, ctypes.addressof(attributes), 0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")  # where memory runs out, this process ends and not the node


def end_with_parent(parent: int) -> None:
    """Have the kernel end this process when `parent` ends, as far as it knows how; ends now if that has happened.

    The end of standard input says the same. It comes late where another child of the node has inherited the pipe.
    """
    if sys.platform.startswith("linux"):
        _call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _call(function: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        getattr(ctypes.CDLL(None), function)(*(ctypes.c_long(argument) for argument in arguments))

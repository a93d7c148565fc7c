"""The place of the second process behind the node: last for the processor and the disk, first to give its memory up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from typing import Final

#: What the process takes back of its share of a processor that others want: a tenth of theirs is left.
NICENESS: Final = 10

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
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        _call("syscall", number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_CLASS_IDLE << _IOPRIO_CLASS_SHIFT)
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

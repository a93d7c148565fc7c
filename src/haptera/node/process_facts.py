"""The node's process, as the operating system sees it: its number, its memory, and the time of the processor."""

from __future__ import annotations

import os
import platform
import resource
import sys
from typing import Final

import msgspec

#: Bytes in a unit of `ru_maxrss`: the systems differ.
_PEAK_UNIT: Final = 1 if sys.platform == "darwin" else 1024


class ProcessFacts(msgspec.Struct, frozen=True, gc=False):
    """``resident_bytes`` is the memory that the process has now, or its peak where the system does not tell that;
    ``cpu_user_s`` and ``cpu_system_s`` are seconds of the processor, in the process and in the system for it.
    """

    pid: int
    system: str
    resident_bytes: int
    system_memory_bytes: int
    cpu_user_s: float
    cpu_system_s: float


def process_facts() -> ProcessFacts:
    """Return the facts about this process now."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak = usage.ru_maxrss * _PEAK_UNIT
    page = os.sysconf("SC_PAGE_SIZE")
    return ProcessFacts(
        pid=os.getpid(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        resident_bytes=_resident_bytes(page) or peak,
        system_memory_bytes=page * os.sysconf("SC_PHYS_PAGES"),
        cpu_user_s=usage.ru_utime,
        cpu_system_s=usage.ru_stime,
    )


def _resident_bytes(page: int) -> int:
    """The memory that the process has now; 0 where the system has no such file."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * page
    except OSError:
        return 0

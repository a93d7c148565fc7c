"""The memory that the second process needs, and the memory that there is.

The process holds the state once more. An estimate before it starts is better than the end of some process when memory
has run out.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

#: Bytes of a process that has an empty state: Python and the modules.
PROCESS_BYTES: Final = 48 << 20

#: Bytes that the process takes for a byte of the entries: the piece that is loaded or written, and blocks that the
#: allocator has only in part.
ALLOCATED: Final = 1.25

#: Bytes that stay free for everything else.
SPARE_BYTES: Final = 64 << 20

#: A control group without a limit says a number of this size.
_UNLIMITED: Final = 1 << 60

_MEMINFO_SIZE_MAX: Final = 65536


def needed_bytes(state_bytes: int) -> int:
    """The memory of a process that loads a state of this size."""
    return PROCESS_BYTES + int(state_bytes * ALLOCATED)


def available_bytes(root: str = "/") -> int | None:
    """The memory that a new process may take: the machine's, or its control group's where that has less.

    None where the system does not say. `root` is where `proc` and `sys` are.
    """
    found = []
    machine = _read_table(os.path.join(root, "proc/meminfo")).get("MemAvailable")
    if machine is not None:
        found.append(machine)
    for group in _control_groups(root):
        left = _left_in(group)
        if left is not None:
            found.append(left)
    return max(min(found), 0) if found else None


def _read_table(path: str) -> dict[str, int]:
    """The sizes in a file of lines such as ``MemAvailable:  1234 kB``, in bytes."""
    values = {}
    for line in _read(path).splitlines():
        name, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if number.isdigit() and unit == "kB":
            values[name] = int(number) * 1024
    return values


def _control_groups(root: str) -> list[str]:
    """The directories of the control groups of this process that bound its memory, with those above them."""
    groups = []
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
        controllers, path = ([*line.split(":", 2), "", ""])[1:3]
        if not controllers:
            base = os.path.join(root, "sys/fs/cgroup")
        elif "memory" in controllers.split(","):
            base = os.path.join(root, "sys/fs/cgroup/memory")
        else:
            continue
        parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
        groups += [os.path.join(base, *parts[:depth]) for depth in range(len(parts) + 1)]
    return groups


def _left_in(group: str) -> int | None:
    """Bytes that are left in a control group of either version; None where it has no limit."""
    for limit_name, used_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit = _number(os.path.join(group, limit_name))
        used = _number(os.path.join(group, used_name))
        if limit is not None and used is not None and limit < _UNLIMITED:
            return limit - used + _reclaimable(group)
    return None


def _reclaimable(group: str) -> int:
    """Bytes of cached files, which the kernel gives up before it ends a process."""
    for line in _read(os.path.join(group, "memory.stat")).splitlines():
        name, _, number = line.partition(" ")
        if name in {"inactive_file", "total_inactive_file"} and number.isdigit():
            return int(number)
    return 0


def _number(path: str) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None  # "max" is no number: no limit


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        return file.read(_MEMINFO_SIZE_MAX)
    return ""

"""Processes of tests: none outlives the test that started it, however that ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start a program in a process group of its own, with its output as text in pipes.

    Where the system can do that, the kernel ends it with the process of the test: if a hanging test is ended from
    outside, for instance, there is nobody left who could do it.
    """
    helper = shutil.which("setpriv")
    # The kernel means the thread that started it, not the process.
    if helper is not None and threading.current_thread() is threading.main_thread():
        command = [helper, "--pdeathsig", "KILL", "--", *command]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def without_slow_turns(errors: str) -> str:
    """What a program under ``-X dev`` has printed to standard error, without asyncio's lines about callbacks that took
    long: a busy machine alone is a reason for those.
    """
    return "".join(line for line in errors.splitlines(keepends=True) if not line.startswith("Executing <"))


def end_group(process: int) -> None:
    """Kill a process that was started here, and its group if it leads one. One that has ended is none of our business.

    The caller has not waited for it, so that its number cannot belong to another.
    """
    try:
        if os.getpgid(process) == process:
            os.killpg(process, signal.SIGKILL)
        else:
            os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        pass


def children() -> set[int]:
    """The processes that this one has started and not waited for; none where the system does not tell."""
    found: set[int] = set()
    try:
        for thread in os.listdir("/proc/self/task"):
            try:
                with open(f"/proc/self/task/{thread}/children", encoding="ascii") as file:
                    found.update(map(int, file.read().split()))
            except (FileNotFoundError, ProcessLookupError):
                pass  # the thread has ended meanwhile, and its children are another's
    except FileNotFoundError:
        pass
    return found


def children_of(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError, IndexError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid and fields[0] != "Z":
                    found.append(int(entry))
    return found

"""The second process gives way to all others (haptera.node.snapshots.priority)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from haptera.node.snapshots.priority import NICENESS, SLICE_NS

PROGRAM = """
import os
from haptera.node.snapshots.priority import go_behind
before = os.nice(0)
go_behind()
print(os.nice(0), before, open("/proc/self/oom_score_adj").read().strip(), os.sched_getscheduler(0))
print(open("/proc/self/sched").read() if os.path.exists("/proc/self/sched") else "")
"""


def kernel() -> tuple[int, int]:
    """The version of Linux, from which on a process has a slice of its own."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what other systems know is not shown there")
def test_it_gives_way_for_the_processor_and_gives_its_memory_up_first() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    first, *schedule = ended.stdout.splitlines()
    niceness, before, adjustment, policy = map(int, first.split())
    assert niceness == NICENESS or before > 0
    assert adjustment == 1000
    assert policy in {os.SCHED_BATCH, os.SCHED_OTHER}
    slices = [line for line in schedule if line.startswith("se.slice")]
    if slices and kernel() >= (6, 12):
        assert int(slices[0].split(":")[1]) == SLICE_NS


def test_it_ends_where_its_parent_has_ended_already() -> None:
    program = "from haptera.node.snapshots.priority import end_with_parent; end_with_parent(1 << 30); print('goes on')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")

"""kill -9 of a real process that appends: what it had acknowledged was with the operating system, which still has it.

No kill shows whether it was on the disk. That shows where the file system loses what was not synced:
tests/fault/test_storage_crash.py.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from haptera.storage import OsFileSystem
from tests.unit.storage.stores import entries, opened

APPEND = """
import sys
from haptera.storage import OsFileSystem
from tests.unit.storage.stores import Store
store = Store.open(OsFileSystem(), sys.argv[1], segment_size=16 << 10, durability=sys.argv[2])
while True:
    store.append(1)
    print(store.log.last_index, flush=True)
"""
KILLS = 5
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("durability", ["sync", "os"])
def test_what_was_acknowledged_before_kill_9_was_with_the_operating_system(tmp_path: Path, durability: str) -> None:
    seed = random.randrange(1 << 32)
    choices = random.Random(seed)
    path = str(tmp_path / "data")
    for _ in range(KILLS):
        acknowledged = append_until_killed(path, durability, choices.randrange(1, 400))
        with opened(OsFileSystem(), path) as store:
            assert store.log.last_index >= acknowledged, f"seed {seed}"
            assert store.entries == entries(store.log.last_index), f"seed {seed}"


def append_until_killed(path: str, durability: str, count: int) -> int:
    """Run a process that appends, kill it after `count` appends, and return the last one that it acknowledged."""
    command = [sys.executable, "-c", APPEND, path, durability]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(count)]
        process.kill()
        lines += process.stdout.readlines()
    return int([line for line in lines if line.endswith("\n")][-1])  # the last may be half a number

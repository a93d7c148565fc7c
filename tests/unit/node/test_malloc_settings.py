"""The allocator's limits, each in a process of its own, because they hold for a whole process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from haptera.node.malloc_settings import return_large_blocks

WAVE = """
import sys
from haptera.node.malloc_settings import return_large_blocks

SIZE = 8 * 1024 * 1024

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096 // SIZE

if sys.argv[1] == "fixed":
    assert return_large_blocks()
for _ in range(2):
    block = b"x" * SIZE  # its end teaches glibc to keep blocks of this size
    del block
before = resident()
answers = [b"x" * SIZE for _ in range(24)]
kept = [b"y" * 5000 for _ in range(100)]  # behind them in the heap
during = resident()
del answers
print(during - before, resident() - before)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the limits are those of glibc")


def wave(limits: str) -> tuple[int, int]:
    """Blocks that a wave of 24 adds to the process, and those that it leaves behind."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", WAVE, limits], env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    added, left = map(int, done.stdout.split())
    return added, left


@glibc
def test_the_memory_of_a_wave_of_large_answers_goes_back_to_the_system() -> None:
    """Trap: RSS that stays up after a wave of large answers."""
    added, left = wave("fixed")
    assert added >= 23
    assert left <= 2


@glibc
def test_by_itself_the_allocator_keeps_a_wave() -> None:
    """Without this the test above could not fail."""
    _, left = wave("by itself")
    assert left >= 20


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_limits_in_the_environment_have_the_last_word(name: str) -> None:
    assert not return_large_blocks({name: "1"})

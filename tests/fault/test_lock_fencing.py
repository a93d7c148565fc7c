"""Traps: a holder that is stopped, loses its lock without knowing, and writes when it goes on.

Real processes under SIGSTOP and SIGCONT. With their tokens, no write of an earlier holder comes behind one of the next.
Without them it does, which shows that the trap is there.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

import haptera
from haptera.testing import node_in_thread
from tests.support.claimant import TTL_S, check, started, writes_of
from tests.support.processes import end_group, start

if TYPE_CHECKING:
    from collections.abc import Iterator

#: It holds the lock, stands still in the middle of a turn of its loop until it is told to go on, and writes at once.
HOLDER = """
import asyncio, sys, haptera

async def main(url, fenced):
    async with haptera.connect(url) as db:
        writing = None
        try:
            async with db.lock("jobs", ttl=1.0) as lock:
                print("holds", flush=True)
                sys.stdin.readline()
                fence = lock.token if fenced == "fenced" else None
                writing = asyncio.ensure_future(db.set("report", b"of the first", fence=fence))
                await asyncio.shield(writing)
        except haptera.errors.LockLost:
            print("lost", flush=True)
        except haptera.errors.Fenced:
            print("fenced", flush=True)
        await asyncio.wait([writing])
        print("refused" if writing.exception() else "written", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def url() -> Iterator[str]:
    with node_in_thread(storage="memory") as url:
        yield url


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone when the block is left."""
    try:
        yield process
    finally:
        if process.poll() is None:
            end_group(process.pid)
        process.communicate()


async def hold_and_write(url: str) -> None:
    """The next holder, which has the lock as soon as the lease of the first has ended."""
    async with haptera.connect(url) as db, db.lock("jobs", wait=30.0) as lock:
        await db.set("report", b"of the second", fence=lock.token)


async def report(url: str) -> bytes:
    async with haptera.connect(url) as db:
        entry = await db.get("report")
        assert entry is not None
        return entry.value


@pytest.mark.parametrize(
    ("fenced", "said", "left"),
    [("fenced", "refused", b"of the second"), ("unfenced", "written", b"of the first")],
)
def test_a_holder_that_was_stopped_overwrites_the_next_only_where_it_has_no_token(
    url: str, fenced: str, said: str, left: bytes
) -> None:
    command = [sys.executable, "-c", HOLDER, url, fenced]
    with ended(start(command, stdin=subprocess.PIPE)) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "holds\n"
        first.send_signal(signal.SIGSTOP)
        asyncio.run(hold_and_write(url))
        assert asyncio.run(report(url)) == b"of the second"
        first.stdin.write("go on\n")
        first.stdin.flush()
        first.send_signal(signal.SIGCONT)
        lines = first.stdout.read().splitlines()
        assert first.wait() == 0
    assert lines[-1] == said
    assert lines[0] in {"lost", "fenced"}
    assert asyncio.run(report(url)) == left


@pytest.mark.parametrize(
    ("claimants", "rounds"), [(3, 6), pytest.param(6, 200, marks=pytest.mark.long)], ids=["short", "long"]
)
def test_no_write_of_processes_that_are_stopped_and_killed_gets_lost(url: str, claimants: int, rounds: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choices = random.Random(seed)
    said = []
    with ExitStack() as stack:
        running = [stack.enter_context(ended(started(url, "lock", seed + number))) for number in range(claimants)]
        for _ in range(rounds):
            victim = choices.randrange(claimants)
            if choices.random() < 0.2:
                running[victim].kill()
                said.append(running[victim].communicate()[0])
                running[victim] = stack.enter_context(ended(started(url, "lock", choices.randrange(1 << 32))))
            running[victim].send_signal(signal.SIGSTOP)
            time.sleep(choices.random() * 1.5 * TTL_S)
            running[victim].send_signal(signal.SIGCONT)
        for process in running:
            process.kill()
            said.append(process.communicate()[0])
    writes = [write for each in said for write in writes_of(each)]
    assert writes
    asyncio.run(check(url, "lock", writes))

"""A bounded table for everyone that clients empty however they end: killed processes, and embedded stores."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

import haptera
from haptera.state import limits
from haptera.testing import node
from tests.unit.node.process import serving

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

#: A client that is killed between the last of its changes and its end. Each change says that the one before was read.
KILLED = """
import asyncio, haptera, os, signal, sys
async def main():
    db = await haptera.connect(sys.argv[1])
    for number in range(20):
        await db.increment("n")
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""

#: An embedded store that is opened, changed and left: in an orderly way, or killed.
EMBEDDED = """
import asyncio, haptera, os, signal, sys
async def main():
    db = await haptera.open(sys.argv[1])
    await asyncio.gather(*(db.increment("n") for _ in range(50)))
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    await db.aclose()
asyncio.run(main())
"""


def run(program: str, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-c", program, *arguments], check=False).returncode


async def answers(url: str) -> int:
    """How many answers a node remembers."""
    peer = await haptera.dial(url)
    status = msgspec.msgpack.decode(await peer.call("server", "status", b"\x90"))
    await peer.aclose()
    found: int = status["remembered_answers"]
    return found


def test_a_killed_client_leaves_few_answers_over_restarts(short_path: Path) -> None:
    """Of twenty changes the nineteen before the last were said to be read at the latest with the sixteenth."""
    for round_ in range(1, 4):
        with serving(short_path / "d") as served:
            served.ready()
            assert [run(KILLED, served.url) for _ in range(3)] == [-signal.SIGKILL] * 3
            assert asyncio.run(answers(served.url)) <= 3 * 8 * round_
            served.signal()
            assert served.end() == 0


async def test_more_clients_come_and_go_than_the_table_has_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 200)
    async with node(storage="memory") as url:
        for _ in range(100):
            async with haptera.connect(url) as db:
                for _ in range(10):
                    await db.increment("n")
        assert await answers(url) < 100
        async with haptera.connect(url) as db:
            assert await db.increment("n") == 1001


def test_embedded_stores_that_come_and_go_leave_nothing_that_grows(short_path: Path) -> None:
    store = str(short_path / "e")
    for round_ in range(3):
        assert run(EMBEDDED, store, "closed") == 0
        assert run(EMBEDDED, store, "killed") == -signal.SIGKILL
        with serving(short_path / "e") as served:
            served.ready()
            assert asyncio.run(answers(served.url)) == 0
            served.signal()
            assert served.end() == 0
        assert (round_ + 1) * 100 == asyncio.run(total(store))


async def total(store: str) -> int:
    async with haptera.open(store) as db:
        entry = await db.get("n")
        assert entry is not None
        return int(entry.value)

"""What clients leave behind among the remembered answers of a node."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from haptera.client import connect
from haptera.testing import node, node_in_thread, proxy, virtual_clock

if TYPE_CHECKING:
    from haptera.client import Database


async def remembered(db: Database) -> float:
    """How many answers the node remembers, when a write of this client has carried what was to be forgotten."""
    await db.set("look", "")
    status = await db.status()
    count = status["remembered_answers"]
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize("end", ["aclose", "drain"])
@virtual_clock
async def test_a_client_that_ends_in_order_leaves_nothing_behind(end: str) -> None:
    """Trap: a bounded table for everyone that nobody empties. Short-lived clients have few changes each."""
    async with node(storage="memory", listen="tcp") as url, connect(url) as other:
        await other.set("a", "")
        before = await remembered(other)
        for _ in range(20):
            db = connect(url)
            await asyncio.gather(*(db.set(f"k{number}", "") for number in range(31)))
            await (db.aclose() if end == "aclose" else db.drain())
        assert await remembered(other) <= before + 8


@virtual_clock
async def test_a_drain_tells_of_the_answers_that_come_while_it_waits() -> None:
    async with node(storage="memory", listen="tcp") as url, proxy(url) as through, connect(url) as other:
        before = await remembered(other)
        through.to_acceptor.delay(0.1)
        db = connect(through.url)
        await db.set("a", "")
        changes = [asyncio.ensure_future(db.set(f"k{number}", "")) for number in range(5)]
        await asyncio.sleep(0.001)
        await db.drain()
        assert all(change.done() for change in changes)
        assert await remembered(other) <= before + 2


@virtual_clock
async def test_a_connection_that_is_cut_leaves_a_few_of_the_answers_that_were_read() -> None:
    async with node(storage="memory", listen="tcp") as url, proxy(url) as through, connect(url) as other:
        before = await remembered(other)
        db = connect(through.url)
        for number in range(200):
            await db.set(f"k{number}", "")
        through.sever()
        assert await remembered(other) <= before + 16
        await db.aclose()


@virtual_clock
async def test_a_scan_that_writes_as_it_goes_pins_nothing() -> None:
    """Trap: forgetting that presumes too much: a long scan or watch held back what was said of all answers."""
    async with node(storage="memory", listen="tcp") as url, connect(url) as db:
        await db.set_many({f"k{number:05}": b"x" * 1000 for number in range(2000)})
        most = 0.0
        async for entry in db.scan():
            await db.set("seen/" + entry.key, entry.value)
            if entry.version % 100 == 0 or entry.key.endswith("00"):
                most = max(most, (await db.status())["remembered_answers"])
        assert most <= 32


def test_what_a_command_leaves_behind_is_nothing() -> None:
    with node_in_thread(storage="memory") as url:
        command = [sys.executable, "-m", "haptera"]
        for number in range(3):
            subprocess.run([*command, "set", f"k{number}", "v", "--url", url], check=True, timeout=60)

        async def look() -> float:
            async with connect(url) as db:
                return await remembered(db)

        assert asyncio.run(look()) <= 2
